"""What tagging texts costs beside a plain encoder, by how many layers are aligned; CRF and Viterbi included.

Batch 8, length 64, BERT-base and ViT-B/32 sizes, ratio to `BertForTokenClassification` in the same process, in turn
(processor time on one thread, wall-clock time on more). First every model's tags and probabilities of the batch are
compared with those of single sentences in float64::

    python benchmarks/inference.py --json
    python benchmarks/inference.py --threads 2 --json
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from bga_mner.examples.command_line import run_main

import torch
from rich.console import Console

from bga_mner.benchmarks.base_size import make_baseline, make_batch, make_model, parser, run, start
from bga_mner.benchmarks.timing import compute_clock, median_ratio, milliseconds, time_in_turn
from bga_mner.examples.reporting import print_json, print_table


MODELS: dict[str, dict[str, Any]] = {
    "12": {"num_bga_layers": 12},
    "6": {"num_bga_layers": 6},
    "4": {"num_bga_layers": 4},
    "default": {},
    "no_hybrid": {"hybrid_attention": "none"},
}
TOLERANCE = 1e-4


def check(model: Any, batch: dict[str, torch.Tensor]) -> float:
    """Compare a batch in float32 with its sentences one by one, in float64; return the largest difference."""
    slow = deepcopy(model).double()
    largest = 0.0
    with torch.inference_mode():
        fast = model(**batch)
        for row, mask in enumerate(batch["attention_mask"].bool()):
            alone = slow(input_ids=batch["input_ids"][row, mask][None])
            largest = max(largest, float((fast.logits[row, mask].exp() - alone.logits[0].exp()).abs().max()))
            if not torch.equal(fast.predictions[row, mask], alone.predictions[0]):
                raise RuntimeError(f"Expected the tags of float64, sentence by sentence, got others in row {row}.")
    if largest > TOLERANCE:
        raise RuntimeError(f"Expected probabilities within {TOLERANCE} of float64, got a difference of {largest:.2e}.")
    return largest


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run the benchmark, and print a table; return ratio to the baseline's time, by model."""
    options = parser(__doc__, list(MODELS)).parse_args(argv)
    console, names = Console(width=110), start(options)
    batch = make_batch(options.size)
    del batch["labels"]
    models: dict[str, Any] = {"baseline": make_baseline(options.size).eval()}
    for name in names:
        models[name] = make_model(options.size, text_only=True, **MODELS[name]).eval()
        # a new head hardly prefers any tag: this one leaves no ties that rounding decides
        with torch.no_grad():
            models[name].classifier.weight.mul_(50)
        console.print(f"{name}: within {check(models[name], batch):.1e} of float64, sentence by sentence")
    functions = {name: lambda m=model: run(m, batch) for name, model in models.items()}
    times = time_in_turn(functions, options.repeats, clock=compute_clock)
    found = {name: median_ratio(times[name], times["baseline"]) for name in names}
    rows = [(name, f"{found.get(name, 1.0):.2f}", milliseconds(seconds)) for name, seconds in times.items()]
    title = f"Inference / plain BERT, threads: {options.threads}"
    print_table(title, ("aligned layers", "ratio", "ms"), rows, console)
    print_json(options, {"inference": found})
    return found


if __name__ == "__main__":
    run_main(main)
