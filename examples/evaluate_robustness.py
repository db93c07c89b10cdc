"""How much do images matter, and how sure is a score? Missing and mismatched images, other data sets, intervals.

Test a saved model on CoNLL files, with all images, with 25, 50, 75 and 100 % of them removed, and with those of other
tweets. --label_map renames types, of the model and of the file, where a model meets a data set with other names; an
empty name (OTHER=) leaves a type out::

    python examples/evaluate_robustness.py test --model_dir outputs/mner --test_file test.txt --image_dir images \
        --label_map OTHER=MISC

Train with 0, 25, 50, 75 and 100 % of the images removed, and with mismatched ones, on the generated corpus of
examples/quickstart.py: offline, and about three times as long as the quickstart. The first model, and a test file with
images, are left in the output folder for the other command::

    python examples/evaluate_robustness.py train

Brackets hold bootstrap intervals. Differences and p-values compare with the first row, on the same bootstrap samples:
p is the share of the samples in which the better one of the two isn't better.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import Parser, check_output, natural, positive, run_main, share

import torch
from datasets import Dataset, disable_progress_bars
from rich.console import Console
from transformers import set_seed
from transformers.utils import logging

from bga_mner import BgaMnerForTokenClassification, BgaMnerProcessor, read_annotations, write_conll
from bga_mner.configuration.errors import shown
from bga_mner.examples.reporting import print_json, print_table
from bga_mner.examples.synthetic import recipe
from bga_mner.processing.evaluation.bootstrap import bootstrap_interval, paired_bootstrap
from bga_mner.processing.evaluation.image_ablation import mismatch_images, remove_images
from bga_mner.processing.evaluation.robustness import predict_tags, robustness_report
from bga_mner.processing.tags.label_map import entity_types


TRAINING_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
TEST_SETS = {"labelled": "labelled names", "never_labelled": "never-labelled names"}


def parse_label_map(items: list[str]) -> dict[str, str | None]:
    """Read OTHER=MISC as a mapping; an empty name stands for None."""
    label_map: dict[str, str | None] = {}
    for item in items:
        old, equals, new = item.partition("=")
        if not old or not equals:
            raise ValueError(
                f"Expected OLD=NEW, or OLD= to leave a type out, as --label_map, got {shown(item)}. Correct it."
            )
        label_map[old] = new or None
    return label_map


def with_interval(scores: dict[str, Any], between: str = " ") -> str:
    """Show F1 with its interval."""
    return f"{scores['f1']:.3f}{between}[{scores['low']:.3f}, {scores['high']:.3f}]"


def compared(scores: dict[str, Any] | None) -> tuple[str, str]:
    """Show a difference with its interval, and its p-value."""
    if scores is None:
        return "", ""
    return f"{scores['difference']:+.3f} [{scores['low']:+.3f}, {scores['high']:+.3f}]", f"{scores['p']:.3f}"


def print_report(console: Console, report: list[dict[str, Any]]) -> None:
    """Print two tables: F1 under each condition, and F1 by type."""
    rows = [(row["condition"], f"{row['images']:,}", with_interval(row), *compared(row["compared"])) for row in report]
    columns = ("read at test", "images", "F1", "difference", "p")
    print_table(f"F1 on {report[0]['sentences']:,} sentences", columns, rows, console)
    types = sorted({kind for row in report for kind in row["types"]})
    numbers = [max(row["types"][kind]["number"] for row in report if kind in row["types"]) for kind in types]
    # the interval on its own line, since there may be many types
    rows = [
        (row["condition"], *(with_interval(row["types"][k], "\n") if k in row["types"] else "none" for k in types))
        for row in report
    ]
    columns = ("read at test", *(f"{kind} ({number:,})" for kind, number in zip(types, numbers, strict=True)))
    print_table("F1 by type (number of entities)", columns, rows, console)


def score_saved_model(options: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    """Test a saved model; return the report of `robustness_report`."""
    if not (options.model_dir / "config.json").is_file():
        raise ValueError(
            f"Expected a folder with a saved model as --model_dir, got {shown(str(options.model_dir))}. Check the path."
        )
    label_map = parse_label_map(options.label_map)
    model = BgaMnerForTokenClassification.from_pretrained(options.model_dir)
    if torch.cuda.is_available():
        model.cuda()
    processor = BgaMnerProcessor.from_pretrained(options.model_dir)
    dataset, found = read_annotations(options.test_file, options.image_dir, return_report=True)
    console.print(str(found), highlight=False, soft_wrap=True)
    disable_progress_bars()  # of copied images; those of tagging stay
    warnings.filterwarnings("ignore", "The data have types")  # said below
    report = robustness_report(
        model,
        processor,
        dataset,
        label_map=label_map,
        samples=options.samples,
        confidence=options.confidence,
        seed=options.seed,
        batch_size=options.batch_size,
    )
    print_report(console, report)
    known, there = (
        {label_map.get(kind, kind) for kind in entity_types(tags)} - {None}
        for tags in ([list(model.config.label2id)], dataset["ner_tags"])
    )
    for kind in sorted(there - known):
        console.print(f"[yellow]The model knows no {kind}: each one in the file counts as missed.[/yellow]")
    for kind in sorted(known - there):
        console.print(f"[yellow]The file has no {kind}: each one that the model finds counts as wrong.[/yellow]")
    if len(report) == 1:
        reason = "the file has no images (--image_dir)" if not found.images_found else "the model reads no images"
        console.print(f"Text only was tested, since {reason}.")
    return report


def train(options: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    """Train with fewer and fewer images; return one row per training with the scores on both test sets."""
    disable_progress_bars()  # of copied images; those of trainings stay
    set_seed(options.seed)
    corpus, processor, vision, accuracy = recipe.prepare(options, options.output_dir, test_images=True)
    tests = dict(zip(TEST_SETS, (corpus.test_labelled, corpus.test_unseen_labels), strict=True))
    console.print(f"The vision encoder tells the four concepts apart on new drawings with accuracy {accuracy:.3f}.")

    variants = {
        f"{share:.0%} removed" if share else "all images": remove_images(corpus.train, share, options.seed)
        for share in TRAINING_SHARES
    }
    variants["mismatched images"] = mismatch_images(corpus.train, 1.0, options.seed)
    report: list[dict[str, Any]] = []
    first: dict[str, list[list[str]]] = {}
    for number, (name, dataset) in enumerate(variants.items(), 1):
        console.rule(f"Training {number} of {len(variants)}: {name}")
        set_seed(options.seed)
        model = recipe.build_model(processor.tokenizer, vision, list(corpus.labels))
        trainer = recipe.train(model, processor, dataset, options.steps, options.output_dir, options.seed)
        row: dict[str, Any] = {"condition": name}
        for test_set, sentences in tests.items():
            predictions = predict_tags(trainer.model, processor, sentences, batch_size=64)
            settings = (sentences["ner_tags"], options.samples, options.confidence, options.seed)
            row[test_set] = bootstrap_interval(predictions, *settings)
            against = paired_bootstrap(predictions, first[test_set], *settings) if report else None
            row[test_set]["compared"] = against
            first.setdefault(test_set, predictions)
        if not report:
            save(trainer.model, processor, corpus.test_unseen_labels, options.output_dir)
        report.append(row)
    print_trainings(console, report, options.test_sentences)
    console.print(
        "To see what the first model does with images at test:\n"
        f"python examples/evaluate_robustness.py test --model_dir {options.output_dir / 'model'} "
        f"--test_file {options.output_dir / 'test.txt'} --image_dir {options.output_dir / 'images'}",
        soft_wrap=True,
    )
    return report


def save(model: Any, processor: Any, dataset: Dataset, folder: Path) -> None:
    """Save a model, and a test set as a CoNLL file with a folder of images."""
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    (folder / "images").mkdir(exist_ok=True)
    for row in dataset:
        (folder / "images" / f"{row['id']}.png").write_bytes(row["image"]["bytes"])
    write_conll(folder / "test.txt", dataset["tokens"], dataset["ner_tags"], dataset["id"])


def print_trainings(console: Console, report: list[dict[str, Any]], sentences: int) -> None:
    """Print a table for each test set: what was removed at training, and F1 on sentences without images."""
    for test_set, title in TEST_SETS.items():
        rows = [
            (row["condition"], with_interval(row[test_set]), *compared(row[test_set]["compared"])) for row in report
        ]
        columns = ("images at training", "F1", "difference", "p")
        print_table(f"F1 on {sentences:,} sentences without images, {title}", columns, rows, console)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--samples", type=positive, default=1000, help="number of bootstrap samples")
    shared.add_argument("--confidence", type=share, default=0.95, help="confidence level of the intervals")
    shared.add_argument("--seed", type=natural, default=0, help="random seed of bootstrap, image ablation and training")
    shared.add_argument("--json", action="store_true", help="print a final line of JSON")
    shared.add_argument("--output_dir", type=Path, default=Path("outputs/robustness"))
    of_test = commands.add_parser("test", parents=[shared], help="test a saved model")
    of_test.add_argument("--model_dir", type=Path, required=True, help="folder of a saved model and processor")
    of_test.add_argument("--test_file", type=Path, required=True, help="CoNLL file, or JSON from an annotation tool")
    of_test.add_argument("--image_dir", type=Path, help="folder of images named <id>.jpg, .png, .webp, ...")
    of_test.add_argument(
        "--label_map", nargs="+", default=[], metavar="OLD=NEW", help="rename entity types of model and file"
    )
    of_test.add_argument("--batch_size", type=positive, default=16)
    of_train = commands.add_parser("train", parents=[shared], help="train with fewer and fewer images")
    recipe.add_options(of_train)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Run a command; return the rows that it prints, which it also writes to <output_dir>/<command>.json."""
    options = parse(arguments)
    check_output(options.output_dir, "--output_dir")
    options.output_dir.mkdir(parents=True, exist_ok=True)
    logging.set_verbosity_error()
    console = Console(width=110)
    report = {"test": score_saved_model, "train": train}[options.command](options, console)
    settings = {
        name: value if isinstance(value, (int, float, list)) else str(value) for name, value in vars(options).items()
    }
    file = options.output_dir / f"{options.command}.json"
    file.write_text(json.dumps({"settings": settings, "rows": report}, indent=2) + "\n")
    console.print(f"Scores: {file}", highlight=False)
    print_json(options, report)
    return report


if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    run_main(main)
