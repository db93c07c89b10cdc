"""Make a student: a stock model that starts from a checkpoint, or from its teacher's own text encoder."""

import re
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ...configuration.errors import brief, mismatch, shown
from ...modeling_bga.sequence_classifier import BgaMnerForSequenceClassification
from ..inference.text_tagging import longest_input
from ..processing_bga_mner import BgaMnerProcessor


_LAYER = re.compile(r"(?<![^.])(layers?)\.(\d+)\.")


def build_student(
    teacher: PreTrainedModel,
    processor: BgaMnerProcessor,
    checkpoint: str | None = None,
    num_layers: int | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Make a student and its tokenizer.

    Parameters
    ----------
    teacher : BgaMnerForTokenClassification or BgaMnerForSequenceClassification
        The model to learn from. Its labels are the student's.
    processor : BgaMnerProcessor
        The teacher's processor.
    checkpoint : str or None
        Encoder and tokenizer to start from: a folder, or a name on the Hub. None starts from the teacher's own text
        encoder and tokenizer, and from its scores of tags.
    num_layers : int or None
        Of a student that starts from its teacher: how many layers it has, spread evenly over the teacher's (Sanh et al.
        2019, "DistilBERT"). All by default.

    Returns
    -------
    tuple of (transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase)
        A model of `AutoModelForTokenClassification` or `AutoModelForSequenceClassification`, in eval mode.

    Raises
    ------
    ValueError
        If `num_layers` is more than there are, or comes with a checkpoint; if a checkpoint can't be loaded, or its
        tokenizer is slow or can't pad; or the teacher has adapters, which have to be merged first.
    """
    classifies = isinstance(teacher, BgaMnerForSequenceClassification)
    auto_class: Any = AutoModelForSequenceClassification if classifies else AutoModelForTokenClassification
    labels = {
        "id2label": {int(number): str(label) for number, label in teacher.config.id2label.items()},
        "label2id": {str(label): int(number) for number, label in teacher.config.id2label.items()},
    }
    if checkpoint is not None:
        if num_layers is not None:
            raise mismatch("num_layers for a student that starts from its teacher", checkpoint, "Drop one of both.")
        options = {"ignore_mismatched_sizes": True, "dtype": torch.float32, **labels}
        try:
            tokenizer = AutoTokenizer.from_pretrained(checkpoint)
            student = auto_class.from_pretrained(checkpoint, **options)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"Expected an encoder with its tokenizer, got {shown(checkpoint)}, which can't be loaded: "
                f"{brief(error)}. Check the path, or the name on the Hub."
            ) from error
        if not tokenizer.is_fast or tokenizer.pad_token is None:
            raise mismatch("a checkpoint with a fast tokenizer that has a padding token", checkpoint, "Name another.")
    else:
        tokenizer = deepcopy(processor.tokenizer)
        config, taken = _shortened(teacher.config.text_config, num_layers)
        config.update(labels)
        config.classifier_dropout = teacher.config.classifier_dropout
        student = auto_class.from_config(config).float()
        _copy_weights(teacher, student, taken)
    tokenizer.model_max_length = longest_input(tokenizer, student.config)
    tokenizer.padding_side = "right"  # stock encoders count positions from the first token, padding or not
    return student.eval(), tokenizer


def _shortened(text_config: PreTrainedConfig, num_layers: int | None) -> tuple[PreTrainedConfig, list[int]]:
    """Copy the configuration of a text encoder with some of its layers; return it with their numbers."""
    # without the attention that the teacher's layers run, which no dictionary holds
    config, count = type(text_config).from_dict(text_config.to_dict()), text_config.num_hidden_layers
    wanted = count if num_layers is None else num_layers
    if not 1 <= wanted <= count:
        raise mismatch(f"num_layers between 1 and the teacher's {count}", num_layers)
    # the lowest and the highest are among them
    taken = [round(float(number)) for number in torch.linspace(0, count - 1, wanted)]
    config.num_hidden_layers = wanted
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[number] for number in taken]
    return config, taken


def _copy_weights(teacher: PreTrainedModel, student: PreTrainedModel, taken: list[int]) -> None:
    """Copy the taken layers of the teacher's text encoder, and its scores of tags if the student's head is like them.

    The heads of classifiers read a pooled state, or have layers of their own, and stay new.
    """
    place = {number: position for position, number in enumerate(taken)}
    base = student.base_model
    weights = {}
    for name, weight in teacher.bga_mner.text_encoder.state_dict().items():
        layer = _LAYER.search(name)
        if layer is not None:
            if int(layer[2]) not in place:
                continue
            name = f"{name[: layer.start(2)]}{place[int(layer[2])]}{name[layer.end(2) :]}"
        weights[name] = weight
    # a pooler is what a stock encoder may have beside the teacher's
    known = base.state_dict().keys()
    missing = [name for name in known - weights.keys() if not name.startswith("pooler.")]
    if missing or weights.keys() - known:
        raise ValueError(
            f"Expected a text encoder with the weights of {type(base).__name__}, got one in which {len(missing)} are "
            f"missing, such as {min(missing, default='none')}. Merge adapters first, or start from a checkpoint."
        )
    base.load_state_dict(weights, strict=False)
    head: Any = getattr(student, "classifier", None)
    own: Any = teacher.classifier
    if hasattr(teacher, "crf") and isinstance(head, nn.Linear) and head.weight.shape == own.weight.shape:
        head.load_state_dict(own.state_dict())


__all__ = ["build_student"]
