"""What quality costs: variants of a model, and what they lose or gain in F1 and in time.

Quality is F1 on never-labelled names in real captions: variants, data, encoders and options are those of captions.py.
Time is that of tagging texts, and of a training step on pairs whose vision states are cached, with the same encoders,
as a ratio to a plain encoder's. What captions.py left in a file of results is not trained again, and times are kept
there, too, so that hours of trainings may be spread over several runs::

    python benchmarks/frontier.py --data_dir flickr8k --text_model FOLDER --vision_model FOLDER --threads 1 \
        --results outputs/captions.jsonl --seeds 0,1 --plot docs/frontier.png --json

Without --seeds, it measures times alone.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import Parser, check_output, positive, run_main

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from rich.console import Console
from transformers import AutoModelForTokenClassification, set_seed

from bga_mner.benchmarks import captions
from bga_mner.benchmarks.base_size import make_batch, run
from bga_mner.benchmarks.kept_results import KeptResults
from bga_mner.benchmarks.timing import compute_clock, median_ratio, time_in_turn
from bga_mner.examples.reporting import mean_and_worst, print_json, print_table, start
from bga_mner.examples.synthetic.experiment import Variant


# What costs or saves time.
COSTLY = (
    "full",
    "one_stage",
    "four_stages",
    "per_patch",
    "all_losses",
    "stages_alone",
    "wide_generator",
    "cycle",
    "no_scs",
    "text_to_image_only",
    "no_hybrid",
)


def measure_time(options: argparse.Namespace, variant: Variant) -> dict[str, float]:
    """Time a variant; return its ratios to a plain encoder, "tagging" and "training"."""
    set_seed(0)
    trained = captions.make_model(options, variant).train()
    plain = AutoModelForTokenClassification.from_pretrained(options.text_model, num_labels=len(captions.LABELS)).train()
    batch = make_batch("tiny")  # texts of as many tokens, of a small vocabulary
    batch["input_ids"] %= trained.config.text_config.vocab_size
    batch["labels"].clamp_(max=len(captions.LABELS) - 1)
    images = torch.randn(len(batch["input_ids"]), 3, options.image_size, options.image_size)
    with torch.no_grad():
        pairs = batch | {"vision_states": trained.bga_mner.encode_images(images)}
    step = {"ours": lambda: run(trained, pairs), "plain": lambda: run(plain, batch)}
    times = time_in_turn(step, options.repeats, clock=compute_clock)
    found = {"training": median_ratio(times["ours"], times["plain"])}
    texts = {key: batch[key] for key in ("input_ids", "attention_mask")}
    trained.eval(), plain.eval()
    tagging = {"ours": lambda: run(trained, texts), "plain": lambda: run(plain, texts)}
    times = time_in_turn(tagging, 2 * options.repeats, clock=compute_clock)
    return found | {"tagging": median_ratio(times["ours"], times["plain"])}


def plot(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Plot quality over time: mean, worst and best seed."""
    with mpl.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(10, 4.2), layout="constrained")
        for axes, cost in zip(figure.subplots(1, 2, sharey=True), ("tagging", "training"), strict=True):
            for name, values in found.items():
                is_default = name == "full"
                colour = "tab:red" if is_default else "tab:blue"
                mean = statistics.mean(values["f1"])
                axes.plot([values[cost]] * 2, [min(values["f1"]), max(values["f1"])], color=colour, alpha=0.4)
                axes.plot(values[cost], mean, "o", color=colour)
                offset = (5, -11) if is_default else (5, 3)  # other points lie close to the default's
                axes.annotate(name, (values[cost], mean), xytext=offset, textcoords="offset points", color=colour)
            axes.set_xlabel(f"time of {cost}, ratio to a plain encoder")
            axes.margins(x=0.25)
            axes.grid(alpha=0.2)
        figure.axes[0].set_ylabel("F1 on never-labelled names")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Measure what is missing, and print a table; return by variant "f1", with one value per seed, and the times."""
    parser = Parser(__doc__)
    captions.add_options(parser)
    parser.set_defaults(seeds=[], variants=",".join(COSTLY))
    parser.add_argument("--repeats", type=positive, default=7, help="training steps to time, and half of the taggings")
    parser.add_argument("--plot", type=Path, help="PNG file for the plot")
    options = captions.read_options(parser, argv)
    if options.plot is not None:
        check_output(options.plot, "--plot", folder=False)
        if not options.seeds:
            parser.error("Expected --seeds with --plot, which draws their F1 over time. Add them.")
    start(options)
    console = Console(width=120)
    results = KeptResults(options)
    captions.measure(options, console, results)
    found, rows = {}, []
    for name in options.variants:
        of_time = options.repeats, f"{name}, time, threads: {torch.get_num_threads()}"
        if of_time not in results:
            results.add(*of_time, measure_time(options, captions.VARIANTS[name]))
        f1, times = [results[seed, name]["scores"]["f1"] for seed in options.seeds], results[of_time]
        found[name] = {"f1": f1, **times}
        shown = (f"{times[key]:.2f}" for key in ("tagging", "training"))
        rows.append((name, mean_and_worst(f1) if f1 else "", *shown))
    title = "F1 on never-labelled names, mean (worst); time / plain encoder's"
    print_table(title, ("variant", "F1", "tagging", "training"), rows)
    if options.plot is not None:
        plot(found, options.plot)
    print_json(options, {"frontier": found})
    return found


if __name__ == "__main__":
    run_main(main)
