"""Mark in a text what it is asked about. Pure Python.

The marks are braces, as words of their own: every tokenizer knows them, no token has to be added, and tweets hardly use
them. A marked text is a text, so whatever reads texts reads it, the stock `text-classification` pipeline included.
"""

from collections.abc import Sequence
from operator import index
from typing import Any, overload

from ...configuration.errors import shown
from ..sequences import as_list


OPENING, CLOSING = "{", "}"
_OTHER_BRACKETS = str.maketrans("{}", "()")


@overload
def mark_target(text: str, start: int, end: int) -> str: ...
@overload
def mark_target(text: list[str] | tuple[str, ...], start: int, end: int) -> list[str]: ...
def mark_target(text: Any, start: int, end: int) -> Any:
    """Put braces around the part of a text that a label is about.

    Braces that stand in the text already become parentheses, so that only the marks are braces. White space at the ends
    of a target stays outside.

    Parameters
    ----------
    text : str, or list or tuple of str
        A text, or its words.
    start, end : int
        Offsets of the target's first character and after its last one; or the same of words.

    Returns
    -------
    str or list of str
        The marked text, or its words.

    Raises
    ------
    ValueError
        If the offsets are no whole numbers or aren't in the text, or there is only white space between them.

    Examples
    --------
    >>> mark_target("Kawhi beats the Sixers", 0, 5)
    '{ Kawhi } beats the Sixers'
    >>> mark_target(["Kawhi", "beats", "the", "Sixers"], 2, 4)
    ['Kawhi', 'beats', '{', 'the', 'Sixers', '}']
    """
    try:
        start, end = map(index, (start, end))
    except TypeError:
        raise ValueError(
            f"Expected whole numbers as the places of a target, got {shown((start, end))}. Give two ints."
        ) from None
    if not 0 <= start < end <= len(text):
        unit = "characters" if isinstance(text, str) else "words"
        raise ValueError(
            f"Expected a target inside the text, which has {len(text)} {unit}, got {start} to {end}. Give the place of "
            "its first one, and the one behind its last."
        )
    # "{ }" would mark nothing, and the model would be asked about nothing
    start, end = _without_space(text, start, end)
    if isinstance(text, str):
        parts = (text[:start], text[start:end], text[end:])
        before, target, after = (part.translate(_OTHER_BRACKETS) for part in parts)
        # words of their own, whatever stands beside them
        opening = OPENING if not before or before[-1].isspace() else f" {OPENING}"
        closing = CLOSING if not after or after[0].isspace() else f"{CLOSING} "
        return f"{before}{opening} {target} {closing}{after}"
    words = [word.translate(_OTHER_BRACKETS) for word in text]
    return [*words[:start], OPENING, *words[start:end], CLOSING, *words[end:]]


def _without_space(text: Any, start: int, end: int) -> tuple[int, int]:
    """Move the ends of a target inwards, past white space."""
    inside = [place for place in range(start, end) if text[place] and not text[place].isspace()]
    if not inside:
        raise ValueError(
            f"Expected a target with more than white space, got {shown(text[start:end])} at {start} to {end}. Give the "
            "places of a word, or None for a text without a target."
        )
    return inside[0], inside[-1] + 1


def mark_targets(texts: Any, targets: Sequence[Sequence[int] | None], is_split_into_words: bool | None) -> list[Any]:
    """Mark a target in each of some texts, as `mark_target` does; None leaves a text as it is."""
    rows, places = [texts] if isinstance(texts, str) else as_list(texts), as_list(targets)
    if rows is None or places is None:
        raise ValueError(
            f"Expected texts and their targets as lists, got {type(texts).__name__} and {type(targets).__name__}. Give "
            "one target for each text."
        )
    if is_split_into_words and not isinstance(texts, str) and all(isinstance(word, str) for word in rows):
        rows = [rows]
    if len(rows) != len(places):
        raise ValueError(
            f"Expected one target a text, got {len(places)} for {len(rows)} texts. Give None for a text without one."
        )
    return [
        text if text is None or target is None else mark_target(text, *target)
        for text, target in zip(rows, places, strict=True)
    ]


def marked_words(words: Sequence[str]) -> range:
    """Say which words of a marked text are the target.

    Examples
    --------
    >>> marked_words(["Kawhi", "beats", "{", "the", "Sixers", "}"])
    range(3, 5)
    """
    return range(words.index(OPENING) + 1, words.index(CLOSING))


__all__ = ["CLOSING", "OPENING", "mark_target", "mark_targets", "marked_words"]
