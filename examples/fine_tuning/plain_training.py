"""The state of a training by the plain loop: where it is, how it is written down, taken up again and scored."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import datasets
from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed
from transformers import get_scheduler

from bga_mner import check_settings, write_checkpoint
from bga_mner.examples.fine_tuning.arguments import LoopArguments
from bga_mner.examples.fine_tuning.loop_parts import (
    JsonLinesTracker,
    evaluate,
    make_loader,
    make_optimizer,
    settings_of,
)
from bga_mner.examples.fine_tuning.sharding import complete_states
from bga_mner.examples.fine_tuning.skeleton import FineTuning, logger
from bga_mner.processing.training.training_summary import TrainingRun


PROGRESS = "progress.json"


@dataclass
class Progress:
    """How far a run has got; a part of every checkpoint."""

    step: int = 0
    epoch: int = 0
    batches: int = 0  # of this epoch, in each process
    seconds: float = 0.0
    best_f1: float = -1.0
    best_step: int = 0


class Training:
    """A training by the plain loop, and all that it needs to be written down and taken up again."""

    def __init__(self, accelerator: Accelerator, run: FineTuning, arguments: LoopArguments) -> None:
        self.accelerator, self.run, self.arguments = accelerator, run, arguments
        self.settings = settings_of(accelerator, arguments) | run.settings()
        self.id2label = run.model.config.id2label
        self.progress = Progress()
        rows, workers = run.encoded["train"], arguments.dataloader_num_workers
        streams = not isinstance(rows, datasets.Dataset)
        if streams and arguments.max_steps <= 0:
            raise ValueError("Expected --max_steps beside --streaming, got none, and a stream has no length. Give it.")
        loader = make_loader(rows, arguments.per_device_train_batch_size, run.collator, workers, shuffle=not streams)
        self.model, self.optimizer, self.loader = accelerator.prepare(
            run.model, make_optimizer(run.model, arguments), loader
        )
        self.validation = None
        if "validation" in run.encoded:
            batches = make_loader(
                run.encoded["validation"], arguments.per_device_eval_batch_size, run.collator, workers
            )
            self.validation = accelerator.prepare(batches)
        # of an epoch, and of the run; a stream is read until there are enough
        self.epoch_steps = 0 if streams else math.ceil(len(self.loader) / arguments.gradient_accumulation_steps)
        self.steps = arguments.max_steps if arguments.max_steps > 0 else arguments.num_train_epochs * self.epoch_steps
        scheduler = get_scheduler(arguments.lr_scheduler_type, self.optimizer, arguments.warmup_steps, self.steps)
        self.scheduler = accelerator.prepare(scheduler)

    def resume(self, checkpoint: str) -> None:
        """Take up weights, optimizer, schedule, random states and position in the data."""
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
            if self.accelerator.distributed_type == DistributedType.FSDP:
                complete_states(self.optimizer.optimizer)
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

    def begin(self, log: JsonLinesTracker) -> int | None:
        """Go on from a checkpoint, if there is one; return its step."""
        checkpoint = self.run.choose_checkpoint(self.arguments.resume_from_checkpoint)
        # The weights were sampled alike in all processes. From here on each process has random numbers of its own, for
        # dropout and the samplers' noise; a checkpoint has the state of each.
        set_seed(self.arguments.seed, device_specific=True)
        if checkpoint is not None:
            self.resume(checkpoint)
        log.go_on(self.progress.step)
        options = {name: value for name, value in asdict(self.arguments).items() if value is not None}
        self.accelerator.init_trackers("runs", options)
        return None if checkpoint is None else self.progress.step

    def take_best(self) -> None:
        """Take up the weights with the best score."""
        if self.progress.best_step not in (0, self.progress.step):
            best = Path(self.arguments.output_dir, f"checkpoint-{self.progress.best_step}")
            logger.info("Taking the best weights, of step %d.", self.progress.best_step)
            self.accelerator.load_state(str(best))

    def facts(self) -> TrainingRun:
        """Say what the model card tells of the run."""
        accelerator, progress = self.accelerator, self.progress
        own = {"optim": "adamw_torch", "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8}
        own |= {name: accelerator.mixed_precision == name for name in ("bf16", "fp16")}
        return TrainingRun(
            model=accelerator.unwrap_model(self.model),
            name=Path(self.arguments.output_dir).resolve().name,
            arguments=asdict(self.arguments) | own,
            steps=progress.step,
            device=accelerator.device,
            epochs=progress.step / self.epoch_steps if self.epoch_steps else None,
            seconds=progress.seconds,
            best_step=progress.best_step or None,
            chosen_by="f1" if progress.best_step else None,
            processes=accelerator.num_processes,
            gpus=int(accelerator.device.type == "cuda"),
        )
