"""Measure whether images teach the sentiment towards names whose sentences carry no labels.

Trained on the generated corpus (`bga_mner.examples.synthetic.sentiment`): sentences that don't tell the sentiment
towards the invented name marked in them, each with a drawing that goes with the sentiment; half of the names only occur
in pairs whose labels are hidden. Scored on sentences *without* images::

    python benchmarks/sentiment.py --seeds 0,1,2 --json

Accuracy on never-labelled names (chance: 0.33), and on labelled ones. The vision encoder is a tiny one that is trained
here to tell the drawings apart, and kept frozen.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import Parser, names_of, positive, run_main

from rich.console import Console
from transformers import Trainer, ViTImageProcessorPil, set_seed

from bga_mner import BgaMnerForSequenceClassification, BgaMnerProcessor
from bga_mner.examples.reporting import mean_and_worst, print_json, print_table, start
from bga_mner.examples.synthetic.drawings import SENTIMENTS
from bga_mner.examples.synthetic.experiment import add_training_options
from bga_mner.examples.synthetic.recipe import (
    IMAGE_SIZE,
    LONGEST_TEXT,
    build_model,
    encode_once,
    pretrain_on_drawings,
    train,
    training_arguments,
)
from bga_mner.examples.synthetic.sentiment import SentimentCorpus, generate_sentiment_corpus
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


# Targets of opinions are not replaced: see "replacement" in README.md.
_AS_THEY_ARE = {"entity_replacement_probability": 0.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "full": _AS_THEY_ARE,
    # the same labels and sentences, without images, so that nothing learns to generate what the text could read
    "text_only": {**_AS_THEY_ARE, "visual_source": "none"},
    "replacement": {"entity_replacement_probability": 0.5},
    "no_hybrid": {**_AS_THEY_ARE, "hybrid_attention": "none"},
    # a tagger's defaults
    "tagger_weights": {**_AS_THEY_ARE, "reconstruction_weight": 10.0, "generators_learn_from_labels": False},
}
SCORES = ("accuracy", "labelled_accuracy")


class Benchmark:
    """One seed: a corpus, a vision encoder, and trainings that share both."""

    def __init__(self, options: argparse.Namespace, seed: int, output_dir: Path) -> None:
        self.options, self.seed, self.output_dir = options, seed, output_dir
        set_seed(seed)
        self.corpus: SentimentCorpus = generate_sentiment_corpus(
            seed=seed,
            names_per_sentiment=options.names_per_sentiment,
            train_labelled=options.pairs // 2,
            train_unlabelled=options.pairs // 2,
            test_sentences=options.test_sentences,
        )
        image_processor = ViTImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
        arguments = training_arguments(output_dir, options.vision_steps, 64, 3e-3, seed, options.quiet)
        self.vision, self.vision_accuracy = pretrain_on_drawings(
            image_processor, options.drawings, SENTIMENTS, seed, arguments
        )
        self.tokenizer = build_tokenizer(self.corpus.sentences(), LONGEST_TEXT)
        self.processor = BgaMnerProcessor(image_processor, self.tokenizer)
        self.rows = encode_once(self.processor, self.corpus.train)

    def train(self, name: str) -> Trainer:
        """Train one of `VARIANTS`."""
        options = self.options
        set_seed(self.seed)
        model = build_model(
            self.tokenizer,
            self.vision,
            list(SENTIMENTS),
            model_class=BgaMnerForSequenceClassification,
            **(options.config | VARIANTS[name]),
        )
        rows = self.rows
        if name == "text_only":
            rows = [{key: value for key, value in row.items() if key != "pixel_values"} for row in rows]
        settings = (options.steps, self.output_dir, self.seed, options.batch_size, options.learning_rate, options.quiet)
        return train(model, self.processor, rows, *settings)

    def scores(self, trainer: Trainer) -> dict[str, float]:
        """Score a trained model on sentences without images, those with labelled names too."""
        tests = (self.corpus.test_unseen_labels, self.corpus.test_labelled)
        found = (
            trainer.evaluate(encode_once(self.processor, test.remove_columns("image")))["eval_accuracy"]
            for test in tests
        )
        return dict(zip(SCORES, map(float, found), strict=True))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_training_options(parser)
    of_variants = f"comma-separated list from {', '.join(VARIANTS)}"
    parser.add_argument("--variants", type=names_of(VARIANTS), default="full,text_only", help=of_variants)
    parser.add_argument("--steps", type=positive, default=450)
    parser.add_argument("--names_per_sentiment", type=positive, default=30)
    parser.add_argument("--vision_steps", type=positive, default=700, help="training steps of the vision encoder")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, list[float]]]:
    """Run the benchmark, and print a table; return by variant its `SCORES`, each with one value per seed."""
    options = _parse(argv)
    start(options)
    console = Console(width=110)
    found: dict[str, dict[str, list[float]]] = {name: {key: [] for key in SCORES} for name in options.variants}
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            begin = time.perf_counter()
            benchmark = Benchmark(options, seed, Path(folder))
            console.print(f"Seed {seed}: accuracy of the vision encoder {benchmark.vision_accuracy:.3f}")
            for name in options.variants:
                values = benchmark.scores(benchmark.train(name))
                for key in SCORES:
                    found[name][key].append(values[key])
                console.print(f"Seed {seed}, {name}: " + ", ".join(f"{k} {v:.3f}" for k, v in values.items()))
            console.print(f"Seed {seed}: {time.perf_counter() - begin:.0f} s")
    rows = [(name, *(mean_and_worst(values[key]) for key in SCORES)) for name, values in found.items()]
    title = "Accuracy on sentences without images, mean (worst) over seeds"
    print_table(title, ("variant", "never-labelled names", "labelled names"), rows, console)
    print_json(options, {"sentiment": found})
    return found


if __name__ == "__main__":
    run_main(main)
