"""Write CoNLL files of tweets."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...configuration.errors import shown
from ..tags.tag_scheme import split_tag


# Stands for a word that is empty or white space, which no tokenizer keeps; the processor makes one unknown token of it.
PLACEHOLDER = "\ufffd"


def write_conll(
    path: str | os.PathLike[str],
    tokens: Iterable[Sequence[str]],
    tags: Iterable[Sequence[str | None] | None],
    ids: Iterable[str] | None = None,
) -> None:
    """Write tweets so that `read_conll` gives the same ones back.

    Parameters
    ----------
    path : str or os.PathLike
        The file to write, in UTF-8.
    tokens : iterable of sequences of str
        Words.
    tags : iterable of (sequence of (str or None) or None)
        BIO tags, None where unknown. "I-" at the start of an entity is written as it is, and mended on reading.
    ids : iterable of str or None
        Ids of the images; None leaves the IMGID lines out.

    Raises
    ------
    ValueError
        If numbers do not fit, or a word, tag or id cannot be written in this format. Nothing is written then.
    """
    sentences, tag_lists = [list(words) for words in tokens], [None if item is None else list(item) for item in tags]
    names: list[str | None] = [None] * len(sentences) if ids is None else list(ids)
    if not len(sentences) == len(tag_lists) == len(names):
        raise ValueError(
            f"Expected as many tag lists and ids as sentences, got {len(sentences)} sentences, {len(tag_lists)} tag "
            f"lists and {len(names)} ids. Give one of each for each sentence."
        )
    lines: list[str] = []
    for index, (words, given, name) in enumerate(zip(sentences, tag_lists, names, strict=True)):
        lines += _sentence_lines(words, [None] * len(words) if given is None else given, name, index)
    text = "".join(f"{line}\n" for line in lines)
    # One byte-order mark is dropped on reading; a text that begins with that character needs another.
    Path(path).write_bytes((("\ufeff" if text.startswith("\ufeff") else "") + text).encode("utf-8"))


def writable(word: str) -> str:
    """Mend what no CoNLL file can hold: white space as a word, and tabs and line breaks inside."""
    word = word.replace("\t", " ").replace("\r", " ").replace("\n", " ")
    return word if word.strip() and word.split()[0] != "-DOCSTART-" else PLACEHOLDER


def _sentence_lines(words: list[str], tags: Sequence[str | None], name: str | None, index: int) -> list[str]:
    """Write the lines of sentence `index`, with the blank one after it."""
    if len(tags) != len(words):
        raise ValueError(
            f"Expected one tag per word, got {len(tags)} for {len(words)} words in sentence {index}. Correct its tags."
        )
    if name is None and not words:
        raise ValueError(f"Expected words in sentence {index}, which has no id, got none. Leave it out.")
    lines = []
    if name is not None:
        if not name or name != name.strip() or re.search(r"[\t\r\n]", name):
            raise ValueError(
                f"Expected an id on one line without white space around it, got {shown(name)}. Strip it, or rename it."
            )
        lines.append(f"IMGID:{name}")
    for word, tag in zip(words, tags, strict=True):
        if re.search(r"[\t\r\n]", word) or word.split()[:1] in ([], ["-DOCSTART-"]):
            raise ValueError(
                "Expected words that are neither white space nor '-DOCSTART-' and hold no tabs or line breaks, "
                f"got {shown(word)} in sentence {index}. Replace it, for instance by {PLACEHOLDER!r}."
            )
        if tag is not None:
            split_tag(tag)
        lines.append(f"{word}\t{tag or ''}")
    return [*lines, ""]


__all__ = ["PLACEHOLDER", "writable", "write_conll"]
