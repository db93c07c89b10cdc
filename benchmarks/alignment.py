"""Measure whether images teach what text doesn't tell: types of names whose sentences carry no labels.

Trained on the generated corpus (`bga_mner.examples.synthetic.corpus`): sentences that don't tell the type of the
invented name in them, each with an image of its type's visual concept; half of the names only occur in pairs whose
tags are hidden. Scored on sentences *without* images::

    python benchmarks/alignment.py --seeds 0,1,2 --variants full,text_only --json

F1 is strict, by entity; span recall the share of entities whose ends are right, type accuracy the share of those whose
type is right (chance: 0.25). What a variant gains on the first has an interval over resampled seeds and names,
each with all of its sentences. `--images DIR` takes photographs, one folder per concept, instead of drawings. The
vision encoder (`--vision_model`, or a tiny one that is trained here to tell the concepts apart) is kept frozen.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import Parser, names_of, run_main

import numpy as np
import torch
from rich.console import Console

from bga_mner import DataCollatorForMner, alignment_report
from bga_mner.benchmarks.kept_results import KeptResults, add_results_options
from bga_mner.benchmarks.name_scores import count_names, print_differences
from bga_mner.benchmarks.variants import collect, measure_variants
from bga_mner.configuration.configuration_bga_mner import PAPER
from bga_mner.configuration.former_names import in_todays_words
from bga_mner.examples.reporting import mean_and_worst, print_json, print_table, start
from bga_mner.examples.synthetic.experiment import SCORES, TEXT_ONLY, Experiment, Variant, add_options, read_options
from bga_mner.examples.synthetic.recipe import IMAGE_SIZE


VARIANTS = {
    "full": Variant(),
    "text_only": TEXT_ONLY,
    # the control: all machinery and images, but these say nothing
    "shuffled_images": Variant(images="shuffled"),
    # replaced entities read the image
    "visual_teaching": Variant({"replaced_entities_read": "real"}),
    "no_replacement": Variant({"entity_replacement_probability": 0.0}),
    "no_scs": Variant({"use_context_sampler": False}),
    "no_match": Variant({"sampler_reads_match": False}),
    "no_reconstruction": Variant({"reconstruction_weight": 0.0}),
    "cycle": Variant({"cycle_weight": 1.0}),
    # the generator has a feature to make of each patch, or reads all words at all times
    "per_patch": Variant({"visual_target": "last"}),
    "no_hiding": Variant({"context_hiding_probability": 0.0}),
    "stages_alone": Variant({"align_last_states": False}),
    "one_stage": Variant({"num_bga_layers": 1}),
    "all_losses": Variant({"loss_stages": "all"}),
    "low_weight": Variant({"reconstruction_weight": 1.0}),
    "label_taught": Variant({"generators_learn_from_labels": True}),
    "paper": Variant(dict(PAPER)),
    "release_0_1": Variant(in_todays_words({})),
    "text_to_image_only": Variant({"use_image_to_text": False}),
    "image_to_text_only": Variant({"use_text_to_image": False}),
    "no_hybrid": Variant({"hybrid_attention": "none"}),
    "both_branches": Variant({"hybrid_attention": "both"}),
    "real_images": Variant(visual_source="real"),
}


def report(experiment: Experiment, model: Any) -> dict[str, float] | None:
    """Measure a model on new pairs without their labels.

    None for a model that generates one modality only, or the states of inner layers, which are not returned.
    """
    branches = model.bga_mner.text_branch, model.bga_mner.vision_branch
    if model.config.visual_target == "layer" or any(branch.generator is None for branch in branches):
        return None
    concepts = experiment.corpus.test_unseen_labels["concept"]
    report = alignment_report(
        model, experiment.processor, experiment.new_pairs, concepts, show_progress=not experiment.options.quiet
    )
    return report | measure_kept(experiment, model)


def measure_kept(experiment: Experiment, model: Any) -> dict[str, float]:
    """Measure what the last stage keeps of new images and sentences, and of the objects and names in them.

    A ratio is the share kept of the object's patches (or of the name's tokens) over the share kept of all: a random
    mask of the same size has 1. Mismatched are sentences with another's image, of another concept.
    """
    rows, boxes = experiment.new_pairs, experiment.corpus.test_unseen_labels["object_box"]
    concepts = experiment.corpus.test_unseen_labels["concept"]
    collate, config = DataCollatorForMner(experiment.processor), model.config
    side = config.vision_grid_side
    kept: dict[str, list[float]] = {"patches": [], "object": [], "mismatched": [], "tokens": [], "name": []}
    model.eval()
    for first_row in range(0, len(rows), 64):
        batch = collate(rows[first_row : first_row + 64])
        labels = batch.pop("labels")
        of_batch = concepts[first_row : first_row + 64]
        with torch.no_grad():
            output = model(**batch)
            mismatched = model(**batch | {"pixel_values": batch["pixel_values"].roll(1, 0)})
        first = config.num_vision_prefix_tokens
        patches = output.vision_keep_masks[-1][:, first:]
        others = mismatched.vision_keep_masks[-1][:, first:].mean(dim=1)
        differ = [before != concept for before, concept in zip([of_batch[-1], *of_batch], of_batch, strict=False)]
        kept["mismatched"] += others[torch.tensor(differ)].tolist()
        # (batch, patches) -> (batch, rows, columns)
        for mask, box in zip(patches.unflatten(1, (side, side)), boxes[first_row : first_row + 64], strict=True):
            kept["patches"].append(float(mask.mean()))
            if box is not None:
                left, top, right, bottom = (round(edge * side / IMAGE_SIZE) for edge in box)
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


class AlignmentExperiment(Experiment):
    """One seed, whose trainings are measured and reported on."""

    def fit(self, variant: Variant) -> tuple[Any, dict[str, float] | None]:
        """Train a variant, and report on it if --report asks for it."""
        model = self.train(variant).model
        return model, report(self, model) if self.options.report else None

    def measure(self, model: Any, variant: Variant) -> tuple[dict[str, float], np.ndarray]:
        """Score a trained model on sentences: `SCORES`, and `count_names` of the never-labelled names."""
        values, tags = self.scores(model, variant)
        return values, count_names(tags, self.corpus.test_unseen_labels)


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, list[float]]]:
    """Run the benchmark, and print a table; return by variant its `SCORES`, each with one value per seed."""
    parser = Parser(__doc__)
    of_variants = f"comma-separated list from {', '.join(VARIANTS)}"
    parser.add_argument("--variants", type=names_of(VARIANTS), default="full,text_only", help=of_variants)
    parser.add_argument("--report", action="store_true", help="also print cycle, reconstruction and retrieval scores")
    add_options(parser)
    add_results_options(parser, cache=False)
    options = read_options(parser, argv)
    start(options)
    console = Console(width=110)
    results = KeptResults(options)
    with tempfile.TemporaryDirectory() as folder:

        def experiment_of(seed: int) -> AlignmentExperiment:
            experiment = AlignmentExperiment(options, seed, Path(folder))
            if experiment.vision_accuracy is not None:
                console.print(f"Seed {seed}: accuracy of the vision encoder {experiment.vision_accuracy:.3f}")
            return experiment

        missing = results.missing(options.seeds, options.variants)
        measure_variants(missing, VARIANTS, experiment_of, results, console)
    found, counts, reports = collect(results, options.seeds, options.variants)
    columns = ("variant", "F1", "span recall", "type accuracy", "F1 of labelled names")
    rows = [(name, *(mean_and_worst(values[key]) for key in SCORES)) for name, values in found.items()]
    print_table("Never-labelled names, mean (worst) over seeds", columns, rows, console)
    print_differences(counts, console)
    if reports:
        _print_reports(console, reports)
    print_json(options, {"alignment": found} | ({"report": reports} if reports else {}))
    return found


def _print_reports(console: Console, reports: dict[str, dict[str, list[float]]]) -> None:
    rows = []
    for name, values in reports.items():
        mean = {key: float(np.mean(of_seeds)) for key, of_seeds in values.items()}
        errors = [
            f"{mean[key]:.3f} / {mean[f'{key}_shuffled']:.3f}"
            for key in ("text_to_image", "image_to_text", "text_to_image_to_text")
        ]
        rank = f"{mean['median_rank']:.1f} ({mean['chance_rank']:.1f})"
        rows.append((name, *errors, f"{mean['generated_spread']:.3f}", rank))
    columns = ("variant", "text -> image", "image -> text", "text -> image -> text", "spread", "rank (chance)")
    print_table("New pairs, without their labels, mean over seeds", columns, rows, console)
    console.print("Errors: against the pair's own / against another pair's features.")


if __name__ == "__main__":
    run_main(main)
