"""Measure whether pictures teach what text doesn't tell: types of names whose sentences carry no labels.

Trained on the generated corpus (``bga_mner.processing.generated_corpus``): sentences that don't tell the type of the
invented name in them, each with a picture of its type's visual concept; half of the names only occur in pairs whose
tags are hidden. Scored on sentences *without* pictures::

    python benchmarks/alignment.py --seeds 0,1,2 --variants full,text_only --json

F1 is strict, by entity; span recall the share of entities whose ends are right, type accuracy the share of those whose
type is right (chance: 0.25). ``--pictures DIR`` takes photographs, one folder a concept, instead of drawings. The
vision encoder (``--vision_model``, or a tiny one that is trained here to tell the concepts apart) is kept frozen.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from example_scripts import Parser, json_object, load_example, names_of, positive, rate, run_main, seeds, share
from PIL import Image, ImageEnhance, ImageOps
from rich.console import Console
from rich.table import Table
from transformers import Trainer, ViTImageProcessorPil, set_seed
from transformers.utils import logging

from bga_mner import (
    BgaMnerProcessor,
    DataCollatorForMner,
    LossPartsCallback,
    alignment_report,
    load_image_processor,
    load_picture,
    predict_tags,
    score_tags,
    spans_from_tags,
)
from bga_mner.processing.concept_drawings import ENTITY_TYPES, concept_pictures
from bga_mner.processing.generated_corpus import GeneratedCorpus, generate_corpus
from bga_mner.processing.word_tokenizer import build_tokenizer


@dataclass(frozen=True)
class Variant:
    """What is changed of the full recipe.

    Attributes
    ----------
    options : dict
        Options of BgaMnerConfig.
    pictures : {"paired", "shuffled", "none"}
        Pictures of the training set.
    visual_source : str
        What the text reads at test.
    """

    options: dict[str, Any] = field(default_factory=dict)
    pictures: str = "paired"
    visual_source: str = "generated"


# Where the text reads no features, replaced entities leave it the context alone.
_READS_NOTHING = {"replaced_entities_read": "generated"}
VARIANTS = {
    "full": Variant(),
    "text_only": Variant(pictures="none"),
    # the control: all machinery and pictures, but these say nothing
    "shuffled_pictures": Variant(pictures="shuffled"),
    # the paper's losses; replaced entities read generated features, so that hybrid attention is used
    "no_teaching": Variant({"replaced_entities_read": "generated"}),
    "no_replacement": Variant({"entity_replacement_probability": 0.0}),
    "no_scs": Variant({"use_context_sampler": False}),
    "no_reconstruction": Variant({"reconstruction_weight": 0.0}),
    "no_cycle": Variant({"cycle_weight": 0.0}),
    "text_to_image_only": Variant({"use_image_to_text": False}),
    "image_to_text_only": Variant({"use_text_to_image": False, **_READS_NOTHING}),
    "no_hybrid": Variant({"hybrid_attention": "none", **_READS_NOTHING}),
    "both_branches": Variant({"hybrid_attention": "both"}),
    "real_pictures": Variant(visual_source="real"),
}
SCORES = ("f1", "span_recall", "type_accuracy", "labelled_f1")


def score(predicted: Sequence[Sequence[str]], expected: Sequence[Sequence[str]]) -> dict[str, float]:
    """Score tags of words.

    Parameters
    ----------
    predicted, expected : sequences of sequences of str
        BIO tags, sentence by sentence.

    Returns
    -------
    dict of str to float
        f1, span_recall (ends right, whatever the type) and type_accuracy (of the spans that were found; 0 if none was).
    """
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


def read_photos(folder: Path) -> dict[str, list[bytes]]:
    """Read a folder of photographs, one folder a concept; the concepts stand for the entity types in their order.

    Parameters
    ----------
    folder : Path
        With at least four folders; the first four by name are taken.

    Returns
    -------
    dict of str to list of bytes
        Files by entity type.

    Raises
    ------
    ValueError
        If there are too few folders, or fewer than two pictures in one.
    """
    concepts = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    photos = {
        kind: [path.read_bytes() for path in sorted(concept.iterdir()) if path.suffix.lower() in (".jpg", ".png")]
        for kind, concept in zip(ENTITY_TYPES, concepts, strict=False)
    }
    if len(photos) < len(ENTITY_TYPES) or min(map(len, photos.values())) < 2:
        raise ValueError(
            f"Expected {len(ENTITY_TYPES)} folders of JPEG or PNG files in --pictures {str(folder)!r}, got "
            f"{ {concept.name: len(files) for concept, files in zip(concepts, photos.values(), strict=False)} }."
        )
    return photos


class Benchmark:
    """One seed: a corpus, a vision encoder, and trainings that share both.

    Parameters
    ----------
    options : argparse.Namespace
        Of the command line.
    seed : int
        Of corpus, pictures and weights.
    output_dir : Path
        For Trainer's files.
    pretrain : callable, optional
        Makes the vision encoder where `--vision_model` names none, as the quickstart's `pretrain_vision_encoder` does,
        which is the default.
    prepare : callable, optional
        Called with every model before it is trained.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        seed: int,
        output_dir: Path,
        pretrain: Callable[..., Any] | None = None,
        prepare: Callable[[Any], None] | None = None,
    ) -> None:
        self.options, self.seed, self.output_dir = options, seed, output_dir
        self.quickstart = load_example("quickstart")
        self.pretrain = pretrain or self.quickstart.pretrain_vision_encoder
        self.prepare = prepare
        set_seed(seed)
        photos = None if options.pictures is None else read_photos(options.pictures)
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
            test_pictures=True,
            pictures=photos,
        )
        self.vision, image_processor, self.vision_accuracy = self._vision_encoder(own, photos)
        self.tokenizer = build_tokenizer(self.corpus.sentences(), self.quickstart.LONGEST_TEXT)
        label2id = {label: number for number, label in enumerate(self.corpus.labels)}
        if "image_size" in options.config:
            # the vision encoder has learnt from whole ones
            image_processor.size = {"height": options.config["image_size"], "width": options.config["image_size"]}
        self.processor = BgaMnerProcessor(image_processor, self.tokenizer, label2id=label2id)
        self.rows = self._encode(self.corpus.train)
        self.new_pairs = self._encode(self.corpus.test_unseen_labels)

    def _vision_encoder(
        self, own: Mapping[str, list[bytes]] | None, photos: Mapping[str, list[bytes]] | None
    ) -> tuple[Any, Any, float | None]:
        """Return the encoder, its image processor, and its accuracy on held-out pictures if it was trained here."""
        options, quickstart = self.options, self.quickstart
        if options.vision_model is not None:
            return options.vision_model, load_image_processor(options.vision_model), None
        side = quickstart.PICTURE_SIZE
        image_processor = ViTImageProcessorPil(size={"height": side, "width": side})
        arguments = quickstart.training_arguments(self.output_dir, options.vision_steps, 64, 3e-3, self.seed)
        arguments.disable_tqdm = options.quiet
        if own is None or photos is None:
            train = concept_pictures(options.drawings, self.seed, side, options.clutter)
            held_out = concept_pictures(options.drawings // 20, self.seed + 1000, side, options.clutter)
        else:
            train, held_out = _photo_pictures(own, copies=8, seed=self.seed), _photo_pictures(photos)
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

    def _encode(self, dataset: Any) -> list[dict[str, Any]]:
        """Encode once what all trainings read."""
        columns = self.processor.encode_examples(dataset[:])
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _train_rows(self, pictures: str) -> list[dict[str, Any]]:
        if pictures == "paired":
            return self.rows
        order = list(range(len(self.rows)))
        random.Random(f"shuffled-{self.seed}").shuffle(order)
        return [
            row | {"pixel_values": self.rows[other]["pixel_values"] if pictures == "shuffled" else None}
            for row, other in zip(self.rows, order, strict=True)
        ]

    def train(self, variant: Variant) -> Trainer:
        """Train a variant.

        Parameters
        ----------
        variant : Variant
            What to change.

        Returns
        -------
        transformers.Trainer
            Trained.
        """
        options, quickstart = self.options, self.quickstart
        set_seed(self.seed)
        recipe = {name: getattr(options, name) for name in _RECIPE_FLAGS if getattr(options, name) is not None}
        model = quickstart.build_model(
            self.tokenizer,
            self.vision,
            list(self.corpus.labels),
            options.layers,
            **(recipe | options.config | variant.options),
        )
        if self.prepare is not None:
            self.prepare(model)
        arguments = quickstart.training_arguments(
            self.output_dir, options.steps, options.batch_size, options.learning_rate, self.seed
        )
        arguments.disable_tqdm = options.quiet
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=self._train_rows(variant.pictures),
            data_collator=DataCollatorForMner(self.processor),
            callbacks=[LossPartsCallback()],
        )
        trainer.train()
        return trainer

    def scores(self, model: Any, variant: Variant) -> dict[str, float]:
        """Score a trained model on sentences, those with labelled names too."""

        def of(test: Dataset) -> dict[str, float]:
            tags = predict_tags(model, self.processor, test, variant.visual_source, 64, show_progress=False)
            return score(tags, test["ner_tags"])

        return of(self.corpus.test_unseen_labels) | {"labelled_f1": of(self.corpus.test_labelled)["f1"]}

    def report(self, model: Any) -> dict[str, float] | None:
        """Measure a model on new pairs without their labels; None for a model that generates one modality only."""
        if model.bga_mner.text_branch.generator is None or model.bga_mner.vision_branch.generator is None:
            return None
        concepts = self.corpus.test_unseen_labels["concept"]
        report = alignment_report(model, self.processor, self.new_pairs, concepts, show_progress=not self.options.quiet)
        return report | self.kept(model)

    def kept(self, model: Any) -> dict[str, float]:
        """Measure what the last stage keeps of new pictures and sentences, and of the objects and names in them.

        A ratio is the share kept of the object's patches (or of the name's tokens) over the share kept of all: a random
        mask of the same size has 1. Mismatched are sentences with another's picture, of
        another concept.
        """
        rows, boxes = self.new_pairs, self.corpus.test_unseen_labels["object_box"]
        concepts = self.corpus.test_unseen_labels["concept"]
        collate, config = DataCollatorForMner(self.processor), model.config
        side = config.vision_grid_side
        kept: dict[str, list[float]] = {"patches": [], "object": [], "mismatched": [], "tokens": [], "name": []}
        model.eval()
        for start in range(0, len(rows), 64):
            batch = collate(rows[start : start + 64])
            labels = batch.pop("labels")
            of_batch = concepts[start : start + 64]
            with torch.no_grad():
                output = model(**batch)
                mismatched = model(**batch | {"pixel_values": batch["pixel_values"].roll(1, 0)})
            first = config.num_vision_prefix_tokens
            patches = output.vision_keep_masks[-1][:, first:]
            others = mismatched.vision_keep_masks[-1][:, first:].mean(dim=1)
            differ = [before != concept for before, concept in zip([of_batch[-1], *of_batch], of_batch, strict=False)]
            kept["mismatched"] += others[torch.tensor(differ)].tolist()
            # (batch, patches) -> (batch, rows, columns)
            for mask, box in zip(patches.unflatten(1, (side, side)), boxes[start : start + 64], strict=True):
                kept["patches"].append(float(mask.mean()))
                if box is not None:
                    left, top, right, bottom = (round(edge * side / self.quickstart.PICTURE_SIZE) for edge in box)
                    inside = mask[top : max(bottom, top + 1), left : max(right, left + 1)]
                    kept["object"].append(float(inside.mean()))
            words = (labels != -100).float()
            names = (labels > 0).float()
            tokens = output.text_keep_masks[-1]
            kept["tokens"] += ((tokens * words).sum(1) / words.sum(1)).tolist()
            kept["name"] += ((tokens * names).sum(1) / names.sum(1).clamp(min=1)).tolist()
        means = {f"kept_{name}": float(np.mean(values)) for name, values in kept.items() if values}
        if "kept_object" in means:
            means["object_ratio"] = means["kept_object"] / max(means["kept_patches"], 1e-9)
        return means | {"name_ratio": means["kept_name"] / max(means["kept_tokens"], 1e-9)}


def _photo_pictures(photos: Mapping[str, list[bytes]], copies: int = 0, seed: int = 0) -> tuple[list[Any], list[int]]:
    """Decode photographs; return them, or altered copies if asked for, with their concepts' numbers."""
    rng = random.Random(f"photos-{seed}")
    pictures, concepts = [], []
    for number, kind in enumerate(ENTITY_TYPES):
        for data in photos[kind]:
            picture = load_picture(data)
            versions = [_altered(picture, rng) for _ in range(copies)] or [picture]
            pictures += versions
            concepts += [number] * len(versions)
    return pictures, concepts


def _altered(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Shift, mirror and tint a photograph: few photographs are to teach what doesn't matter."""
    wide, high = picture.size
    picture = ImageOps.mirror(picture) if rng.random() < 0.5 else picture
    # a slightly larger copy underneath fills the border
    canvas = picture.resize((wide + 2 * (wide // 8), high + 2 * (high // 8)))
    canvas.paste(picture, (wide // 8, high // 8))
    left, top = rng.randint(0, 2 * (wide // 8)), rng.randint(0, 2 * (high // 8))
    picture = canvas.crop((left, top, left + wide, top + high))
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = enhance(picture).enhance(rng.uniform(0.7, 1.3))
    return picture


_RECIPE_FLAGS = (
    "entity_replacement_probability",
    "gate_initial_bias",
    "reconstruction_weight",
    "cycle_weight",
    "sampler_initial_keep",
)

# Photographs of two concepts differ less, beside what differs within a concept, than drawings do: a generator needs
# more steps to tell them apart, and the vision encoder more width.
_DRAWN = {"steps": 450, "vision_steps": 700, "vision_width": 32}
_PHOTOGRAPHED = {"steps": 1200, "vision_steps": 1000, "vision_width": 64}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; None for the program's own."""
    parser = Parser(__doc__)
    parser.add_argument("--seeds", type=seeds, default="0", help="comma-separated")
    of_variants = f"comma-separated, of {', '.join(VARIANTS)}"
    parser.add_argument("--variants", type=names_of(VARIANTS), default="full,text_only", help=of_variants)
    parser.add_argument("--steps", type=positive, help="default: 450 with drawings, 1200 with photographs")
    parser.add_argument("--batch_size", type=positive, default=32)
    parser.add_argument("--learning_rate", type=rate, default=2e-3)
    for name in _RECIPE_FLAGS:
        parser.add_argument(f"--{name}", type=float, help="as in BgaMnerConfig; default: the quickstart's")
    parser.add_argument("--config", type=json_object, default={}, help="further options of BgaMnerConfig, as JSON")
    parser.add_argument("--names_per_type", type=positive, default=30)
    parser.add_argument("--pairs", type=positive, default=2400, help="half of them labelled")
    parser.add_argument("--test_sentences", type=positive, default=400)
    parser.add_argument("--mismatch_rate", type=share, default=0.15)
    parser.add_argument("--clutter", type=share, default=0.3)
    parser.add_argument("--clauses", action="store_true", help="irrelevant clauses in every sentence")
    parser.add_argument("--pictures", type=Path, help="photographs, one folder a concept, instead of drawings")
    parser.add_argument("--vision_model", help="name of a vision encoder, instead of a tiny one")
    parser.add_argument(
        "--vision_steps", type=positive, help="of the tiny vision encoder's own training; default: 700, 1000"
    )
    parser.add_argument("--vision_width", type=positive, help="of the tiny vision encoder; default: 32, 64")
    parser.add_argument("--layers", type=positive, default=2, help="of the tiny encoders, both")
    parser.add_argument("--drawings", type=positive, default=8000, help="for the tiny vision encoder's own training")
    parser.add_argument("--report", action="store_true", help="print cycle, reconstruction and retrieval figures too")
    parser.add_argument("--threads", type=positive, help="threads of torch; default: leave them")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    options = parser.parse_args(argv)
    for name, value in (_DRAWN if options.pictures is None else _PHOTOGRAPHED).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, list[float]]]:
    """Run the benchmark, and print a table.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the command line by default.

    Returns
    -------
    dict
        By variant f1, span_recall, type_accuracy and labelled_f1, each with one value a seed.
    """
    options = parse(argv)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    console = Console(width=110)
    found: dict[str, dict[str, list[float]]] = {name: {key: [] for key in SCORES} for name in options.variants}
    reports: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            start = time.perf_counter()
            benchmark = Benchmark(options, seed, Path(folder))
            if benchmark.vision_accuracy is not None:
                console.print(f"Seed {seed}: accuracy of the vision encoder {benchmark.vision_accuracy:.3f}")
            trained: dict[str, tuple[Any, dict[str, float] | None]] = {}
            for name in options.variants:
                variant = VARIANTS[name]
                # variants that only differ at test share a training
                key = json.dumps([variant.options, variant.pictures])
                if key not in trained:
                    model = benchmark.train(variant).model
                    trained[key] = model, benchmark.report(model) if options.report else None
                model, report = trained[key]
                values = benchmark.scores(model, variant)
                for score_name in SCORES:
                    found[name][score_name].append(values[score_name])
                console.print(f"Seed {seed}, {name}: " + ", ".join(f"{k} {v:.3f}" for k, v in values.items()))
                for report_name, value in (report or {}).items():
                    reports.setdefault(name, {}).setdefault(report_name, []).append(value)
            console.print(f"Seed {seed}: {time.perf_counter() - start:.0f} s")
    _print_table(console, found)
    if reports:
        _print_reports(console, reports)
    if options.json:
        print(json.dumps({"alignment": found} | ({"report": reports} if reports else {})))
    return found


def _print_table(console: Console, found: dict[str, dict[str, list[float]]]) -> None:
    table = Table(title="Never-labelled names, mean (worst) over seeds", title_justify="left")
    for column in ("variant", "F1", "span recall", "type accuracy", "F1 of labelled names"):
        table.add_column(column)
    for name, values in found.items():
        table.add_row(name, *(f"{np.mean(values[key]):.3f} ({min(values[key]):.3f})" for key in SCORES))
    console.print(table)


def _print_reports(console: Console, reports: dict[str, dict[str, list[float]]]) -> None:
    table = Table(title="New pairs, without their labels, mean over seeds", title_justify="left")
    table.add_column("variant")
    for column in ("text -> image", "image -> text", "text -> image -> text", "spread", "rank (chance)"):
        table.add_column(column)
    for name, values in reports.items():
        mean = {key: float(np.mean(of_seeds)) for key, of_seeds in values.items()}
        errors = [
            f"{mean[key]:.3f} / {mean[f'{key}_shuffled']:.3f}"
            for key in ("text_to_image", "image_to_text", "text_to_image_to_text")
        ]
        rank = f"{mean['median_rank']:.1f} ({mean['chance_rank']:.1f})"
        table.add_row(name, *errors, f"{mean['generated_spread']:.3f}", rank)
    console.print(table)
    console.print("Errors: against the pair's own / against another pair's features.")


if __name__ == "__main__":
    run_main(main)
