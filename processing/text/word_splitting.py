"""Split running text into words the way that tweets are split in the CoNLL files of the field."""

import re
import unicodedata
from itertools import groupby
from typing import Any

from ...configuration.errors import mismatch, shown


# Words with the offsets of their first character, and after the last.
Words = list[tuple[str, int, int]]

# Taken whole: web addresses, e-mail addresses and the commonest smileys.
_WHOLE = re.compile(
    r"(?:https?://|www\.)[^\s<>\"]*[^\s<>\"'.,;:!?)\]}…]"
    r"|[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+"
    r"|[:;=]-?[()DPp](?!\w)",
)
# Digits with separators inside: "10,000", "19.99".
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
# All of this where there is nothing but ASCII, in one search: no marks, joiners or emoji.
_ASCII_WORD = re.compile(rf"(?<![A-Za-z0-9_])(?:{_WHOLE.pattern})|{_NUMBER.pattern}|[A-Za-z0-9_]+|\S")
_CHUNK = re.compile(r"\S+")
_ZWJ = "\u200d"
_FLAG = re.compile("[\U0001f1e6-\U0001f1ff]{2}")
_EMOJI_MODIFIER = re.compile("[\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]")  # skin tones, tags of flags
# Not seen, and no end of a word: soft hyphen, zero-width space and joiners, marks of direction.
_JOINERS = re.compile("[\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]+")
# Parts words where scripts put no spaces (Khmer, Thai), as a space does.
_ZERO_WIDTH_SPACE = "\u200b"

# Blocks of scripts that put no spaces between words: Thai to Burmese, Khmer, Tai Le, New Tai Lue, Tai Tham, Balinese,
# 々〆〇, Kana, Bopomofo, Yi, Javanese, Tai Viet, half-width Katakana, Ahom, and what is left of Kana.
_BLOCKS = """
    0e00-109f 1780-17ff 1950-19df 1a20-1aaf 1b00-1b7f 3005-3007 3021-30ff 3105-312f 31a0-31ff a000-a48f a980-a9ff
    aa60-aadf ff66-ff9d 11700-1174f 1aff0-1b16f
"""
# Chinese characters; the last range is planes 2 and 3.
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Letters of these scripts: neither their marks, which go with a letter, nor their digits and punctuation.
_CODES = [
    code
    for first, last in (block.split("-") for block in _BLOCKS.split())
    for code in range(int(first, 16), int(last, 16) + 1)
    if unicodedata.category(chr(code)) in ("Lo", "Lm", "Nl")
]
# in ranges, since beyond U+FFFF a search compares with each item, one after the other
_RUNS = ([code for _, code in run] for _, run in groupby(enumerate(_CODES), key=lambda item: item[1] - item[0]))
_UNSPACED_LETTERS = _HAN + "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in _RUNS)
_UNSPACED_LETTER = re.compile(f"[{_UNSPACED_LETTERS}]")
# A word each, and the end of an address: their punctuation, and ! ( ) , : ; ? [ ] { } of full width.
_PUNCTUATION = (
    "\u3001-\u3003\u3008-\u3011\u3014-\u301b\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f\uff3b\uff3d\uff5b\uff5d-\uff64"
)
_UNSPACED = re.compile(f"[{_UNSPACED_LETTERS}{_PUNCTUATION}]")
# No marks for Unicode, but parts of the letter in front: the vowel am of Thai and Lao, half-width voicing.
_PARTS_OF_LETTERS = "\u0e33\u0eb3\uff9e\uff9f"
# Put the next letter below this one: Burmese, Khmer, Tai Tham.
_STACKERS = "\u1039\u17d2\u1a60"


def split_words(text: str, unspaced_scripts: str = "characters") -> Words:
    """Split a text into words with their offsets, as the public tweet corpora with images are split.

    White space separates; punctuation stands alone; numbers, names with underscores, addresses, smileys and emoji stay
    whole; scripts without spaces between words are split into characters.

    Parameters
    ----------
    text : str
        Any text.
    unspaced_scripts : {"characters", "words"}, default "characters"
        "words" parts such scripts at spaces and punctuation alone.

    Returns
    -------
    list of tuple of (str, int, int)
        Word, and its offsets: `text[start:end] == word`.

    Raises
    ------
    ValueError
        If `text` is no string, or `unspaced_scripts` something else.

    Examples
    --------
    >>> [word for word, _, _ in split_words("Go #NBA, it's 5th!")]
    ['Go', '#', 'NBA', ',', 'it', "'", 's', '5', 'th', '!']
    >>> [word for word, _, _ in split_words("iPhone15を買った。")]
    ['iPhone15', 'を', '買', 'っ', 'た', '。']
    """
    if not isinstance(text, str):
        fix = how_to_make_text(text, "Give one text.")
        raise ValueError(f"Expected a text as a string, got {type(text).__name__} {shown(text)}. {fix}")
    check_unspaced_scripts(unspaced_scripts)
    if unspaced_scripts == "words" or text.isascii():
        return _split_spaced(text, 0)
    words: Words = []
    position = 0
    for letter in _UNSPACED.finditer(text):
        start = letter.start()
        if start < position:  # a letter that is written below another
            continue
        words += _split_spaced(text[position:start].rstrip(_ZERO_WIDTH_SPACE), position)
        position = _end_of_character(text, start)
        words.append((text[start:position], start, position))
        while text.startswith(_ZERO_WIDTH_SPACE, position):
            position += 1
    return words + _split_spaced(text[position:], position)


def check_unspaced_scripts(unspaced_scripts: str) -> None:
    """Refuse what is no way to read scripts that put no spaces between words."""
    if unspaced_scripts not in ("characters", "words"):
        raise mismatch("unspaced_scripts 'characters' or 'words'", unspaced_scripts, "Choose one.")


def count_unspaced_letters(text: str) -> int:
    """Count letters of scripts that put no spaces between words."""
    return 0 if text.isascii() else len(_UNSPACED_LETTER.findall(text))


def is_character(word: str) -> bool:
    """Say whether a word has at most one letter or digit, with its marks."""
    if sum(map(str.isalnum, word)) <= 1:
        return True
    return _UNSPACED_LETTER.match(word) is not None and _end_of_character(word, 0) == len(word)


def _split_spaced(text: str, offset: int) -> Words:
    """Split a part, from `offset` on, of a text whose scripts put spaces between words."""
    if text.isascii():
        return [(match.group(), offset + match.start(), offset + match.end()) for match in _ASCII_WORD.finditer(text)]
    words = []
    for chunk in _CHUNK.finditer(text):  # no word goes beyond white space
        position, stop = chunk.span()
        if chunk.group().isascii():
            words += _split_spaced(chunk.group(), offset + position)
            continue
        while position < stop:
            end = _end_of_word(text, position)
            words.append((text[position:end], offset + position, offset + end))
            position = end
    return words


def _end_of_word(text: str, start: int) -> int:
    if (start == 0 or not _is_letter(text[start - 1])) and (whole := _WHOLE.match(text, start)):
        return whole.end()
    if number := _NUMBER.match(text, start):
        end = number.end()
        # a number in front of letters is a word of its own, but a keycap or a combining mark goes with it
        while end < len(text) and _is_mark(text[end]):
            end += 1
        return end
    end = start
    while end < len(text) and _is_letter(text[end]):
        end = _skip_marks(text, end + 1)
    return end if end > start else _end_of_symbol(text, start)


def _is_letter(character: str) -> bool:
    """Tell letters, digits, underscores and combining marks."""
    return character.isalnum() or character == "_" or _is_mark(character)


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def _skip_marks(text: str, position: int) -> int:
    """Go past combining marks, and joiners before another letter (Persian, Hindi; hyphenation)."""
    while position < len(text):
        joiners = _JOINERS.match(text, position)
        if _is_mark(text[position]):
            position += 1
        elif joiners and joiners.end() < len(text) and _is_letter(text[joiners.end()]):
            position = joiners.end() + 1
        else:
            break
    return position


def _end_of_character(text: str, start: int) -> int:
    """Find the end of a letter, its marks and the letters stacked below it."""
    end = start + 1
    while end < len(text):
        joiners = _JOINERS.match(text, end)
        stacked = text[end - 1] in _STACKERS and _UNSPACED_LETTER.match(text, end)
        if stacked or _is_mark(text[end]) or text[end] in _PARTS_OF_LETTERS:
            end += 1
        elif joiners and joiners.end() < len(text) and _is_mark(text[joiners.end()]):
            end = joiners.end() + 1
        else:
            break
    return end


def _end_of_symbol(text: str, start: int) -> int:
    """Find the end of a punctuation mark or an emoji sequence."""
    if flag := _FLAG.match(text, start):
        return flag.end()
    end = start + 1
    while end < len(text):
        if unicodedata.category(text[end]) in ("Mn", "Me") or _EMOJI_MODIFIER.match(text, end):
            end += 1
        elif text[end] == _ZWJ and end + 1 < len(text) and unicodedata.category(text[end + 1]) in ("So", "Sm", "Sk"):
            end += 2
        else:
            break
    return end


def how_to_make_text(value: Any, otherwise: str = "") -> str:
    """Say how to mend what is no text, or no word."""
    if isinstance(value, bytes | bytearray | memoryview):
        return "Decode bytes first: value.decode('utf-8')."
    if value is None:
        return "Leave it out, or give '' for an empty one."
    if isinstance(value, str | list | tuple):
        return otherwise or "is_split_into_words=True says that a flat list holds the words of one text."
    return "Write numbers as strings: str(value)." if isinstance(value, int | float) else "Give strings."


__all__ = [
    "Words",
    "check_unspaced_scripts",
    "count_unspaced_letters",
    "how_to_make_text",
    "is_character",
    "split_words",
]
