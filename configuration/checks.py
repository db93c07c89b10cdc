"""Refuse a configuration that no model can be built of, before anything is built; it may be a stranger's."""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from .errors import mismatch, shown


# Far beyond what any encoder has. Building a million layers takes hours, and rows of a billion numbers the memory.
MAX_LAYERS = 1_000  # and of widths over a width
MAX_SIZE = 2**24

_LAYERS = re.compile(
    r"(num_hidden_layers|n_layers|generator_num_layers|depths|num_block_repeats|generator_ffn_ratio|mlp_ratio)$"
)
_SIZES = re.compile(
    r"(dim|hidden_dim|n_heads|num_(attention_heads|key_value_heads|channels|patches|stages)|max_position_embeddings"
    r"|(hidden|intermediate|embedding|vocab|patch|image)_size|hidden_sizes|groups_width|(in|out)_channels"
    r"|kernel_sizes|strides|expand_ratios)$"
)
_SIZES_FROM_ZERO = re.compile(r"(type_vocab_size|num_register_tokens)$")
_ACTIVATIONS = ("hidden_act", "activation", "hidden_activation")

_Range = tuple[Callable[[float], bool], str, str]
_PROBABILITY: _Range = (lambda value: 0 <= value <= 1, "as a probability between 0 and 1", "Correct it.")
_POSITIVE: _Range = (lambda value: value > 0, "as a positive number", "Raise it.")
_WEIGHT: _Range = (lambda value: value >= 0, "of at least 0", "0 switches the loss off.")
_RANGES: dict[str, _Range] = {
    **dict.fromkeys(("generator_dropout", "classifier_dropout", "entity_replacement_probability"), _PROBABILITY),
    **dict.fromkeys(
        ("sampler_temperature", "generator_ffn_ratio", "generator_num_layers", "initializer_range"), _POSITIVE
    ),
    **dict.fromkeys(("reconstruction_weight", "cycle_weight", "keep_budget_weight"), _WEIGHT),
    "sampler_initial_keep": (
        lambda value: 0 < value < 1,
        "between 0 and 1, both excluded",
        "To keep every position, set use_context_sampler=False.",
    ),
    "keep_budget": (
        lambda value: 0 < value <= 1,
        "as a share of positions, above 0 and at most 1",
        "1 switches it off.",
    ),
}


def check_option(name: str, value: Any) -> None:
    """Refuse a value, of the right type, that an option of the model can't have whatever the others are."""
    if isinstance(value, float) and not math.isfinite(value):
        raise mismatch(f"a finite {name}", value)
    if name in _RANGES:
        is_in, expected, mend = _RANGES[name]
        if not is_in(value):
            raise mismatch(f"{name} {expected}", value, mend)
    if name == "training_summary" and not _fits_json(value):
        raise mismatch(
            f"{name} that JSON can hold: finite numbers, strings as keys, and lists in place of tuples",
            value,
            "Convert what is anything else.",
        )


def check_encoder(name: str, config: Any) -> None:
    """Refuse what is no configuration of an encoder: neither a dict nor a PreTrainedConfig, nor None."""
    if config is not None and not isinstance(config, dict | PreTrainedConfig):
        raise mismatch(
            f"{name} as a dict or PreTrainedConfig", config, "Pass the encoder's configuration, or leave it out."
        )
    if isinstance(config, dict) and not isinstance(config.get("model_type", ""), str):
        raise mismatch(f"a string as {name}.model_type", config["model_type"], "Name a family.")


def read_labels(name: str, labels: Any) -> dict[int, str]:
    """Read `id2label` or `label2id`, whose numbers may be strings, as keys of JSON are."""
    pairs: list[tuple[Any, Any]] = list(labels.items()) if isinstance(labels, Mapping) else [(None, None)]
    if name == "label2id":
        pairs = [pair[::-1] for pair in pairs]
    if not all(isinstance(label, str) and _is_number(number) for number, label in pairs):
        raise mismatch(
            f"{name} as a dict of numbers and strings, such as {{0: 'O', 1: 'B-PER'}}", labels, "Number the labels so."
        )
    numbers = sorted(int(number) for number, _ in pairs)
    if numbers != list(range(len(numbers))):
        raise mismatch(f"{name} that numbers the tags 0, 1, 2, ... without gaps", numbers, "Renumber them.")
    if len({label for _, label in pairs}) < len(pairs):
        raise mismatch(f"{name} that names each tag once", labels, "Rename one of those alike.")
    return {int(number): label for number, label in sorted(pairs, key=lambda pair: int(pair[0]))}


def check_labels(id2label: Any, label2id: Any) -> None:
    """Refuse labels that aren't numbered 0, 1, 2, ..., and two dicts of them that contradict each other."""
    if read_labels("id2label", id2label) != read_labels("label2id", label2id):
        raise ValueError(
            f"Expected id2label and label2id that are each other's inverse, got id2label={shown(id2label)} and "
            f"label2id={shown(label2id)}. Pass only one of them; the other is made from it."
        )


def check_attention(attn_implementation: Any) -> None:
    """Refuse another attention function than "sdpa" in a file; transformers would fetch some from the Hub, as code."""
    if attn_implementation not in (None, "sdpa"):
        raise mismatch("attn_implementation 'sdpa' or none", attn_implementation, "Take it out.")


def check_numbers(config: PreTrainedConfig, name: str = "") -> None:
    """Refuse sizes below 1 or beyond anything real, numbers that aren't finite, and unknown activations.

    Configurations inside are checked too; `name` says where this one stands, such as "text_config.".
    """
    for key, value in vars(config).items():
        if key.startswith("_"):
            continue
        if isinstance(value, PreTrainedConfig):
            check_numbers(value, f"{name}{key}.")
            continue
        if key in _ACTIVATIONS and isinstance(value, str) and value not in ACT2FN:
            raise mismatch(f"{name}{key} that names an activation function of transformers, such as 'gelu'", value)
        layers = _LAYERS.match(key)
        least = 1 if layers or _SIZES.match(key) else 0 if _SIZES_FROM_ZERO.match(key) else None
        most = MAX_LAYERS if layers else MAX_SIZE
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise mismatch(f"a finite {name}{key}", number)
            if least is None or not isinstance(number, int | float) or isinstance(number, bool):
                continue
            # how small the model's own may be is said elsewhere
            if number > most or (name and number < least):
                raise mismatch(f"{name}{key} between {least} and {most:,}", value)


def check_padding(config: PreTrainedConfig, is_needed: bool) -> None:
    """Refuse a padding token that the vocabulary lacks, or that is missing where positions are counted from it."""
    token = getattr(config, "pad_token_id", None)
    known = isinstance(token, int) and 0 <= token < config.vocab_size
    if not known and (is_needed or token is not None):
        raise mismatch(f"a token of the vocabulary, 0 to {config.vocab_size - 1}, as text_config.pad_token_id", token)


def check_switches(config: Any) -> None:
    """Refuse options that contradict each other."""
    if config.text_only and config.visual_source == "real":
        raise ValueError(
            'Expected visual_source="generated" or "none" in a model with text_only=True, which has no encoder of '
            'images, got "real". Set visual_source="generated".'
        )
    if config.visual_source == "real" and config.hybrid_attention == "none":
        raise ValueError(
            'Expected hybrid_attention="text" or "both" with visual_source="real", which lets the text attend to real '
            'images, got "none". Set hybrid_attention="text".'
        )
    replaces = config.entity_replacement_probability > 0 and config.replaced_entities_read == "real"
    if replaces and not config.text_reads_features:
        raise ValueError(
            "Expected entity_replacement_probability=0 where the text doesn't read the image in place of the hidden "
            f"entities, got {config.entity_replacement_probability} with hybrid_attention="
            f"{shown(config.hybrid_attention)}, use_text_to_image={config.use_text_to_image} and visual_source="
            f"{shown(config.visual_source)}. Set it to 0, let the text read features, or set "
            'replaced_entities_read="generated", which needs no image.'
        )


def _fits_json(value: Any) -> bool:
    """Whether JSON can hold this, and gives back the same."""
    try:
        return json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError, RecursionError):
        return False


def _is_number(value: Any) -> bool:
    """Whether this is an int, or a string that stands for one, as keys of JSON do."""
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value) is not None
    )


__all__ = [
    "check_attention",
    "check_encoder",
    "check_labels",
    "check_numbers",
    "check_option",
    "check_padding",
    "check_switches",
    "read_labels",
]
