"""How sure an F1 is, and a difference of two: intervals and p-values, from resampled sentences.

Sentences are drawn with replacement, as many as there are, and F1 is computed anew: strict, by entity, as `score_tags`
does. How F1 varies over such draws stands for how it would vary over test sets (Efron and Tibshirani, 1993). It says
nothing about other seeds of a training.
"""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..configuration.messages import brief
from .tag_lists import as_tag_lists, check_tags, refuse_iob1
from .tag_scheme import spans_from_tags


__all__ = ["bootstrap_interval", "count_entities", "pair_sentences", "paired_bootstrap"]


def pair_sentences(
    predictions: Iterable[Sequence[str]], references: Iterable[Sequence[str | None]], strict: bool = True
) -> list[tuple[list[str | None], list[str | None]]]:
    """Put the tags that are predicted for each sentence beside those that are expected, and check that they fit.

    Parameters
    ----------
    predictions, references : iterables of sequences of str
        As for `count_entities`.
    strict : bool, default True
        Whether only entities that begin with "B-" will count. Then a warning says how many won't, although they are
        expected, or that nothing of what is predicted will.

    Returns
    -------
    list of tuple of (list of (str or None), list of (str or None))
        Predicted and expected tags, one pair a sentence. Of a sentence without references, no tag is known.

    Raises
    ------
    ValueError
        If lengths differ, a tag is not in the BIO scheme, or a tag is not predicted where one is expected; and if the
        references are in IOB1 and `strict` is set.

    Examples
    --------
    >>> pair_sentences([["B-PER", "O"]], [["B-PER", None]])
    [(['B-PER', 'O'], ['B-PER', None])]
    """
    predicted, expected = check_tags(predictions, "predictions"), check_tags(references, "references")
    if len(predicted) != len(expected):
        raise ValueError(
            f"Expected as many predictions as references, got {len(predicted)} and {len(expected)} sentences. "
            "Give both for the same sentences, in the same order."
        )
    pairs = []
    for index, (ours, theirs) in enumerate(zip(predicted, expected, strict=True)):
        if ours is None:
            raise ValueError(f"Expected predicted tags for sentence {index}, got None. Predict 'O' for its words.")
        theirs = [None] * len(ours) if theirs is None else theirs
        if len(ours) != len(theirs):
            raise ValueError(
                f"Expected one predicted tag a word, got {len(ours)} for {len(theirs)} words in sentence {index}. "
                "Tags of tokens must be reduced to tags of words first."
            )
        if any(our is None and their is not None for our, their in zip(ours, theirs, strict=True)):
            raise ValueError(
                f"Expected a predicted tag for each word whose tag is known, got None in sentence {index}. Predict 'O'."
            )
        pairs.append((ours, theirs))
    if strict:
        _warn_of_starts([ours for ours, _ in pairs], [theirs for _, theirs in pairs])
    return pairs


def _warn_of_starts(predicted: list[list[str | None]], expected: list[list[str | None]]) -> None:
    uncounted = refuse_iob1(expected, "references")
    if uncounted:
        warnings.warn(
            f"{uncounted} entities of the references begin with 'I-', so that strict scores leave them out. Mend them "
            "first: references = bga_mner.to_bio(references).",
            stacklevel=4,
        )
    try:
        refuse_iob1(predicted, "predictions")
    except ValueError as error:
        warnings.warn(f"Strict scores count nothing of what is predicted. {brief(error)}.", stacklevel=4)


def count_entities(
    predictions: Iterable[Sequence[str]], references: Iterable[Sequence[str | None]]
) -> tuple[list[str], np.ndarray]:
    """Count the entities of each type in each sentence.

    Parameters
    ----------
    predictions : iterable of sequences of str
        One BIO tag a word.
    references : iterable of sequences of (str or None)
        The same; words whose tag is None (unknown) are left out of both.

    Returns
    -------
    tuple of (list of str, numpy.ndarray of int, shape (sentences, types, 3))
        Types that are predicted or expected, sorted, and how many entities are right, predicted and expected. Only
        entities that begin with "B-" count, as strict seqeval has it.

    Raises
    ------
    ValueError
        If lengths differ, or a tag is not in the BIO scheme.

    Examples
    --------
    >>> types, counts = count_entities([["B-PER", "B-LOC"]], [["B-PER", "O"]])
    >>> types, counts.tolist()
    (['LOC', 'PER'], [[[0, 1, 0], [1, 1, 1]]])
    """
    sentences = []
    for ours, theirs in pair_sentences(predictions, references):
        known = [place for place, tag in enumerate(theirs) if tag is not None]
        predicted, expected = (_strict_spans([tags[place] for place in known]) for tags in (ours, theirs))
        sentences.append((predicted & expected, predicted, expected))
    types = sorted({kind for spans in sentences for part in spans for kind, _, _ in part})
    columns = {kind: column for column, kind in enumerate(types)}
    counts = np.zeros((len(sentences), len(types), 3), dtype=np.int64)
    for row, spans in enumerate(sentences):
        for number, part in enumerate(spans):
            for kind, _, _ in part:
                counts[row, columns[kind], number] += 1
    return types, counts


def bootstrap_interval(
    predictions: Iterable[Sequence[str]],
    references: Iterable[Sequence[str | None]],
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute F1 and its percentile interval, over all entities and by type.

    Parameters
    ----------
    predictions, references : iterables of sequences of str
        As for `count_entities`.
    samples : int, default 1000
        Number of draws.
    confidence : float, default 0.95
        Share of the draws whose F1 lies inside the interval.
    seed : int, default 0
        Of the draws.

    Returns
    -------
    dict of str to (float or dict)
        ``f1`` (that of `score_tags`), ``low`` and ``high``; ``types`` holds for each type the same, and ``number`` (of
        entities in the references). A draw without any entity of a type has an F1 of 0.

    Raises
    ------
    ValueError
        If there are no sentences, `samples` or `confidence` is out of range, or as for `count_entities`.

    Examples
    --------
    >>> found = bootstrap_interval([["B-PER"], ["B-PER"]], [["B-PER"], ["B-PER"]])
    >>> found["f1"], found["low"], found["high"], found["types"]["PER"]["number"]
    (1.0, 1.0, 1.0, 2)
    """
    types, counts = count_entities(predictions, references)
    # (S, T, 3) -> (S, 1 + T, 3): all entities first
    counts = np.concatenate([counts.sum(axis=1, keepdims=True), counts], axis=1)
    lows, highs = _interval(_f1(_resample(counts, samples, seed)), confidence)
    total = counts.sum(axis=0)
    rows: list[dict[str, Any]] = [
        {"f1": float(f1), "low": float(low), "high": float(high)}
        for f1, low, high in zip(_f1(total), lows, highs, strict=True)
    ]
    by_type = {kind: rows[1 + i] | {"number": int(total[1 + i, 2])} for i, kind in enumerate(types)}
    return rows[0] | {"types": by_type}


def paired_bootstrap(
    predictions_a: Iterable[Sequence[str]],
    predictions_b: Iterable[Sequence[str]],
    references: Iterable[Sequence[str | None]],
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, float]:
    """Compare two sets of predictions for the same sentences.

    The p-value follows Koehn (2004, "Statistical Significance Tests for Machine Translation Evaluation"): one-sided,
    the share of the draws in which the winner doesn't win. One is added to both numbers of that share, so that p is
    never 0 (Davison and Hinkley, 1997). Berg-Kirkpatrick et al. (2012, "An Empirical Investigation of Statistical
    Significance in NLP") count draws beyond twice the observed difference instead, which is the same where draws are
    symmetric.

    Parameters
    ----------
    predictions_a, predictions_b, references : iterables of sequences of str
        As for `count_entities`.
    samples : int, default 1000
        Number of draws; the same sentences are drawn for both.
    confidence : float, default 0.95
        Share of the draws whose difference lies inside the interval.
    seed : int, default 0
        Of the draws.

    Returns
    -------
    dict of str to float
        ``difference``, F1 of A minus F1 of B; ``low`` and ``high``, its percentile interval; and ``p``.

    Raises
    ------
    ValueError
        As for `bootstrap_interval`.

    Examples
    --------
    >>> paired_bootstrap([["B-PER"]] * 9, [["O"]] * 9, [["B-PER"]] * 9, samples=99)
    {'difference': 1.0, 'low': 1.0, 'high': 1.0, 'p': 0.01}
    """
    expected = as_tag_lists(references, "references")
    both = [
        count_entities(predictions, expected)[1].sum(axis=1)  # type: ignore[arg-type]
        for predictions in (predictions_a, predictions_b)
    ]
    counts = np.stack(both, axis=1)  # (S, 2, 3)
    f1_a, f1_b = _f1(counts.sum(axis=0)).tolist()
    drawn = _f1(_resample(counts, samples, seed))  # (samples, 2)
    differences = drawn[:, 0] - drawn[:, 1]
    low, high = _interval(differences, confidence).tolist()
    flipped = int((differences * np.sign(f1_a - f1_b) <= 0).sum())
    return {"difference": f1_a - f1_b, "low": low, "high": high, "p": (flipped + 1) / (samples + 1)}


def _strict_spans(tags: Sequence[Any]) -> set[tuple[str, int, int]]:
    return {span for span in spans_from_tags(tags) if tags[span[1]].startswith("B-")}


def _f1(counts: np.ndarray) -> np.ndarray:
    """Compute F1 (...,) from numbers of right, predicted and expected entities (..., 3), step by step as seqeval."""
    right, predicted, expected = np.moveaxis(counts, -1, 0)
    precision, recall = right / np.maximum(predicted, 1), right / np.maximum(expected, 1)
    return 2 * precision * recall / np.where(right > 0, precision + recall, 1)


def _resample(counts: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Sum the counts (S, ...) of S sentences drawn with replacement: (samples, ...)."""
    if not len(counts):
        raise ValueError("Expected at least one sentence to resample, got none. Check that the dataset is not empty.")
    if samples < 1:
        raise ValueError(f"Expected at least one sample, got {samples}. Papers use 1000 or more.")
    generator = np.random.default_rng(seed)
    size = len(counts)
    flat = counts.reshape(size, -1)
    # one draw after the other: all at once would fill the memory where there are many sentences
    times = (np.bincount(generator.integers(size, size=size), minlength=size) for _ in range(samples))
    return np.stack([drawn @ flat for drawn in times]).reshape(samples, *counts.shape[1:])


def _interval(values: np.ndarray, confidence: float) -> np.ndarray:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"Expected a confidence between 0 and 1, got {confidence}. For 95 %, pass 0.95.")
    tail = (1 - confidence) / 2
    return np.quantile(values, [tail, 1 - tail], axis=0)
