"""Let a stock tagger, such as a student, be read as this package's models are: word by word, texts of any length."""

import inspect

import torch
from transformers import (
    AutoConfig,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ...configuration.configuration_bga_mner import BgaMnerConfig
from ...configuration.errors import listed, shown
from ...modeling_bga.token_classifier import BgaMnerForTokenClassification
from ..processing_bga_mner import BgaMnerProcessor
from ..tags.tag_scheme import split_tag


def load_tagger(name: str, dtype: torch.dtype) -> tuple[PreTrainedModel, BgaMnerProcessor]:
    """Load a model and its processor, or make one for a stock tagger; a ValueError says what it lacks."""
    config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    classes = config.architectures or []
    if classes and not any(kind.endswith("ForTokenClassification") for kind in classes):
        raise ValueError(f"it is a {listed(classes)}, which tags no tokens")
    if config.model_type == BgaMnerConfig.model_type:
        model = BgaMnerForTokenClassification.from_pretrained(name, dtype=dtype)
        return model, BgaMnerProcessor.from_pretrained(name)
    model, loading = AutoModelForTokenClassification.from_pretrained(
        name, dtype=dtype, trust_remote_code=False, return_dict=True, output_loading_info=True
    )
    if loading["missing_keys"]:
        raise ValueError(f"weights are missing, such as {shown(min(loading['missing_keys']))}")
    if "attention_mask" not in inspect.signature(model.forward).parameters:
        raise ValueError("it takes no attention_mask, so its tags would depend on the other texts of a batch")
    return model, stock_processor(model, AutoTokenizer.from_pretrained(name, trust_remote_code=False))


def stock_processor(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> BgaMnerProcessor:
    """Make the processor of a stock tagger; its tokenizer pads on the right from now on."""
    labels = {str(label): int(number) for number, label in model.config.id2label.items()}
    for label in labels:
        split_tag(label)
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ValueError("it has no tokenizer, or one that knows no words")
    tokenizer.padding_side = "right"  # stock models count positions from the first token, padding or not
    return BgaMnerProcessor(None, tokenizer, label2id=labels)


__all__ = ["load_tagger", "stock_processor"]
