"""Scores of names, against seqeval's and slow loops."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset
from rich.console import Console

from bga_mner import score_tags
from bga_mner.examples.synthetic.experiment import score


EXPECTED = [["B-person", "I-person", "O"], ["B-person", "I-person", "O"], ["B-animal", "O"]]
TEST = Dataset.from_dict(
    {"tokens": [["Zva", "Gim", "runs"], ["Zva", "Gim", "sits"], ["Dvai", "barks"]], "ner_tags": EXPECTED}
)


def test_counts_are_of_exact_spans(benchmark):
    predicted = [["B-person", "I-person", "O"], ["B-person", "O", "O"], ["B-person", "B-animal"]]
    counts = benchmark.count_names(predicted, TEST)
    assert counts.tolist() == [[1, 1, 2, 2], [1, 0, 2, 1]]
    f1, accuracy, right = benchmark.measures(counts)
    assert f1 == pytest.approx(score_tags(predicted, EXPECTED)["overall_f1"])
    assert accuracy == score(predicted, EXPECTED)["type_accuracy"]
    # one right of two isn't most
    assert right == 0
    assert benchmark.measures(benchmark.count_names(EXPECTED, TEST)).tolist() == [1, 1, 1]
    assert benchmark.measures(benchmark.count_names([["O"] * 3, ["O"] * 3, ["O"] * 2], TEST)).tolist() == [0, 0, 0]


def slow_measures(counts):
    found = right = predicted = sentences = names = 0
    for of_name in counts:
        found, right = found + of_name[0], right + of_name[1]
        predicted, sentences = predicted + of_name[2], sentences + of_name[3]
        names += of_name[1] > of_name[3] - of_name[1]
    return 2 * right / (predicted + sentences), right / max(found, 1), names / len(counts)


def made_up(rng, share, names):
    """Make counts of names with nine sentences each, of whose spans this share is right."""
    found = rng.integers(5, 10, names)
    predicted = found + rng.integers(0, 3, names)
    return np.stack([found, rng.binomial(found, share), predicted, np.full(names, 9)], axis=1)


@pytest.mark.parametrize("seeds", [1, 3])
def test_intervals_are_those_of_a_slow_loop(benchmark, seeds):
    rng = np.random.default_rng(7)
    names = [60, 80, 50][:seeds]
    counts = [made_up(rng, share, many) for share, many in zip((0.7, 0.9, 0.5), names, strict=False)]
    others = [made_up(rng, 0.4, many) for many in names]
    np.testing.assert_allclose(benchmark.measures(counts[0]), slow_measures(counts[0]))

    def sampled():
        sampled_seeds = rng.integers(0, seeds, seeds)
        rows = [rng.integers(0, names[seed], names[seed]) for seed in sampled_seeds]
        return [
            slow_measures(np.concatenate([model[seed][own] for seed, own in zip(sampled_seeds, rows, strict=True)]))
            for model in (counts, others)
        ]

    samples = np.array([sampled() for _ in range(2000)])  # (samples, models, measures)
    for values, arguments in ((samples[:, 0], (counts,)), (samples[:, 0] - samples[:, 1], (counts, others))):
        expected = np.percentile(values, [2.5, 97.5], axis=0).T
        np.testing.assert_allclose(benchmark.intervals(*arguments), expected, atol=0.03)
    # of the same counts nothing is gained, in any sample
    assert not benchmark.intervals(counts, counts).any()


def test_differences_are_to_the_first_variant(benchmark, capsys):
    counts = {"full": [np.array([[9, 9, 9, 9]] * 5)] * 2, "none": [np.array([[9, 0, 9, 9]] * 5)] * 2}
    console = Console(width=120)
    benchmark.print_differences({"full": counts["full"]}, console)
    assert not capsys.readouterr().out
    benchmark.print_differences(counts, console)
    printed = capsys.readouterr().out
    assert "Difference to full" in printed
    assert printed.count("-1.000 to -1.000") == 3
