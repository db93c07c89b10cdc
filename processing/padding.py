"""Columns of rows of different lengths, and how they are padded to one."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..configuration.errors import mismatch


# What fills a row, by column. That of `input_ids` and `token_type_ids` depends on the tokenizer.
PADDING_VALUES: dict[str, Any] = {"attention_mask": 0, "labels": -100, "word_ids": None}
PADDING_VALUES |= {"word_start_mask": False, "target_mask": False}


def model_columns(ids: Sequence[list[int]], tokenizer: PreTrainedTokenizerBase) -> dict[str, list[list[int]]]:
    """Put what a model reads beside the token ids of texts, special tokens included."""
    columns = {"input_ids": list(ids), "attention_mask": [[1] * len(row) for row in ids]}
    if "token_type_ids" in tokenizer.model_input_names:
        columns["token_type_ids"] = [[0] * len(row) for row in ids]
    return columns


def column_padding(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """List the padding values of all columns for a tokenizer."""
    if tokenizer.pad_token_id is None:
        raise ValueError("Expected a tokenizer with a padding token, got one without. Set tokenizer.pad_token.")
    token_type = int(getattr(tokenizer, "pad_token_type_id", 0) or 0)
    return {"input_ids": int(tokenizer.pad_token_id), "token_type_ids": token_type, **PADDING_VALUES}


def padding_side(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return "left" or "right"."""
    side = tokenizer.padding_side
    if side not in ("left", "right"):
        raise mismatch("the padding side 'left' or 'right'", side, "Set tokenizer.padding_side.")
    return side


def padded_length(longest: int, multiple: int | None = None) -> int:
    """Round a length up to a multiple; None leaves it alone."""
    return longest if not multiple else -(-longest // multiple) * multiple


def chosen_length(
    rows: Sequence[Sequence[Any]], padding: bool | str | None, limit: int, multiple: int | None, dense: bool
) -> int | None:
    """Say to how many tokens a caller pads rows; None for not at all, which doesn't do for `dense` tensors."""
    strategy = str(getattr(padding, "value", padding))
    if strategy == "None":
        strategy = "longest" if dense else "do_not_pad"
    lengths = [len(row) for row in rows]
    if strategy in ("False", "do_not_pad"):
        if dense and len(set(lengths)) > 1:
            raise mismatch("padding, to make tensors of texts of different lengths", padding, "Leave it out.")
        return None
    if strategy in ("True", "longest"):
        return padded_length(max(lengths), multiple)
    if strategy == "max_length":
        # a text may be longer where truncation is off
        return padded_length(max(*lengths, limit), multiple)
    raise mismatch("padding True, False, 'longest', 'max_length' or 'do_not_pad'", padding, "Choose one.")


def pad_columns(
    columns: Mapping[str, Sequence[Sequence[Any]]], tokenizer: PreTrainedTokenizerBase, length: int | None = None
) -> dict[str, list[list[Any]]]:
    """Pad all rows of all columns, on the tokenizer's side, to `length` or to the longest of them."""
    side, values = padding_side(tokenizer), column_padding(tokenizer)
    length = max(map(len, columns["input_ids"])) if length is None else length

    def pad(row: Sequence[Any], value: Any) -> list[Any]:
        filling = [value] * (length - len(row))
        return [*filling, *row] if side == "left" else [*row, *filling]

    return {name: [pad(row, values[name]) for row in rows] for name, rows in columns.items()}


__all__ = ["chosen_length", "column_padding", "model_columns", "pad_columns", "padded_length", "padding_side"]
