"""What a training step with a frozen vision encoder costs, with its states from the cache and without.

Batch 8, length 64, BERT-base and ViT-B/32 sizes, random weights, all losses on, every sentence with an image. The same
model is given images and cached states, in turn; first it is checked that both have the same loss. `with_data` also
reads the data: eight JPEG files of 640 x 480 pixels, decoded and resized, or eight arrays. The other rows say where the
time of the cached step goes: a plain text encoder's step, and cached steps of models without some of the parts.
On one thread, processor time is measured, which other work on the machine disturbs less than the time on the clock::

    python benchmarks/vision_cache.py --json
"""

from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from typing import Any

from bga_mner.examples.command_line import run_main

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from transformers import CLIPImageProcessorPil

from bga_mner import BgaMnerProcessor
from bga_mner.benchmarks.base_size import BATCH, make_baseline, make_batch, make_images, make_model, parser, run, start
from bga_mner.benchmarks.timing import compute_clock, median_ratio, milliseconds, time_in_turn
from bga_mner.examples.reporting import print_json, print_table
from bga_mner.examples.synthetic.tokenizer import build_tokenizer
from bga_mner.processing.images.vision_cache import write_vision_states
from bga_mner.processing.images.vision_states import read_vision_states


TOLERANCE = 1e-5
# cached steps of models without some of the parts
WITHOUT: dict[str, dict[str, Any]] = {
    "no_image_to_text": {"use_image_to_text": False},
    "no_context_sampler": {"use_context_sampler": False},
}


def make_readers(model: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return functions that read a batch of images from JPEG files, and of cached states."""
    side = model.config.image_size
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    processor = BgaMnerProcessor(image_processor, build_tokenizer([["a"]]))
    file = BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((640, 480)).save(file, "jpeg")
    shape = (model.config.num_stages + 1, model.config.num_vision_tokens, model.config.vision_config.hidden_size)
    states = write_vision_states(np.zeros(shape))
    return (
        lambda: np.stack(processor.encode_images([file.getvalue()] * BATCH)),
        lambda: np.stack([read_vision_states(states) for _ in range(BATCH)]),
    )


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run the benchmark, and print a table; return median step times over that of the cached step, by what was run."""
    models = ["frozen_vision", "with_data", "plain_text", *WITHOUT]
    options = parser(__doc__, models).parse_args(argv)
    console, names = Console(width=110), start(options)
    text = make_batch(options.size)
    images = text | {"pixel_values": make_images()}
    model = make_model(options.size)
    model.freeze_vision_encoder()
    model.train()
    with torch.no_grad():
        cached = text | {"vision_states": model.bga_mner.encode_images(images["pixel_values"])}
        losses = []
        for batch in (images, cached):
            torch.manual_seed(0)  # of dropout and of the samplers' noise
            losses.append(float(model(**batch).loss))
    difference = abs(losses[0] - losses[1]) / abs(losses[0])
    console.print(f"losses: {losses[0]:.6f} of images, {losses[1]:.6f} of cached states")
    if difference > TOLERANCE:
        raise RuntimeError(f"Expected the same loss of images and of cached states, got {losses}.")

    found: dict[str, float] = {}
    rows = []
    for name in names:
        base: Callable[[], Any] = partial(run, model, cached)
        other: Callable[[], Any]
        if name == "frozen_vision":
            other = partial(run, model, images)
        elif name == "with_data":
            pairs = zip(make_readers(model), (partial(run, model, images), partial(run, model, cached)), strict=True)
            other, base = (lambda read=read, step=step: (read(), step()) for read, step in pairs)
        elif name == "plain_text":
            other = partial(run, make_baseline(options.size).train(), text)
        else:
            less = make_model(options.size, **WITHOUT[name])
            less.freeze_vision_encoder()
            other = partial(run, less.train(), cached)
        times = time_in_turn({name: other, "cached": base}, options.repeats, clock=compute_clock)
        found[name] = median_ratio(times[name], times["cached"])
        console.print(f"{name}: {found[name]:.2f}")
        rows.append((name, f"{found[name]:.2f}", milliseconds(times[name]), milliseconds(times["cached"])))
    title = f"Training step / cached step, threads: {options.threads}"
    print_table(title, ("", "ratio", "ms", "cached, ms"), rows, console)
    print_json(options, {"vision_cache": found, "loss_difference": difference})
    return found


if __name__ == "__main__":
    run_main(main)
