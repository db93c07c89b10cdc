"""Train variants of a model, seed by seed, and keep what each gave: scores, what names have, and a report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from rich.console import Console

from bga_mner.benchmarks.kept_results import KeptResults
from bga_mner.examples.synthetic.experiment import Variant


__all__ = ["Measured", "VariantExperiment", "collect", "measure_variants"]

# by variant: a value per seed of each score; `count_names` of each seed; and, of those that have a report, a value per
# seed of each of its figures
_Values = dict[str, dict[str, list[float]]]
Measured = tuple[_Values, dict[str, list[np.ndarray]], _Values]


class VariantExperiment(Protocol):
    """One seed: what its trainings share."""

    def fit(self, variant: Variant) -> tuple[Any, dict[str, float] | None]:
        """Train a variant; return the model, and what it reports of itself, or None."""

    def measure(self, model: Any, variant: Variant) -> tuple[dict[str, float], np.ndarray]:
        """Score a trained model: scores, and `count_names` of the names that were never labelled."""


def measure_variants(
    missing: Mapping[int, Sequence[str]],
    variants: Mapping[str, Variant],
    experiment_of: Callable[[int], VariantExperiment],
    results: KeptResults,
    console: Console,
) -> None:
    """Train and measure the variants that are missing of each seed, and add what they gave to the results."""
    for seed, names in missing.items():
        begin = time.perf_counter()
        experiment = experiment_of(seed)
        # variants that only differ at test share a training
        trained_alike: dict[str, list[str]] = {}
        for name in names:
            trained_alike.setdefault(json.dumps([variants[name].options, variants[name].images]), []).append(name)
        for alike in trained_alike.values():
            model, report = experiment.fit(variants[alike[0]])
            for name in alike:
                scores, counts = experiment.measure(model, variants[name])
                results.add(seed, name, {"scores": scores, "counts": counts.tolist(), "report": report})
                shown = ", ".join(f"{key} {value:.3f}" for key, value in (scores | (report or {})).items())
                console.print(f"Seed {seed}, {name}: {shown}")
        console.print(f"Seed {seed}: {time.perf_counter() - begin:.0f} s")


def _by_key(of_seeds: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Turn one mapping per seed into one list per key."""
    return {key: [of_seed[key] for of_seed in of_seeds] for key in of_seeds[0]}


def collect(results: KeptResults, seeds: Sequence[int], names: Sequence[str]) -> Measured:
    """Gather what the variants gave, over seeds."""
    scores, counts, reports = {}, {}, {}
    for name in names:
        of_seeds = [results[seed, name] for seed in seeds]
        scores[name] = _by_key([of_seed["scores"] for of_seed in of_seeds])
        counts[name] = [np.array(of_seed["counts"]) for of_seed in of_seeds]
        if results.options["report"] and of_seeds[0]["report"]:
            reports[name] = _by_key([of_seed["report"] for of_seed in of_seeds])
    return scores, counts, reports
