"""Fine-tune, evaluate and apply BGA-MNER with the stock Trainer, on CoNLL files or a dataset of the Hub.

A first run, with images named `<id>.jpg` in a folder; the same command continues a run that was cut off::

    python examples/run_mner.py --train_file train.txt --validation_file valid.txt --test_file test.txt \
        --image_dir images --text_model bert-base-cased --vision_model openai/clip-vit-base-patch32 --output_dir out

Without images leave out `--image_dir` and `--vision_model`. To predict with what was learned:
`--model_name_or_path out --test_file new.txt --do_predict --output_dir predicted`. All arguments may also stand in
one JSON file: `python examples/run_mner.py arguments.json`. Several processes: `torchrun --nproc_per_node 2 ...`,
and more in docs/how_to/training.md. The same as a plain loop: run_mner_no_trainer.py.

Written to the output folder: model and processor, `train_results.json`, `eval_results.json` (validation set),
`test_results.json`, `data_report.json` (what was read, with checksums), `README.md` (the model card, filled with
all of this), and of the test set, or the validation set
if there is no other, `predictions.conll` and `predictions.jsonl`. The test scores are those of the written
predictions, for which long texts are read in windows; validation scores leave out what `--max_length` cuts off.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import run_main

from transformers import PreTrainedModel, TrainerState, TrainingArguments, set_seed
from transformers.trainer import TRAINER_STATE_NAME

from bga_mner import (
    BgaMnerConfig,
    CardKeepingTrainer,
    LossPartsCallback,
    WholeCheckpointCallback,
    build_compute_metrics,
    check_settings,
)
from bga_mner.configuration.errors import listed, shown
from bga_mner.examples.fine_tuning.model import add_adapters
from bga_mner.examples.fine_tuning.sharding import CompleteStatesCallback
from bga_mner.examples.fine_tuning.skeleton import FineTuning, logger, start_logging, warn_if_done
from bga_mner.examples.fine_tuning.trainer_arguments import (
    fit_to_data,
    read_arguments,
    refuse_saving_in_half_precision,
    settings_of,
)


def make_trainer(run: FineTuning, training: TrainingArguments, settings: dict[str, Any]) -> CardKeepingTrainer:
    """Make the stock Trainer, with what it needs for this model."""
    model = add_adapters(run.model, run.arguments, run.has_images) if "do_train" in run.wanted else run.model
    # old checkpoints are deleted when the new one is whole, which the Trainer can't know
    keep_whole = WholeCheckpointCallback(settings, training.save_total_limit)
    training.save_total_limit = None
    training.data_seed = training.seed if training.data_seed is None else training.data_seed
    trainer = CardKeepingTrainer(
        model=model,
        args=training,
        data_collator=run.collator,
        train_dataset=run.encoded.get("train"),
        eval_dataset=run.encoded.get("validation"),
        processing_class=run.processor,
        compute_metrics=build_compute_metrics(model.config.id2label),
        # the scores of all tags would fill the memory, and only the best path counts
        preprocess_logits_for_metrics=lambda outputs, labels: outputs[1],
        callbacks=[LossPartsCallback(), keep_whole],
    )
    if is_sharded(trainer):
        run.share_layers()
    if trainer.is_fsdp_enabled:
        trainer.add_callback(CompleteStatesCallback)
    return trainer


def is_sharded(trainer: CardKeepingTrainer) -> bool:
    """Tell whether the model's weights are spread over processes."""
    return trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled


def find_checkpoint(run: FineTuning, given: str | None, settings: dict[str, Any]) -> str | None:
    """Find the checkpoint to continue from, which has to be of the same data and settings."""
    checkpoint = run.choose_checkpoint(given)
    if checkpoint is None:
        return None
    check_settings(checkpoint, settings)
    # of a stock Trainer's, which has no settings; adapters come without a configuration
    has_adapters = settings["lora_rank"] is not None
    old = settings["labels"] if has_adapters else list(BgaMnerConfig.from_pretrained(checkpoint).label2id)
    if old != settings["labels"]:
        raise ValueError(
            f"Expected the labels {listed(settings['labels'])} in {shown(checkpoint)}, which belongs to other "
            f"data, got {listed(old)}. Choose another --output_dir, or start over with --overwrite_output_dir."
        )
    logger.info("Continuing from %s; --overwrite_output_dir starts over.", checkpoint)
    return checkpoint


def merge_adapters(adapted: Any) -> PreTrainedModel:
    """Make a plain model of one with adapters, whose weights say by `requires_grad` what was trained."""
    carriers = [module.get_base_layer() for module in adapted.modules() if hasattr(module, "lora_A")]
    model = adapted.merge_and_unload()
    for layer in carriers:
        # as peft leaves them, they and the encoders around them would pass for frozen
        layer.requires_grad_(True)
    return model


def train(run: FineTuning, trainer: CardKeepingTrainer, checkpoint: str | None) -> dict[str, float]:
    """Train to the end and save; return the Trainer's figures."""
    begun = None
    if checkpoint is not None:  # read here, since the training may delete it
        begun = TrainerState.load_from_json(str(Path(checkpoint, TRAINER_STATE_NAME))).global_step
    outcome = trainer.train(checkpoint)
    warn_if_done(begun, trainer.state.max_steps)
    if run.arguments.lora_rank:
        # from here on a plain model, with the adapters in its weights
        trainer.model = trainer.model_wrapped = run.model = merge_adapters(trainer.model)
    trainer.save_model()
    trainer.save_state()
    return outcome.metrics


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run the script with the arguments of the command line, or these; return train_..., eval_... and test_... ."""
    arguments, data, training, given = read_arguments(list(sys.argv[1:] if argv is None else argv), __doc__)
    start_logging(training.process_index == 0)
    set_seed(training.seed)
    # a Trainer that goes on doesn't know how many times a stream was read to its end: hence an endless one
    run = FineTuning(arguments, data, training.output_dir, given, training.seed, endless=True)
    refuse_saving_in_half_precision(training, run.wanted)
    run.build()
    fit_to_data(training, run)
    settings = settings_of(training) | run.settings() | {"lora_rank": arguments.lora_rank}
    trainer = make_trainer(run, training, settings)
    if training.process_index == 0:
        run.write_report()
    # weights were sampled alike in all processes, and so is the order; dropout and the samplers are each one's own
    set_seed(training.seed + training.process_index)
    trainer.accelerator.wait_for_everyone()  # the output folder is there for all

    results: dict[str, float] = {}

    def keep(part: str, metrics: dict[str, float]) -> None:
        trainer.log_metrics(part, metrics)
        trainer.save_metrics(part, metrics)
        results.update(metrics)

    if "do_train" in run.wanted:
        checkpoint = find_checkpoint(run, training.resume_from_checkpoint, settings)
        keep("train", train(run, trainer, checkpoint))
    if "do_eval" in run.wanted:
        run.scores["validation"] = trainer.evaluate()
        keep("eval", run.scores["validation"])
    if "do_predict" in run.wanted:
        scores = run.predict(
            trainer.model,
            batch_size=training.per_device_eval_batch_size,
            show_progress=not training.disable_tqdm,
            split=not is_sharded(trainer),
        )
        if scores:
            keep("test", scores)
    if "do_train" in run.wanted:
        run.model.config.training_summary = run.summarize(
            trainer, hyperparameters={"lora_rank": arguments.lora_rank}, resumed=checkpoint is not None
        )
        trainer.save_model()  # again, with what was measured
    return results


if __name__ == "__main__":
    run_main(main)
