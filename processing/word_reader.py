"""The one way in which a model reads words, whether running text or the words of a file are given. Pure Python.

What a model learns of the words of a file holds for running text only if both come to the same tokens. So the words of
a file are split as running text is, and words in which a file gives parts of a word (character by character) are put
together first.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from .tag_scheme import spans_from_tags
from .word_splitting import Words, count_unspaced_letters, is_character, split_words


class WordReader(NamedTuple):
    """How running text and given words are split into the pieces that are encoded.

    Attributes
    ----------
    unspaced_scripts : {"characters", "words"}
        With "characters", scripts that put no spaces between words are read character by character, and given words are
        split as running text is. With "words", such a script is one word up to the next space or punctuation mark, and
        given words stay whole.
    whole : tuple of str
        What is never split, such as placeholders that were added to a tokenizer's vocabulary; with "characters" only.
    """

    unspaced_scripts: str = "characters"
    whole: tuple[str, ...] = ()

    def split(self, text: str) -> Words:
        """Split running text into words with their places, as `split_words` does, but for what stays whole."""
        if self.unspaced_scripts == "words" or not self.whole or not isinstance(text, str):
            return split_words(text, self.unspaced_scripts)
        words: Words = []
        place = 0
        for match in _any_of(self.whole).finditer(text):
            words += _moved(split_words(text[place : match.start()]), place)
            words.append((match.group(), *match.span()))
            place = match.end()
        return words + _moved(split_words(text[place:]), place)

    def pieces(self, words: Sequence[str]) -> tuple[list[str], list[int]]:
        """Split words into the pieces that are encoded.

        Parameters
        ----------
        words : sequence of str
            Words; those of running text are pieces already, and stay what they are.

        Returns
        -------
        tuple of (list of str, list of int)
            Pieces, at least one of each word, and the number of the word that each is of.

        Examples
        --------
        >>> WordReader().pieces(["東京", "U.S.", "it"])
        (['東', '京', 'U', '.', 'S', '.', 'it'], [0, 0, 1, 1, 1, 1, 2])
        """
        if self.unspaced_scripts == "words":
            return list(words), list(range(len(words)))
        pieces: list[str] = []
        owners: list[int] = []
        for number, word in enumerate(words):
            plain = len(word) == 1 or (word.isascii() and word.isalpha())  # most words, and nothing to be split
            found = [word] if plain else [piece for piece, _, _ in self.split(word)]
            pieces += found or [word]
            owners += [number] * max(len(found), 1)
        return pieces, owners

    def units(self, words: Sequence[str]) -> list[range]:
        """Say which given words are read as one, since running text wouldn't part them.

        In scripts that put no spaces between words, files give sentences character by character, or as a segmenter
        parts them: letters and digits of other scripts, and even marks, may stand alone then. Such a sentence is
        read as it would be written, without spaces. Words that `split_words` made are read as they are.

        Parameters
        ----------
        words : sequence of str
            A sentence.

        Returns
        -------
        list of range
            Numbers of the words that are read as one, in order; in scripts with spaces one each. White space among
            words of other scripts is in none of them.

        Examples
        --------
        >>> WordReader().units(["N", "B", "A", "\u306f", "5", " "])
        [range(0, 3), range(3, 4), range(4, 5)]
        """
        if self.unspaced_scripts == "words" or not _is_unspaced(words):
            return [range(number, number + 1) for number in range(len(words))]
        if not _is_written_without_spaces(words):
            return [range(number, number + 1) for number, word in enumerate(words) if not _is_blank(word)]
        text = ""
        owners: list[int] = []  # the word of each character
        for number, word in enumerate(words):
            written = word if word.strip("\ufffd").strip() else " "
            if number and _are_parted(words[number - 1], written):
                written = f" {written}"
            text += written
            owners += [number] * len(written)
        units: list[range] = []
        for _, start, end in self.split(text):
            first, behind = owners[start], owners[end - 1] + 1
            if units and units[-1].stop > first:  # a word of several pieces
                first = units.pop().start
            units.append(range(first, behind))
        return units

    def unite(
        self, sentences: Sequence[Sequence[str]], tags: list[list[str | None]] | None
    ) -> tuple[list[list[str]], list[list[str | None]] | None, list[list[int]]]:
        """Put words that are read as one together; return them, their tags, and the number of the first of each."""
        units = [self.units(words) for words in sentences]
        if tags is not None:
            united = [unite_tags(*pair) for pair in zip(tags, units, strict=True)]
            units, tags = [unit for unit, _ in united], [tag for _, tag in united]
        pairs = zip(sentences, units, strict=True)
        joined = [["".join(words[unit.start : unit.stop]) for unit in row] for words, row in pairs]
        return joined, tags, [[unit.start for unit in row] for row in units]


def unite_tags(tags: Sequence[str | None], units: Sequence[range]) -> tuple[list[range], list[str | None]]:
    """Bring the tags of words to units of them.

    Parameters
    ----------
    tags : sequence of (str or None)
        Tags of all words, in BIO, None where unknown.
    units : sequence of range
        As of `WordReader.units`.

    Returns
    -------
    tuple of (list of range, list of (str or None))
        The units, parted where an entity begins or ends inside one, and the tag of each.
    """
    parted: list[range] = []
    united: list[str | None] = []
    behind = 0
    for unit in units:
        start = unit.start
        for number in (*unit[1:], unit.stop):
            inner = "I" + (tags[start] or "")[1:] if tags[start] not in (None, "O") else tags[start]
            if number < unit.stop and tags[number] == inner:
                continue
            tag = tags[start]
            if tag is not None and f"B{tag[1:]}" in tags[behind:start] and tag[:1] == "I":
                tag = f"B{tag[1:]}"  # the entity began with white space, which isn't read
            parted.append(range(start, number))
            united.append(tag)
            start = behind = number
    return parted, united


def part_tags(tags: Sequence[str], units: Sequence[range], count: int) -> list[str]:
    """Bring the tags of units back to the `count` words that they are of; an entity holds all words inside."""
    words = ["O"] * count
    for label, first, behind in spans_from_tags(tags):
        start, stop = units[first].start, units[behind - 1].stop
        words[start:stop] = [f"B-{label}", *[f"I-{label}"] * (stop - start - 1)]
    return words


def _is_unspaced(words: Sequence[str]) -> bool:
    """Tell sentences of scripts without spaces; what is written between them are a few names of other scripts."""
    letters = sum(map(count_unspaced_letters, words))
    if not letters:
        return False
    return letters > 2 * sum(len(word) > 1 and word.isalpha() and not count_unspaced_letters(word) for word in words)


def _is_written_without_spaces(words: Sequence[str]) -> bool:
    """Tell sentences by characters, and those of a segmenter, from words as `split_words` makes them."""
    longer = [word for word in words if not is_character(word)]
    return not longer or any(map(count_unspaced_letters, longer))


def _are_parted(before: str, word: str) -> bool:
    """Say whether a space stands between words: between two names, or two numbers, but not between characters."""
    last, first = before[-1:], word[:1]
    if len(before) == len(word) == 1 or count_unspaced_letters(last + first):
        return False
    return (last.isalpha() and first.isalpha()) or (last.isdigit() and first.isdigit())


def _is_blank(word: str) -> bool:
    # U+FFFD is what the reader of CoNLL files puts for white space
    return not word.strip("\u200b\ufffd").strip()


@lru_cache(maxsize=8)
def _any_of(whole: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(whole, key=len, reverse=True))))


def _moved(words: Words, offset: int) -> Words:
    return [(word, start + offset, end + offset) for word, start, end in words] if offset else words


__all__ = ["WordReader", "part_tags", "unite_tags"]
