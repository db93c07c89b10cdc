"""Texts as callers give them, as the model reads them, and the entities found in them. Pure Python."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...configuration.errors import shown
from ..sequences import as_list, is_table
from .word_reader import WordReader
from .word_splitting import Words, how_to_make_text, split_words


def check_texts(
    text: Any, is_split_into_words: bool | None = None, batched: bool = False
) -> tuple[list[Any], bool, bool]:
    """Return text as a list of strings or lists of words, whether it was a single one, and whether words were given.

    >>> check_texts(["Go", "#NBA"]), check_texts(["Go", "#NBA"], True)
    ((['Go', '#NBA'], False, False), ([['Go', '#NBA']], True, True))
    """
    if isinstance(text, str):
        if is_split_into_words:
            raise ValueError(
                f"Expected words, since is_split_into_words=True, got the string {shown(text)}. Give a list of words."
            )
        return [text], True, False
    items = as_list(text)
    if items is None:
        fix = "Give one of its columns, such as table['text']." if is_table(text) else how_to_make_text(text)
        raise ValueError(
            f"Expected `text` as a string, or a list of strings or of lists of words, got {type(text).__name__} "
            f"{shown(text)}. {fix}"
        )
    are_strings = all(isinstance(item, str) for item in items)
    if is_split_into_words and not batched and are_strings:
        return [items], True, True
    if not items:
        raise ValueError("Expected at least one text, got an empty list. Give '' or [[]] for an empty text.")
    if are_strings and not is_split_into_words:
        return items, False, False
    lists = [None if isinstance(item, str) else as_list(item) for item in items]
    # what is no text at all is named before a string among lists
    wrong = [i for i, item in enumerate(items) if lists[i] is None and not isinstance(item, str)]
    wrong += [i for i, words in enumerate(lists) if words is None or is_split_into_words is False]
    if wrong:
        item = items[wrong[0]]
        kind = "nothing (None or NaN)" if item is None else type(item).__name__
        raise ValueError(
            f"Expected all texts as strings or all as lists of words, got {kind} as text {wrong[0]}. "
            f"{how_to_make_text(item)}"
        )
    return [_check_words(words or [], index) for index, words in enumerate(lists)], False, True


def _check_words(words: list[Any], index: int) -> list[str]:
    for number, word in enumerate(words):
        if not isinstance(word, str):
            raise ValueError(
                f"Expected words as strings, got {type(word).__name__} {shown(word)} as word {number} of text {index}. "
                f"{how_to_make_text(word, 'Give each text as one flat list of words.')}"
            )
    return words


def as_sentences(
    text: Any,
    is_split_into_words: bool | None = None,
    batched: bool = False,
    split: Callable[[str], Words] = split_words,
) -> tuple[list[list[str]], bool, bool]:
    """Do what `check_texts` does, and split running text into words."""
    texts, single, are_words = check_texts(text, is_split_into_words, batched)
    return texts if are_words else [[word for word, _, _ in split(item)] for item in texts], single, are_words


class Entity(NamedTuple):
    """An entity of a text: `content[start:end]` is its word; the score is that of `span_probabilities`."""

    label: str
    score: float
    word: str
    start: int
    end: int
    start_word: int
    end_word: int


@dataclass(frozen=True)
class SplitText:
    """A text and the words that the model reads in it; `groups` are the given words that each consists of."""

    content: str
    words: list[str]
    offsets: list[tuple[int, int]]
    groups: list[range] | None = None  # None of running text
    image: Any = None

    @classmethod
    def from_text(cls, content: str, reader: WordReader, image: Any = None) -> "SplitText":
        """Split running text into words."""
        words = reader.split(content)
        return cls(content, [word for word, _, _ in words], [(start, end) for _, start, end in words], image=image)

    @classmethod
    def from_words(cls, words: Sequence[str], reader: WordReader, image: Any = None) -> "SplitText":
        """Join words by single spaces."""
        given, start = [], 0
        for word in words:
            given.append((start, start + len(word)))
            start += len(word) + 1
        groups = reader.group_words(words)
        read = ["".join(words[group.start : group.stop]) for group in groups]
        offsets = [(given[group.start][0], given[group.stop - 1][1]) for group in groups]
        return cls(" ".join(words), read, offsets, groups, image)

    def entities(self, spans: Sequence[tuple[str, int, int]], scores: Sequence[float]) -> list[Entity]:
        """Find entities, given as type, first word that is read and the one after the last, in the text."""
        found = []
        for (label, first, stop), score in zip(spans, scores, strict=True):
            start, end = self.offsets[first][0], self.offsets[stop - 1][1]
            if self.groups is not None:
                first, stop = self.groups[first].start, self.groups[stop - 1].stop
            found.append(Entity(label, score, self.content[start:end], start, end, first, stop))
        return found


def describe_entities(text: SplitText, entities: Sequence[Entity]) -> list[dict[str, Any]]:
    """Write entities as the pipeline gives them out; where words were given, with the numbers of their words."""
    names = ("score", "word", "start", "end", *(() if text.groups is None else ("start_word", "end_word")))
    return [{"entity_group": one.label, **{name: getattr(one, name) for name in names}} for one in entities]


__all__ = ["Entity", "SplitText", "as_sentences", "check_texts", "describe_entities"]
