"""How time and memory grow with the length of texts, the batch, the number of tags and of aligned layers.

One of them grows at a time, beside a plain encoder with the same inputs; tagging texts, CRF and Viterbi included, and
with `--what training` a step on pairs. Exponents are slopes of straight lines through logarithms, fitted to all sizes
("exponent") and to the middle and larger ones ("upper"), where fixed costs weigh less. Memory is by how much the
process grows at most during a call, beyond the model (Linux). `--plot` draws the curves::

    MALLOC_MMAP_THRESHOLD_=65536 python benchmarks/scaling.py --plot docs/scaling.png --json

With that variable, tensors that are freed go back to the system at once, and don't hide what comes later.
"""

import argparse
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bga_mner.examples.command_line import Parser, names_of, positive, run_main

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from transformers import set_seed

from bga_mner.benchmarks.base_size import SIZES, make_baseline, make_images, make_model, run
from bga_mner.benchmarks.timing import compute_clock, exponent, time_in_turn
from bga_mner.examples.reporting import add_common_options, print_json, print_table, start


GROWTH = {
    "length": [16, 32, 64, 128, 256, 512],
    "batch": [1, 2, 4, 8, 16, 32],
    "tags": [3, 9, 27, 81],
    "aligned layers": [1, 2, 4, 8, 12],
}
# What does not grow is as large as this.
BASE = {"length": 64, "batch": 4, "tags": 9, "aligned layers": 4}
MODELS = ("ours", "plain")


class Unit(NamedTuple):
    """Name of a unit, and what it is in seconds or bytes."""

    name: str
    size: float


QUANTITIES = {"seconds": Unit("ms", 1e-3), "bytes": Unit("MB", 1e6)}


def _shapes(axis: str) -> list[dict[str, int]]:
    return [BASE | {axis: size} for size in GROWTH[axis]]


def make(model: str, shape: dict[str, int], size: str, what: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """Build a model ("ours" or "plain") and inputs without padding, for "inference" or "training"."""
    set_seed(0)
    batch, length, tags = shape["batch"], shape["length"], shape["tags"]
    inputs = {"input_ids": torch.randint(SIZES[size][2], (batch, length))}
    labels = {number: "O" if number == 0 else f"{'IB'[number % 2]}-{(number + 1) // 2}" for number in range(tags)}
    if model == "plain":
        made: Any = make_baseline(size, id2label=labels)
    else:
        options = {"num_bga_layers": shape["aligned layers"], "id2label": labels}
        made = make_model(size, text_only=what == "inference", **options)
    if what == "inference":
        return made.eval(), inputs
    inputs["labels"] = torch.zeros(batch, length, dtype=torch.long)
    if model == "ours":
        inputs["pixel_values"] = make_images(batch)
    return made.train(), inputs


def measure_bytes(function: Callable[[], None]) -> int:
    """Return by how much this process grows at most while the function runs (Linux)."""

    def status(name: str) -> int:
        return 1024 * int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])

    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    function()
    return status("VmHWM") - before


def exponents(sizes: Sequence[float], values: Sequence[float]) -> dict[str, float]:
    """Return the powers that values grow with: of all sizes, and of the middle and upper ones."""
    middle = (len(sizes) - 1) // 2
    return {"exponent": exponent(sizes, values), "upper": exponent(sizes[middle:], values[middle:])}


def measure(axis: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure all sizes of an axis; return "sizes", and by model and quantity the values and their exponents."""
    found: dict[str, Any] = {"sizes": GROWTH[axis]}
    seconds: dict[str, list[float]] = {model: [] for model in MODELS}
    peaks: dict[str, list[float]] = {model: [] for model in MODELS}
    for shape in _shapes(axis):
        calls = {}
        for model in MODELS:
            made, inputs = make(model, shape, options.size, options.what)
            calls[model] = lambda made=made, inputs=inputs: run(made, inputs)
        for model, times in time_in_turn(calls, options.repeats, clock=compute_clock).items():
            seconds[model].append(statistics.median(times))
            peaks[model].append(max(1, measure_bytes(calls[model])))
    for model in MODELS:
        found[model] = {
            "seconds": {"values": seconds[model], **exponents(GROWTH[axis], seconds[model])},
            "bytes": {"values": peaks[model], **exponents(GROWTH[axis], peaks[model])},
        }
    return found


def plot(found: dict[str, dict[str, Any]], path: Path, what: str) -> None:
    """Draw time, and memory if it was measured, over each size."""
    with mpl.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(2.8 * len(found), 2.6 * len(QUANTITIES)), layout="constrained")
        rows = figure.subplots(len(QUANTITIES), len(found), squeeze=False, sharey="row")
        for quantity, row in zip(QUANTITIES, rows, strict=True):
            for (axis, of_axis), axes in zip(found.items(), row, strict=True):
                for model, colour in zip(MODELS, ("tab:red", "tab:gray"), strict=True):
                    slope = round(of_axis[model][quantity]["exponent"], 2) + 0.0  # not -0.00
                    label = f"{'bga-mner' if model == 'ours' else 'plain encoder'}: power {slope:.2f}"
                    axes.plot(
                        of_axis["sizes"], of_axis[model][quantity]["values"], "o-", color=colour, label=label, ms=3
                    )
                axes.set(xscale="log", yscale="log", xlabel=axis, xticks=of_axis["sizes"])
                axes.set_xticklabels(map(str, of_axis["sizes"]))
                axes.minorticks_off()
                axes.legend(frameon=False, fontsize=7)
                axes.grid(alpha=0.2)
            row[0].set_ylabel(f"{what}: {quantity}")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)


def _print(found: dict[str, dict[str, Any]], what: str) -> None:
    for axis, of_axis in found.items():
        fixed = ", ".join(f"{name} {size}" for name, size in BASE.items() if name != axis)
        rows = []
        for quantity, unit in QUANTITIES.items():
            for model in MODELS:
                cells = of_axis[model][quantity]
                values = [f"{value / unit.size:.0f}" for value in cells["values"]]
                powers = (f"{cells[name]:.2f}" for name in ("exponent", "upper"))
                rows.append((f"{model}, {unit.name}", *values, *powers))
        columns = (axis, *map(str, of_axis["sizes"]), "exponent", "upper")
        print_table(f"{what} as {axis} grows; {fixed}", columns, rows)


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Run the benchmark, and print tables; return by axis what `measure` returns."""
    parser = Parser(__doc__)
    parser.add_argument("--what", choices=("inference", "training"), default="inference")
    of_axes = f"comma-separated list from {', '.join(GROWTH)} (default: all)"
    parser.add_argument("--axes", type=names_of(GROWTH), default=",".join(GROWTH), help=of_axes)
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--repeats", type=positive, default=3)
    parser.add_argument("--plot", type=Path, help="PNG file for the plot")
    add_common_options(parser, threads=1)
    options = parser.parse_args(argv)
    start(options)
    found = {axis: measure(axis, options) for axis in options.axes}
    _print(found, options.what)
    if options.plot is not None:
        plot(found, options.plot, options.what)
    print_json(options, {"scaling": found})
    return found


if __name__ == "__main__":
    run_main(main)
