"""What `torch.compile` gains, beside a plain encoder: time of eager calls over that of compiled ones.

Batch 8, length 64, BERT-base and ViT-B/32 sizes, with the default backend (inductor). Compiling isn't counted, but the
seconds of the first call are printed; before anything is timed, scores are compared::

    python benchmarks/compilation.py --json
    python benchmarks/compilation.py --what training --json
"""

import time
from collections.abc import Callable, Sequence
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
from bga_mner.benchmarks.timing import compute_clock, median_ratio, milliseconds, time_in_turn
from bga_mner.examples.reporting import print_json, print_table


MODELS: dict[str, dict[str, Any] | None] = {"baseline": None, **{name: PAIR_MODELS[name] for name in ("default", "12")}}
TOLERANCE = 1e-3


def make(name: str, size: str, training: bool) -> tuple[Any, dict[str, torch.Tensor]]:
    """Build a model of `MODELS`, and what it is called with."""
    batch = make_batch(size)
    if not training:
        del batch["labels"]
    if (options := MODELS[name]) is None:
        return make_baseline(size).train(training), batch
    if training:
        batch["pixel_values"] = make_images()
    return make_model(size, text_only=not training, **options).train(training), batch


def check(model: Any, compiled: Any, batch: dict[str, torch.Tensor]) -> None:
    """Compare scores of the tags, without noise; raise a RuntimeError if they differ."""
    training = model.training
    model.eval()
    with torch.no_grad():
        difference = (model(**batch).logits - compiled(**batch).logits).abs()
    model.train(training)
    attended = batch["attention_mask"].bool()
    if not (worst := float(difference[attended].max())) <= TOLERANCE:
        raise RuntimeError(f"Expected the compiled model's scores within {TOLERANCE}, got a difference of {worst:.2e}.")


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run the benchmark, and print a table; return times as fast as eager, by model."""
    made = parser(__doc__, list(MODELS))
    made.add_argument("--what", choices=("inference", "training"), default="inference")
    options = made.parse_args(argv)
    names, training = start(options), options.what == "training"
    found: dict[str, float] = {}
    rows = []
    for name in names:
        torch.compiler.reset()
        model, batch = make(name, options.size, training)
        compiled = torch.compile(model)

        def run(call: Callable[..., Any], batch: dict[str, torch.Tensor] = batch, model: Any = model) -> None:
            if training:
                model.zero_grad(set_to_none=True)
                call(**batch).loss.backward()
            else:
                with torch.no_grad():
                    call(**batch)

        begin = time.perf_counter()
        run(compiled)
        first = time.perf_counter() - begin
        check(model, compiled, batch)
        functions = {"eager": lambda r=run, m=model: r(m), "compiled": lambda r=run, c=compiled: r(c)}
        times = time_in_turn(functions, options.repeats, clock=compute_clock)
        found[name] = median_ratio(times["eager"], times["compiled"])
        rows.append((name, f"{found[name]:.2f}", *map(milliseconds, times.values()), f"{first:.0f}"))
    columns = ("model", "times as fast", "eager, ms", "compiled, ms", "first call, s")
    print_table(f"torch.compile, {options.what}, threads: {options.threads}", columns, rows)
    print_json(options, {"compilation": found})
    return found


if __name__ == "__main__":
    run_main(main)
