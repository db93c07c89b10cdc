"""Ask a teacher once for its probabilities of the words, or the labels, of all texts."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, IterableDataset, List, Value
from transformers import PreTrainedModel

from ...configuration.errors import listed, mismatch, shown
from ...modeling_bga.sequence_classifier import BgaMnerForSequenceClassification
from ..data_collator import DataCollatorForMner
from ..inference.evaluation_mode import evaluating
from ..inference.text_tagging import longest_input, window_inputs
from ..inference.text_windows import check_finite, cut_windows, make_batches
from ..processing_bga_mner import BgaMnerProcessor
from ..tags.label_alignment import UNKNOWN, read_word_labels
from ..tags.label_map import name_tags
from ..text.given_words import split_texts
from ..text.target_marking import mark_targets
from ..text.text_input import SplitText
from ..text.word_encoding import encode_words, special_tokens
from ..weight_digest import add_weights


TEXT, OFFSETS, PROBABILITIES, GOLD = "text", "word_offsets", "teacher_probabilities", "gold"
_NUMBERS = List(Value("int64"))
_OF_WORDS = Features({TEXT: Value("string"), OFFSETS: List(_NUMBERS), PROBABILITIES: List(List(Value("float32")))})
_OF_TEXTS = Features({TEXT: Value("string"), PROBABILITIES: List(Value("float32"))})


def add_teacher_probabilities(
    rows: Dataset | IterableDataset,
    teacher: PreTrainedModel,
    processor: BgaMnerProcessor,
    *,
    batch_size: int = 32,
    cache_dir: str | Path | None = None,
) -> Dataset | IterableDataset:
    """Let a teacher say how probable each tag of each word is, or each label of each text, without images.

    Probabilities of tags are the CRF's marginals. A text that is longer than the teacher reads is read in windows, and
    each word counts where it has the most context. The probabilities of a dataset are computed once: a second run finds
    them, as long as dataset and teacher are the same. Those of a stream are computed as it is read.

    Parameters
    ----------
    rows : datasets.Dataset or datasets.IterableDataset
        With a column `tokens` (lists of words) or `text`; `ner_tags` (or `label`, of a classifier) may say what is
        known, and `target` what a classifier is asked about, as for `BgaMnerProcessor.encode_examples`.
    teacher : BgaMnerForTokenClassification or BgaMnerForSequenceClassification
        The model to learn from. It runs in eval mode.
    processor : BgaMnerProcessor
        The teacher's processor.
    batch_size : int, default 32
        Windows at a time.
    cache_dir : str, Path or None
        Folder of the cache; by default where `datasets` keeps what is made of this dataset.

    Returns
    -------
    datasets.Dataset or datasets.IterableDataset
        The columns `text` (str, words joined by single spaces), `teacher_probabilities` (float32, (words, tags) or
        (labels,)) and `gold` (the known tag of each word or the label of the text, as its number; -100 where unknown).
        Of a tagger also `word_offsets`, (words, 2): where in `text` each word begins and ends.

    Raises
    ------
    ValueError
        If there are no texts, or the teacher isn't one of both classes, answers several labels or a number a text, or
        gives no finite probabilities.

    Examples
    --------
    >>> rows = add_teacher_probabilities(rows, teacher, processor)  # doctest: +SKIP
    """
    if rows.column_names is None:  # a stream that nobody has read yet
        rows = rows._resolve_features()
    columns = rows.column_names
    if not {"tokens", "text"} & set(columns):
        raise ValueError(f"Expected a column 'tokens' or 'text', got {shown(columns)}. Rename yours.")
    classifies = isinstance(teacher, BgaMnerForSequenceClassification)
    if classifies:
        _check_single_label(teacher)
    elif not hasattr(teacher, "crf"):
        raise ValueError(
            "Expected a BgaMnerForTokenClassification or BgaMnerForSequenceClassification as the teacher, got "
            f"{type(teacher).__name__}. Load it with its own class, and merge adapters first: merge_and_unload()."
        )
    ask = _ask_classifier if classifies else _ask_tagger

    def add(batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        with evaluating(teacher):
            return ask(batch, teacher, processor, batch_size)

    known = {GOLD: Value("int64") if classifies else _NUMBERS}
    features = Features((_OF_TEXTS if classifies else _OF_WORDS) | known)
    if isinstance(rows, IterableDataset):
        return rows.map(add, batched=True, batch_size=batch_size, remove_columns=columns, features=features)
    if "ner_tags" in columns:
        rows = name_tags(rows)  # ids of a data set aren't the teacher's
    key = _key(rows, teacher, processor)
    if cache_dir is not None:
        Path(cache_dir).mkdir(parents=True, exist_ok=True)
    return rows.with_format(None).map(
        add,
        batched=True,
        # many at a time, so that texts of like length find each other
        batch_size=batch_size * 32,
        remove_columns=columns,
        features=features,
        # of what the result depends on; datasets would hash the whole teacher, by pickling it
        new_fingerprint=key,
        cache_file_name=None if cache_dir is None else str(Path(cache_dir, f"teacher_probabilities-{key}.arrow")),
        desc="Asking the teacher",
    )


def _ask_tagger(
    batch: Mapping[str, Sequence[Any]], teacher: Any, processor: BgaMnerProcessor, batch_size: int
) -> dict[str, list[Any]]:
    given, are_words = _texts(batch)
    texts, _ = split_texts(given, are_words, processor.word_reader)
    tags = batch.get("ner_tags") or [None] * len(texts)
    return {
        TEXT: [text.content for text in texts],
        OFFSETS: [[list(ends) for ends in text.offsets] for text in texts],
        PROBABILITIES: _word_probabilities(texts, teacher, processor, batch_size),
        GOLD: gold_tags(texts, tags, given, teacher.config.label2id),
    }


def _word_probabilities(
    texts: Sequence[SplitText], teacher: Any, processor: BgaMnerProcessor, batch_size: int
) -> list[np.ndarray]:
    """Compute the probability of each tag of each word: for each text float32 (words, tags)."""
    tokenizer, text_config = processor.tokenizer, teacher.config.text_config
    found = [np.zeros((len(text.words), teacher.num_labels), np.float32) for text in texts]
    most = [np.full(len(text.words), -1.0) for text in texts]  # context of each word where it was read
    encoded = encode_words(tokenizer, [text.words for text in texts], processor.word_reader)
    windows = cut_windows(encoded, special_tokens(tokenizer), longest_input(tokenizer, text_config))
    for batch in make_batches(windows, batch_size, 0):
        inputs = window_inputs(batch, tokenizer, text_config.vocab_size)
        mask = inputs["attention_mask"].numpy().astype(bool)
        # (windows, length, tags), log marginals
        logits = teacher(**{name: it.to(teacher.device) for name, it in inputs.items()}).logits.float().cpu().numpy()
        check_finite(logits[mask])
        for window, scores, attended in zip(batch, logits, mask, strict=True):
            first_tokens = attended.argmax() + window.first_tokens
            words = range(window.start, window.end)
            context = np.array([window.context(word, word + 1) for word in words])
            better = context > most[window.text][window.start : window.end]
            found[window.text][window.start : window.end][better] = np.exp(scores[first_tokens[better]])
            most[window.text][window.start : window.end][better] = context[better]
    return found


def _ask_classifier(
    batch: Mapping[str, Sequence[Any]], teacher: Any, processor: BgaMnerProcessor, batch_size: int
) -> dict[str, list[Any]]:
    given, are_words = _texts(batch)
    if batch.get("target") is not None:
        given = mark_targets(given, batch["target"], None)
    texts = [" ".join(words) for words in given] if are_words else list(given)
    encoded = processor.encode_examples({"tokens" if are_words else TEXT: given})
    rows = [dict(zip(encoded, values, strict=True)) for values in zip(*encoded.values(), strict=True)]
    # a classifier reads no starts of words
    rows = [{name: value for name, value in row.items() if name != "word_start_mask"} for row in rows]
    collate = DataCollatorForMner(processor)
    probabilities: list[np.ndarray] = []
    for first in range(0, len(rows), batch_size):
        inputs = {name: it.to(teacher.device) for name, it in collate(rows[first : first + batch_size]).items()}
        logits = teacher(**inputs).logits.float().cpu()  # (batch, labels)
        check_finite(logits.numpy())
        probabilities += list(logits.softmax(dim=-1).numpy())
    labels = batch.get("label") or [None] * len(texts)
    gold = [_gold_label(label, teacher.config.label2id) for label in labels]
    return {TEXT: texts, PROBABILITIES: probabilities, GOLD: gold}


def _texts(batch: Mapping[str, Sequence[Any]]) -> tuple[list[Any], bool]:
    """Return the texts of a batch, and whether they are lists of words."""
    are_words = "tokens" in batch
    return list(batch["tokens" if are_words else TEXT]), are_words


def gold_tags(
    texts: Sequence[SplitText], tags: Sequence[Any], given: Sequence[Any], label2id: Mapping[str, int]
) -> list[list[int]]:
    """Bring the known tags of given words to numbers of the words that are read; -100 where unknown."""
    if all(row is None for row in tags):
        return [[UNKNOWN] * len(text.words) for text in texts]
    read = read_word_labels(tags, given, label2id)
    numbers = []
    for text, row in zip(texts, read, strict=True):
        first = range(len(row)) if text.groups is None else [group.start for group in text.groups]
        numbers.append([UNKNOWN if row[word] is None else label2id[str(row[word])] for word in first])
    return numbers


def _gold_label(label: str | int | None, label2id: Mapping[str, int]) -> int:
    """Return the number of a text's label, which may be given by name; -100 where unknown."""
    if label is None or label == UNKNOWN:
        return UNKNOWN
    number = label2id.get(label, UNKNOWN) if isinstance(label, str) else int(label)
    if number not in label2id.values():
        raise mismatch(f"one of the teacher's labels, {listed(label2id)}, or their numbers, or None", label)
    return number


def _check_single_label(teacher: Any) -> None:
    kind = teacher.config.problem_type
    if kind in ("regression", "multi_label_classification") or teacher.num_labels == 1:
        raise ValueError(
            f"Expected a classifier with one label a text, got problem_type={shown(kind)} and {teacher.num_labels} "
            "labels. Train the student on the teacher's answers as labels, with the stock Trainer."
        )


def _key(rows: Dataset, teacher: PreTrainedModel, processor: BgaMnerProcessor) -> str:
    """Return what tells cached probabilities apart: texts, teacher, tokenizer and how words are read."""
    key = hashlib.sha256(rows._fingerprint.encode())
    config = {name: value for name, value in teacher.config.to_dict().items() if name != "training_summary"}
    reader = processor.word_reader._asdict()
    key.update(json.dumps([type(teacher).__name__, config, reader], sort_keys=True, default=str).encode())
    key.update(processor.tokenizer.backend_tokenizer.to_str().encode())
    key.update(str(processor.tokenizer.model_max_length).encode())
    add_weights(key, teacher)
    return key.hexdigest()[:32]


__all__ = ["GOLD", "OFFSETS", "PROBABILITIES", "TEXT", "add_teacher_probabilities", "gold_tags"]
