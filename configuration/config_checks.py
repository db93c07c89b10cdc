"""Refuse a configuration that no model can be built of, before anything is built; it may be a stranger's."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from .messages import MOST_SHOWN, shown


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
# What transformers and torch raise at values that they don't expect.
_UNEXPECTED = (
    *(StrictDataclassError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(AssertionError, RecursionError, json.JSONDecodeError),
)


def check_given(text_config: Any, vision_config: Any, id2label: Any, label2id: Any) -> None:
    """Refuse arguments of a configuration that aren't of the kind of which it is made.

    Parameters
    ----------
    text_config, vision_config : object
        Expected: dict, PreTrainedConfig or None.
    id2label, label2id : object
        Expected: mapping or None, of strings and numbers.

    Raises
    ------
    ValueError
        If one is something else.
    """
    for name, config in (("text_config", text_config), ("vision_config", vision_config)):
        if config is not None and not isinstance(config, dict | PreTrainedConfig):
            raise ValueError(
                f"{name} must be a dict or a PreTrainedConfig, but is {shown(config)}. Pass the encoder's "
                "configuration, or leave it out."
            )
        if isinstance(config, dict) and not isinstance(config.get("model_type", ""), str):
            raise ValueError(
                f"model_type must be a string, but {name} has {shown(config['model_type'])}. Name a family."
            )
    for name, labels in (("id2label", id2label), ("label2id", label2id)):
        if labels is None:
            continue
        pairs = list(labels.items()) if isinstance(labels, Mapping) else [(None, None)]
        for pair in pairs:
            number, label = pair if name == "id2label" else pair[::-1]
            if not isinstance(label, str) or not _is_number(number):
                raise ValueError(
                    f"{name} must be a dict of numbers and strings, such as {{0: 'O', 1: 'B-PER'}}, but is "
                    f"{shown(labels)}. Number the labels so."
                )


def check_attention(attn_implementation: Any) -> None:
    """Refuse another attention function than "sdpa" in a file; transformers would fetch some from the Hub, as code.

    Raises
    ------
    ValueError
        If there is one.
    """
    if attn_implementation not in (None, "sdpa"):
        raise ValueError(
            f"attn_implementation must be 'sdpa' or left out, but is {shown(attn_implementation)}. Take it out."
        )


def check_numbers(config: PreTrainedConfig, name: str = "") -> None:
    """Refuse sizes below 1 or beyond anything real, numbers that aren't finite, and unknown activations.

    Parameters
    ----------
    config : PreTrainedConfig
        A model's or an encoder's; those inside it are checked too.
    name : str
        Where it stands, such as "text_config."; for the message.

    Raises
    ------
    ValueError
        At the first such value.
    """
    for key, value in vars(config).items():
        if key.startswith("_"):
            continue
        if isinstance(value, PreTrainedConfig):
            check_numbers(value, f"{name}{key}.")
            continue
        if key in _ACTIVATIONS and isinstance(value, str) and value not in ACT2FN:
            raise ValueError(
                f"{name}{key} must name an activation function of transformers, such as 'gelu', but is "
                f"{shown(value)}. Correct it."
            )
        layers = _LAYERS.match(key)
        least = 1 if layers or _SIZES.match(key) else 0 if _SIZES_FROM_ZERO.match(key) else None
        most = MAX_LAYERS if layers else MAX_SIZE
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"{name}{key} must be finite, but is {number}. Correct it.")
            if least is None or not isinstance(number, int | float) or isinstance(number, bool):
                continue
            # how small the model's own may be is said elsewhere
            if number > most or (name and number < least):
                raise ValueError(f"{name}{key} must be between {least} and {most:,}, but is {value}. Correct it.")


def check_padding(config: PreTrainedConfig, is_needed: bool) -> None:
    """Refuse a padding token that the vocabulary of a text encoder doesn't have.

    Parameters
    ----------
    config : PreTrainedConfig
        The text encoder's.
    is_needed : bool
        Whether positions are counted from it, so that it can't be left out.

    Raises
    ------
    ValueError
        If there is no such token.
    """
    token = getattr(config, "pad_token_id", None)
    known = isinstance(token, int) and 0 <= token < config.vocab_size
    if not known and (is_needed or token is not None):
        raise ValueError(
            f"text_config.pad_token_id must be a token of the vocabulary, 0 to {config.vocab_size - 1}, but is "
            f"{shown(token)}. Correct it."
        )


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Make one kind of error of the many that a file's unexpected values give.

    Parameters
    ----------
    what : str
        What is read, such as "a configuration of BGA-MNER".

    Raises
    ------
    ValueError
        In place of errors of transformers about types, keys and the like. Others pass, such as OSError of a file that
        isn't there or is no JSON.
    """
    try:
        yield
    except Exception as error:
        # of a broken `tokenizer.json` tokenizers raises Exception itself
        if not isinstance(error, _UNEXPECTED) and type(error) is not Exception:
            raise
        raise ValueError(
            f"Expected {what} that can be used, but {type(error).__name__} is raised: {str(error)[:MOST_SHOWN]}. "
            "Correct the file, or fetch it again."
        ) from error


def _is_number(value: Any) -> bool:
    """Whether this is an int, or a string that stands for one, as keys of JSON do."""
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value) is not None
    )


__all__ = ["check_attention", "check_given", "check_numbers", "check_padding", "explained"]
