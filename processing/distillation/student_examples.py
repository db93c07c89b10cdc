"""What a student reads, and what it is to answer: tokens of its own tokenizer, beside its teacher's probabilities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ...configuration.errors import mismatch, shown
from ..tags.label_alignment import UNKNOWN
from ..text.word_encoding import default_max_length
from .teacher_probabilities import GOLD, OFFSETS, PROBABILITIES, TEXT


def encode_for_student(
    batch: Mapping[str, Sequence[Any]],
    tokenizer: PreTrainedTokenizerBase,
    id2label: Mapping[int, str],
    *,
    max_length: int | None = None,
    gold_weight: float = 0.0,
) -> dict[str, list[Any]]:
    """Encode texts with a student's tokenizer, and bring the teacher's probabilities onto its tokens.

    The student reads running text, as the stock pipeline does. A token is to answer what the teacher says of the word
    in which it begins, so both may have different tokenizers. The first token of a word gets the word's probabilities.
    In the others, those of "B-" tags go to the "I-" tags of the same types, so that tokens of a word make one entity.
    Special tokens have no target.

    Parameters
    ----------
    batch : mapping of str to sequence
        Columns of [`add_teacher_probabilities`].
    tokenizer : transformers.PreTrainedTokenizerBase
        The student's, a fast one.
    id2label : mapping of int to str
        The teacher's labels.
    max_length : int or None
        Most tokens of a text; by default what the tokenizer takes. A longer text is cut into several rows, and of a
        classifier's text the beginning is kept.
    gold_weight : float, default 0.0
        Where the label is known, the target is (1 - gold_weight) * teacher + gold_weight * label.

    Returns
    -------
    dict of str to list
        `input_ids`, `attention_mask`, `token_type_ids` where the tokenizer makes them, and `labels`, float32 (length,
        tags) with -100 at tokens without a target, or (labels,).

    Raises
    ------
    ValueError
        If columns are missing, the tokenizer is slow, or `gold_weight` is no share.

    Examples
    --------
    >>> rows.map(encode_for_student, batched=True, remove_columns=rows.column_names,
    ...          fn_kwargs={"tokenizer": tokenizer, "id2label": teacher.config.id2label})  # doctest: +SKIP
    """
    if missing := {TEXT, PROBABILITIES, GOLD} - batch.keys():
        raise ValueError(
            f"Expected the columns that add_teacher_probabilities makes, but {shown(sorted(missing))} are missing. "
            "Call it first."
        )
    if not tokenizer.is_fast:
        raise mismatch("a fast tokenizer, which knows where its tokens stand", type(tokenizer).__name__, "Load one.")
    if not 0 <= gold_weight <= 1:
        raise mismatch("gold_weight between 0 and 1", gold_weight)
    longest = longest_row(tokenizer, max_length)
    of_words = OFFSETS in batch
    encoding = tokenizer(
        list(batch[TEXT]),
        truncation=True,
        max_length=longest,
        return_overflowing_tokens=of_words,
        return_offsets_mapping=of_words,
    )
    targets = [
        _mixed(np.asarray(teacher, np.float32).reshape(-1, len(id2label)), np.atleast_1d(np.asarray(gold)), gold_weight)
        for teacher, gold in zip(batch[PROBABILITIES], batch[GOLD], strict=True)
    ]
    if not of_words:
        return dict(encoding) | {"labels": [target[0] for target in targets]}
    inner = _inner_tags(id2label)
    labels: list[np.ndarray] = []
    rows = zip(encoding.pop("overflow_to_sample_mapping"), encoding.pop("offset_mapping"), strict=True)
    for number, pieces in groupby(rows, key=itemgetter(0)):
        offsets = [piece for _, piece in pieces]
        words, starts = _words_of_tokens(batch[TEXT][number], list(chain(*offsets)), batch[OFFSETS][number])
        of_tokens = np.full((len(words), len(id2label)), UNKNOWN, np.float32)
        known = words >= 0
        of_tokens[known] = targets[number][words[known]]
        of_tokens[known & ~starts] = of_tokens[known & ~starts] @ inner
        labels += np.split(of_tokens, np.cumsum([len(piece) for piece in offsets])[:-1])
    return dict(encoding) | {"labels": labels}


def longest_row(tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> int:
    """Return the most tokens of a row; a ValueError says if `max_length` is more or less than a student reads."""
    longest = tokenizer.model_max_length if max_length is None else max_length
    if not tokenizer.num_special_tokens_to_add() < longest <= tokenizer.model_max_length:
        raise mismatch(f"max_length of at most {tokenizer.model_max_length}, and more than special tokens", max_length)
    return min(longest, default_max_length(tokenizer))


def _mixed(teacher: np.ndarray, gold: np.ndarray, weight: float) -> np.ndarray:
    """Mix known labels (words,) into the teacher's probabilities (words, tags)."""
    known = gold != UNKNOWN
    if not weight or not known.any():
        return teacher
    mixed = teacher.copy()
    mixed[known] *= 1 - weight
    mixed[known, gold[known]] += weight
    return mixed


def _inner_tags(id2label: Mapping[int, str]) -> np.ndarray:
    """Return the matrix (tags, tags) that brings probabilities of a word's tags to those inside the word."""
    names = {str(label): int(number) for number, label in id2label.items()}
    inner = np.eye(len(names), dtype=np.float32)
    for label, number in names.items():
        if label.startswith("B-"):
            inner[number, number] = 0
            inner[number, names[f"I-{label[2:]}"]] = 1
    return inner


def _words_of_tokens(
    text: str, offsets: Sequence[Sequence[int]], words: Sequence[Sequence[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Say which word each token begins in, -1 where in none, and whether it is the first there: (tokens,) each.

    A space that is a token is of the word that follows, so that no entity is parted there. `offsets` are those of the
    tokens in the text, `words` those of the words.
    """
    found, is_first = np.full(len(offsets), -1), np.zeros(len(offsets), bool)
    begins = np.array([start for start, _ in words], int)
    last = -1
    for token, (start, end) in enumerate(offsets):
        space = text[start:end]
        # some tokenizers count the space before a word as part of it, or make a token of it alone
        start += len(space) - len(space.lstrip())
        word = int(begins.searchsorted(start, side="right")) - 1
        if start == end and space:
            word = int(begins.searchsorted(start))
        if not space or not 0 <= word < len(words) or start >= words[word][1]:
            continue
        found[token], is_first[token] = word, word != last
        last = word
    return found, is_first


@dataclass
class DataCollatorForStudent:
    """Pad rows of [`encode_for_student`]: int64 (B, L) columns, and `labels` float32 (B, L, tags) or (B, labels).

    `tokenizer` is the student's, which says how to pad; `pad_to_multiple_of` rounds the length up.
    """

    tokenizer: PreTrainedTokenizerBase
    pad_to_multiple_of: int | None = None

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Make a batch; padding has the labels -100."""
        names = [name for name in self.tokenizer.model_input_names if name in features[0]]
        rows = [{name: feature[name] for name in names} for feature in features]
        batch = dict(
            self.tokenizer.pad(rows, pad_to_multiple_of=self.pad_to_multiple_of, return_tensors="pt", verbose=False)
        )
        labels = [torch.as_tensor(np.asarray(feature["labels"], np.float32)) for feature in features]
        if labels[0].ndim == 1:
            return batch | {"labels": torch.stack(labels)}
        # rows of different lengths -> (B, L, tags)
        padded = torch.full((*batch["input_ids"].shape, labels[0].shape[-1]), float(UNKNOWN))
        for row, of_tokens in enumerate(labels):
            places = slice(-len(of_tokens), None) if self.tokenizer.padding_side == "left" else slice(len(of_tokens))
            padded[row, places] = of_tokens
        return batch | {"labels": padded}


__all__ = ["DataCollatorForStudent", "encode_for_student", "longest_row"]
