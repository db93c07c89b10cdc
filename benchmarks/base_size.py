"""Models of base size with random weights, and a batch for them; for the scripts beside.

Random weights take as long as trained ones. The baseline is `BertForTokenClassification` with the same text encoder.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from bga_mner.examples.command_line import Parser, names_of, positive

import torch
from transformers import BertConfig, BertForTokenClassification, set_seed

from bga_mner import BgaMnerConfig, BgaMnerForTokenClassification, labels_from_tags
from bga_mner.examples import reporting


# Layers, width and vocabulary. The vision encoder is as deep and wide; base: BERT-base and CLIP ViT-B/32.
SIZES = {"tiny": (3, 64, 100), "bert_tiny": (2, 128, 30522), "base": (12, 768, 30522)}
# Trained on pairs: options by name. The vision encoder is trained too, but for the last, where it is frozen and was run
# before.
PAIR_MODELS: dict[str, dict[str, Any]] = {"12": {"num_bga_layers": 12}, "default": {}, "cached_vision": {}}
LABELS = labels_from_tags([["B-LOC", "B-MISC", "B-ORG", "B-PER"]])
BATCH, LENGTH = 8, 64
SHORTER = 0.22  # by which share each second sentence of a batch is: 50 tokens beside 64


def parser(description: str | None, keys: Sequence[str]) -> argparse.ArgumentParser:
    """Return what the scripts have in common."""
    made = Parser(description)
    of_models = f"comma-separated list from {', '.join(keys)} (default: all)"
    made.add_argument("--models", type=names_of(keys), default=",".join(keys), help=of_models)
    made.add_argument("--size", choices=SIZES, default="base")
    made.add_argument("--repeats", type=positive, default=7)
    reporting.add_common_options(made, threads=1)
    return made


def start(options: argparse.Namespace) -> list[str]:
    """Set threads and seed; return the models asked for."""
    reporting.start(options)
    set_seed(0)
    return options.models


def _shape(size: str) -> dict[str, int]:
    layers, width, _ = SIZES[size]
    heads = max(1, width // 64)
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
    }


def make_baseline(
    size: str, id2label: dict[int, str] | None = None, vocab_size: int | None = None
) -> BertForTokenClassification:
    """Build the baseline, with the tags of `LABELS` and the vocabulary of the size by default."""
    return BertForTokenClassification(
        BertConfig(
            vocab_size=vocab_size or SIZES[size][2],
            id2label=id2label or dict(enumerate(LABELS)),
            **_shape(size),
            attn_implementation="sdpa",
        )
    )


def make_model(size: str, vocab_size: int | None = None, **options: Any) -> BgaMnerForTokenClassification:
    """Build a model; options are those of `BgaMnerConfig`, and as many layers are aligned as there are at most."""
    layers, _, vocabulary = SIZES[size]
    if "num_bga_layers" in options:
        options["num_bga_layers"] = min(options["num_bga_layers"], layers)
    config = BgaMnerConfig(
        text_config={"model_type": "bert", "vocab_size": vocab_size or vocabulary, **_shape(size)},
        vision_config={"model_type": "clip_vision_model", "image_size": 224, "patch_size": 32, **_shape(size)},
        **({"id2label": dict(enumerate(LABELS))} | options),
    )
    return BgaMnerForTokenClassification(config)


def make_batch(size: str, batch: int = BATCH, length: int = LENGTH) -> dict[str, torch.Tensor]:
    """Return ids, mask and labels, int64 (batch, length): each second sentence is a fifth shorter."""
    input_ids = torch.randint(SIZES[size][2], (batch, length))
    lengths = torch.tensor([length - (row % 2) * round(length * SHORTER) for row in range(batch)])
    mask = (torch.arange(length) < lengths[:, None]).long()
    labels = torch.randint(len(LABELS), (batch, length)).masked_fill(mask == 0, -100)
    return {"input_ids": input_ids, "attention_mask": mask, "labels": labels}


def make_images(batch: int = BATCH) -> torch.Tensor:
    """Return float32 (batch, 3, 224, 224)."""
    return torch.randn(batch, 3, 224, 224)


def run(model: Any, inputs: dict[str, torch.Tensor]) -> None:
    """Tag, or take a training step, as the model's mode says."""
    if model.training:
        model.zero_grad(set_to_none=True)
        model(**inputs).loss.backward()
    else:
        with torch.inference_mode():
            model(**inputs)
