"""Texts and tags between what callers give and what the model reads. Pure Python."""

from collections.abc import Sequence
from typing import Any

from ..tags.tag_scheme import spans_from_tags
from .text_input import SplitText, check_texts
from .word_reader import WordReader


def split_texts(text: Any, is_split_into_words: bool | None, reader: WordReader) -> tuple[list[SplitText], bool]:
    """Split every accepted form of text, each once; return the texts, and whether it was a single one."""
    texts, single, are_words = check_texts(text, is_split_into_words)
    split = SplitText.from_words if are_words else SplitText.from_text
    return [split(item, reader) for item in texts], single


def tags_of_given_words(text: SplitText, tags: Sequence[str], count: int) -> list[str]:
    """Bring a tag for each word that is read to the `count` words that were given."""
    return list(tags) if len(tags) == count else ungroup_tags(tags, text.groups or (), count)


def ungroup_tags(tags: Sequence[str], groups: Sequence[range], count: int) -> list[str]:
    """Bring the tags of groups back to the `count` words that they are of; an entity holds all words inside."""
    words = ["O"] * count
    for label, first, end in spans_from_tags(tags):
        start, stop = groups[first].start, groups[end - 1].stop
        words[start:stop] = [f"B-{label}", *[f"I-{label}"] * (stop - start - 1)]
    return words


__all__ = ["split_texts", "tags_of_given_words", "ungroup_tags"]
