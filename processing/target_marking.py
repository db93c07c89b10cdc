"""Mark in a text what it is asked about. Pure Python.

The marks are braces, as words of their own: every tokenizer knows them, no token has to be added, and tweets hardly use
them. A marked text is a text, so whatever reads texts reads it, the stock `text-classification` pipeline included.
"""

import warnings
from collections.abc import Sequence
from operator import index
from typing import Any, overload

from ..configuration.messages import shown
from .sequences import as_list


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
        Places of the target's first character and behind its last one; or the same of words.

    Returns
    -------
    str or list of str
        The marked text, or its words.

    Raises
    ------
    ValueError
        If the places are no whole numbers or aren't in the text, or there is nothing or only white space between them.

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
        raise ValueError(f"Expected whole numbers as the places of a target, got {shown((start, end))}.") from None
    if not 0 <= start < end <= len(text):
        unit = "characters" if isinstance(text, str) else "words"
        raise ValueError(
            f"Expected a target inside the text, which has {len(text)} {unit}, got {start} to {end}. Give the place of "
            "its first one, and the one behind its last."
        )
    # "{ }" would mark nothing, and the model would be asked about nothing
    start, end = _without_space(text, start, end)
    if isinstance(text, str):
        before, target, behind = (
            part.translate(_OTHER_BRACKETS) for part in (text[:start], text[start:end], text[end:])
        )
        # words of their own, whatever stands beside them
        opening = OPENING if not before or before[-1].isspace() else f" {OPENING}"
        closing = CLOSING if not behind or behind[0].isspace() else f"{CLOSING} "
        return f"{before}{opening} {target} {closing}{behind}"
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
    """Mark a target in each of some texts.

    Parameters
    ----------
    texts : str, sequence of str or sequence of sequences of str
        A text, texts, or texts as lists of words.
    targets : sequence of ((int, int) or None)
        One a text: its places, of characters or of words, as `mark_target` takes them; None leaves a text as it is.
    is_split_into_words : bool or None
        True says that a list of strings holds the words of one text.

    Returns
    -------
    list of str, or of list of str
        The texts.

    Raises
    ------
    ValueError
        If there aren't as many targets as texts, or one isn't in its text.
    """
    rows, places = [texts] if isinstance(texts, str) else as_list(texts), as_list(targets)
    if rows is None or places is None:
        raise ValueError(
            f"Expected texts and their targets as lists, got {type(texts).__name__} and {type(targets).__name__}."
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


def warn_of_lost_targets(asked: Sequence[range], pieces: Sequence[Sequence[Any]]) -> None:
    """Warn of texts that were cut to `pieces` before the end of what they are asked about, `asked`."""
    lost = sum(target.stop > len(words) for target, words in zip(asked, pieces, strict=True))
    if lost:
        warnings.warn(
            f"{lost} of {len(pieces)} texts were cut before the end of their target, so that the model doesn't see "
            "what it is asked about. Raise max_length, or shorten the texts around their targets.",
            stacklevel=4,
        )


__all__ = ["CLOSING", "OPENING", "mark_target", "mark_targets", "marked_words", "warn_of_lost_targets"]
