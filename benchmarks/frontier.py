"""What quality costs: options of the model, and what they lose or gain in F1 and in time.

Quality is F1 on never-labelled names in real captions (benchmarks/captions.py, whose data and encoders it takes). Time
is that of tagging texts, and of a training step on pairs whose vision states are cached, with the same encoders, as a
ratio to a plain encoder's. What a run measures goes to a JSONL file of results, from which the table and the plot are
made, so that hours of trainings may be spread over several runs::

    python benchmarks/frontier.py --data_dir flickr8k --text_model FOLDER --vision_model FOLDER --threads 1 \
        --results outputs/frontier.jsonl --seeds 0,1 --time --plot docs/frontier.png --json
"""

import argparse
import copy
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import Parser, check_output, names_of, positive, run_main, seeds

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from rich.console import Console
from transformers import AutoModelForTokenClassification, set_seed

from bga_mner import BgaMnerConfig
from bga_mner.benchmarks import captions
from bga_mner.benchmarks.base_size import make_batch, run
from bga_mner.benchmarks.kept_results import KeptResults
from bga_mner.benchmarks.timing import median_ratio, time_in_turn
from bga_mner.examples.reporting import mean_and_worst, print_json, print_table, start
from bga_mner.examples.synthetic.experiment import Variant


# Options of BgaMnerConfig by name; what is left out is as by default.
PRESETS: dict[str, dict[str, Any]] = {
    "6 layers": {"num_bga_layers": 6},
    "4 layers": {"num_bga_layers": 4},
    "2 layers": {"num_bga_layers": 2},
    "1 layer": {"num_bga_layers": 1},
    "4 layers, a feature per patch": {"num_bga_layers": 4, "visual_target": "last"},
    "4 layers, losses of all stages": {"num_bga_layers": 4, "loss_stages": "all"},
    "4 layers, inner width 4": {"num_bga_layers": 4, "generator_ffn_ratio": 4},
    "4 layers, no context sampler": {"num_bga_layers": 4, "use_context_sampler": False},
    "4 layers, images generate no text": {"num_bga_layers": 4, "use_image_to_text": False},
    "4 layers, read by none": {"num_bga_layers": 4, "hybrid_attention": "none", "replaced_entities_read": "generated"},
}


def default_preset() -> str:
    """Return the name of the preset that is the configuration's default."""
    config = BgaMnerConfig()
    for name, preset in PRESETS.items():
        if all(getattr(config, key) == value for key, value in preset.items()):
            return name
    raise ValueError("Expected the default configuration among PRESETS, got other options only. Add it.")


def of_preset(name: str, options: argparse.Namespace) -> argparse.Namespace:
    """Return the options of benchmarks/captions.py that train with a preset."""
    found = copy.copy(options)
    for key in ("presets", "time", "repeats", "plot"):
        delattr(found, key)
    found.config, found.variants, found.report, found.figure = PRESETS[name], ["full"], False, None
    return found


def measure_time(options: argparse.Namespace, repeats: int) -> dict[str, float]:
    """Time a preset; return its ratios to a plain encoder, "tagging" and "training"."""
    set_seed(0)
    trained = captions.make_model(options, Variant()).train()
    plain = AutoModelForTokenClassification.from_pretrained(options.text_model, num_labels=len(captions.LABELS)).train()
    batch = make_batch("tiny")  # texts of as many tokens, of a small vocabulary
    batch["input_ids"] %= trained.config.text_config.vocab_size
    batch["labels"].clamp_(max=len(captions.LABELS) - 1)
    images = torch.randn(len(batch["input_ids"]), 3, options.image_size, options.image_size)
    with torch.no_grad():
        pairs = batch | {"vision_states": trained.bga_mner.encode_images(images)}
    times = time_in_turn({"ours": lambda: run(trained, pairs), "plain": lambda: run(plain, batch)}, repeats)
    found = {"training": median_ratio(times["ours"], times["plain"])}
    texts = {key: batch[key] for key in ("input_ids", "attention_mask")}
    trained.eval(), plain.eval()
    times = time_in_turn({"ours": lambda: run(trained, texts), "plain": lambda: run(plain, texts)}, 2 * repeats)
    return found | {"tagging": median_ratio(times["ours"], times["plain"])}


def plot(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Plot quality over time: mean, worst and best seed."""
    with mpl.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(10, 4.2), layout="constrained")
        default = default_preset()
        for axes, cost in zip(figure.subplots(1, 2, sharey=True), ("tagging", "training"), strict=True):
            for name, values in found.items():
                if cost not in values or not values["f1"]:
                    continue
                colour = "tab:red" if name == default else "tab:blue"
                mean = statistics.mean(values["f1"])
                axes.plot([values[cost]] * 2, [min(values["f1"]), max(values["f1"])], color=colour, alpha=0.4)
                axes.plot(values[cost], mean, "o", color=colour)
                label = f"{name} (default)" if name == default else name
                offset = (5, -11) if name == default else (5, 3)  # other points lie close to the default's
                axes.annotate(label, (values[cost], mean), xytext=offset, textcoords="offset points", color=colour)
            axes.set_xlabel(f"time of {cost}, ratio to a plain encoder")
            axes.margins(x=0.25)
            axes.grid(alpha=0.2)
        figure.axes[0].set_ylabel("F1 on never-labelled names")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Measure what is missing, and print a table; return by preset "f1", with one value per seed, and the times."""
    parser = Parser(__doc__)
    captions.add_options(parser)
    of_presets = f"semicolon-separated list from {'; '.join(PRESETS)} (default: all)"
    parser.add_argument("--presets", type=names_of(PRESETS, ";"), default=";".join(PRESETS), help=of_presets)
    parser.add_argument("--seeds", type=seeds, default=[], help="comma-separated seeds to train with")
    parser.add_argument("--time", action="store_true", help="time the presets")
    parser.add_argument("--repeats", type=positive, default=7, help="training steps to time, and half of the taggings")
    parser.add_argument("--plot", type=Path, help="PNG file for the plot")
    options = parser.parse_args(argv)
    if options.plot is not None:
        check_output(options.plot, "--plot", folder=False)
        if not options.seeds:
            parser.error("Expected --seeds with --plot, which draws their F1 over time. Add them.")
    start(options)
    console = Console(width=120)
    found: dict[str, dict[str, Any]] = {}
    for name in options.presets:
        console.print(name)
        its = of_preset(name, options)
        results = KeptResults(its)
        captions.measure(its, console, results)
        found[name] = {"f1": [results[seed, "full"]["scores"]["f1"] for seed in options.seeds]}
        time = options.repeats, f"time, threads: {torch.get_num_threads()}"
        if options.time and time not in results:
            results.add(*time, measure_time(its, options.repeats))
        if time in results:
            found[name] |= results[time]
    rows = []
    for name, values in found.items():
        f1 = mean_and_worst(values["f1"]) if values["f1"] else ""
        times = [f"{values[key]:.2f}" if key in values else "" for key in ("tagging", "training")]
        rows.append((name, f1, *times))
    title = "F1 on never-labelled names, mean (worst); time / plain encoder's"
    print_table(title, ("preset", "F1", "tagging", "training"), rows)
    if options.plot is not None:
        plot(found, options.plot)
    print_json(options, {"frontier": found})
    return found


if __name__ == "__main__":
    run_main(main)
