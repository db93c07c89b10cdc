"""Fuzzing target: any text, labels and options for the processor, and for the splitting of words."""

from __future__ import annotations

import random
from typing import Any

from byte_reader import PIECES, ByteReader, refusals
from small_parts import LABELS, LENGTH, processor

from bga_mner import mark_target, split_words


def one_input(data: bytes) -> None:
    """Encode texts; words, tokens and labels have to fit together, and a batch has to be what its texts are alone."""
    reader = ByteReader(data)
    encode = processor(reader.pick(("wordpiece", "byte-level")))
    texts = [reader.text() for _ in range(reader.integer(1, 3))]
    splits = [split_words(text) for text in texts]
    for text, words in zip(texts, splits, strict=True):
        _check_words(text, words)
    options: dict[str, Any] = {"on_long_text": reader.pick(("truncate", "truncate", "raise"))}
    options["max_length"] = reader.pick((None, LENGTH, 3, 7, 200, 2, 0, -1))
    options["padding"] = reader.pick((None, True, False, "max_length", "longest", "no"))
    options["pad_to_multiple_of"] = reader.pick((None, None, 8))
    options["truncation"] = reader.pick((True, True, False))
    options["return_tensors"] = reader.pick((None, "pt", "np", "jax"))
    if reader.chance() and reader.chance():
        with refusals():
            encode(reader.pick((reader.value(), [reader.value()], [[reader.value()]])), **options)
        return
    sentences = [[word for word, _, _ in words] for words in splits] if reader.chance() else None
    if sentences and reader.chance():
        sentences[0] = [*sentences[0], reader.text(2)]  # words that nobody has split
    labels = _labels(reader, sentences) if sentences and reader.chance() else None
    with refusals():
        marks = {"return_word_ids": True, "return_word_start_mask": True}
        batch = encode(sentences or texts, word_labels=labels, **marks, **options)
        words_read = sentences or [[word for word, _, _ in words] for words in splits]
        _check_batch(batch, words_read, labels, options, encode.word_reader, given=bool(sentences))
        if options["return_tensors"] is None and options["padding"] in (None, False):
            for row, text in enumerate(sentences or texts):
                alone = encode([text], word_labels=None if labels is None else [labels[row]], **marks, **options)
                assert all(values[0] == batch[name][row] for name, values in alone.items())
    with refusals():
        start = reader.integer(-2, 30)
        marked = mark_target(texts[0], start, start + reader.integer(-1, 30))
        assert marked.count("{") == marked.count("}") == 1


def seeds() -> list[bytes]:
    """Return inputs to begin with."""
    rng = random.Random(0)
    return [b"", *(rng.randbytes(size) for size in (20, 60, 120, 240))]


def _labels(reader: ByteReader, sentences: list[list[str]]) -> list[Any]:
    choices = (*LABELS, *LABELS, None, -100, 0, 4, 5, "B-X", "S-PER", 1.5, -1, [], "")
    short = reader.integer(0, 20) == 0
    return [
        None if reader.integer(0, 9) == 0 else [reader.pick(choices) for _ in words[int(short) :]]
        for words in sentences
    ]


def _check_words(text: str, words: list[tuple[str, int, int]]) -> None:
    end = 0
    for word, start, behind in words:
        assert end <= start < behind
        assert text[start:behind] == word
        assert not text[end:start].replace("\u200b", " ").strip()  # white space for Khmer and Thai
        assert not word.isspace()
        end = behind
    assert not text[end:].replace("\u200b", " ").strip()


def _check_batch(
    batch: Any, sentences: list[list[str]], labels: Any, options: dict[str, Any], reader: Any, given: bool
) -> None:
    names = ["input_ids", "attention_mask", "word_start_mask", *(["labels"] if labels is not None else [])]
    for row, words in enumerate(sentences):
        columns = {name: batch[name][row] for name in names}
        columns = {name: values if isinstance(values, list) else values.tolist() for name, values in columns.items()}
        owners = batch["word_ids"][row]
        assert {len(values) for values in columns.values()} == {len(owners)}
        kept = [owner for owner in owners if owner is not None]
        assert kept == sorted(kept)
        found = sorted(set(kept))
        # labels may part further what is read as one
        begun = [unit.start for unit in reader.group_words(words)] if given else list(range(len(words)))
        assert labels is not None or found == begun[: len(found)]
        if not options["truncation"]:
            assert set(begun) <= set(found)
        assert sum(map(bool, columns["word_start_mask"])) == len(found)
        for token, owner in enumerate(owners):
            is_padding = not columns["attention_mask"][token]
            assert not (is_padding and owner is not None)
            if labels is not None:
                assert columns["labels"][token] in range(-is_padding, len(LABELS)) or columns["labels"][token] == -100
                assert not is_padding or columns["labels"][token] == -100


assert len(PIECES) < 256
