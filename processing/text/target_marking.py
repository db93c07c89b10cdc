"""Mark in a text what it is asked about, with braces: every tokenizer knows them, and tweets hardly use them."""

from collections.abc import Sequence
from operator import index
from typing import Any

from ...configuration.errors import shown
from ..sequences import as_list


OPENING, CLOSING = "{", "}"
_OTHER_BRACKETS = str.maketrans("{}", "()")


def mark_target(text: str | list[str] | tuple[str, ...], start: int, end: int) -> str | list[str]:
    """Put braces around the part of a text that a label is about; braces in the text become parentheses.

    Parameters
    ----------
    text : str, or list or tuple of str
        A text, or its words.
    start, end : int
        Offsets of the target's first character and after its last one, or the same of words. White space at its ends
        stays outside.

    Returns
    -------
    str or list of str
        The marked text, or its words.

    Raises
    ------
    ValueError
        If the offsets aren't in the text, or only white space is between them.

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
            f"Expected whole numbers as the offsets of a target, got {shown((start, end))}. Give two ints."
        ) from None
    if not 0 <= start < end <= len(text):
        unit = "characters" if isinstance(text, str) else "words"
        raise ValueError(
            f"Expected a target inside the text, which has {len(text)} {unit}, got {start} to {end}. Correct them."
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


def _without_space(text: Sequence[str], start: int, end: int) -> tuple[int, int]:
    """Move the ends of a target inwards, past white space."""
    inside = [offset for offset in range(start, end) if text[offset] and not text[offset].isspace()]
    if not inside:
        raise ValueError(
            f"Expected a target with more than white space, got {shown(text[start:end])} at {start} to {end}. Give the "
            "offsets of a word, or None."
        )
    return inside[0], inside[-1] + 1


def mark_targets(texts: Any, targets: Sequence[Sequence[int] | None], is_split_into_words: bool | None) -> list[Any]:
    """Mark a target in each of some texts, as `mark_target` does; None leaves a text as it is."""
    rows, offsets = [texts] if isinstance(texts, str) else as_list(texts), as_list(targets)
    if rows is None or offsets is None:
        raise ValueError(
            f"Expected lists of texts and targets, got {type(texts).__name__} and {type(targets).__name__}. Give both."
        )
    if is_split_into_words and not isinstance(texts, str) and all(isinstance(word, str) for word in rows):
        rows = [rows]
    if len(rows) != len(offsets):
        raise ValueError(
            f"Expected one target per text, got {len(offsets)} for {len(rows)} texts. Give None where there is none."
        )
    pairs = zip(rows, offsets, strict=True)
    return [text if text is None or target is None else mark_target(text, *target) for text, target in pairs]


def marked_words(words: Sequence[str]) -> range:
    """Say which words of a marked text are the target."""
    return range(words.index(OPENING) + 1, words.index(CLOSING))


__all__ = ["CLOSING", "OPENING", "mark_target", "mark_targets", "marked_words"]
