"""What quality costs: the configuration's presets, and what they lose or gain in F1 and in time.

Quality is F1 on never-labelled names (benchmarks/alignment.py), with tiny encoders of as many layers as the real ones
have, 12, so that a number of aligned layers means the same. Time is that of tagging texts and of a training step on
pairs, at base size, as a ratio to a plain encoder's (benchmarks/inference.py and training.py). A run appends what it
measures to a JSONL file of results, from which the plot is made, so that a long table may be filled by several runs::

    python benchmarks/frontier.py --seeds 0,1,2 --threads 1 --results outputs/frontier.jsonl
    python benchmarks/frontier.py --time --threads 1 --results outputs/frontier.jsonl
    python benchmarks/frontier.py --plot docs/frontier.png --results outputs/frontier.jsonl --json
"""

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import Parser, check_output, names_of, positive, run_main, seeds

import matplotlib as mpl
from matplotlib.figure import Figure
from transformers import set_seed

from bga_mner import BgaMnerConfig
from bga_mner.benchmarks import alignment
from bga_mner.benchmarks.base_size import make_baseline, make_batch, make_images, make_model, run
from bga_mner.benchmarks.timing import median_ratio, time_in_turn
from bga_mner.configuration.former_names import in_todays_words
from bga_mner.examples.reporting import add_common_options, mean_and_worst, print_json, print_table, start


# The defaults of release 0.1: one feature per patch, equal weights of the losses, and the cycle.
_PER_PATCH = in_todays_words({})
# Options of BgaMnerConfig by name; the first aligns as many layers as the paper, and the others are compared with it.
PRESETS: dict[str, dict[str, Any]] = {
    "12 layers": _PER_PATCH | {"num_bga_layers": 12},
    "6 layers": _PER_PATCH | {"num_bga_layers": 6},
    "4 layers": _PER_PATCH | {"num_bga_layers": 4},
    "2 layers": _PER_PATCH | {"num_bga_layers": 2},
    "1 layer": _PER_PATCH | {"num_bga_layers": 1},
    "12 layers, drawn": _PER_PATCH | {"num_bga_layers": 12, "loss_stages": "sampled"},
    "4 layers, drawn": _PER_PATCH | {"num_bga_layers": 4, "loss_stages": "sampled"},
    "4 layers, inner width 4": _PER_PATCH | {"num_bga_layers": 4, "generator_ffn_ratio": 4},
    "4 layers, inner width 1/4": _PER_PATCH | {"num_bga_layers": 4, "generator_ffn_ratio": 0.25},
    "4 layers, fewer queries": _PER_PATCH | {"num_bga_layers": 4, "side": 0.5},
    "4 layers, pooled": {"num_bga_layers": 4},
}
LAYERS = 12


def _sized(preset: dict[str, Any], side: int) -> dict[str, Any]:
    """Turn the share of the images' side into pixels."""
    options = dict(preset)
    share = options.pop("side", None)
    return options if share is None else options | {"image_size": round(side * share / 32) * 32}


def measure_quality(name: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Train with one seed; return the scores of benchmarks/alignment.py."""
    preset = _sized(PRESETS[name], 64)
    arguments = ["--layers", str(LAYERS), "--seeds", str(seed), "--variants", "full", "--quiet"]
    arguments += ["--config", json.dumps(preset)]
    if options.quick:
        arguments += ["--steps", "2", "--vision_steps", "2", "--drawings", "40", "--pairs", "24"]
        arguments += ["--names_per_type", "2", "--test_sentences", "8"]
    scores = alignment.main(arguments)["full"]
    return {key: values[0] for key, values in scores.items()}


def measure_time(name: str, size: str, repeats: int) -> dict[str, float]:
    """Time a preset; return its ratios to a plain encoder, "inference" and "training"."""
    set_seed(0)
    preset = _sized(PRESETS[name], 224)
    batch, images = make_batch(size), make_images()
    side = preset.get("image_size", images.shape[-1])
    trained, plain = make_model(size, **preset).train(), make_baseline(size).train()
    pairs = batch | {"pixel_values": images[..., :side, :side].contiguous()}
    times = time_in_turn({"ours": lambda: run(trained, pairs), "plain": lambda: run(plain, batch)}, repeats)
    found = {"training": median_ratio(times["ours"], times["plain"])}
    texts = {key: batch[key] for key in ("input_ids", "attention_mask")}
    trained.eval(), plain.eval()
    times = time_in_turn({"ours": lambda: run(trained, texts), "plain": lambda: run(plain, texts)}, 2 * repeats)
    return found | {"inference": median_ratio(times["ours"], times["plain"])}


def read(results: Path) -> dict[str, dict[str, Any]]:
    """Read what was measured: for each preset "f1", a list with one value per seed, and "training" and "inference"."""
    found: dict[str, dict[str, Any]] = defaultdict(lambda: {"f1": {}})
    for line in results.read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        of_preset = found[one["preset"]]
        if "seed" in one:
            of_preset["f1"][one["seed"]] = one["f1"]
        else:
            of_preset |= {key: one[key] for key in ("training", "inference")}
    return {name: {**found[name], "f1": list(found[name]["f1"].values())} for name in PRESETS if name in found}


def default_preset() -> str:
    """Return the name of the preset that is the configuration's default."""
    config = BgaMnerConfig()
    for name, preset in PRESETS.items():
        if "side" not in preset and all(getattr(config, key) == value for key, value in preset.items()):
            ratio = preset.get("generator_ffn_ratio", 1)
            if config.generator_ffn_ratio == ratio:
                return name
    raise ValueError("Expected the default configuration among PRESETS, got other options only. Add it.")


def plot(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Plot quality over time: mean, worst and best seed; hollow where a preset has fewer seeds than others."""
    most = max((len(values["f1"]) for values in found.values()), default=0)
    with mpl.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(10, 4.2), layout="constrained")
        default = default_preset()
        for axes, cost in zip(figure.subplots(1, 2, sharey=True), ("inference", "training"), strict=True):
            for name, values in found.items():
                if cost not in values or not values["f1"]:
                    continue
                colour = "tab:red" if name == default else "tab:blue"
                mean = statistics.mean(values["f1"])
                axes.plot([values[cost]] * 2, [min(values["f1"]), max(values["f1"])], color=colour, alpha=0.4)
                few = len(values["f1"]) < most
                axes.plot(values[cost], mean, "o", color=colour, fillstyle="none" if few else "full")
                label = f"{name} (default)" if name == default else name
                label += f" ({len(values['f1'])} of {most} seeds)" if few else ""
                offset = (5, -11) if name == default else (5, 3)  # other points lie close to the default's
                axes.annotate(label, (values[cost], mean), xytext=offset, textcoords="offset points", color=colour)
            axes.set_xlabel(f"time of {cost}, ratio to a plain encoder")
            axes.margins(x=0.25)
            axes.grid(alpha=0.2)
        figure.axes[0].set_ylabel("F1 on never-labelled names")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Measure quality or time and append it to the results, or plot them; return all results, as `read` does."""
    parser = Parser(__doc__)
    parser.add_argument("--results", type=Path, required=True, help="JSONL file of results")
    of_presets = f"semicolon-separated list from {'; '.join(PRESETS)} (default: all)"
    parser.add_argument("--presets", type=names_of(PRESETS, ";"), default=";".join(PRESETS), help=of_presets)
    parser.add_argument("--seeds", type=seeds, default=[], help="comma-separated seeds to train with")
    parser.add_argument("--time", action="store_true", help="time the presets")
    parser.add_argument("--plot", type=Path, help="PNG file for the plot")
    parser.add_argument("--size", choices=("tiny", "base"), default="base", help="model size for --time")
    parser.add_argument("--quick", action="store_true", help="smoke test: two steps on a few sentences")
    parser.add_argument("--repeats", type=positive, default=5)
    add_common_options(parser, quiet=True)
    options = parser.parse_args(argv)
    check_output(options.results, "--results", folder=False)
    names = options.presets
    start(options)
    options.results.parent.mkdir(parents=True, exist_ok=True)

    def append(line: dict[str, Any]) -> None:
        with options.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    for seed in options.seeds:
        for name in names:
            append({"preset": name, "seed": seed, **measure_quality(name, seed, options)})
    for name in names if options.time else []:
        append({"preset": name, **measure_time(name, options.size, options.repeats)})
    found = read(options.results)
    rows = []
    for name, values in found.items():
        f1 = mean_and_worst(values["f1"]) if values["f1"] else ""
        times = [f"{values[key]:.2f}" if key in values else "" for key in ("inference", "training")]
        rows.append((name, len(values["f1"]), f1, *times))
    title = "F1 on never-labelled names, mean (worst); time / plain encoder's"
    print_table(title, ("preset", "seeds", "F1", "inference", "training"), rows)
    if options.plot is not None:
        plot(found, options.plot)
    print_json(options, {"frontier": found})
    return found


if __name__ == "__main__":
    run_main(main)
