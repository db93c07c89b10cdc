"""Tags in the BIO scheme (IOB2): reading and mending. Pure Python."""

from collections.abc import Iterable, Sequence
from typing import Any

from ...configuration.errors import shown


def split_tag(tag: str) -> tuple[str, str]:
    """Split a BIO tag into its prefix "O", "B" or "I", and its entity type, "" for "O"."""
    if isinstance(tag, str):
        if tag == "O":
            return "O", ""
        if len(tag) > 2 and tag[1] == "-" and tag[0] in "BI":
            return tag[0], tag[2:]
    raise _not_bio(tag)


def _not_bio(tag: Any) -> ValueError:
    try:
        from .tag_advice import why_not_bio
    except ImportError:
        return ValueError(f"Expected a BIO tag such as 'O', 'B-PER' or 'I-PER', got {shown(tag)}. Correct it.")
    return ValueError(why_not_bio(tag))


def repair_bio(tags: Sequence[str | None]) -> tuple[list[str | None], int]:
    """Make every entity start with a B- tag; an "I-" after None, which is unknown, is left alone.

    Parameters
    ----------
    tags : sequence of (str or None)
        One tag per word.

    Returns
    -------
    tuple of (list of (str or None), int)
        The mended tags and how many of them were changed.

    Raises
    ------
    ValueError
        If a tag is not in the BIO scheme.

    Examples
    --------
    >>> repair_bio(["I-PER", "I-PER", "I-LOC", None, "I-LOC"])
    (['B-PER', 'I-PER', 'B-LOC', None, 'I-LOC'], 2)
    """
    mended: list[str | None] = []
    repairs = 0
    previous: str | None = ""  # type of the entity that goes on up to here, None where unknown
    for tag in tags:
        if tag is None:
            mended.append(None)
            previous = None
            continue
        prefix, label = split_tag(tag)
        if prefix == "I" and previous is not None and previous != label:
            tag = f"B-{label}"
            repairs += 1
        mended.append(tag)
        previous = label
    return mended, repairs


def spans_from_tags(tags: Iterable[str | None]) -> list[tuple[str, int, int]]:
    """Read the entity spans off a sequence of tags.

    Tags are read as `repair_bio` would mend them; unknown words (None) are outside.

    Parameters
    ----------
    tags : iterable of (str or None)
        One tag per word.

    Returns
    -------
    list of tuple of (str, int, int)
        Type, first word, and the word after the last one, in order.

    Raises
    ------
    ValueError
        If a tag is not in the BIO scheme.

    Examples
    --------
    >>> spans_from_tags(["B-PER", "I-PER", "O", "B-LOC", "B-LOC"])
    [('PER', 0, 2), ('LOC', 3, 4), ('LOC', 4, 5)]
    """
    spans: list[tuple[str, int, int]] = []
    current, start, position = "", 0, 0
    for position, tag in enumerate(tags):
        prefix, label = ("O", "") if tag is None else split_tag(tag)
        if prefix == "I" and label == current:
            continue
        if current:
            spans.append((current, start, position))
        current, start = label, position
    if current:
        spans.append((current, start, position + 1))
    return spans


__all__ = ["repair_bio", "spans_from_tags", "split_tag"]
