"""How sure an F1 is, and a difference of two: intervals and p-values, from resampled sentences.

Sentences are sampled with replacement, as many as there are, and F1 is computed anew: strict, by entity, as
`score_tags` does. How F1 varies over such samples stands for how it would vary over test sets (Efron and Tibshirani,
1993). It says nothing about other seeds of a training.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from ..tags.tag_lists import as_tag_lists
from ..tags.tag_scheme import spans_from_tags
from .mner_metric import pair_sentences, score_tags


__all__ = ["bootstrap_interval", "count_entities", "paired_bootstrap", "score_with_interval"]


def count_entities(
    predictions: Iterable[Sequence[str]], references: Iterable[Sequence[str | None]]
) -> tuple[list[str], np.ndarray]:
    """Count right, predicted and expected entities (strict seqeval): types, and counts (sentences, types, 3)."""
    sentences = []
    for tags in pair_sentences(predictions, references):
        predicted, expected = map(_strict_spans, tags)
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
        As for `score_tags`.
    samples : int, default 1000
        Number of bootstrap samples.
    confidence : float, default 0.95
        Share of the samples whose F1 lies inside the interval.
    seed : int, default 0
        Of the sampling.

    Returns
    -------
    dict of str to (float or dict)
        `f1` (that of `score_tags`), `low` and `high`; `types` holds for each type the same, and `number` (of
        entities in the references). A sample without any entity of a type has an F1 of 0.

    Raises
    ------
    ValueError
        If there are no sentences, `samples` or `confidence` is out of range, or as for `score_tags`.

    Examples
    --------
    >>> found = bootstrap_interval([["B-PER"], ["B-PER"]], [["B-PER"], ["B-PER"]])
    >>> found["f1"], found["low"], found["high"], found["types"]["PER"]["number"]
    (1.0, 1.0, 1.0, 2)
    """
    types, counts = count_entities(predictions, references)
    # (sentences, types, 3) -> (sentences, 1 + types, 3): all entities first
    counts = np.concatenate([counts.sum(axis=1, keepdims=True), counts], axis=1)
    interval = _resample([counts], _f1, samples, confidence, seed).confidence_interval
    total = counts.sum(axis=0)
    rows: list[dict[str, Any]] = [
        {"f1": float(f1), "low": float(low), "high": float(high)}
        for f1, low, high in zip(_f1(total), interval.low, interval.high, strict=True)
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
    the share of the samples in which the winner doesn't win. One is added to both numbers of that share, so that p is
    never 0 (Davison and Hinkley, 1997). Berg-Kirkpatrick et al. (2012, "An Empirical Investigation of Statistical
    Significance in NLP") count samples beyond twice the observed difference instead, which is the same where their
    distribution is symmetric.

    Parameters
    ----------
    predictions_a, predictions_b, references : iterables of sequences of str
        As for `score_tags`.
    samples : int, default 1000
        Number of bootstrap samples; the same sentences are sampled for both.
    confidence : float, default 0.95
        Share of the samples whose difference lies inside the interval.
    seed : int, default 0
        Of the sampling.

    Returns
    -------
    dict of str to float
        `difference`, F1 of A minus F1 of B; `low` and `high`, its percentile interval; and `p`.

    Raises
    ------
    ValueError
        As for `bootstrap_interval`.

    Examples
    --------
    >>> paired_bootstrap([["B-PER"]] * 9, [["O"]] * 9, [["B-PER"]] * 9, samples=99)
    {'difference': 1.0, 'low': 1.0, 'high': 1.0, 'p': 0.01}
    """

    def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return _f1(a) - _f1(b)

    expected = as_tag_lists(references, "references")
    counts = [
        count_entities(predictions, expected)[1].sum(axis=1)  # type: ignore[arg-type]  # (sentences, 3)
        for predictions in (predictions_a, predictions_b)
    ]
    sampled = _resample(counts, difference, samples, confidence, seed)
    observed = float(difference(*(part.sum(axis=0) for part in counts)))
    low, high = map(float, sampled.confidence_interval)
    flipped = int((sampled.bootstrap_distribution * np.sign(observed) <= 0).sum())
    return {"difference": observed, "low": low, "high": high, "p": (flipped + 1) / (samples + 1)}


def score_with_interval(
    predictions: Iterable[Sequence[str]],
    references: Iterable[Sequence[str | None]],
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Score tags as `score_tags` does (strict), with bootstrap intervals of F1.

    Parameters
    ----------
    predictions, references : iterables of sequences of str
        As for `score_tags`.
    samples, confidence, seed
        As for `bootstrap_interval`.

    Returns
    -------
    dict of str to (float, int or dict)
        `precision`, `recall`, `f1`, `f1_low`, `f1_high` and `accuracy`; `types` holds for each type the
        same without accuracy, and `number` (of entities in the references); and `samples` and `confidence`.

    Raises
    ------
    ValueError
        As for `score_tags` and `bootstrap_interval`.

    Examples
    --------
    >>> score_with_interval([["B-PER"], ["O"]], [["B-PER"], ["O"]], samples=20)["types"]["PER"]["f1"]
    1.0
    """

    def ends(values: dict[str, Any]) -> dict[str, float]:
        return {"f1_low": values["low"], "f1_high": values["high"]}

    ours, theirs = as_tag_lists(predictions, "predictions"), as_tag_lists(references, "references")
    scores = score_tags(ours, theirs)  # type: ignore[arg-type]  # None is refused there
    intervals = bootstrap_interval(ours, theirs, samples, confidence, seed)  # type: ignore[arg-type]
    overall = {name: scores.pop(f"overall_{name}") for name in ("precision", "recall", "f1", "accuracy")}
    types = {kind: values | ends(intervals["types"][kind]) for kind, values in scores.items()}
    return overall | ends(intervals) | {"types": types, "samples": samples, "confidence": confidence}


def _strict_spans(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    return {span for span in spans_from_tags(tags) if tags[span[1]].startswith("B-")}


def _f1(counts: np.ndarray) -> np.ndarray:
    """Compute F1 (...,) from numbers of right, predicted and expected entities (..., 3), step by step as seqeval."""
    right, predicted, expected = np.moveaxis(counts, -1, 0)
    precision, recall = right / np.maximum(predicted, 1), right / np.maximum(expected, 1)
    return 2 * precision * recall / np.where(right > 0, precision + recall, 1)


def _resample(
    counts: Sequence[np.ndarray], statistic: Callable[..., np.ndarray], samples: int, confidence: float, seed: int
) -> Any:
    """Bootstrap a statistic of summed counts (..., 3), given counts (sentences, ..., 3) for each set of predictions."""
    if not len(counts[0]):
        raise ValueError("Expected at least one sentence to resample, got none. Check that the dataset is not empty.")
    if samples < 1:
        raise ValueError(f"Expected at least one sample, got {samples}. Pass 1000 or more, as papers do.")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"Expected a confidence between 0 and 1, got {confidence}. For 95 %, pass 0.95.")
    if len(counts[0]) == 1:  # SciPy takes two or more; F1 is the same of a sentence that is there twice
        counts = [part.repeat(2, axis=0) for part in counts]

    def of_sentences(*sampled: np.ndarray, axis: int) -> np.ndarray:
        # (..., 3, samples, sentences) -> (..., 3, samples) -> (..., samples, 3), whose statistic is (..., samples)
        return statistic(*(np.moveaxis(part.sum(axis=axis), -2, -1) for part in sampled))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a single sample has no standard error
        return stats.bootstrap(
            [np.moveaxis(part, 0, -1) for part in counts],
            of_sentences,
            n_resamples=samples,
            batch=8,  # all at once would fill the memory where there are many sentences
            axis=-1,
            paired=len(counts) > 1,
            vectorized=True,
            confidence_level=confidence,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
