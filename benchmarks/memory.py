"""What memory a training step on pairs takes beside a plain encoder's: weights, gradients and activations.

Batch 8, length 64, BERT-base and ViT-B/32 sizes, every sentence with an image; the peak of a process of its own during
forward and backward, less what it held before the model was built, as a ratio to that of `BertForTokenClassification`.
The vision encoder is trained, but for `frozen_vision`, where it runs frozen, and `cached_vision`, where it was run
before; both are of the default preset. Weights and gradients alone are printed beside: no way of computing needs less::

    python benchmarks/memory.py --json
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import run_main

import torch

from bga_mner.benchmarks.base_size import (
    PAIR_MODELS,
    make_baseline,
    make_batch,
    make_images,
    make_model,
    parser,
    start,
)
from bga_mner.examples.reporting import print_json, print_table


MODELS: dict[str, dict[str, Any]] = {**PAIR_MODELS, "frozen_vision": {}}


def _resident() -> int:
    """Return the bytes that this process holds (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure(name: str, size: str) -> dict[str, int]:
    """Take one step in this process; return the bytes of its peak, and of weights with their gradients."""
    batch, images = make_batch(size), make_images()
    before = _resident()
    if name == "baseline":
        model: Any = make_baseline(size)
    else:
        model = make_model(size, **MODELS[name])
        if name in ("cached_vision", "frozen_vision"):
            model.freeze_vision_encoder()
        if name == "cached_vision":
            shape = (len(images), model.config.num_stages + 1, model.config.num_vision_tokens)
            batch["vision_states"] = torch.randn(*shape, model.config.vision_config.hidden_size)
            model.bga_mner.vision_encoder = None  # nothing runs it
        else:
            batch["pixel_values"] = images
    model.train()
    model(**batch).loss.backward()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kilobytes on Linux
    least = sum(p.nbytes + (p.nbytes if p.grad is not None else 0) for p in model.parameters())
    return {"peak": peak - before, "weights_and_gradients": least}


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run the benchmark, and print a table; return ratio to the baseline's peak, by model."""
    made = parser(__doc__, list(MODELS))
    made.add_argument("--measure", help="take one step with this model in this process, and print its memory in bytes")
    options = made.parse_args(argv)
    names = start(options)
    if options.measure is not None:
        print(json.dumps(measure(options.measure, options.size)))
        return {}
    found: dict[str, dict[str, int]] = {}
    # tensors that are freed go back to the system at once, and don't count in a peak that comes later
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    for name in ("baseline", *names):
        command = [
            sys.executable,
            __file__,
            "--measure",
            name,
            "--size",
            options.size,
            "--threads",
            str(options.threads),
        ]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    rows = []
    whole = found["baseline"]["peak"]
    for name, of_model in found.items():
        least = of_model["weights_and_gradients"]
        megabytes = [f"{of_model['peak'] / 1e6:.0f}", f"{least / 1e6:.0f}", f"{least / whole:.2f}"]
        rows.append((name, f"{of_model['peak'] / whole:.2f}", *megabytes))
    columns = ("aligned layers", "ratio", "MB", "weights and gradients alone, MB", "their ratio")
    print_table("Peak memory of a training step, ratio to plain BERT's", columns, rows)
    ratios = {name: found[name]["peak"] / whole for name in names}
    print_json(options, {"memory": ratios})
    return ratios


if __name__ == "__main__":
    run_main(main)
