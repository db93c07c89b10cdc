"""Turn words, tags and targets into columns of token ids and labels, not padded yet."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from ...configuration.errors import mismatch
from ..padding import model_columns
from ..tags.label_alignment import align_tags, read_word_labels
from ..tags.tag_scheme import spans_from_tags
from .target_marking import marked_words
from .word_encoding import default_max_length, encode_words, special_tokens
from .word_reader import WordReader


def encode_sentences(
    tokenizer: PreTrainedTokenizerBase,
    reader: WordReader,
    sentences: Sequence[Sequence[str]],
    *,
    are_words: bool,
    word_labels: Sequence[Any] | None = None,
    label2id: Mapping[str, int] | None = None,
    targets: Sequence[Any] | None = None,
    max_length: int | None = None,
    on_long_text: str = "truncate",
    truncation: bool = True,
) -> dict[str, list[Any]]:
    """Encode texts to one list per column, whose items are lists; options are those of a call of the processor.

    `are_words` says that words were given, which may have to be joined. `targets` are marked in the words already.
    """
    if on_long_text not in ("truncate", "raise"):
        raise mismatch("on_long_text 'truncate' or 'raise'", on_long_text, "Choose one.")
    tags = None if word_labels is None else read_word_labels(word_labels, sentences, label2id)
    given_numbers = None
    if are_words:
        sentences, tags, given_numbers = reader.join_words(sentences, tags)
    before, after = special_tokens(tokenizer)
    max_length = default_max_length(tokenizer) if max_length is None else max_length
    room = max_length - len(before) - len(after)
    if truncation and room < 1:
        raise mismatch(f"max_length above the {max_length - room} special tokens", max_length, "Raise it.")
    tokens = encode_words(tokenizer, sentences, reader).nested()
    if truncation:
        tokens = _shorten(tokens, tags, room, on_long_text)

    def framed(rows: list[list[Any]], special: Any) -> list[list[Any]]:
        return [[*[special] * len(before), *row, *[special] * len(after)] for row in rows]

    ids = [[*before, *(token for word in words for token in word), *after] for words in tokens]
    owners = [[number for number, word in enumerate(words) for _ in word] for words in tokens]
    columns: dict[str, list[Any]] = dict(model_columns(ids, tokenizer))
    word_ids = owners
    if given_numbers is not None:
        word_ids = [[numbers[owner] for owner in row] for row, numbers in zip(owners, given_numbers, strict=True)]
    columns["word_ids"] = framed(word_ids, None)
    starts = [[position == 0 for word in words for position in range(len(word))] for words in tokens]
    columns["word_start_mask"] = framed(starts, False)
    if tags is not None:
        specials = (len(before), len(after))
        columns["labels"] = [
            align_tags(known[: len(words)], [len(word) for word in words], label2id, specials)
            for known, words in zip(tags, tokens, strict=True)
        ]
    if targets is not None:
        pairs = zip(sentences, targets, strict=True)
        asked = [range(0) if target is None else marked_words(words) for words, target in pairs]
        _warn_of_lost_targets(asked, tokens)
        hits = [[owner in target for owner in row] for row, target in zip(owners, asked, strict=True)]
        columns["target_mask"] = framed(hits, False)
    return columns


def _shorten(
    tokens: list[list[list[int]]], tags: list[list[str | None]] | None, room: int, on_long_text: str
) -> list[list[list[int]]]:
    """Cut texts to `room` tokens and say what is lost; a word cut in the middle keeps its first tokens."""
    shortened = []
    texts = lost_words = lost_entities = 0
    for index, words in enumerate(tokens):
        length = sum(map(len, words))
        if length <= room:
            shortened.append(words)
            continue
        if on_long_text == "raise":
            raise ValueError(
                f"Expected texts of at most {room} tokens beside the special ones, got {length} in text {index}. Raise "
                "max_length, or use predict(), which reads long texts in windows."
            )
        kept: list[list[int]] = []
        left = room
        for word in words:
            if left == 0:
                break
            kept.append(word[:left])
            left -= len(kept[-1])
        shortened.append(kept)
        texts += 1
        lost_words += len(words) - len(kept)
        if tags is not None:
            lost_entities += sum(end > len(kept) for _, _, end in spans_from_tags(tags[index]))
    if texts:
        entities = "" if tags is None else f" and {lost_entities} entities (or their ends)"
        warnings.warn(
            f"{texts} of {len(tokens)} texts are longer than {room} tokens and were cut: {lost_words} words"
            f"{entities} are lost. Raise max_length; predict() reads long texts in windows instead.",
            stacklevel=4,
        )
    return shortened


def _warn_of_lost_targets(asked: Sequence[range], tokens: Sequence[Sequence[Any]]) -> None:
    """Warn of texts that were cut before the end of what they are asked about."""
    lost = sum(target.stop > len(words) for target, words in zip(asked, tokens, strict=True))
    if lost:
        warnings.warn(
            f"{lost} of {len(tokens)} texts were cut before the end of their target, and the model doesn't see what it "
            "is asked about. Raise max_length, or shorten the texts.",
            stacklevel=4,
        )


__all__ = ["encode_sentences"]
