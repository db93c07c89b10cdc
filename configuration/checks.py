"""Refuse values of options that no model can be built of, or that contradict each other."""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from .errors import mismatch, shown


try:
    from .file_checks import check_attention, check_encoder, check_numbers, check_padding
except ImportError:  # a saved model's code is as much a stranger's as the configuration beside it

    def check_attention(attn_implementation: Any) -> None:
        """Let all pass, as the others do."""

    def check_encoder(name: str, config: Any) -> None: ...  # noqa: D103

    def check_numbers(config: Any, name: str = "") -> None: ...  # noqa: D103

    def check_padding(config: Any, is_needed: bool) -> None: ...  # noqa: D103


_Range = tuple[Callable[[float], bool], str, str]
_PROBABILITY: _Range = (lambda value: 0 <= value <= 1, "as a probability between 0 and 1", "Correct it.")
_POSITIVE: _Range = (lambda value: value > 0, "as a positive number", "Raise it.")
_WEIGHT: _Range = (lambda value: value >= 0, "of at least 0", "0 switches the loss off.")
_RANGES: dict[str, _Range] = {
    **dict.fromkeys(
        ("generator_dropout", "classifier_dropout", "entity_replacement_probability", "context_hiding_probability"),
        _PROBABILITY,
    ),
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


def check_switches(config: Any) -> None:
    """Refuse options that contradict each other."""
    if config.text_only and config.visual_source == "real":
        expected = 'visual_source="generated" or "none" in a model with text_only=True, which has no encoder of images'
        raise mismatch(expected, "real", 'Set visual_source="generated".')
    if config.visual_source == "real" and config.hybrid_attention == "none":
        expected = 'hybrid_attention="text" or "both" with visual_source="real", which lets the text attend to images'
        raise mismatch(expected, "none", 'Set hybrid_attention="text".')
    if config.keep_weighted_reconstruction and config.visual_target == "pooled":
        expected = 'visual_target="last" or "layer" with keep_weighted_reconstruction=True, which weights patches'
        raise mismatch(expected, "pooled", "Set keep_weighted_reconstruction=False.")
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
