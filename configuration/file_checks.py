"""Refuse a configuration that no model can be built of, before anything is built; it may be a stranger's."""

import math
import re
from typing import Any

from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from .errors import mismatch


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


def check_encoder(name: str, config: Any) -> None:
    """Refuse what is no configuration of an encoder: neither a dict nor a PreTrainedConfig, nor None."""
    if config is not None and not isinstance(config, dict | PreTrainedConfig):
        raise mismatch(
            f"{name} as a dict or PreTrainedConfig", config, "Pass the encoder's configuration, or leave it out."
        )
    if isinstance(config, dict) and not isinstance(config.get("model_type", ""), str):
        raise mismatch(f"a string as {name}.model_type", config["model_type"], "Name a family.")


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


__all__ = ["check_attention", "check_encoder", "check_numbers", "check_padding"]
