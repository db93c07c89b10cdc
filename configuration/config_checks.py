"""Refuse a configuration that no model can be built of, before anything is built; it may be a stranger's."""

import json
import math
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from .messages import MOST_SHOWN, brief, shown


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
_UNKNOWN_ARGUMENT = re.compile(r"unexpected keyword argument '(\w+)'")
_MOST_NAMES = 5  # of arguments in a message
# What transformers and torch raise at values that they don't expect.
_UNEXPECTED = (
    *(StrictDataclassError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(AssertionError, RecursionError, json.JSONDecodeError),
)


# Options by the range that they must lie in.
_PROBABILITIES = ("generator_dropout", "classifier_dropout", "entity_replacement_probability")
_POSITIVE = ("sampler_temperature", "generator_ffn_ratio", "generator_num_layers", "initializer_range")
_WEIGHTS = ("reconstruction_weight", "cycle_weight", "keep_budget_weight")


def check_option(name: str, value: Any) -> None:
    """Refuse a value that an option of the model can't have, whatever the others are.

    Parameters
    ----------
    name : str
        Of the option.
    value : object
        Its value, of the right type.

    Raises
    ------
    ValueError
        If it is out of range, not finite, or nothing that `config.json` can hold.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, but is {value}. Correct it.")
    if name in _PROBABILITIES and not 0 <= value <= 1:
        raise ValueError(f"{name} is a probability and must be between 0 and 1, but is {value}.")
    if name == "sampler_initial_keep" and not 0 < value < 1:
        raise ValueError(
            f"sampler_initial_keep must lie between 0 and 1, both excluded, but is {value}. "
            "To keep every position, set use_context_sampler=False."
        )
    if name in _POSITIVE and value <= 0:
        raise ValueError(f"{name} must be positive, but is {value}.")
    if name == "keep_budget" and not 0 < value <= 1:
        raise ValueError(
            f"keep_budget is a share of positions, above 0 and at most 1, but is {value}. 1 switches it off."
        )
    if name in _WEIGHTS and value < 0:
        raise ValueError(f"{name} must not be negative, but is {value}. 0 switches the loss off.")
    if name == "training_summary":
        _check_json(name, value)


def check_encoder(name: str, config: Any) -> None:
    """Refuse what is no configuration of an encoder.

    Parameters
    ----------
    name : str
        Such as "text_config"; for the message.
    config : object
        Expected: dict, PreTrainedConfig or None.

    Raises
    ------
    ValueError
        If it is something else.
    """
    if config is not None and not isinstance(config, dict | PreTrainedConfig):
        raise ValueError(
            f"{name} must be a dict or a PreTrainedConfig, but is {shown(config)}. Pass the encoder's "
            "configuration, or leave it out."
        )
    if isinstance(config, dict) and not isinstance(config.get("model_type", ""), str):
        raise ValueError(f"model_type must be a string, but {name} has {shown(config['model_type'])}. Name a family.")


def read_labels(name: str, labels: Any) -> dict[int, str]:
    """Read `id2label` or `label2id`.

    Parameters
    ----------
    name : {"id2label", "label2id"}
        Which of the two it is.
    labels : object
        Expected: mapping of strings and numbers; of numbers as strings too, as keys of JSON are.

    Returns
    -------
    dict of int to str
        Labels by their numbers, in the order of these: JSON has "10" before "2", and labels by the alphabet.

    Raises
    ------
    ValueError
        If it is something else, a label is there twice, or numbers are left out.
    """
    pairs: list[tuple[Any, Any]] = list(labels.items()) if isinstance(labels, Mapping) else [(None, None)]
    if name == "label2id":
        pairs = [pair[::-1] for pair in pairs]
    for number, label in pairs:
        if not isinstance(label, str) or not _is_number(number):
            raise ValueError(
                f"{name} must be a dict of numbers and strings, such as {{0: 'O', 1: 'B-PER'}}, but is "
                f"{shown(labels)}. Number the labels so."
            )
    numbers = [int(number) for number, _ in pairs]
    if sorted(numbers) != list(range(len(numbers))):
        raise ValueError(
            f"{name} must number the tags 0, 1, 2, ... without gaps, but has the ids {shown(sorted(numbers))}."
        )
    if len({label for _, label in pairs}) < len(pairs):
        raise ValueError(f"{name} must name each tag once, but is {shown(labels)}. Rename one of those alike.")
    return {int(number): label for number, label in sorted(pairs, key=lambda pair: int(pair[0]))}


def check_labels(id2label: Any, label2id: Any) -> None:
    """Refuse labels that aren't numbered 0, 1, 2, ..., and two dicts of them that contradict each other.

    Raises
    ------
    ValueError
        As said.
    """
    if read_labels("id2label", id2label) != read_labels("label2id", label2id):
        raise ValueError(
            f"id2label and label2id must be each other's inverse, but id2label={shown(id2label)} and "
            f"label2id={shown(label2id)}. Pass only one of them; the other is made from it."
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
def explained(what: str, arguments: Iterable[str] = (), fix: str = "") -> Iterator[None]:
    """Make one kind of error of the many that unexpected values give, in a file or in a caller's arguments.

    Parameters
    ----------
    what : str
        What is read, such as "a configuration of BGA-MNER".
    arguments : iterable of str
        Names of what the caller gave beside the file: one of these may be what is wrong.
    fix : str
        What to do, in place of what is said of a file or arguments.

    Raises
    ------
    ValueError
        In place of errors of transformers about types, keys and the like. Others pass, such as OSError of a file that
        isn't there or is no JSON.
    """
    names = list(arguments)
    try:
        yield
    except Exception as error:
        # of broken files of a tokenizer, tokenizers raises Exception itself, or what speaks of its own parts
        if not isinstance(error, _UNEXPECTED) and type(error) is not Exception and not _is_of_tokenizer(error):
            raise
        unknown = _UNKNOWN_ARGUMENT.search(str(error)) if isinstance(error, TypeError) else None
        if unknown and unknown[1] in names:
            raise ValueError(
                f"Expected arguments of from_pretrained or options of the model, got {shown(unknown[1])}. Correct its "
                "name, or leave it out. Beside config=... change options there."
            ) from error
        if names and not fix:
            given = ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
            fix = f"Correct what was given as {given}. If the same is raised without, correct the file."
        raise ValueError(
            f"Expected {what} that can be used, but {type(error).__name__} is raised: {brief(error, MOST_SHOWN)}. "
            f"{fix or 'Correct the file, or fetch it again.'}"
        ) from error


def _is_of_tokenizer(error: Exception) -> bool:
    """Tell whether an error was raised where transformers makes a tokenizer of its parts."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return ".tokenization_" in frames[-1].f_globals.get("__name__", "")


def _check_json(name: str, value: Any) -> None:
    """Refuse what JSON can't hold, or would give back as something else, such as keys that are numbers."""
    try:
        same = json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError, RecursionError):
        same = False
    if not same:
        raise ValueError(
            f"{name} must hold what JSON can hold, finite numbers, strings as keys, and lists in place of tuples, but "
            f"is {shown(value)}. Convert what is anything else."
        )


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
    "explained",
    "read_labels",
]
