"""Measure what images teach about the sentiment of real tweets, which are classified with and without them.

Cross-validated: each tweet of known sentiment is in the test set of one of the splits, which have like shares of the
sentiments. A text that several tweets have is in one split only. Tweets of unknown sentiment are in the training set of
every split, as pairs without a label::

    python benchmarks/tweet_sentiment.py --data_dir tweets --vision_model facebook/dinov2-small --threads 1 --json

Variants: `images`, trained with images and tested without; `real_at_test`, the same model, tested with images;
`real_throughout`, a classifier that reads images in training and at test, and generates none; `text_only`, without
images; `shuffled_images`, trained with those of other tweets and tested without.

What is held equal: the texts, labels and number of each training step, the initial weights (but those of
`real_throughout`, which has fewer), the learning rates and their schedule. Without images, the text reads no features,
and a tweet of unknown sentiment teaches nothing. The table has the mean over the splits
and a 95 % interval from resampled tweets of all splits, which says nothing about other trainings.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import Parser, at_least, run_main

import datasets
import numpy as np
from rich.console import Console

from bga_mner import BgaMnerForSequenceClassification
from bga_mner.benchmarks.kept_results import KeptResults
from bga_mner.benchmarks.tweets import (
    SENTIMENTS,
    Rows,
    Trainings,
    add_options,
    read_tweets,
    time_left,
    with_interval,
)
from bga_mner.configuration.errors import shown
from bga_mner.examples.reporting import print_json, print_table, start
from bga_mner.examples.synthetic.experiment import TEXT_ONLY, Variant
from bga_mner.examples.synthetic.recipe import encode_once


# What is trained alike stands together: it is trained once.
VARIANTS = {
    "images": Variant(),
    "real_at_test": Variant(visual_source="real"),
    # where features are generated, these are what the text reads in training
    "real_throughout": Variant({"use_text_to_image": False, "visual_source": "real"}, visual_source="real"),
    "text_only": TEXT_ONLY,
    "shuffled_images": Variant(images="shuffled"),
}
SCORES = ("accuracy", "macro_f1")


def split(tweets: datasets.Dataset, splits: int) -> list[tuple[list[int], list[int]]]:
    """Return the row numbers of each split's training set and test set."""
    from sklearn.model_selection import StratifiedGroupKFold

    labels, texts = tweets["label"][:], tweets["text"][:]
    known = [row for row, label in enumerate(labels) if label is not None]
    # a text is in one split only
    numbers = {
        name: len({texts[row] for row in known if labels[row] == number}) for number, name in enumerate(SENTIMENTS)
    }
    if min(numbers.values()) < splits:
        raise ValueError(
            f"Expected at least {splits} texts of each sentiment, one per split, got {shown(numbers)}. Lower "
            "--splits, or raise --max_rows."
        )
    folds = StratifiedGroupKFold(splits, shuffle=True, random_state=0)
    found = folds.split(known, [labels[row] for row in known], groups=[texts[row] for row in known])
    tests = [[known[index] for index in test] for _, test in found]
    return [(sorted(set(range(len(labels))) - set(test)), test) for test in tests]


def scores_of(outcomes: np.ndarray, splits: int) -> np.ndarray:
    """Return accuracy and macro-F1 (2, splits) of outcomes (tweets, 3): split, sentiment, and the predicted one.

    A sentiment that is neither there nor predicted has an F1 of 0, as in scikit-learn.
    """
    classes = len(SENTIMENTS)
    cells = np.ravel_multi_index(tuple(outcomes.T), (splits, classes, classes))
    confusion = np.bincount(cells, minlength=splits * classes**2).reshape(splits, classes, classes)
    right = np.diagonal(confusion, axis1=1, axis2=2)  # (splits, classes)
    expected, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
    f1 = 2 * right / np.maximum(expected + predicted, 1)
    return np.stack([right.sum(axis=1) / np.maximum(expected.sum(axis=1), 1), f1.mean(axis=1)])


def _trained_as(key: tuple[int, str]) -> tuple[int, dict[str, Any], str]:
    """Say what a training depends on, of a split and a variant."""
    fold, name = key
    return fold, VARIANTS[name].options, VARIANTS[name].images


def measure(options: argparse.Namespace, folder: Path, console: Console) -> dict[str, np.ndarray]:
    """Train and test all variants on all splits; return their outcomes, with tweets in the same order."""
    tweets = read_tweets(options.data_dir, options.max_rows)
    splits = split(tweets, options.splits)
    labels = tweets["label"][:]
    numbers = ", ".join(f"{labels.count(number):,} {name}" for number, name in enumerate(SENTIMENTS))
    console.print(f"{len(labels):,} tweets: {numbers}, {labels.count(None):,} unknown")
    trainings = Trainings(options, BgaMnerForSequenceClassification, SENTIMENTS, tweets, folder)
    texts = encode_once(trainings.processor, tweets.remove_columns("image"))
    names = [name for name in VARIANTS if name in options.variants]
    results = KeptResults(options)
    folds = range(len(splits))
    missing = [(fold, name) for fold in folds for name in names if (fold, name) not in results]
    # what is trained alike stands together, and shares a training
    groups = [list(group) for _, group in groupby(missing, key=_trained_as)]
    begin = time.perf_counter()
    for done, group in enumerate(groups, start=1):
        fold, first = group[0]
        train, test = splits[fold]
        trainer = trainings.train([texts[row] for row in train], train, VARIANTS[first], seed=fold)
        left = time_left(trainer, begin, done, len(groups))
        for _, name in group:
            source = VARIANTS[name].visual_source
            trainer.model.config.visual_source = source
            images = test if source == "real" else [None] * len(test)
            result = trainer.predict(Rows([texts[row] for row in test], images, trainings.states))
            if not np.isfinite(result.predictions).all():
                raise ValueError(
                    f"Expected scores that are finite, got others of {name}. Lower --learning_rate or "
                    "--new_learning_rate."
                )
            predicted = result.predictions.argmax(-1)
            outcomes = np.stack([np.full(len(test), fold), result.label_ids, predicted], axis=1)
            results.add(fold, name, outcomes.tolist())
            values = scores_of(outcomes, options.splits)[:, fold]
            scores = ", ".join(f"{key} {value:.3f}" for key, value in zip(SCORES, values, strict=True))
            console.print(f"Split {fold + 1}, {name}: {scores}; {left}")
    return {name: np.concatenate([results[fold, name] for fold in folds]) for name in names}


def mean_score(score: int, splits: int, ours: np.ndarray, rows: np.ndarray) -> float:
    """Return the mean over the splits of one of `SCORES`, of these rows of outcomes."""
    return float(scores_of(ours[rows], splits)[score].mean())


def difference(score: int, splits: int, ours: np.ndarray, base: np.ndarray, rows: np.ndarray) -> float:
    """Return `mean_score` of outcomes minus that of others of the same tweets."""
    return mean_score(score, splits, ours, rows) - mean_score(score, splits, base, rows)


def show(outcomes: dict[str, np.ndarray], splits: int, console: Console) -> None:
    """Print a table: means with their intervals, and differences to text alone with theirs."""
    base, rows = outcomes.get("text_only"), []
    for name, ours in outcomes.items():
        cells = []
        for score in range(len(SCORES)):
            cells.append(with_interval(partial(mean_score, score, splits, ours), len(ours)))
            compared = base is not None and ours is not base
            cells.append(
                with_interval(partial(difference, score, splits, ours, base), len(ours), "+") if compared else ""
            )
        rows.append((name, *cells))
    columns = ("variant", "accuracy", "minus text alone", "macro-F1", "minus text alone")
    print_table("Sentiment of tweets, mean over splits (95 % interval)", columns, rows, console)


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, list[float]]]:
    """Run the benchmark, and print a table; return by variant its `SCORES`, each with one value per split."""
    parser = Parser(__doc__)
    add_options(parser, VARIANTS)
    parser.add_argument("--splits", type=at_least(2), default=5, help="number of splits of the cross-validation")
    options = parser.parse_args(argv)
    start(options)
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as folder:
        outcomes = measure(options, Path(folder), console)
    show(outcomes, options.splits, console)
    scores = {name: scores_of(of, options.splits) for name, of in outcomes.items()}
    found = {name: dict(zip(SCORES, values.tolist(), strict=True)) for name, values in scores.items()}
    print_json(options, {"tweet_sentiment": found})
    return found


if __name__ == "__main__":
    run_main(main)
