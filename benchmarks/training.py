"""What a training step on pairs costs beside a plain encoder's: forward and backward, all losses on.

Batch 8, length 64, BERT-base and ViT-B/32 sizes, every sentence with an image; ratio to forward and backward of
`BertForTokenClassification` in the same process, in turn. The vision encoder is trained, but for `cached_vision`, where
it is frozen and was run before. First it is checked that a batch has the loss of its sentences one by one (without
noise), and that cached states have the losses of the images::

    python benchmarks/training.py --json
"""

from collections.abc import Sequence
from typing import Any

from bga_mner.examples.command_line import run_main

import torch
from rich.console import Console

from bga_mner.benchmarks.base_size import (
    PAIR_MODELS,
    make_baseline,
    make_batch,
    make_images,
    make_model,
    parser,
    run,
    start,
)
from bga_mner.benchmarks.timing import compute_clock, median_ratio, milliseconds, time_in_turn
from bga_mner.examples.reporting import print_json, print_table


TOLERANCE = 1e-4


def check(model: Any, batch: dict[str, torch.Tensor], cached: dict[str, torch.Tensor]) -> float:
    """Compare the loss of a batch, without noise, with the mean of its sentences' losses, and with the cache's."""
    model.eval()
    images = batch["pixel_values"]
    with torch.no_grad():
        together = float(model(**batch).loss)
        alone = []
        for row, mask in enumerate(batch["attention_mask"].bool()):
            text = {name: batch[name][row, mask][None] for name in ("input_ids", "labels")}
            alone.append(float(model(**text, pixel_values=images[row : row + 1]).loss))
        losses = {"one by one": sum(alone) / len(alone), "cached": float(model(**cached).loss)}
    model.train()
    worst = max(abs(loss - together) / together for loss in losses.values())
    if worst > TOLERANCE:
        raise RuntimeError(f"Expected the loss {together} of the batch to within {TOLERANCE}, got {losses}.")
    return worst


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run the benchmark, and print a table; return ratio to the baseline's time, by model."""
    options = parser(__doc__, list(PAIR_MODELS)).parse_args(argv)
    console, names = Console(width=110), start(options)
    text = make_batch(options.size)
    batch = text | {"pixel_values": make_images()}
    baseline = make_baseline(options.size).train()
    found: dict[str, float] = {}
    rows = []
    # one at a time: all of them with their gradients would fill the memory
    for name in names:
        model = make_model(options.size, **PAIR_MODELS[name]).train()
        with torch.no_grad():
            cached = text | {"vision_states": model.bga_mner.encode_images(batch["pixel_values"])}
        console.print(f"{name}: losses within {check(model, batch, cached):.1e}, one by one and from the cache")
        if name == "cached_vision":
            model.freeze_vision_encoder()
        inputs = cached if name == "cached_vision" else batch
        functions = {"baseline": lambda: run(baseline, text), name: lambda m=model, i=inputs: run(m, i)}
        times = time_in_turn(functions, options.repeats, clock=compute_clock)
        found[name] = median_ratio(times[name], times["baseline"])
        rows.append((name, f"{found[name]:.2f}", milliseconds(times[name]), milliseconds(times["baseline"])))
    title = f"Training step / plain BERT's, threads: {options.threads}"
    print_table(title, ("aligned layers", "ratio", "ms", "baseline's ms"), rows, console)
    print_json(options, {"training": found})
    return found


if __name__ == "__main__":
    run_main(main)
