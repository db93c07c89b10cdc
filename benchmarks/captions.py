"""Measure whether images teach the types of names in real captions, and how much of a type generated features tell.

The subject of a photograph's caption becomes an invented name (`caption_names.py`); half of the names only occur in
captions whose tags are hidden. Scored on other captions *without* images, whose words hardly tell the type::

    python benchmarks/captions.py --data_dir flickr8k --text_model minilm --vision_model dinov2 --json

`data_dir` holds `captions.tsv` (`<id><TAB><caption>`) and `pictures/<id>.jpg`. F1 is strict, by entity; type accuracy
is the share of the spans found whose type is right (chance: 0.5), and "names right" the share of never-labelled names
that are typed right in more than half of their test captions. Intervals (95 %) are of resampled seeds and names. The
vision encoder is kept frozen, and looks at each image once.
"""

import argparse
import importlib
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import (
    Parser,
    at_least,
    check_output,
    json_object,
    names_of,
    positive,
    rate,
    run_main,
    seeds,
)

import numpy as np
import torch
from datasets import Dataset
from rich.console import Console
from transformers import Trainer, set_seed

from bga_mner import (
    BgaMnerForTokenClassification,
    BgaMnerProcessor,
    DataCollatorForMner,
    LossPartsCallback,
    layerwise_parameter_groups,
    predict_tags,
    spans_from_tags,
)
from bga_mner.benchmarks import alignment, data_files
from bga_mner.benchmarks.caption_names import KINDS, LABELS, CaptionCorpus, build_corpus
from bga_mner.benchmarks.kept_results import KeptResults, add_results_options
from bga_mner.benchmarks.name_scores import MEASURES, between, count_names, intervals, measures, print_differences
from bga_mner.benchmarks.variants import collect, measure_variants
from bga_mner.examples.fine_tuning.arguments import ModelArguments
from bga_mner.examples.fine_tuning.model import build_model
from bga_mner.examples.reporting import add_common_options, mean_and_worst, print_json, print_table, start
from bga_mner.examples.synthetic.experiment import Variant, score, with_images
from bga_mner.examples.synthetic.recipe import encode_once, training_arguments
from bga_mner.modeling_bga.training.collapse_alarm import comparable, spread
from bga_mner.processing.evaluation.alignment_view import align
from bga_mner.processing.images.vision_states import VISION_STATES, read_vision_states
from bga_mner.processing.inference.evaluation_mode import evaluating


# Vision layers that read text make other states of an image for each caption, which can't be cached.
_CACHED = {"hybrid_attention": "text"}
# Nothing is replaced here, so that what replaced entities read makes no variant.
VARIANTS = {
    name: variant
    for name, variant in alignment.VARIANTS.items()
    if name not in ("no_replacement", "visual_teaching", "both_branches")
}
VARIANTS["replacement"] = Variant({"entity_replacement_probability": 0.5})
_PAPER = {**alignment.VARIANTS["paper"].options, **_CACHED, "preset": "paper"}  # with all layers
VARIANTS["paper"] = Variant(_PAPER)
VARIANTS["four_stages"] = Variant({"num_bga_layers": 4})
VARIANTS["wide_generator"] = Variant({"generator_ffn_ratio": 4})
SCORES = ("f1", "type_accuracy", "names_right", "labelled_f1")
# Tables of --report: titles, and columns by figure.
REPORTS = {
    "Types of never-labelled names in features": {
        "real_accuracy": "real, accuracy",
        "names_auc": "from names, AUC",
        "training_auc": "from training, AUC",
        "test_auc": "from test, AUC",
        "entering_accuracy": "before the last layer",
        "states_accuracy": "after it",
        "states_names_right": "names right",
        "generated_spread": "spread",
    },
    "Types that the words beside never-labelled names tell": {
        "context_accuracy": "naive Bayes, right type",
        "context_names_right": "names right",
        "new_names_accuracy": "beside new names, right type",
        "new_names_right": "names right",
    },
}
EVALUATION_BATCH = 64


def make_model(options: argparse.Namespace, variant: Variant) -> Any:
    """Join the pretrained encoders, of which that of images is frozen; alignment, head and CRF are new."""
    model = BgaMnerForTokenClassification.from_text_vision_pretrained(
        options.text_model,
        options.vision_model,
        labels=list(LABELS),
        **({"image_size": options.image_size} | options.config | variant.options),
    )
    model.freeze_vision_encoder()
    return model


def _names_right(right: np.ndarray, names: Sequence[str]) -> float:
    """Return the share of names of which most captions are right."""
    of_names = [right[np.array(names) == name] for name in dict.fromkeys(names)]
    return float(np.mean([2 * of_name.sum() > len(of_name) for of_name in of_names]))


def encode_images(
    options: argparse.Namespace, processor: BgaMnerProcessor, images: Sequence[str], variants: Sequence[Variant]
) -> Dataset:
    """Run the vision encoder once on each image; the variants share the states, of which they may read fewer."""
    paths = Dataset.from_dict({"image": sorted(set(images))})
    kept = options.cache_dir or options.folder
    deepest = max((make_model(options, variant) for variant in variants), key=lambda model: model.config.num_stages)
    return data_files.encode_images(paths, deepest, processor, kept).add_column("path", paths["image"])


class CaptionExperiment:
    """One seed: its captions, and trainings that share them; `states` are those of `encode_images`."""

    def __init__(
        self,
        options: argparse.Namespace,
        seed: int,
        corpus: CaptionCorpus,
        processor: BgaMnerProcessor,
        states: Dataset,
    ) -> None:
        self.options, self.seed, self.corpus, self.processor = options, seed, corpus, processor
        paths = corpus.train["image"]
        number = {path: index for index, path in enumerate(states["path"])}
        # pairs of an image share its states
        of_image = {path: read_vision_states(states[number[path]][VISION_STATES]) for path in set(paths)}
        encoded = encode_once(processor, corpus.train.remove_columns("image"))
        self.rows = [row | {VISION_STATES: of_image[path]} for row, path in zip(encoded, paths, strict=True)]

    def rows_for(self, model: Any) -> list[dict[str, Any]]:
        """Return the training rows with the vision states that a model's own stages read: the last ones."""
        count = model.config.num_stages + 1
        return [row | {VISION_STATES: row[VISION_STATES][-count:]} for row in self.rows]

    def train(self, variant: Variant) -> Any:
        """Train a variant, with the stock Trainer."""
        options = self.options
        set_seed(self.seed)
        model = make_model(options, variant)
        groups = layerwise_parameter_groups(model, options.learning_rate, 1.0, options.new_learning_rate, 0.01)
        steps = options.epochs * math.ceil(len(self.rows) / options.batch_size)
        arguments = training_arguments(
            options.folder,
            steps,
            options.batch_size,
            options.learning_rate,
            self.seed,
            options.quiet,
            use_cpu=not torch.cuda.is_available(),
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=with_images(self.rows_for(model), variant.images, self.seed, VISION_STATES),
            data_collator=DataCollatorForMner(self.processor),
            callbacks=[LossPartsCallback()],
            optimizers=(torch.optim.AdamW(groups, fused=True), None),
        )
        trainer.train()
        return model

    def fit(self, variant: Variant) -> tuple[Any, dict[str, float] | None]:
        """Train a variant, and report on it if --report asks for it; draw the figure of the first one."""
        model, options = self.train(variant), self.options
        report = self.report(model) if options.report else None
        if options.figure is not None and self.seed == options.seeds[0] and variant is VARIANTS[options.variants[0]]:
            self.draw(model, options.figure)
        return model, report

    def measure(self, model: Any, variant: Variant) -> tuple[dict[str, float], np.ndarray]:
        """Score a trained model on test captions: `SCORES`, and `count_names` of the never-labelled names."""

        def tags(test: Dataset) -> list[list[str]]:
            return predict_tags(
                model, self.processor, test, variant.visual_source, EVALUATION_BATCH, show_progress=False
            )

        unseen, labelled = self.corpus.test_unseen_labels, self.corpus.test_labelled
        predicted = tags(unseen)
        found = score(predicted, unseen["ner_tags"]) | {
            "labelled_f1": score(tags(labelled), labelled["ner_tags"])["f1"]
        }
        counts = count_names(predicted, unseen)
        found["names_right"] = float(measures(counts)[2])
        return {name: found[name] for name in SCORES}, counts

    def report(self, model: Any) -> dict[str, float] | None:
        """Measure how much of a name's type is in what is generated, by a linear probe that learns from real images.

        The probe learns from the images of labelled pairs. `real_accuracy` is its accuracy on images of never-labelled
        names; `..._auc` the areas under the ROC curve on features generated of never-labelled names: from the bare
        names, their training and their test captions. `states_accuracy` and `states_names_right` are of another probe,
        which learns from the text states of labelled names what the tagger could, and reads those of the test captions;
        `entering_accuracy` is that of the states that enter the last layer, from which the last stage generates. What
        `_told_by_context` finds is there, too.
        None for a model whose text generates nothing to be read, or the states of inner layers.
        """
        branch = model.bga_mner.text_branch
        if branch.generator is None or branch.projections is None or model.config.visual_target == "layer":
            return None
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import roc_auc_score
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        types = self.corpus.labelled_names | self.corpus.unlabelled_names

        def is_first(names: Sequence[str]) -> np.ndarray:
            return np.array([types[name] == KINDS[0] for name in names])

        names, rows = self.corpus.train["name"], self.rows_for(model)
        pairs: dict[bool, list[int]] = {True: [], False: []}
        for index, name in enumerate(names):
            pairs[name in self.corpus.labelled_names].append(index)
        _, known = self._mean_features(model, [rows[index] for index in pairs[True]])
        from_training, real = self._mean_features(model, [rows[index] for index in pairs[False]])
        probe, *readers = (make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)) for _ in range(3))
        known_types = is_first([names[index] for index in pairs[True]])
        probe.fit(known.numpy(), known_types)
        hidden = is_first([names[index] for index in pairs[False]])
        report = {"real_accuracy": float(probe.score(real.numpy(), hidden))}
        bare, test = list(self.corpus.unlabelled_names), self.corpus.test_unseen_labels
        for part, generated, truth in (
            ("names", self._generated(model, [name.split() for name in bare]), is_first(bare)),
            ("training", from_training, hidden),
            ("test", self._generated(model, test["tokens"]), is_first(test["name"])),
        ):
            report[f"{part}_auc"] = float(roc_auc_score(truth, probe.decision_function(generated.numpy())))
        tested = encode_once(self.processor, test.select_columns(["tokens", "ner_tags"]))
        taught, read = (self._name_states(model, texts) for texts in ([rows[index] for index in pairs[True]], tested))
        for part, reader, its, theirs in zip(("entering", "states"), readers, taught, read, strict=True):
            right = reader.fit(its.numpy(), known_types).predict(theirs.numpy()) == is_first(test["name"])
            report[f"{part}_accuracy"] = float(right.mean())
        report["states_names_right"] = _names_right(right, test["name"])
        ratio = spread(from_training[:, None]) / spread(real[:, None]).clamp(1e-12)
        return report | {"generated_spread": float(ratio)} | self._told_by_context(model)

    def _told_by_context(self, model: Any) -> dict[str, float]:
        """Measure what the words beside a never-labelled name tell of its type, without the name.

        They are read by naive Bayes, and by the model beside names that it has never met.
        """
        unknown, test = self.corpus.test_new_names, self.corpus.test_unseen_labels
        types = [self.corpus.unlabelled_names[name] for name in test["name"]]
        right = (np.array(test["odds"]) > 0) == (np.array(types) == KINDS[0])
        tags = predict_tags(model, self.processor, unknown, batch_size=EVALUATION_BATCH, show_progress=False)
        _, accuracy, names_right = measures(count_names(tags, unknown))
        return {
            "context_accuracy": float(right.mean()),
            "context_names_right": _names_right(right, test["name"]),
            "new_names_accuracy": float(accuracy),
            "new_names_right": float(names_right),
        }

    def draw(self, model: Any, path: Path) -> None:
        """Draw what the model matched of one image each of never-labelled names: up to three right, and three wrong."""
        from bga_mner.processing.evaluation.alignment_figure import draw_alignment  # needs matplotlib

        path.parent.mkdir(parents=True, exist_ok=True)
        pairs = [row for row in self.corpus.train if row["name"] in self.corpus.unlabelled_names]
        first = list({row["name"]: row for row in pairs}.values())
        types = self.corpus.unlabelled_names
        tagged = predict_tags(
            model, self.processor, Dataset.from_dict({"tokens": [row["tokens"] for row in first]}), show_progress=False
        )
        chosen: dict[bool, list[Any]] = {True: [], False: []}
        for row, tags in zip(first, tagged, strict=True):
            spans = [(kind, " ".join(row["tokens"][start:end])) for kind, start, end in spans_from_tags(tags)]
            chosen[spans == [(types[row["name"]], row["name"])]].append(row)
        rows = [*chosen[True][:3], *chosen[False][:3]]
        draw_alignment(
            [(align(model, self.processor, row["tokens"], row["image"]), row["image"]) for row in rows], path
        )

    def _generated(self, model: Any, sentences: Sequence[Sequence[str]]) -> torch.Tensor:
        """Return the mean features (sentences, width) that are generated from sentences, given as words."""
        rows = encode_once(self.processor, Dataset.from_dict({"tokens": sentences}))
        # any image: what is generated from a text depends on none
        image = self.rows[0][VISION_STATES][-(model.config.num_stages + 1) :]
        return self._mean_features(model, [row | {VISION_STATES: image} for row in rows])[0]

    def _batches(self, model: Any, rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, torch.Tensor]]:
        collate, device = DataCollatorForMner(self.processor), next(model.parameters()).device
        for first in range(0, len(rows), EVALUATION_BATCH):
            yield {key: it.to(device) for key, it in collate(rows[first : first + EVALUATION_BATCH]).items()}

    def _name_states(self, model: Any, rows: Sequence[Mapping[str, Any]]) -> torch.Tensor:
        """Return the text states of names before and after the last layer, as means over tokens: (2, rows, width)."""
        means = []
        with evaluating(model):
            for batch in self._batches(model, rows):
                output = model.bga_mner(batch["input_ids"], batch["attention_mask"], output_hidden_states=True)
                states = torch.stack(output.hidden_states[-2:])  # (2, batch, length, width)
                named = batch["labels"] > LABELS.index("O")  # (batch, length), -100 where no tag is
                # (2, batch, length, width) -> (2, batch, width)
                means.append((states * named[..., None]).sum(dim=2) / named.sum(dim=1, keepdim=True))
        return torch.cat(means, dim=1).cpu()

    def _mean_features(self, model: Any, rows: Sequence[Mapping[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is generated from texts, and the real features of images, averaged over positions."""
        means: tuple[list[torch.Tensor], list[torch.Tensor]] = [], []
        with evaluating(model):
            for batch in self._batches(model, rows):
                output = model(**batch, visual_source="generated")
                sides = comparable(model, output.generated_vision[-1], output.vision_last_hidden_state)
                for kept, features in zip(means, sides, strict=True):
                    # (batch, positions, width) -> (batch, width), of pooled features (batch, positions * width)
                    pooled = model.config.visual_target == "pooled"
                    kept.append((features.flatten(1) if pooled else features.mean(dim=1)).cpu())
        return torch.cat(means[0]), torch.cat(means[1])


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of what is trained, and of what is kept and shown of it."""
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with captions.tsv and pictures/")
    parser.add_argument("--text_model", required=True, help="pretrained text encoder: folder, or name on the Hub")
    parser.add_argument("--vision_model", required=True, help="pretrained vision encoder: folder, or name on the Hub")
    parser.add_argument("--image_size", type=positive, default=112, help="side of the images in pixels")
    parser.add_argument("--names", type=at_least(2), default=40, help="names of a type, half of them never labelled")
    parser.add_argument("--pairs_per_name", type=positive, default=25, help="training captions with images")
    parser.add_argument("--epochs", type=positive, default=6)
    parser.add_argument("--batch_size", type=positive, default=16)
    parser.add_argument("--learning_rate", type=rate, default=2e-4, help="of pretrained weights")
    parser.add_argument("--new_learning_rate", type=rate, default=1e-3, help="of weights that are new")
    parser.add_argument("--seeds", type=seeds, default="0", help="comma-separated list")
    of_variants = f"comma-separated list from {', '.join(VARIANTS)}"
    parser.add_argument("--variants", type=names_of(VARIANTS), default="full,text_only", help=of_variants)
    parser.add_argument("--config", type=json_object, default={}, help="additional options of BgaMnerConfig, as JSON")
    parser.add_argument("--report", action="store_true", help="also print how much of a type generated features tell")
    parser.add_argument("--figure", type=Path, help="PNG to draw: matches of the first variant and seed, and failures")
    add_results_options(parser)
    add_common_options(parser, quiet=True)


def read_options(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    options = parser.parse_args(argv)
    if options.figure is not None:
        check_output(options.figure, "--figure", folder=False)
        importlib.import_module("matplotlib")  # before hours of training
        if not options.seeds:
            parser.error("Expected --seeds with --figure, which draws the first seed's model. Add them.")
        its = options.config | VARIANTS[options.variants[0]].options
        generates = its.get("use_text_to_image", True)
        if not generates or not its.get("normalize_targets", True) or its.get("visual_target") == "layer":
            parser.error(
                f"Expected a first variant whose features can be drawn, got {options.variants[0]} with --config "
                f"{options.config}. Put full first, and leave these options out."
            )
    return options


def measure(options: argparse.Namespace, console: Console, results: KeptResults) -> None:
    """Train and score what is missing among the results: scores, `count_names`, and the report."""
    to_draw = None if options.figure is None else options.seeds[0]
    missing = results.missing(options.seeds, options.variants)
    if to_draw is not None and options.variants[0] not in missing.get(to_draw, []):
        missing[to_draw] = [options.variants[0], *missing.get(to_draw, [])]  # there is no figure without a model
    if not missing:
        return
    variants = [VARIANTS[name] for name in options.variants]
    looks = any(variant.visual_source == "real" for variant in variants)
    sizes = (options.names, options.pairs_per_name)
    # of all seeds and variants, so that a run that goes on finds the same vision states in --cache_dir
    corpora = {seed: build_corpus(options.data_dir, seed, *sizes, test_images=looks) for seed in options.seeds}
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        encoders = ModelArguments(options.text_model, options.vision_model, image_size=options.image_size)
        _, processor = build_model(encoders, list(LABELS), images=True, max_length=None)
        images = [path for corpus in corpora.values() for path in corpus.train["image"]]
        states = encode_images(options, processor, images, variants)

        def experiment_of(seed: int) -> CaptionExperiment:
            return CaptionExperiment(options, seed, corpora[seed], processor, states)

        measure_variants(missing, VARIANTS, experiment_of, results, console)


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, list[float]]]:
    """Run the benchmark, and print tables; return by variant its `SCORES`, each with one value per seed."""
    parser = Parser(__doc__)
    add_options(parser)
    options = read_options(parser, argv)
    start(options)
    console = Console(width=120)
    results = KeptResults(options)
    measure(options, console, results)
    found, counts, reports = collect(results, options.seeds, options.variants)
    _print_scores(console, found, counts)
    if reports:
        for title, columns in REPORTS.items():
            rows = [(name, *(mean_and_worst(its[key]) for key in columns)) for name, its in reports.items()]
            print_table(f"{title}, mean (worst) over seeds", ("variant", *columns.values()), rows, console)
    print_json(options, {"captions": found} | ({"report": reports} if reports else {}))
    return found


def _print_scores(
    console: Console, found: Mapping[str, Mapping[str, list[float]]], counts: Mapping[str, list[np.ndarray]]
) -> None:
    """Print scores with intervals over names and, of several variants, what each gains on the first."""
    rows = []
    for name, values in found.items():
        *of_names, labelled = (mean_and_worst(values[key]) for key in SCORES)
        ends = map(between, intervals(counts[name]))
        rows.append((name, *(cell for pair in zip(of_names, ends, strict=True) for cell in pair), labelled))
    columns = ("variant", *(column for measure in MEASURES for column in (measure, "95 %")), "F1 of labelled names")
    print_table("Never-labelled names, mean (worst) over seeds", columns, rows, console)
    print_differences(counts, console)


if __name__ == "__main__":
    run_main(main)
