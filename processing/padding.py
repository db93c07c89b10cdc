"""Pad rows of numbers to one length; shared by the processor and the collator."""

from collections.abc import Sequence
from typing import Any

from ..configuration.messages import shown


# What fills a row behind its end, by column. `input_ids` and `token_type_ids` depend on the tokenizer.
PADDING_VALUES: dict[str, int] = {"attention_mask": 0, "labels": -100, "word_start_mask": 0, "target_mask": 0}


def padded_length(longest: int, multiple: int | None = None) -> int:
    """Round a length up to a multiple.

    Parameters
    ----------
    longest : int
        Length of the longest row, in tokens.
    multiple : int or None
        None leaves the length alone.

    Returns
    -------
    int
        The length of all rows, in tokens.

    Examples
    --------
    >>> padded_length(9, 8)
    16
    """
    return longest if not multiple else -(-longest // multiple) * multiple


def pad_rows(rows: Sequence[Sequence[Any]], length: int, value: Any, side: str) -> list[list[Any]]:
    """Bring rows to one length.

    Parameters
    ----------
    rows : sequence of sequences
        Rows of at most `length` items.
    length : int
        Length wanted.
    value : object
        What to fill with.
    side : {"right", "left"}
        Where to fill.

    Returns
    -------
    list of list
        Rows of exactly `length` items.

    Examples
    --------
    >>> pad_rows([[1, 2], [3]], 3, 0, "left")
    [[0, 1, 2], [0, 0, 3]]
    """
    if side not in ("left", "right"):
        raise ValueError(f"Expected the padding side 'left' or 'right', got {shown(side)}. Set tokenizer.padding_side.")
    padded = []
    for row in rows:
        filling = [value] * (length - len(row))
        padded.append(filling + list(row) if side == "left" else list(row) + filling)
    return padded


def column_padding(tokenizer: Any) -> dict[str, int]:
    """List the padding values of all columns for a tokenizer.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        Gives the ids of the padding token and of its token type.

    Returns
    -------
    dict of str to int
        Padding value by column.

    Raises
    ------
    ValueError
        If the tokenizer has no padding token.
    """
    if tokenizer.pad_token_id is None:
        raise ValueError(
            "Expected a tokenizer with a padding token, got one without. Set tokenizer.pad_token, for instance to "
            "tokenizer.eos_token."
        )
    return {
        "input_ids": int(tokenizer.pad_token_id),
        "token_type_ids": int(getattr(tokenizer, "pad_token_type_id", 0) or 0),
        **PADDING_VALUES,
    }


__all__ = ["column_padding", "pad_rows", "padded_length"]
