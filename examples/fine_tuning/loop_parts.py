"""What the loop of run_mner_no_trainer.py is made of, beside its steps."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DataLoaderConfiguration, DistributedDataParallelKwargs, DistributedType
from accelerate.tracking import GeneralTracker, is_tensorboard_available, on_main_process
from torch.utils.data import DataLoader
from transformers import EvalPrediction

from bga_mner import DataCollatorForMner, build_compute_metrics
from bga_mner.examples.fine_tuning.arguments import LoopArguments
from bga_mner.examples.fine_tuning.data import Rows


class JsonLinesTracker(GeneralTracker):
    """Write what is logged to `log.jsonl` in a folder."""

    name = "jsonl"
    requires_logging_directory = False

    def __init__(self, output_dir: str) -> None:
        super().__init__()
        self.path = Path(output_dir, "log.jsonl")

    @property
    def tracker(self) -> Path:
        """The file."""
        return self.path

    @on_main_process
    def go_on(self, step: int) -> None:
        """Drop the lines of steps after `step`, which will be taken again, and what was being written at the end."""
        before = self.path.read_text(encoding="utf-8").splitlines(keepends=True) if step and self.path.exists() else []
        kept = [line for line in before if line.endswith("\n") and json.loads(line)["step"] <= step]
        self.path.write_text("".join(kept), encoding="utf-8")

    @on_main_process
    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Add a line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")


def make_accelerator(arguments: LoopArguments, log: JsonLinesTracker) -> Accelerator:
    """Make the accelerator, which moves model and data, averages gradients, and logs."""
    return Accelerator(
        cpu=arguments.use_cpu,
        mixed_precision=arguments.mixed_precision,
        gradient_accumulation_steps=arguments.gradient_accumulation_steps,
        # the schedule counts steps, not batches of all processes
        step_scheduler_with_optimizer=False,
        log_with=[log, *(["tensorboard"] if is_tensorboard_available() else [])],
        project_dir=arguments.output_dir,
        dataloader_config=DataLoaderConfiguration(
            use_seedable_sampler=True, data_seed=arguments.seed, dispatch_batches=False
        ),
        # a process whose sentences have no images leaves the vision branch unused
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def evaluate(
    accelerator: Accelerator, model: Any, batches: Iterable[dict[str, Any]], id2label: dict[int, str]
) -> dict[str, float]:
    """Score a data set with all processes: precision, recall and F1 by entity, and the mean loss."""
    model.eval()
    predictions, labels, losses = [], [], []
    for batch in batches:
        with torch.no_grad():
            output = model(**batch)
        known = batch.get("labels", torch.full_like(output.predictions, -100))
        pair = accelerator.pad_across_processes((output.predictions, known), dim=1, pad_index=-100)
        for gathered, kept in zip(accelerator.gather_for_metrics(pair), (predictions, labels), strict=True):
            kept.append(gathered.cpu().numpy())
        loss = known.new_full((), float("nan"), dtype=torch.float32) if output.loss is None else output.loss
        losses.append(accelerator.gather_for_metrics(loss.repeat(len(known))).cpu())
    longest = max(array.shape[1] for array in labels)
    tags, known = (
        np.concatenate([np.pad(a, ((0, 0), (0, longest - a.shape[1])), constant_values=-100) for a in arrays])
        for arrays in (predictions, labels)
    )
    scores = build_compute_metrics(id2label)(EvalPrediction(tags, known))
    return {f"eval_{name}": value for name, value in scores.items()} | {"eval_loss": float(torch.cat(losses).nanmean())}


def make_optimizer(model: Any, arguments: LoopArguments) -> torch.optim.Optimizer:
    """Make AdamW over what is trained; vectors and scalars (biases, norms, gates) do not decay."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in trained if weight.ndim > 1], "weight_decay": arguments.weight_decay},
        {"params": [weight for weight in trained if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=arguments.learning_rate)


def make_loader(
    rows: Rows, batch_size: int, collator: DataCollatorForMner, workers: int = 0, shuffle: bool = False
) -> DataLoader:
    """Make a data loader whose random numbers (the workers' seeds) don't move the noise of a run that goes on."""
    return DataLoader(
        rows,
        batch_size,
        shuffle=shuffle,
        collate_fn=collator,
        num_workers=workers,
        generator=torch.Generator().manual_seed(0),
    )


def windows(batches: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Cut batches into lists of `size`; the last may be shorter."""
    iterator = iter(batches)
    while window := list(islice(iterator, size)):
        yield window


def is_sharded(accelerator: Accelerator) -> bool:
    """Tell whether a model's weights are spread over processes."""
    return accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)


def settings_of(accelerator: Accelerator, arguments: LoopArguments) -> dict[str, Any]:
    """Say what of the training has to be the same for a run to go on as if it had not been cut off."""
    names = ("per_device_train_batch_size", "gradient_accumulation_steps", "seed", "max_grad_norm", "weight_decay")
    names += ("learning_rate", "lr_scheduler_type", "warmup_steps")
    own = {"processes": accelerator.num_processes, "mixed_precision": accelerator.mixed_precision}
    return {name: getattr(arguments, name) for name in names} | own


def save_model(accelerator: Accelerator, model: Any, processor: Any, output_dir: str) -> None:
    """Write model, code, card and processor."""
    weights = accelerator.get_state_dict(model)  # all processes have to take part
    if accelerator.is_main_process:
        accelerator.unwrap_model(model).save_pretrained(output_dir, state_dict=weights)
        processor.save_pretrained(output_dir)


def write_results(output_dir: str, results: dict[str, float]) -> None:
    """Write `train_results.json`, `eval_results.json` and `test_results.json`, as a Trainer does."""
    for prefix in ("train", "eval", "test"):
        own = {name: value for name, value in results.items() if name.startswith(prefix)}
        if own:
            text = json.dumps(own, indent=2, sort_keys=True) + "\n"
            Path(output_dir, f"{prefix}_results.json").write_text(text, encoding="utf-8")
