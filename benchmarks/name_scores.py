"""Scores of names, each in several sentences: F1, type accuracy, and how many names are right, with intervals.

Intervals are over resampled seeds, and over the resampled names of each, with all sentences of a name: what a training
learned of a name is right or wrong in all of them alike, and trainings differ in what they learn. With one seed, they
say nothing about other trainings, and with three little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from datasets import Dataset
from rich.console import Console

from bga_mner import spans_from_tags
from bga_mner.examples.reporting import print_table


__all__ = ["MEASURES", "between", "count_names", "intervals", "measures", "print_differences"]

MEASURES = ("F1", "type accuracy", "names right")


def count_names(predicted: Sequence[Sequence[str]], test: Dataset) -> np.ndarray:
    """Count the spans of each name's sentences.

    Parameters
    ----------
    predicted : sequences of BIO tags
        One per sentence.
    test : Dataset
        Sentences, with columns tokens and ner_tags. Each has one entity, its name.

    Returns
    -------
    np.ndarray of int, shape (names, 4)
        Names that were found, those of them that have the right type, predicted spans, and sentences. Rows are in the
        order in which names occur first.
    """
    counts: dict[str, list[int]] = {}
    for ours, tokens, theirs in zip(predicted, test["tokens"], test["ner_tags"], strict=True):
        [(kind, *ends)] = spans_from_tags(theirs)
        spans = spans_from_tags(ours)
        found = [ours_kind for ours_kind, *ours_ends in spans if ours_ends == ends]
        of_name = counts.setdefault(" ".join(tokens[slice(*ends)]), [0] * 4)
        for column, number in enumerate((len(found), found.count(kind), len(spans), 1)):
            of_name[column] += number
    return np.array(list(counts.values()))


def _fractions(counts: np.ndarray) -> np.ndarray:
    """Write `MEASURES` as sums over names: (names, 4) -> (3, 2, names), measure by over and under.

    >>> _fractions(np.array([[3, 2, 4, 3]]))[..., 0].tolist()
    [[4.0, 7.0], [2.0, 3.0], [1.0, 1.0]]
    """
    found, right, predicted, sentences = counts.T.astype(float)
    most = 2 * right > sentences
    return np.array([[2 * right, predicted + sentences], [right, found], [most, np.ones_like(found)]])


def _ratios(sums: np.ndarray) -> np.ndarray:
    """Divide sums over names: (3, 2, ...) -> (3, ...)."""
    return sums[:, 0] / np.maximum(sums[:, 1], 1)


def measures(counts: np.ndarray) -> np.ndarray:
    """Compute `MEASURES` (3,) from `count_names` (names, 4): a name is right if most of its sentences are."""
    return _ratios(_fractions(counts).sum(axis=-1))


def intervals(
    counts: Sequence[np.ndarray], others: Sequence[np.ndarray] | None = None, samples: int = 10_000
) -> np.ndarray:
    """Return the 95 % bootstrap intervals of `measures`: (3, 2), measure by low and high.

    Seeds are sampled with replacement, and of each sampled seed as many of its names.

    Parameters
    ----------
    counts : sequence of np.ndarray of shape (names, 4)
        `count_names` of each seed.
    others : the same, optional
        Of another model, for the same seeds and names: intervals are of what is gained on it.
    samples : int
        Number of bootstrap samples.
    """
    rng = np.random.default_rng(0)
    times_of = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=samples)  # (samples, seeds)
    models = [counts] if others is None else [counts, others]
    sums = np.zeros((len(models), 3, 2, samples))
    for seed, times in enumerate(times_of.T):
        names = len(counts[seed])
        weights = rng.multinomial(times * names, np.full(names, 1 / names))  # (samples, names)
        for model, of_seeds in enumerate(models):
            sums[model] += _fractions(of_seeds[seed]) @ weights.T
    found = _ratios(sums[0]) - (0 if others is None else _ratios(sums[1]))  # (3, samples)
    return np.percentile(found, [2.5, 97.5], axis=-1).T


def between(ends: np.ndarray) -> str:
    """Show an interval."""
    return f"{ends[0]:.3f} to {ends[1]:.3f}"


def print_differences(counts: Mapping[str, Sequence[np.ndarray]], console: Console) -> None:
    """Print what each variant gains on the first, on the same names; nothing if there is one variant.

    Of each variant, there are the `count_names` of each seed.
    """
    first, *others = counts
    totals = {name: measures(np.concatenate(of_seeds)) for name, of_seeds in counts.items()}
    rows = []
    for name in others:
        gains = totals[name] - totals[first]
        ends = map(between, intervals(counts[name], counts[first]))
        rows.append((name, *(cell for gain, its in zip(gains, ends, strict=True) for cell in (f"{gain:+.3f}", its))))
    if rows:
        columns = ("variant", *(column for measure in MEASURES for column in (measure, "95 %")))
        print_table(f"Difference to {first}, on the same names", columns, rows, console)
