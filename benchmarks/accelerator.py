"""What a GPU gives: the same answers as the CPU, times and memory beside a plain encoder, and a training in bfloat16.

One command of a few minutes on one GPU with 40 GB or more. Parts that don't fit into `--minutes`, or into memory, are
left out and named::

    python benchmarks/accelerator.py --json
    python benchmarks/accelerator.py --device cpu --size tiny --batches 2 --lengths 8 --steps 4 --json

- equality: emissions, losses, gradients and best paths on the device beside the CPU's in float32, and bfloat16
  (autocast) beside float32.
- speed: times of tagging and of a training step on pairs over those of `BertForTokenClassification`, by batch and
  length, in bfloat16; of the first batch and length also compiled.
- crf: times as fast as pytorch-crf, loss with gradients and decoding.
- memory: peak of a training step over that of `BertForTokenClassification`, and the attention kernels that ran.
- training: F1 of never-labelled names after the quickstart's training with `Trainer(bf16=True)`, and how far the
  weights of two short trainings with one seed are apart.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import Parser, names_of, natural, positive, run_main

import torch
from rich.console import Console
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torchcrf import CRF
from transformers import set_seed

from bga_mner.benchmarks.base_size import LABELS, SIZES, make_baseline, make_batch, make_images, make_model
from bga_mner.benchmarks.crf import make_batch as make_crf_batch
from bga_mner.benchmarks.timing import median_ratio, time_in_turn
from bga_mner.examples.reporting import add_common_options, print_json, start
from bga_mner.examples.synthetic import recipe
from bga_mner.modeling_bga.crf.crf import ConditionalRandomField


TOLERANCE = 1e-3  # of float32 on the device: its sums are in another order
ATTENTION = ("flash", "fmha", "efficient_attention", "mem_eff", "cudnn_attention", "scaled_dot_product")
Batch = dict[str, Tensor]


class Device:
    """Where models run."""

    def __init__(self, name: str):
        self.name, self.is_cuda = name, name.startswith("cuda")

    def clock(self) -> float:
        """Tell the seconds once all that was asked for is done."""
        if self.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def rounded(self, enabled: bool = True) -> torch.autocast:
        """Compute in bfloat16."""
        return torch.autocast(self.name.split(":")[0], torch.bfloat16, enabled=enabled)

    def put(self, batch: Batch) -> Batch:
        """Copy a batch to the device."""
        return {name: tensor.to(self.name) for name, tensor in batch.items()}


def measure_equality(device: Device, options: argparse.Namespace) -> dict[str, float]:
    """Compare the device with the CPU, and bfloat16 with float32; raise a RuntimeError if the device differs."""
    batch = make_batch(options.size) | {"pixel_values": make_images()}
    model = make_model(options.size).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(50)  # a new head hardly prefers any tag: this one leaves no ties
    attended = batch["attention_mask"].bool()

    def read(where: Device, rounds: bool) -> dict[str, Any]:
        model.to(where.name).zero_grad(set_to_none=True)
        with where.rounded(rounds):
            output = model(**where.put(batch))
        output.loss.backward()
        gradients = torch.cat([p.grad.flatten().float().cpu() for p in model.parameters() if p.grad is not None])
        found = {"emissions": output.emissions.float(), "loss": output.loss.float(), "tags": output.predictions}
        return {"gradients": gradients} | {name: tensor.detach().cpu() for name, tensor in found.items()}

    exact = read(Device("cpu"), False)
    found = {}
    for prefix, rounds in (("", False), ("bf16_", True)):
        other = read(device, rounds)
        largest = exact["gradients"].abs().max()
        found |= {
            f"{prefix}emissions": float((other["emissions"] - exact["emissions"])[attended].abs().max()),
            f"{prefix}loss": float((other["loss"] - exact["loss"]).abs() / exact["loss"].abs()),
            f"{prefix}gradients": float((other["gradients"] - exact["gradients"]).abs().max() / largest),
            f"{prefix}same_tags": float((other["tags"] == exact["tags"])[attended].float().mean()),
        }
    near = all(found[name] <= TOLERANCE for name in ("emissions", "loss", "gradients"))  # NaN is not
    if not near or found["same_tags"] < 1:
        raise RuntimeError(f"Expected the CPU's answers within {TOLERANCE} and the same best paths, got {found}.")
    return found


def step(device: Device, model: Any, batch: Batch, training: bool) -> None:
    """Tag, or take a training step, in bfloat16."""
    if not training:
        with torch.inference_mode(), device.rounded():
            model(**batch)
        return
    with device.rounded():
        loss = model(**batch).loss
    loss.backward()
    for parameter in model.parameters():
        parameter.grad = None


def measure_speed(device: Device, options: argparse.Namespace, until: float) -> dict[str, dict[str, float | None]]:
    """Time the model beside the baseline; None where the memory is too small, nothing where time has run out."""
    models = {"baseline": make_baseline(options.size), "ours": make_model(options.size)}
    models = {name: model.to(device.name) for name, model in models.items()}
    found: dict[str, dict[str, float | None]] = {}

    def ratio(name: str, texts: Batch, training: bool, calls: dict[str, Any]) -> None:
        pairs = texts | device.put({"pixel_values": make_images(len(texts["input_ids"]))}) if training else texts
        given = {"baseline": texts, "ours": pairs}
        functions = {
            key: lambda m=model, b=given[key]: step(device, m, b, training)  # type: ignore[misc]
            for key, model in calls.items()
        }
        try:
            seconds = time_in_turn(functions, options.repeats, clock=device.clock)
        except torch.OutOfMemoryError:
            found.setdefault(name, {})[shape] = None
            return
        found.setdefault(name, {})[shape] = median_ratio(seconds["ours"], seconds["baseline"])

    for training in (False, True):
        what = "training" if training else "inference"
        for model in models.values():
            model.train(training)
        for batch in options.batches:
            for length in options.lengths:
                if time.perf_counter() > until:
                    break
                shape = f"{batch}x{length}"
                texts = device.put(make_batch(options.size, batch, length))
                if not training:
                    del texts["labels"]
                ratio(what, texts, training, models)
                if options.compile and (batch, length) == (options.batches[0], options.lengths[0]):
                    torch.compiler.reset()
                    ratio(f"{what}_compiled", texts, training, {key: torch.compile(m) for key, m in models.items()})
    return found


def measure_crf(device: Device, options: argparse.Namespace) -> dict[str, float]:
    """Time the CRF beside pytorch-crf's, on ragged batches; return times as fast."""
    tags, found = len(LABELS), {}
    ours = ConditionalRandomField(tags).to(device.name)
    theirs = CRF(tags, batch_first=True).to(device.name)
    for batch, length in ((options.batches[0], options.lengths[0]), (options.batches[-1], options.lengths[-1])):
        emissions, labels, mask = (part.to(device.name) for part in make_crf_batch(batch, length, tags, ragged=True))
        emissions.requires_grad_()

        losses: dict[str, Callable[[], Tensor]] = {
            "ours": lambda e=emissions, t=labels, m=mask: ours(e, t, m).mean(),
            "theirs": lambda e=emissions, t=labels, m=mask: -theirs(e, t, m, reduction="mean"),
        }
        decoders = {
            "ours": lambda e=emissions, m=mask: ours.decode(e.detach(), m).tolist(),
            "theirs": lambda e=emissions, m=mask: theirs.decode(e.detach(), m),
        }
        for name, functions in (
            ("loss", {key: lambda loss=loss: loss().backward() for key, loss in losses.items()}),
            ("decode", decoders),
        ):
            seconds = time_in_turn(functions, options.repeats, clock=device.clock)
            found[f"{name}_{batch}x{length}"] = median_ratio(seconds["theirs"], seconds["ours"])
    return found


def measure_memory(device: Device, options: argparse.Namespace) -> dict[str, Any]:
    """Return the peak of a training step over the baseline's (CUDA alone), and which attention kernels ran."""
    batch, length = options.batches[len(options.batches) // 2], options.lengths[len(options.lengths) // 2]
    texts = device.put(make_batch(options.size, batch, length))
    images = device.put({"pixel_values": make_images(batch)})
    peaks, kernels = {}, set()
    for name, make, inputs in (("baseline", make_baseline, texts), ("ours", make_model, texts | images)):
        model = make(options.size).to(device.name).train()
        if device.is_cuda:
            torch.cuda.reset_peak_memory_stats()
        activities = [ProfilerActivity.CUDA] if device.is_cuda else [ProfilerActivity.CPU]
        with profile(activities=activities) as seen:
            step(device, model, inputs, True)
        kernels |= {event.key for event in seen.key_averages() if any(part in event.key for part in ATTENTION)}
        peaks[name] = torch.cuda.max_memory_allocated() if device.is_cuda else 0
        del model
    ratio = peaks["ours"] / peaks["baseline"] if device.is_cuda else None
    return {f"peak_{batch}x{length}": ratio, "attention_kernels": sorted(kernel[:80] for kernel in kernels)}


def measure_training(device: Device, options: argparse.Namespace) -> dict[str, Any]:
    """Train the quickstart's model in bfloat16, and shortly twice with one seed; return F1, seconds and differences."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus, processor, vision, _ = recipe.prepare(options, folder)

        def train(steps: int) -> Any:
            set_seed(options.seed)
            model = recipe.build_model(processor.tokenizer, vision, list(corpus.labels))
            precision = {"use_cpu": not device.is_cuda, "bf16": True}
            return recipe.train(model, processor, corpus.train, steps, folder, options.seed, quiet=True, **precision)

        begin = time.perf_counter()
        trainer = train(options.steps)
        seconds = time.perf_counter() - begin
        f1 = recipe.evaluate(trainer, processor, corpus.test_unseen_labels)["eval_f1"]
        one, other = (train(min(20, options.steps)).model.state_dict() for _ in range(2))
        difference = max(float((one[key].float() - other[key].float()).abs().max()) for key in one if one[key].numel())
    return {"f1": f1, "seconds": seconds, "same_seed_difference": difference}


def _list(text: str) -> list[int]:
    return [positive(part) for part in text.split(",")]


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parts = ("equality", "speed", "crf", "memory", "training")
    parser.add_argument("--parts", type=names_of(parts), default=",".join(parts), help="comma-separated list")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--batches", type=_list, default="8,64,256", help="comma-separated list (default: %(default)s)")
    parser.add_argument("--lengths", type=_list, default="32,128,256", help="in tokens (default: %(default)s)")
    parser.add_argument("--repeats", type=positive, default=5)
    parser.add_argument("--minutes", type=positive, default=8, help="what all may take (default: %(default)s)")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=True, help="also time torch.compile"
    )
    parser.add_argument("--seed", type=natural, default=0)
    recipe.add_options(parser)
    add_common_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark, and print each part as it is found; return all."""
    options = _parse(argv)
    start(options)
    set_seed(options.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device, console = Device(options.device), Console(width=110)
    begun = time.perf_counter()
    until = begun + 60 * options.minutes
    name = torch.cuda.get_device_name(device.name) if device.is_cuda else "CPU"
    found: dict[str, Any] = {"device": name, "torch": torch.__version__, "left_out": []}
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "equality": lambda: measure_equality(device, options),
        "crf": lambda: measure_crf(device, options),
        "memory": lambda: measure_memory(device, options),
        "training": lambda: measure_training(device, options),
        # last, with whatever time is left
        "speed": lambda: measure_speed(device, options, until),
    }
    for part, measure in measures.items():
        if part not in options.parts:
            continue
        if time.perf_counter() > until:
            found["left_out"].append(part)
            continue
        try:
            found[part] = measure()
        except torch.OutOfMemoryError:
            found["left_out"].append(part)
            continue
        console.print(f"{part} ({time.perf_counter() - begun:.0f} s): {found[part]}")
    print_json(options, {"accelerator": found})
    return found


if __name__ == "__main__":
    run_main(main)
