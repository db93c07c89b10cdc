"""Fine-tune BGA-MNER with a plain loop over Accelerate: what run_mner.py does, where each step can be read and changed.

The arguments for data and model are those of run_mner.py, and so is what is written to the output folder; the others
have the names of TrainingArguments. One process, or several::

    python examples/run_mner_no_trainer.py --train_file train.txt --validation_file valid.txt --image_dir images \
        --text_model bert-base-cased --vision_model openai/clip-vit-base-patch32 --output_dir out
    accelerate launch --config_file examples/accelerate_configs/ddp.yaml examples/run_mner_no_trainer.py ...

A step is the same however it is split: over processes, or over small batches (`--gradient_accumulation_steps`). The
model's losses are means over sentences, so each small batch counts by its share of the sentences of all of them. The
same command continues a run that was cut off, exactly (docs/how_to/training.md). `log.jsonl` holds what was measured,
a line a time; if tensorboard is installed, it is given the same.
"""

import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext

from bga_mner.examples.command_line import run_main

import datasets
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from bga_mner.examples.fine_tuning.arguments import ArgumentsParser, DataArguments, LoopArguments, ModelArguments
from bga_mner.examples.fine_tuning.loop_parts import (
    JsonLinesTracker,
    evaluate,
    is_sharded,
    make_accelerator,
    make_loader,
    save_model,
    windows,
    write_results,
)
from bga_mner.examples.fine_tuning.plain_training import Training
from bga_mner.examples.fine_tuning.skeleton import FineTuning, start_logging, warn_if_done


def take_step(
    accelerator: Accelerator,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    window: Sequence[dict[str, torch.Tensor]],
    max_grad_norm: float,
) -> torch.Tensor:
    """Take one optimizer step on the batches of a window, as if they and those of all processes were one batch.

    Returns the loss, (): the mean over the sentences of all processes. A `max_grad_norm` of 0 leaves gradients alone.
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


def train(training: Training) -> None:
    """Train to the end, from wherever the run is."""
    accelerator, arguments, progress = training.accelerator, training.arguments, training.progress
    losses: list[torch.Tensor] = []
    begin = time.monotonic() - progress.seconds
    hide = arguments.disable_tqdm or not accelerator.is_main_process
    bar = datasets.utils.tqdm(total=training.steps, initial=progress.step, desc="Training", unit="step", disable=hide)
    while progress.step < training.steps:
        training.loader.set_epoch(progress.epoch)
        batches = training.loader
        if progress.batches:
            batches = accelerator.skip_first_batches(training.loader, progress.batches)
        before = progress.step
        for window in windows(batches, arguments.gradient_accumulation_steps):
            training.model.train()
            loss = take_step(accelerator, training.model, training.optimizer, window, arguments.max_grad_norm)
            losses.append(loss)
            rate = training.scheduler.get_last_lr()[0]
            if not accelerator.optimizer_step_was_skipped:
                training.scheduler.step()
            progress.step += 1
            progress.batches += len(window)
            progress.seconds = time.monotonic() - begin
            bar.update()
            if progress.step % arguments.logging_steps == 0:
                accelerator.log({"loss": torch.stack(losses).mean().item(), "learning_rate": rate}, step=progress.step)
                losses = []
            if progress.step == training.steps:
                break
            if arguments.save_steps and progress.step % arguments.save_steps == 0:
                training.save()
        if progress.step == before and not progress.batches:
            raise ValueError("Expected at least one sentence to train on, got none. Check the training set.")
        progress.epoch, progress.batches = progress.epoch + 1, 0
        if training.validation is not None:
            training.score()
        training.save()
    bar.close()
    training.take_best()


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run the script with the arguments of the command line, or these; return train_..., eval_... and test_... ."""
    parser = ArgumentsParser((ModelArguments, DataArguments, LoopArguments), __doc__)
    given = parser.read(list(sys.argv[1:] if argv is None else argv), {"logging_steps": 1, "save_total_limit": 1})
    arguments, data, options = parser.parse_dict(given)
    if arguments.lora_rank:
        raise ValueError("Expected no --lora_rank, which run_mner.py alone takes, got one. Leave it out, or run that.")
    log = JsonLinesTracker(options.output_dir)
    accelerator = make_accelerator(options, log)
    start_logging(accelerator.is_main_process)
    set_seed(options.seed)
    run = FineTuning(arguments, data, options.output_dir, given, options.seed)
    run.build()
    if accelerator.is_main_process:
        run.write_report()
    accelerator.wait_for_everyone()
    if is_sharded(accelerator):
        run.share_layers()

    results: dict[str, float] = {}
    training = None
    if "do_train" in run.wanted:
        training = Training(accelerator, run, options)
        begun = training.begin(log)
        train(training)
        warn_if_done(begun, training.steps)
        model = training.model
        results |= {"train_runtime": training.progress.seconds, "train_steps": training.progress.step}
    else:
        model = accelerator.prepare(run.model)
    plain = accelerator.unwrap_model(model)
    if "do_eval" in run.wanted:
        rows = make_loader(run.encoded["validation"], options.per_device_eval_batch_size, run.collator)
        run.scores["validation"] = evaluate(accelerator, model, accelerator.prepare(rows), plain.config.id2label)
        results |= run.scores["validation"]
    if "do_predict" in run.wanted:
        results |= run.predict(
            model if is_sharded(accelerator) else plain,
            batch_size=options.per_device_eval_batch_size,
            show_progress=not options.disable_tqdm,
            split=not is_sharded(accelerator),
        )
    if training is not None:
        plain.config.training_summary = run.summarize(training.facts())
        save_model(accelerator, model, run.processor, options.output_dir)
    if accelerator.is_main_process:
        write_results(options.output_dir, results)
    accelerator.end_training()
    return results


if __name__ == "__main__":
    run_main(main)
