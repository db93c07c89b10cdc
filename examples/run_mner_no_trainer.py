"""Fine-tune BGA-MNER with a plain loop over Accelerate: what run_mner.py does, where each step can be read and changed.

The arguments for data and model are those of run_mner.py, and so is what is written to the output folder; the others
have the names of TrainingArguments. One process, or several::

    python examples/run_mner_no_trainer.py --train_file train.txt --validation_file valid.txt --image_dir pictures \
        --text_model bert-base-cased --vision_model openai/clip-vit-base-patch32 --output_dir out
    accelerate launch --config_file examples/accelerate_configs/ddp.yaml examples/run_mner_no_trainer.py ...

A step is the same however it is split: over processes, or over small batches (``--gradient_accumulation_steps``). The
model's losses are means over sentences, so each small batch counts by its share of the sentences of all of them. The
same command continues a run that was cut off, exactly (docs/how_to/training.md). ``log.jsonl`` holds what was measured,
a line a time; if tensorboard is installed, it is given the same.
"""

import json
import logging
import math
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bga_mner.examples.command_line import run_main

import datasets
import numpy as np
import torch
from accelerate import Accelerator, DataLoaderConfiguration, DistributedDataParallelKwargs, DistributedType
from accelerate.tracking import GeneralTracker, is_tensorboard_available, on_main_process
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from transformers import EvalPrediction, get_scheduler
from transformers.utils import logging as transformers_logging

from bga_mner import (
    DataCollatorForMner,
    build_compute_metrics,
    check_settings,
    last_whole_checkpoint,
    summarize_training,
    write_checkpoint,
)
from bga_mner.examples.fine_tuning.arguments import ArgumentsParser
from bga_mner.examples.fine_tuning.data import (
    DataArguments,
    data_settings,
    flat_scores,
    has_pictures,
    log_reports,
    prepare_rows,
    read_data,
    wanted_verbs,
    warn_if_done,
    write_predictions,
    write_report,
)
from bga_mner.examples.fine_tuning.model import ModelArguments, build_model, flag, picture_shape


logger = logging.getLogger("run_mner")

PROGRESS = "progress.json"


@dataclass
class LoopArguments:
    """How to train; the names are those of TrainingArguments."""

    output_dir: str = flag("", "Folder that the model and the results go to.")
    do_train: bool = flag(False, "Train. Without any of these three: all that there is data for.")
    do_eval: bool = flag(False, "Score the validation set at the end.")
    do_predict: bool = flag(False, "Predict the test set, or the validation set.")
    num_train_epochs: int = flag(3, "Passes over the training set.")
    max_steps: int = flag(-1, "Steps, in place of epochs.")
    per_device_train_batch_size: int = flag(8, "Sentences that a process reads at a time.")
    per_device_eval_batch_size: int = flag(8, "The same, for scores and predictions.")
    gradient_accumulation_steps: int = flag(1, "Batches that make one step.")
    learning_rate: float = flag(5e-5, "Highest learning rate.")
    lr_scheduler_type: str = flag("linear", "As transformers.get_scheduler names them.")
    warmup_steps: int = flag(0, "Steps until the highest learning rate.")
    weight_decay: float = flag(0.0, "Of AdamW; biases and norms are left out.")
    max_grad_norm: float = flag(1.0, "Gradients longer than that are shortened; 0 leaves them.")
    mixed_precision: str | None = flag(None, "no, bf16 or fp16. Default: what accelerate's configuration says.")
    seed: int = flag(42, "Of new weights, order, dropout and the samplers' noise.")
    logging_steps: int = flag(50, "Steps from one line of the log to the next.")
    save_steps: int = flag(0, "Steps from one checkpoint to the next; 0: one an epoch, after its scores.")
    save_total_limit: int = flag(2, "Checkpoints to keep.")
    resume_from_checkpoint: str | None = flag(None, "A checkpoint. Default, or 'auto': the last whole one, if any.")
    dataloader_num_workers: int = flag(0, "Processes that decode pictures and encode texts.")
    use_cpu: bool = flag(False, "Stay away from accelerators.")
    disable_tqdm: bool = flag(False, "No progress bars.")


@dataclass
class Progress:
    """How far a run has got; a part of every checkpoint."""

    step: int = 0
    epoch: int = 0
    batches: int = 0  # of this epoch, in each process
    seconds: float = 0.0
    best_f1: float = -1.0
    best_step: int = 0


class JsonLinesTracker(GeneralTracker):
    """Write what is logged to ``log.jsonl`` in a folder."""

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


def take_step(
    accelerator: Accelerator, model: Any, optimizer: Any, window: Sequence[dict[str, Any]], max_grad_norm: float
) -> torch.Tensor:
    """Take one optimizer step on the batches of a window, as if they and those of all processes were one batch.

    Parameters
    ----------
    accelerator, model, optimizer
        The latter two prepared.
    window : sequence of dict
        Batches of this process.
    max_grad_norm : float
        Longest gradient; 0 for any.

    Returns
    -------
    torch.FloatTensor of shape ()
        The loss: the mean over the sentences of all processes.
    """
    counts = [len(batch["input_ids"]) for batch in window]
    sentences = accelerator.reduce(torch.tensor(sum(counts), device=accelerator.device), "sum")
    total = torch.zeros((), device=accelerator.device)
    for number, (batch, count) in enumerate(zip(window, counts, strict=True)):
        last = number == len(window) - 1
        with nullcontext() if last else accelerator.no_sync(model):
            loss = model(**batch).loss
            total += loss.detach() * count
            # Processes' gradients are averaged, and `backward` divides by the number of accumulated batches: undo both.
            undo = accelerator.num_processes * accelerator.gradient_accumulation_steps
            accelerator.backward(loss * count / sentences * undo)
    if max_grad_norm > 0:
        accelerator.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    return accelerator.reduce(total, "sum") / sentences


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


def _loader(
    rows: Any, batch_size: int, collator: DataCollatorForMner, workers: int = 0, shuffle: bool = False
) -> DataLoader:
    """Make a data loader whose draws (seeds of workers, that is) don't move the noise of a run that goes on."""
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


def sharded(accelerator: Accelerator) -> bool:
    """Tell whether a model's weights are spread over processes."""
    return accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)


class Loop:
    """A training and all that it needs to be written down and taken up again.

    Parameters
    ----------
    accelerator, model, collator
        The model not prepared yet.
    arguments : LoopArguments
        How to train.
    encoded : dict of str to datasets.Dataset
        Encoded rows: "train", and perhaps "validation".
    settings : dict
        What has to be the same for a run to go on.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: Any,
        collator: DataCollatorForMner,
        arguments: LoopArguments,
        encoded: dict[str, Any],
        settings: dict[str, Any],
    ) -> None:
        self.accelerator, self.arguments, self.settings = accelerator, arguments, settings
        self.id2label = model.config.id2label
        self.progress = Progress()
        self.streams = not isinstance(encoded["train"], datasets.Dataset)
        workers = arguments.dataloader_num_workers
        loader = _loader(
            encoded["train"], arguments.per_device_train_batch_size, collator, workers, shuffle=not self.streams
        )
        model, optimizer, loader = accelerator.prepare(model, make_optimizer(model, arguments), loader)
        self.model, self.optimizer, self.loader = model, optimizer, loader
        self.validation = None
        if "validation" in encoded:
            batches = _loader(encoded["validation"], arguments.per_device_eval_batch_size, collator, workers)
            self.validation = accelerator.prepare(batches)
        if self.streams and arguments.max_steps <= 0:
            raise ValueError("Expected --max_steps beside --streaming, since a stream has no length. Give it.")
        # of an epoch, and of the run; a stream is read until there are enough
        self.epoch_steps = 0 if self.streams else math.ceil(len(loader) / arguments.gradient_accumulation_steps)
        self.steps = arguments.max_steps if arguments.max_steps > 0 else arguments.num_train_epochs * self.epoch_steps
        scheduler = get_scheduler(arguments.lr_scheduler_type, optimizer, arguments.warmup_steps, self.steps)
        self.scheduler = accelerator.prepare(scheduler)

    def resume(self, checkpoint: str) -> None:
        """Take up weights, optimizer, schedule, random states and place in the data."""
        check_settings(checkpoint, self.settings)
        self.accelerator.load_state(checkpoint)
        self.progress = Progress(**json.loads(Path(checkpoint, PROGRESS).read_text(encoding="utf-8")))
        logger.info("Continuing from %s; --overwrite_output_dir starts over.", checkpoint)

    def save(self) -> None:
        """Write a checkpoint that counts only when it is whole."""
        arguments, progress = self.arguments, self.progress
        with write_checkpoint(
            arguments.output_dir,
            progress.step,
            self.settings,
            keep=arguments.save_total_limit,
            protected=progress.best_step or None,
        ) as folder:
            self.accelerator.save_state(str(folder))
            if self.accelerator.is_main_process:
                (folder / PROGRESS).write_text(json.dumps(asdict(progress)), encoding="utf-8")

    def score(self) -> dict[str, float]:
        """Score the validation set, and remember the step if it was never that good."""
        scores = evaluate(self.accelerator, self.model, self.validation, self.id2label)
        self.accelerator.log(scores, step=self.progress.step)
        logger.info("Step %d: F1 %.4f", self.progress.step, scores["eval_f1"])
        if scores["eval_f1"] > self.progress.best_f1:
            self.progress.best_f1, self.progress.best_step = scores["eval_f1"], self.progress.step
        return scores

    def train(self) -> dict[str, float]:
        """Train to the end, from wherever the run is; return the results."""
        arguments, progress, losses = self.arguments, self.progress, []
        begin = time.monotonic() - progress.seconds
        hide = arguments.disable_tqdm or not self.accelerator.is_main_process
        bar = datasets.utils.tqdm(total=self.steps, initial=progress.step, desc="Training", unit="step", disable=hide)
        while progress.step < self.steps:
            self.loader.set_epoch(progress.epoch)
            batches = self.loader
            if progress.batches:
                batches = self.accelerator.skip_first_batches(self.loader, progress.batches)
            before = progress.step
            for window in windows(batches, arguments.gradient_accumulation_steps):
                self.model.train()
                loss = take_step(self.accelerator, self.model, self.optimizer, window, arguments.max_grad_norm)
                losses.append(loss)
                rate = self.scheduler.get_last_lr()[0]
                if not self.accelerator.optimizer_step_was_skipped:
                    self.scheduler.step()
                progress.step += 1
                progress.batches += len(window)
                progress.seconds = time.monotonic() - begin
                bar.update()
                if progress.step % arguments.logging_steps == 0:
                    self.accelerator.log(
                        {"loss": torch.stack(losses).mean().item(), "learning_rate": rate}, step=progress.step
                    )
                    losses = []
                if progress.step == self.steps:
                    break
                if arguments.save_steps and progress.step % arguments.save_steps == 0:
                    self.save()
            if progress.step == before and not progress.batches:
                raise ValueError("Expected at least one sentence to train on, got none. Check the training set.")
            progress.epoch, progress.batches = progress.epoch + 1, 0
            if self.validation is not None:
                self.score()
            self.save()
        bar.close()
        if progress.best_step not in (0, progress.step):
            best = Path(arguments.output_dir, f"checkpoint-{progress.best_step}")
            logger.info("Taking the best weights, of step %d.", progress.best_step)
            self.accelerator.load_state(str(best))
        return {"train_runtime": progress.seconds, "train_steps": progress.step}

    def facts(self, arguments: LoopArguments) -> SimpleNamespace:
        """Give `summarize_training` what it reads off a Trainer."""
        accelerator, progress = self.accelerator, self.progress
        own = {
            **{"hub_model_id": None, "optim": "adamw_torch", "load_best_model_at_end": self.validation is not None},
            **{"metric_for_best_model": "f1", "device": accelerator.device, "world_size": accelerator.num_processes},
            **{"n_gpu": int(accelerator.device.type == "cuda"), "adam_beta1": 0.9, "adam_beta2": 0.999},
            **{"adam_epsilon": 1e-8, "bf16": accelerator.mixed_precision == "bf16"},
            "fp16": accelerator.mixed_precision == "fp16",
        }
        state = SimpleNamespace(
            global_step=progress.step,
            epoch=progress.step / self.epoch_steps if self.epoch_steps else None,
            log_history=[{"train_runtime": progress.seconds}],
            best_model_checkpoint=progress.best_step or None,
            best_global_step=progress.best_step,
        )
        return SimpleNamespace(
            **{"args": SimpleNamespace(**{**asdict(arguments), **own}), "accelerator": accelerator},
            **{"model": self.model, "state": state, "train_dataset": None, "eval_dataset": None},
        )


def save_model(accelerator: Accelerator, model: Any, processor: Any, output_dir: str) -> None:
    """Write model, code, card and processor."""
    weights = accelerator.get_state_dict(model)  # all processes have to take part
    if accelerator.is_main_process:
        accelerator.unwrap_model(model).save_pretrained(output_dir, state_dict=weights)
        processor.save_pretrained(output_dir)


def _read_arguments(argv: list[str]) -> tuple[ModelArguments, DataArguments, LoopArguments, dict[str, Any]]:
    parser = ArgumentsParser((ModelArguments, DataArguments, LoopArguments), __doc__)
    given = parser.read(argv, {"logging_steps": 1, "save_total_limit": 1})
    return *parser.parse_dict(given), given


def _find_checkpoint(accelerator: Accelerator, data: DataArguments, arguments: LoopArguments) -> str | None:
    given = arguments.resume_from_checkpoint
    if given not in (None, "auto"):
        return given
    if data.overwrite_output_dir:
        with accelerator.main_process_first():
            for folder in Path(arguments.output_dir).glob("checkpoint-*") if accelerator.is_main_process else ():
                shutil.rmtree(folder)
        return None
    return last_whole_checkpoint(arguments.output_dir)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run the script.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the command line by default.

    Returns
    -------
    dict of str to float
        All results: train_..., eval_... and test_....

    Raises
    ------
    ValueError
        If arguments, data and model do not fit together.
    """
    arguments, data, loop, given = _read_arguments(list(sys.argv[1:] if argv is None else argv))
    if arguments.lora_rank:
        raise ValueError("Expected no --lora_rank, which run_mner.py alone takes, got one. Leave it out, or run that.")
    log = JsonLinesTracker(loop.output_dir)
    accelerator = Accelerator(
        cpu=loop.use_cpu,
        mixed_precision=loop.mixed_precision,
        gradient_accumulation_steps=loop.gradient_accumulation_steps,
        # the schedule counts steps, not batches of all processes
        step_scheduler_with_optimizer=False,
        log_with=[log, *(["tensorboard"] if is_tensorboard_available() else [])],
        project_dir=loop.output_dir,
        dataloader_config=DataLoaderConfiguration(
            use_seedable_sampler=True, data_seed=loop.seed, dispatch_batches=False
        ),
        # a process whose sentences have no pictures leaves the vision branch unused
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logger.setLevel(logging.INFO if accelerator.is_main_process else logging.ERROR)
    if not accelerator.is_main_process:
        transformers_logging.set_verbosity_error()
        datasets.disable_progress_bars()
    set_seed(loop.seed)

    parts, labels = read_data(data, loop.seed)
    log_reports(parts)
    wanted = wanted_verbs(given, parts, bool(arguments.model_name_or_path))
    model, processor = build_model(arguments, labels, has_pictures(parts), data.max_length)
    cache = arguments.cache_vision_states and "do_train" in wanted
    sets, encoded = prepare_rows(parts, model, processor, max_length=data.max_length, cache=cache)
    if accelerator.is_main_process:
        write_report(loop.output_dir, list(model.config.label2id), parts)
    accelerator.wait_for_everyone()

    names = ("per_device_train_batch_size", "gradient_accumulation_steps", "seed", "max_grad_norm", "weight_decay")
    names += ("learning_rate", "lr_scheduler_type", "warmup_steps")
    settings = {name: getattr(loop, name) for name in names} | data_settings(parts, model, data.max_length)
    settings |= {"processes": accelerator.num_processes, "mixed_precision": accelerator.mixed_precision}
    shape = picture_shape(model, cache) if sharded(accelerator) else None
    collator = DataCollatorForMner(processor, picture_shape=shape)
    results: dict[str, float] = {}
    scores: dict[str, dict[str, Any]] = {}
    training, checkpoint = None, None
    if "do_train" in wanted:
        training = Loop(accelerator, model, collator, loop, encoded, settings)
        model = training.model
        checkpoint = _find_checkpoint(accelerator, data, loop)
        # The weights were drawn alike in all processes. What is drawn from here on, dropout and the samplers' noise, is
        # each process's own; a checkpoint has the state of each.
        set_seed(loop.seed, device_specific=True)
        if checkpoint is not None:
            training.resume(checkpoint)
        log.go_on(training.progress.step)
        accelerator.init_trackers("runs", {key: value for key, value in asdict(loop).items() if value is not None})
        begun = training.progress.step if checkpoint is not None else None
        results |= training.train()
        warn_if_done(begun, training.steps)
    else:
        model = accelerator.prepare(model)
    if "do_eval" in wanted:
        batches = accelerator.prepare(_loader(encoded["validation"], loop.per_device_eval_batch_size, collator))
        scores["validation"] = evaluate(accelerator, model, batches, accelerator.unwrap_model(model).config.id2label)
        results |= scores["validation"]
    if "do_predict" in wanted:
        part = "test" if "test" in sets else "validation"
        found = write_predictions(
            model if sharded(accelerator) else accelerator.unwrap_model(model),
            processor,
            sets[part],
            loop.output_dir,
            batch_size=loop.per_device_eval_batch_size,
            max_length=data.max_length,
            show_progress=not loop.disable_tqdm,
            split=not sharded(accelerator),
            annotation_format=data.predictions_format,
        )
        if part == "test" and found:
            scores["test"] = found
            results |= {f"test_{name}": value for name, value in flat_scores(found).items()}
    if training is not None:
        accelerator.unwrap_model(model).config.training_summary = summarize_training(
            training.facts(loop),
            data={part: report for part, (_, report) in parts.items() if report is not None},
            scores=scores,
            language=arguments.language,
            license=arguments.license,
            datasets=[data.dataset_name] if data.dataset_name and not Path(data.dataset_name).exists() else [],
        )
        save_model(accelerator, model, processor, loop.output_dir)
    if accelerator.is_main_process:
        for prefix in ("train", "eval", "test"):
            own = {name: value for name, value in results.items() if name.startswith(prefix)}
            if own:
                text = json.dumps(own, indent=2, sort_keys=True) + "\n"
                Path(loop.output_dir, f"{prefix}_results.json").write_text(text, encoding="utf-8")
    accelerator.end_training()
    return results


if __name__ == "__main__":
    run_main(main)
