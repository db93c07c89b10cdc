"""The one way in which a model reads words, whether running text or the words of a file are given.

The words of a file are split as running text is, and parts of a word, given character by character, are joined first.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from .encoded_words import EncodedWords, EncodePieces, encode_pieces
from .word_splitting import Words, count_unspaced_letters, is_character, split_words


class WordReader(NamedTuple):
    """How running text and given words are split into pieces; what is `whole`, such as "[USER]", is never split."""

    unspaced_scripts: str = "characters"
    whole: tuple[str, ...] = ()

    def split(self, text: str) -> Words:
        """Do what `split_words` does, but for what stays whole."""
        if self.unspaced_scripts == "words" or not self.whole or not isinstance(text, str):
            return split_words(text, self.unspaced_scripts)
        words: Words = []
        position = 0
        for match in _any_of(self.whole).finditer(text):
            words += _shifted(split_words(text[position : match.start()]), position)
            words.append((match.group(), *match.span()))
            position = match.end()
        return words + _shifted(split_words(text[position:]), position)

    def pieces(self, words: Sequence[str]) -> tuple[list[str], list[int]]:
        """Split words into pieces, at least one of each; say which word each piece is of.

        >>> WordReader().pieces(["東京", "U.S.", "it"])
        (['東', '京', 'U', '.', 'S', '.', 'it'], [0, 0, 1, 1, 1, 1, 2])
        """
        if self.unspaced_scripts == "words":
            return list(words), list(range(len(words)))
        pieces: list[str] = []
        owners: list[int] = []
        for number, word in enumerate(words):
            # most words, and nothing to be split
            plain = len(word) == 1 or (word.isascii() and (word.isalpha() or word.isdigit()))
            found = [word] if plain else [piece for piece, _, _ in self.split(word)] or [word]
            pieces += found
            owners += [number] * len(found)
        return pieces, owners

    def encode(
        self, sentences: Sequence[Sequence[str]], encode: EncodePieces, prefix: str, substitute: int | None
    ) -> EncodedWords:
        """Return the token ids of the words of sentences; `substitute` where the tokenizer makes none."""
        read = [self.pieces(words) for words in sentences]

        def encode_readable(texts: list[list[str]]) -> Iterable[tuple[Sequence[int], Sequence[int | None]]]:
            return encode([[_readable(piece, prefix) for piece in pieces] for pieces in texts])

        return encode_pieces(read, [len(words) for words in sentences], encode_readable, substitute)

    def group_words(self, words: Sequence[str]) -> list[range]:
        r"""Say which given words are read as one, since running text wouldn't part them; white space may be in none.

        >>> WordReader().group_words(["N", "B", "A", "\u306f", "5", " "])
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
            if number and _needs_space(words[number - 1], written):
                written = f" {written}"
            text += written
            owners += [number] * len(written)
        groups: list[range] = []
        for _, start, end in self.split(text):
            first, stop = owners[start], owners[end - 1] + 1
            if groups and groups[-1].stop > first:  # a word of several pieces
                first = groups.pop().start
            groups.append(range(first, stop))
        return groups

    def join_words(
        self, sentences: Sequence[Sequence[str]], tags: list[list[str | None]] | None
    ) -> tuple[list[list[str]], list[list[str | None]] | None, list[list[int]]]:
        """Join words that are read as one; return them, their tags, and the number of the first word of each."""
        groups = [self.group_words(words) for words in sentences]
        if tags is not None:
            grouped = [group_tags(*pair) for pair in zip(tags, groups, strict=True)]
            groups, tags = [group for group, _ in grouped], [tag for _, tag in grouped]
        pairs = zip(sentences, groups, strict=True)
        joined = [["".join(words[group.start : group.stop]) for group in row] for words, row in pairs]
        return joined, tags, [[group.start for group in row] for row in groups]


def group_tags(tags: Sequence[str | None], groups: Sequence[range]) -> tuple[list[range], list[str | None]]:
    """Bring the tags of words to groups, parted where an entity begins or ends inside one."""
    parted: list[range] = []
    grouped: list[str | None] = []
    end = 0
    for group in groups:
        start = group.start
        for number in (*group[1:], group.stop):
            inner = "I" + (tags[start] or "")[1:] if tags[start] not in (None, "O") else tags[start]
            if number < group.stop and tags[number] == inner:
                continue
            tag = tags[start]
            if tag is not None and f"B{tag[1:]}" in tags[end:start] and tag[:1] == "I":
                tag = f"B{tag[1:]}"  # the entity began with white space, which isn't read
            parted.append(range(start, number))
            grouped.append(tag)
            start = end = number
    return parted, grouped


def _is_unspaced(words: Sequence[str]) -> bool:
    """Tell sentences of scripts without spaces, and perhaps a few names of other scripts."""
    letters = sum(map(count_unspaced_letters, words))
    names = (word for word in words if len(word) > 1 and word.isalpha() and not count_unspaced_letters(word))
    return letters > 0 and letters > 2 * sum(1 for _ in names)


def _is_written_without_spaces(words: Sequence[str]) -> bool:
    """Tell sentences by characters or of a segmenter from what `split_words` makes."""
    longer = [word for word in words if not is_character(word)]
    return not longer or any(map(count_unspaced_letters, longer))


def _needs_space(before: str, word: str) -> bool:
    """Say whether a space stands between words: two names or two numbers, but not characters."""
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


def _shifted(words: Words, offset: int) -> Words:
    return [(word, start + offset, end + offset) for word, start, end in words] if offset else words


def _readable(word: str, prefix: str) -> str:
    """Prepare a word for the tokenizer, which raises at lone surrogates."""
    if prefix and word and not word.startswith(" "):
        word = prefix + word
    try:
        word.encode("utf-8")
    except UnicodeEncodeError:
        word = word.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return word


__all__ = ["WordReader", "group_tags"]
