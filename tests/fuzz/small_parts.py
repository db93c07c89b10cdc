"""A tagger and processors so small that thousands of inputs a minute can be tried. Made once, and from nothing."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertTokenizerFast, CLIPImageProcessorPil, PreTrainedTokenizerFast

from bga_mner import BgaMnerConfig, BgaMnerForTokenClassification, BgaMnerPipeline, BgaMnerProcessor


LABELS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789#@.,:'/"
SIDE = 16  # of images, in pixels
LENGTH = 24  # most tokens of a text

torch.set_num_threads(1)


@cache
def wordpiece() -> Any:
    """Return a tokenizer by letters, as BERT's is by pieces of words."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    return BertTokenizerFast(vocab={token: place for place, token in enumerate(tokens)}, model_max_length=LENGTH)


@cache
def byte_level() -> Any:
    """Return a tokenizer by bytes that pads on the left and has no token types."""
    specials = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
    tokens = [*specials.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({token: place for place, token in enumerate(tokens)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", tokens.index("<s>")), ("</s>", tokens.index("</s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        padding_side="left",
        model_max_length=LENGTH,
        model_input_names=["input_ids", "attention_mask"],
        **specials,
    )


@cache
def processor(kind: str = "wordpiece") -> BgaMnerProcessor:
    """Return a processor with the tokenizer of a kind: "wordpiece" or "byte-level"."""
    size = {"height": SIDE, "width": SIDE}
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size)
    tokenizer = {"wordpiece": wordpiece, "byte-level": byte_level}[kind]()
    return BgaMnerProcessor(image_processor, tokenizer, {label: number for number, label in enumerate(LABELS)})


def make_model() -> BgaMnerForTokenClassification:
    """Make a tagger that finds entities, in float64: what rounding alone decides is no failure."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = BgaMnerConfig(
        text_config={"model_type": "bert", **sizes, "vocab_size": len(wordpiece()), "max_position_embeddings": LENGTH},
        vision_config={"model_type": "vit", **sizes, "image_size": SIDE, "patch_size": 8},
        id2label=dict(enumerate(LABELS)),
        gate_initial_bias=2.0,
    )
    model = BgaMnerForTokenClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
        # whatever weights a release of torch draws
        model.classifier.bias[LABELS.index("O")] -= 2
    return model.double()


@cache
def tagger() -> BgaMnerPipeline:
    """Return a pipeline around the model."""
    return BgaMnerPipeline(model=make_model(), processor=processor(), device="cpu")
