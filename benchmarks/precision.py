"""How far bfloat16 is from float32: emissions, probabilities, tags and losses.

Under autocast, and with weights that are rounded themselves (the CRF stays in float32 either way); of a model that is
trained by the recipe of `examples/quickstart.py`, on held-out sentences and pairs, and of a model of BERT-base and
CLIP ViT-B/32 size with random weights, whose emissions lie close together::

    python benchmarks/precision.py --json
"""

import argparse
import copy
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import Parser, run_main

import torch
from torch.utils.data import DataLoader
from transformers import set_seed

from bga_mner import DataCollatorForMner
from bga_mner.benchmarks.base_size import SIZES, make_batch, make_images, make_model
from bga_mner.benchmarks.calibration import add_generated_options, train_generated
from bga_mner.examples.reporting import print_json, print_table, start


MODES = ("autocast", "weights")


@torch.no_grad()
def read(model: Any, batch: dict[str, torch.Tensor], mode: str | None = None) -> dict[str, torch.Tensor]:
    """Run a model on a batch in float32, or in bfloat16 as `mode` says; return what is compared."""
    if mode == "weights":
        model = copy.deepcopy(model).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16) if mode == "autocast" else nullcontext():
        output = model(**batch)
    attended = batch["attention_mask"].bool()
    return {
        "emissions": output.emissions.float()[attended],
        "probabilities": output.logits.float().softmax(dim=-1)[attended],
        "tags": output.predictions[attended],
        "kept": torch.cat([keep[attended] for keep in output.text_keep_masks]).float(),
        "loss": output.loss,
    }


def compare(model: Any, batches: Sequence[dict[str, torch.Tensor]]) -> dict[str, dict[str, float]]:
    """Compare bfloat16 with float32 on batches; return differences by mode."""
    exact = [read(model, batch) for batch in batches]
    found = {}
    for mode in MODES:
        rounded = [read(model, batch, mode) for batch in batches]

        def of_all(
            name: str,
            measure: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
            rounded: list[dict[str, torch.Tensor]] = rounded,
        ) -> torch.Tensor:
            return torch.cat(
                [measure(one[name], other[name]).flatten() for one, other in zip(rounded, exact, strict=True)]
            )

        emissions = of_all("emissions", lambda one, other: (one - other).abs())
        probabilities = of_all("probabilities", lambda one, other: (one - other).abs())
        found[mode] = {
            "emissions": emissions.max().item(),
            "emissions_mean": emissions.mean().item(),
            "emissions_scale": of_all("emissions", lambda _, other: other).std().item(),
            "probabilities": probabilities.max().item(),
            "probabilities_mean": probabilities.mean().item(),
            "tags": of_all("tags", lambda one, other: (one != other).float()).mean().item(),
            "kept": of_all("kept", lambda one, other: (one != other).float()).mean().item(),
            "loss": of_all("loss", lambda one, other: ((one - other) / other).abs()).max().item(),
        }
    return found


def measure_trained(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Train on the generated corpus; compare on its test sentences, and on as many pairs that it was trained on."""
    with tempfile.TemporaryDirectory() as folder:
        model, processor, corpus = train_generated(options, Path(folder))
    # the sentences without images, and pairs, for the losses that need them
    pairs = corpus.train.filter(lambda row: row["ner_tags"] is not None)
    pairs = pairs.select(range(min(len(pairs), options.test_sentences)))
    parts = [corpus.test_labelled, corpus.test_unseen_labels, pairs]
    batches: list[dict[str, torch.Tensor]] = []
    for rows in parts:
        encoded = rows.with_transform(processor.encode_examples)
        for batch in DataLoader(encoded, batch_size=64, collate_fn=DataCollatorForMner(processor)):
            del batch["word_start_mask"]
            batches.append(batch)
    return compare(model.eval(), batches)


def measure_random(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Compare with random weights, on texts with images."""
    set_seed(options.seed)
    model = make_model(options.size).eval()
    return compare(model, [make_batch(options.size) | {"pixel_values": make_images()}])


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, dict[str, float]]]:
    """Run the benchmark, and print a table; return by model ("trained", "random") and mode what `compare` returns."""
    parser = Parser(__doc__)
    parser.add_argument("--size", choices=SIZES, default="base", help="size of the model with random weights")
    add_generated_options(parser)
    options = parser.parse_args(argv)
    start(options)
    set_seed(options.seed)
    found = {"trained": measure_trained(options), "random": measure_random(options)}
    columns = {
        "emissions": "emissions, most",
        "emissions_mean": "mean",
        "emissions_scale": "(scale)",
        "probabilities": "probabilities, most",
        "probabilities_mean": "mean",
        "tags": "other tags",
        "kept": "other keep",
        "loss": "loss, relative",
    }
    rows = [
        (f"{model}, {mode}", *(f"{values[name]:.2g}" for name in columns))
        for model, modes in found.items()
        for mode, values in modes.items()
    ]
    print_table("bfloat16 beside float32", ("", *columns.values()), rows)
    print_json(options, {"precision": found})
    return found


if __name__ == "__main__":
    run_main(main)
