r"""Measure what unlabelled pairs of tweets and images teach a tagger, whose labelled texts have no images.

One training has the labelled texts of Twitter-2017 and the tweets of `tweets.jsonl`, whose tags are unknown. Scored are
the entities of Twitter-2017's validation texts (strict, with seqeval), without images::

    python benchmarks/tweet_pairs.py --labelled_dir twitter2017 --data_dir tweets \
        --vision_model facebook/dinov2-small --threads 1 --json

Variants: `images`, where each tweet has its own image; `labelled_alone`, where none has one, so that it teaches
nothing, and the text reads no features; `shuffled_images`, where it has another tweet's.

What is held equal: the labelled texts and the number of each training step, the weight of their loss before gradients
are clipped, the initial weights, the learning rates and their schedule. The table has the mean over the seeds and a
95 % interval from resampled sentences, which says nothing about other seeds.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bga_mner.examples.command_line import Parser, run_main, seeds

import datasets
import numpy as np
from rich.console import Console

from bga_mner import BgaMnerForTokenClassification, labels_from_tags, predict_tags, read_conll
from bga_mner.benchmarks.kept_results import KeptResults
from bga_mner.benchmarks.real_text import PARTS
from bga_mner.benchmarks.tweets import Trainings, add_options, read_tweets, time_left, with_interval
from bga_mner.configuration.errors import shown
from bga_mner.examples.reporting import print_json, print_table, start
from bga_mner.examples.synthetic.experiment import TEXT_ONLY, Variant
from bga_mner.examples.synthetic.recipe import encode_once
from bga_mner.processing.evaluation.bootstrap import count_entities


VARIANTS = {
    "images": Variant(),
    "labelled_alone": TEXT_ONLY,
    "shuffled_images": Variant(images="shuffled"),
}


def read_labelled(folder: Path, limit: int | None) -> dict[str, datasets.Dataset]:
    """Read the labelled texts by part: "train" and "valid"."""
    for part in PARTS:
        if not (folder / f"{part}.txt").is_file():
            raise ValueError(
                f"Expected train.txt and valid.txt in --labelled_dir {shown(str(folder))}, got no {part}.txt. Add it."
            )
    found = {part: read_conll(folder / f"{part}.txt").remove_columns("image") for part in PARTS}
    found = {part: rows.take(min(limit or len(rows), len(rows))) for part, rows in found.items()}
    for part, rows in found.items():
        unknown = sum(tags is None or None in tags for tags in rows["ner_tags"])
        entities = sum(tag.startswith("B-") for tags in rows["ner_tags"] for tag in tags or () if tag)
        if unknown or not entities or len(rows) < 2:
            raise ValueError(
                f"Expected at least two texts with entities in {part}.txt, with a tag for each word, got {len(rows)} "
                f"with {entities} entities, and {unknown} without some tags. Tag them, or raise --max_rows."
            )
    return found


def f1_of(counts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return F1 (seeds,) of these rows of the right, predicted and expected entities (sentences, seeds, 3)."""
    right, predicted, expected = counts[rows].sum(axis=0).T
    return 2 * right / np.maximum(predicted + expected, 1)


def mean_f1(counts: np.ndarray, rows: np.ndarray) -> float:
    """Return the mean of `f1_of` over the seeds."""
    return float(f1_of(counts, rows).mean())


def difference(ours: np.ndarray, base: np.ndarray, rows: np.ndarray) -> float:
    """Return `mean_f1` minus that of other predictions for the same sentences."""
    return mean_f1(ours, rows) - mean_f1(base, rows)


def measure(options: argparse.Namespace, folder: Path, console: Console) -> dict[str, np.ndarray]:
    """Train and test all variants with all seeds; return their counts of entities, see `f1_of`."""
    labelled = read_labelled(options.labelled_dir, options.max_rows)
    tweets = read_tweets(options.data_dir, options.max_rows)
    labels = labels_from_tags(tags for part in labelled.values() for tags in part["ner_tags"])
    trainings = Trainings(options, BgaMnerForTokenClassification, labels, tweets, folder)
    texts = encode_once(trainings.processor, labelled["train"])
    # a batch of tweets alone has a loss of 0, and not none
    unlabelled = encode_once(trainings.processor, tweets.select_columns(["text"]))
    texts += [row | {"labels": [-100] * len(row["input_ids"])} for row in unlabelled]
    own = [None] * len(labelled["train"]) + list(range(len(tweets)))
    expected = labelled["valid"]["ner_tags"][:]
    results = KeptResults(options)
    missing = [(seed, name) for seed in options.seeds for name in options.variants if (seed, name) not in results]
    begin = time.perf_counter()
    for done, (seed, name) in enumerate(missing, start=1):
        trainer = trainings.train(texts, own, VARIANTS[name], seed)
        tags = predict_tags(trainer.model, trainings.processor, labelled["valid"], show_progress=not options.quiet)
        # all types of a sentence together
        counts = count_entities(tags, expected)[1].sum(axis=1)
        results.add(seed, name, counts.tolist())
        (f1,) = f1_of(counts[:, None], np.arange(len(expected)))
        left = time_left(trainer, begin, done, len(missing))
        console.print(f"Seed {seed}, {name}: F1 {f1:.3f}; {left}")
    return {name: np.stack([results[seed, name] for seed in options.seeds], axis=1) for name in options.variants}


def show(counts: dict[str, np.ndarray], console: Console) -> None:
    """Print a table: means with their intervals, and differences to the labelled texts alone with theirs."""
    base, rows = counts.get("labelled_alone"), []
    for name, ours in counts.items():
        compared = base is not None and ours is not base
        own = with_interval(partial(mean_f1, ours), len(ours))
        rows.append((name, own, with_interval(partial(difference, ours, base), len(ours), "+") if compared else ""))
    columns = ("variant", "F1", "minus labelled texts alone")
    print_table("Entities of texts without images, mean over seeds (95 % interval)", columns, rows, console)


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, list[float]]]:
    """Run the benchmark, and print a table; return by variant "f1", with one value per seed."""
    parser = Parser(__doc__)
    add_options(parser, VARIANTS)
    parser.add_argument("--labelled_dir", type=Path, required=True, help="folder with train.txt and valid.txt")
    parser.add_argument("--seeds", type=seeds, default="0,1,2", help="comma-separated list")
    options = parser.parse_args(argv)
    start(options)
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as folder:
        counts = measure(options, Path(folder), console)
    show(counts, console)
    found = {name: {"f1": f1_of(ours, np.arange(len(ours))).tolist()} for name, ours in counts.items()}
    print_json(options, {"tweet_pairs": found})
    return found


if __name__ == "__main__":
    run_main(main)
