"""One experiment on the generated corpus: variants of the recipe, trained on the same pairs and scored alike."""

import argparse
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import json_object, positive, rate, seeds, share

from datasets import Dataset
from transformers import Trainer, ViTImageProcessorPil, set_seed

from bga_mner import (
    BgaMnerProcessor,
    load_image_processor,
    predict_tags,
    score_tags,
    spans_from_tags,
)
from bga_mner.examples.reporting import add_common_options
from bga_mner.examples.synthetic.corpus import GeneratedCorpus, generate_corpus
from bga_mner.examples.synthetic.drawings import concept_images
from bga_mner.examples.synthetic.photographs import photo_images, read_photos
from bga_mner.examples.synthetic.recipe import (
    IMAGE_SIZE,
    LONGEST_TEXT,
    TEXT_ALONE,
    build_model,
    encode_once,
    pretrain_vision_encoder,
    train,
    training_arguments,
)
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


@dataclass(frozen=True)
class Variant:
    """What is changed of the full recipe."""

    options: dict[str, Any] = field(default_factory=dict)  # of BgaMnerConfig
    images: str = "paired"  # in training; or "shuffled", or "none"
    visual_source: str = "generated"  # what the text reads at test


TEXT_ONLY = Variant(TEXT_ALONE, images="none", visual_source="none")
SCORES = ("f1", "span_recall", "type_accuracy", "labelled_f1")


def score(predicted: Sequence[Sequence[str]], expected: Sequence[Sequence[str]]) -> dict[str, float]:
    """Score BIO tags: F1, recall of spans of any type, and type accuracy of those that were found."""
    found = right = total = 0
    for ours, theirs in zip(predicted, expected, strict=True):
        types = {(start, end): kind for kind, start, end in spans_from_tags(ours)}
        for kind, start, end in spans_from_tags(theirs):
            total += 1
            found += (start, end) in types
            right += types.get((start, end)) == kind
    return {
        "f1": score_tags(predicted, expected)["overall_f1"],
        "span_recall": found / max(total, 1),
        "type_accuracy": right / max(found, 1),
    }


def with_images(
    rows: Sequence[dict[str, Any]], images: str, seed: int, column: str = "pixel_values"
) -> list[dict[str, Any]]:
    """Return encoded pairs with their images, with those of others, or without, as `Variant.images` says."""
    if images == "paired":
        return list(rows)
    order = list(range(len(rows)))
    random.Random(f"shuffled-{seed}").shuffle(order)
    return [
        row | {column: rows[other][column] if images == "shuffled" else None}
        for row, other in zip(rows, order, strict=True)
    ]


_RECIPE_FLAGS = (
    "entity_replacement_probability",
    "gate_initial_bias",
    "reconstruction_weight",
    "cycle_weight",
    "sampler_initial_keep",
)

# Photographs of two concepts differ less, beside what differs within a concept, than drawings do: a generator needs
# more steps to tell them apart, and the vision encoder more width.
_DRAWINGS = {"steps": 450, "vision_steps": 700, "vision_width": 32}
_PHOTOGRAPHS = {"steps": 1200, "vision_steps": 1000, "vision_width": 64}


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add what trainings on generated pairs share, and what all measuring scripts have."""
    parser.add_argument("--seeds", type=seeds, default="0", help="comma-separated list")
    parser.add_argument("--batch_size", type=positive, default=32)
    parser.add_argument("--learning_rate", type=rate, default=2e-3)
    parser.add_argument("--config", type=json_object, default={}, help="additional options of BgaMnerConfig, as JSON")
    parser.add_argument("--pairs", type=positive, default=2400, help="number of training pairs, half of them labelled")
    parser.add_argument("--test_sentences", type=positive, default=400)
    parser.add_argument(
        "--drawings", type=positive, default=8000, help="number of drawings to train the tiny vision encoder on"
    )
    add_common_options(parser, quiet=True)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of an experiment."""
    add_training_options(parser)
    parser.add_argument(
        "--steps", type=positive, help="training steps (default: 450 with drawings, 1200 with photographs)"
    )
    for name in _RECIPE_FLAGS:
        parser.add_argument(f"--{name}", type=float, help="option of BgaMnerConfig (default: as in the quickstart)")
    parser.add_argument("--names_per_type", type=positive, default=30)
    parser.add_argument("--mismatch_rate", type=share, default=0.15)
    parser.add_argument("--clutter", type=share, default=0.3)
    parser.add_argument("--clauses", action="store_true", help="add irrelevant clauses to every sentence")
    parser.add_argument(
        "--images", type=Path, help="folder of photographs, one subfolder per concept, instead of drawings"
    )
    parser.add_argument("--vision_model", help="pretrained vision encoder, instead of a tiny one")
    parser.add_argument(
        "--vision_steps", type=positive, help="steps to train the tiny vision encoder (default: 700, 1000)"
    )
    parser.add_argument("--vision_width", type=positive, help="width of the tiny vision encoder (default: 32, 64)")
    parser.add_argument("--layers", type=positive, default=2, help="layers of both tiny encoders")


def read_options(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; sizes that were left out depend on what the images are."""
    options = parser.parse_args(argv)
    for name, value in (_DRAWINGS if options.images is None else _PHOTOGRAPHS).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


class Experiment:
    """One seed: a corpus, a vision encoder, and trainings that share both; `prepare` is called with each new model."""

    def __init__(
        self,
        options: argparse.Namespace,
        seed: int,
        output_dir: Path,
        pretrain: Callable[..., Any] | None = None,
        prepare: Callable[[Any], None] | None = None,
    ) -> None:
        self.options, self.seed, self.output_dir = options, seed, output_dir
        self.pretrain = pretrain or pretrain_vision_encoder
        self.prepare = prepare
        set_seed(seed)
        photos = None if options.images is None else read_photos(options.images)
        own = None
        if photos is not None and options.vision_model is None:
            # the vision encoder is trained on one half, and pairs are made of the other
            own = {kind: files[::2] for kind, files in photos.items()}
            photos = {kind: files[1::2] for kind, files in photos.items()}
        self.corpus: GeneratedCorpus = generate_corpus(
            seed=seed,
            names_per_type=options.names_per_type,
            train_labelled=options.pairs // 2,
            train_unlabelled=options.pairs // 2,
            test_sentences=options.test_sentences,
            validation_sentences=0,
            mismatch_rate=options.mismatch_rate,
            clutter=options.clutter,
            clauses=options.clauses,
            test_images=True,
            images=photos,
        )
        self.vision, image_processor, self.vision_accuracy = self._vision_encoder(own, photos)
        self.tokenizer = build_tokenizer(self.corpus.sentences(), LONGEST_TEXT)
        label2id = {label: number for number, label in enumerate(self.corpus.labels)}
        if "image_size" in options.config:
            # the vision encoder has learnt from whole ones
            image_processor.size = {"height": options.config["image_size"], "width": options.config["image_size"]}
        self.processor = BgaMnerProcessor(image_processor, self.tokenizer, label2id=label2id)
        self.rows = encode_once(self.processor, self.corpus.train)
        self.new_pairs = encode_once(self.processor, self.corpus.test_unseen_labels)

    def _vision_encoder(
        self, own: Mapping[str, list[bytes]] | None, photos: Mapping[str, list[bytes]] | None
    ) -> tuple[Any, Any, float | None]:
        """Return the encoder, its image processor, and its accuracy on held-out images if it was trained here."""
        options = self.options
        if options.vision_model is not None:
            return options.vision_model, load_image_processor(options.vision_model), None
        side = IMAGE_SIZE
        image_processor = ViTImageProcessorPil(size={"height": side, "width": side})
        arguments = training_arguments(self.output_dir, options.vision_steps, 64, 3e-3, self.seed, options.quiet)
        if own is None or photos is None:
            train = concept_images(options.drawings, self.seed, side, options.clutter)
            held_out = concept_images(options.drawings // 20, self.seed + 1000, side, options.clutter)
        else:
            train, held_out = photo_images(own, copies=8, seed=self.seed), photo_images(photos)
        width = options.vision_width
        vision, accuracy = self.pretrain(
            image_processor,
            train,
            held_out,
            arguments,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=options.layers,
        )
        return vision, image_processor, accuracy

    def train(self, variant: Variant) -> Trainer:
        """Train a variant."""
        options = self.options
        set_seed(self.seed)
        recipe = {name: getattr(options, name) for name in _RECIPE_FLAGS if getattr(options, name) is not None}
        model = build_model(
            self.tokenizer,
            self.vision,
            list(self.corpus.labels),
            options.layers,
            **(recipe | options.config | variant.options),
        )
        if self.prepare is not None:
            self.prepare(model)
        settings = (options.steps, self.output_dir, self.seed, options.batch_size, options.learning_rate, options.quiet)
        return train(model, self.processor, with_images(self.rows, variant.images, self.seed), *settings)

    def tag(self, model: Any, variant: Variant, test: Dataset) -> list[list[str]]:
        """Predict the tags of sentences with a trained model."""
        return predict_tags(model, self.processor, test, variant.visual_source, 64, show_progress=False)

    def scores(self, model: Any, variant: Variant) -> tuple[dict[str, float], list[list[str]]]:
        """Score a trained model on sentences, with labelled names too; also return the tags of the never-labelled."""
        unseen, labelled = self.corpus.test_unseen_labels, self.corpus.test_labelled
        tags = self.tag(model, variant, unseen)
        of_labelled = score(self.tag(model, variant, labelled), labelled["ner_tags"])
        return score(tags, unseen["ner_tags"]) | {"labelled_f1": of_labelled["f1"]}, tags
