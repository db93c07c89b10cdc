"""Split running text into words the way that tweets are split in the CoNLL files of the field."""

import re
import unicodedata
from typing import Any

from ..configuration.messages import shown
from .sequences import as_list, is_table


# Taken whole: web addresses, e-mail addresses and the commonest smileys.
_WHOLE = re.compile(
    r"(?:https?://|www\.)[^\s<>\"]*[^\s<>\"'.,;:!?)\]}…]"
    r"|[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+"
    r"|[:;=]-?[()DPp](?!\w)",
)
# Digits with separators inside ("10,000", "19.99", "1/2" is three words).
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
# A word of plain letters, with something behind it that neither belongs to it nor makes it part of an address: found
# at once, where looking at each character takes most of the time of splitting.
_PLAIN = re.compile(r"[A-Za-z_]+(?=[ ,;!?'\")\n]|\Z)")
_ZWJ, _ZWNJ = "\u200d", "\u200c"


def split_words(text: str) -> list[tuple[str, int, int]]:
    """Split a text into words with their places.

    White space separates; punctuation stands alone ("#NBA" is "#" and "NBA", "don't" is "don", "'" and "t"); numbers
    keep their separators and part from letters behind them ("5th" is "5" and "th"); names with underscores, web
    addresses, e-mail addresses, short smileys and emoji sequences (flags, skin tones, joined figures) stay whole;
    combining marks stay with their letter. This is how the public tweet corpora with pictures are split, so
    that a model sees at inference what it saw in training. In particular "@" of a mention is a word by itself, because
    the account's name is what may be an entity.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    list of tuple of (str, int, int)
        Word, place of its first character and place behind its last one: ``text[start:end] == word``. Every
        character that is not white space belongs to exactly one word.

    Examples
    --------
    >>> [word for word, _, _ in split_words("Go #NBA, it's 5th!")]
    ['Go', '#', 'NBA', ',', 'it', "'", 's', '5', 'th', '!']
    """
    words = []
    place = 0
    while place < len(text):
        if text[place].isspace():
            place += 1
            continue
        end = _end_of_word(text, place)
        words.append((text[place:end], place, end))
        place = end
    return words


def as_sentences(
    text: Any, is_split_into_words: bool | None = None, batched: bool = False
) -> tuple[list[list[str]], bool, bool]:
    """Bring every accepted form of text to lists of words.

    Parameters
    ----------
    text : str, sequence of str or sequence of sequences of str
        A text, texts, or texts as lists of words. A sequence is whatever `sequences.as_list` takes.
    is_split_into_words : bool or None
        True says that a list of strings holds the words of one text. None looks at the type.
    batched : bool
        With `is_split_into_words`: whether `text` is surely a list of texts.

    Returns
    -------
    tuple of (list of list of str, bool, bool)
        The words of each text, whether it was a single text, and whether words were given.

    Raises
    ------
    ValueError
        If it is anything else, or an empty list.

    Examples
    --------
    >>> as_sentences(["Go", "#NBA"])
    ([['Go'], ['#', 'NBA']], False, False)
    """
    if isinstance(text, str):
        if is_split_into_words:
            raise ValueError(f"Expected words, since is_split_into_words=True, got the string {shown(text)}.")
        return [[word for word, _, _ in split_words(text)]], True, False
    items = as_list(text)
    if items is None:
        hint = " Give one of its columns, such as table['text']." if is_table(text) else ""
        raise ValueError(
            "Expected `text` as a string, a list of strings or a list of lists of words, got "
            f"{type(text).__name__}.{hint}"
        )
    if is_split_into_words and not batched and all(isinstance(word, str) for word in items):
        return [items], True, True
    if not items:
        raise ValueError(
            "Expected at least one text, got an empty list. An empty text is '' or, as list of words, [[]]."
        )
    if all(isinstance(item, str) for item in items) and not is_split_into_words:
        return [[word for word, _, _ in split_words(item)] for item in items], False, False
    missing = next((index for index, item in enumerate(items) if item is None), None)
    if missing is not None:
        raise ValueError(
            f"Expected a text, got nothing (None or NaN) as text {missing}. Leave it out; an empty text is '' or, "
            "as list of words, []."
        )
    return [_read_words(item, index, is_split_into_words) for index, item in enumerate(items)], False, True


def _read_words(item: Any, index: int, is_split_into_words: bool | None) -> list[str]:
    """Read one text of many that is given as words."""
    words = None if is_split_into_words is False else as_list(item)
    if words is None:
        raise ValueError(
            f"Expected all texts as strings or all as lists of words, got {type(item).__name__} as text {index}: "
            f"{shown(item)}. is_split_into_words=True says that a flat list holds the words of one text."
        )
    for place, word in enumerate(words):
        if not isinstance(word, str):
            raise ValueError(
                f"Expected words as strings, got {type(word).__name__} {shown(word)} as word {place} of text {index}."
            )
    return words


def _end_of_word(text: str, start: int) -> int:
    plain = _PLAIN.match(text, start)
    return plain.end() if plain else _end_of_any_word(text, start)


def _end_of_any_word(text: str, start: int) -> int:
    at_boundary = start == 0 or not _is_letter(text[start - 1])
    whole = _WHOLE.match(text, start) if at_boundary else None
    if whole:
        return whole.end()
    number = _NUMBER.match(text, start)
    if number:
        end = number.end()
        # A number in front of letters is a word of its own, but a keycap or a combining mark goes with it.
        return _skip_marks(text, end)
    if _is_letter(text[start]):
        end = start
        while end < len(text) and _is_letter(text[end]):
            end = _skip_marks(text, end + 1)
        return end
    return _end_of_symbol(text, start)


def _is_letter(character: str) -> bool:
    """Tell letters, digits, underscores and combining marks from other characters."""
    return character.isalnum() or character == "_" or unicodedata.category(character).startswith("M")


def _skip_marks(text: str, place: int) -> int:
    """Go past combining marks, and past joiners that stand before another letter (Persian, Hindi)."""
    while place < len(text):
        if unicodedata.category(text[place]).startswith("M"):
            place += 1
        elif text[place] in (_ZWJ, _ZWNJ) and place + 1 < len(text) and _is_letter(text[place + 1]):
            place += 2
        else:
            break
    return place


def _end_of_symbol(text: str, start: int) -> int:
    """Find the end of a punctuation mark or an emoji sequence."""
    end = start + 1
    if _is_flag_letter(text[start]) and end < len(text) and _is_flag_letter(text[end]):
        return end + 1
    while end < len(text):
        character = text[end]
        if unicodedata.category(character) in ("Mn", "Me") or _is_skin_tone(character) or _is_tag(character):
            end += 1
        elif character == _ZWJ and end + 1 < len(text) and unicodedata.category(text[end + 1]) in ("So", "Sm", "Sk"):
            end += 2
        else:
            break
    return end


def _is_flag_letter(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _is_skin_tone(character: str) -> bool:
    return "\U0001f3fb" <= character <= "\U0001f3ff"


def _is_tag(character: str) -> bool:
    return "\U000e0020" <= character <= "\U000e007f"


__all__ = ["as_sentences", "split_words"]
