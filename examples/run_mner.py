"""Fine-tune, evaluate and apply BGA-MNER with the stock Trainer, on CoNLL files or a dataset of the Hub.

A first run, with pictures named ``<id>.jpg`` in a folder; the same command continues a run that was cut off::

    python examples/run_mner.py --train_file train.txt --validation_file valid.txt --test_file test.txt \
        --image_dir pictures --text_model bert-base-cased --vision_model openai/clip-vit-base-patch32 --output_dir out

Without pictures leave out ``--image_dir`` and ``--vision_model``. To predict with what was learned:
``--model_name_or_path out --test_file new.txt --do_predict --output_dir predicted``. All arguments may also stand in
one JSON file: ``python examples/run_mner.py arguments.json``. Several processes: ``torchrun --nproc_per_node 2 ...``,
and more in docs/how_to/training.md. The same as a plain loop: run_mner_no_trainer.py.

Written to the output folder: model and processor, ``train_results.json``, ``eval_results.json`` (validation set),
``test_results.json``, ``data_report.json`` (what was read, with checksums), ``README.md`` (the model card, filled with
all of this), and of the test set, or the validation set
if there is no other, ``predictions.conll`` and ``predictions.jsonl``. The test scores are those of the written
predictions, for which long texts are read in windows; validation scores leave out what ``--max_length`` cuts off.
"""

import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import run_main

import datasets
import transformers
from transformers import TrainerState, TrainingArguments, set_seed
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from bga_mner import (
    BgaMnerConfig,
    CardKeepingTrainer,
    DataCollatorForMner,
    LossPartsCallback,
    WholeCheckpointCallback,
    build_compute_metrics,
    check_settings,
    last_whole_checkpoint,
    summarize_training,
)
from bga_mner.configuration.messages import listed, shown
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
from bga_mner.examples.fine_tuning.model import ModelArguments, add_adapters, build_model, picture_shape


logger = logging.getLogger("run_mner")


def read_arguments(argv: list[str]) -> tuple[ModelArguments, DataArguments, TrainingArguments, dict[str, Any]]:
    """Read the command line, or the JSON file it names; the dict holds what the user gave, without defaults."""
    parser = ArgumentsParser((ModelArguments, DataArguments, TrainingArguments), __doc__)
    given = parser.read(argv)

    # Evaluate and save each epoch and keep the best, as far as the user does not say otherwise.
    default = "steps" if given.get("streaming") else "epoch"  # an endless stream has no epochs
    evaluation, saving = given.get("eval_strategy"), given.get("save_strategy")
    evaluation = evaluation or (saving if saving in ("steps", "epoch") else default)
    saving = saving or (evaluation if evaluation in ("steps", "epoch") else "epoch")
    defaults: dict[str, Any] = {"eval_strategy": evaluation, "save_strategy": saving, "save_total_limit": 2}
    if evaluation == saving == "steps":
        steps = {name: given[name] for name in ("save_steps", "eval_steps") if name in given}
        defaults |= dict.fromkeys(("save_steps", "eval_steps"), next(iter(steps.values()))) if steps else {}
    defaults["load_best_model_at_end"] = evaluation != "no" and saving in (evaluation, "best")
    defaults["metric_for_best_model"] = "f1"
    model, data, training = parser.parse_dict({**defaults, **given})
    _refuse_options(training)
    training.remove_unused_columns = False  # or the Trainer drops the columns before they are encoded
    return model, data, training, given


def _refuse_options(training: TrainingArguments) -> None:
    """Refuse at once what would stop the run later, or leave out what it is for; docs/reference/training_arguments.md.

    Raises
    ------
    ValueError
        If options ask for another loss, or for an evaluation without scores.
    """
    refused = {
        "label_smoothing_factor": (training.label_smoothing_factor != 0, "0: the CRF's loss has no smoothed form"),
        "prediction_loss_only": (training.prediction_loss_only, "false: the best checkpoint is chosen by F1"),
        "label_names": (training.label_names not in (None, ["labels"]), "['labels'], which the model takes"),
    }
    for name, (is_wrong, expected) in refused.items():
        if is_wrong:
            raise ValueError(f"Expected --{name} {expected}; got {getattr(training, name)}. Leave it out.")


def _refuse_saving_in_half_precision(training: TrainingArguments, wanted: list[str]) -> None:
    """Refuse an evaluation that leaves the model in half precision, if the run then saves what it trained."""
    if "do_train" in wanted and (training.bf16_full_eval or training.fp16_full_eval):
        raise ValueError(
            "Expected a run without --do_train for --bf16_full_eval and --fp16_full_eval, which leave the model in "
            "half precision, also where it is saved; got one that trains. Train without them, then evaluate with them: "
            "--model_name_or_path <output_dir> --do_eval."
        )


def _check_best(training: TrainingArguments, labels: Sequence[str]) -> None:
    """Refuse a score that is never measured, before the training rather than after its first epoch."""
    kinds = sorted({label[2:] for label in labels} - {""})
    names = ["loss", "precision", "recall", "f1", "accuracy", *(f"f1_{kind}" for kind in kinds)]
    names += [f"{name}_{kind}" for name in ("precision", "recall", "number") for kind in kinds]
    if (name := str(training.metric_for_best_model)).removeprefix("eval_") not in names:
        raise ValueError(
            f"Expected one of {listed(names)} as --metric_for_best_model, got {shown(name)}. Name another."
        )


def _settings(training: TrainingArguments) -> dict[str, Any]:
    """Say what has to be the same for a run to go on as if it had not been cut off."""
    names = ("per_device_train_batch_size", "gradient_accumulation_steps", "world_size", "seed", "data_seed")
    names += ("learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "optim")
    return {name: getattr(training, name) for name in (*names, "bf16", "fp16")}


def _find_checkpoint(data: DataArguments, training: TrainingArguments, settings: dict[str, Any]) -> str | None:
    """Find the checkpoint to continue from, or make room for a new start."""
    given = training.resume_from_checkpoint
    if data.overwrite_output_dir and given in (None, "auto"):
        # The Trainer keeps the checkpoints of most steps: old ones would push out the new.
        with training.main_process_first(desc="deleting checkpoints"):
            for folder in Path(training.output_dir).glob("checkpoint-*") if training.process_index == 0 else ():
                shutil.rmtree(folder)
        return None
    checkpoint = last_whole_checkpoint(training.output_dir) if given in (None, "auto") else given
    if checkpoint is not None:
        check_settings(checkpoint, settings)
        # of a stock Trainer's, which has no settings; adapters come without a configuration
        adapters = settings["lora_rank"] is not None
        old = settings["labels"] if adapters else list(BgaMnerConfig.from_pretrained(checkpoint).label2id)
        if old != settings["labels"]:
            raise ValueError(
                f"Expected the labels {listed(settings['labels'])} in {shown(checkpoint)}, which belongs to other "
                f"data, got {listed(old)}. Choose another --output_dir, or start over with --overwrite_output_dir."
            )
        logger.info("Continuing from %s; --overwrite_output_dir starts over.", checkpoint)
    return checkpoint


def _merge_adapters(adapted: Any) -> Any:
    """Make a plain model of one with adapters, whose weights say by `requires_grad` what was trained."""
    carriers = [module.get_base_layer() for module in adapted.modules() if hasattr(module, "lora_A")]
    model = adapted.merge_and_unload()
    for layer in carriers:
        # as peft leaves them, they and the encoders around them would pass for frozen
        layer.requires_grad_(True)
    return model


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
    arguments, data, training, given = read_arguments(list(sys.argv[1:] if argv is None else argv))
    is_main = training.process_index == 0
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logger.setLevel(logging.INFO if is_main else logging.ERROR)
    if not is_main:
        transformers.utils.logging.set_verbosity_error()
        datasets.disable_progress_bars()
    set_seed(training.seed)

    # of a stream a Trainer that goes on doesn't know how many times it was read to its end
    parts, labels = read_data(data, training.seed, endless=True)
    log_reports(parts)
    wanted = wanted_verbs(given, parts, bool(arguments.model_name_or_path))
    _refuse_saving_in_half_precision(training, wanted)
    pictures = has_pictures(parts)
    model, processor = build_model(arguments, labels, pictures, data.max_length)
    cache = arguments.cache_vision_states and "do_train" in wanted
    sets, encoded = prepare_rows(parts, model, processor, max_length=data.max_length, cache=cache)
    _check_best(training, labels)
    if "validation" not in parts or "do_train" not in wanted:
        training.eval_strategy, training.load_best_model_at_end = IntervalStrategy.NO, False
        training.save_strategy = SaveStrategy.EPOCH if training.save_strategy == "best" else training.save_strategy
    if data.streaming:
        if training.max_steps <= 0:
            raise ValueError("Expected --max_steps beside --streaming, since a stream has no length. Give it.")
        # each process reads for itself: texts of different lengths can't be put together and handed out
        training.accelerator_config.dispatch_batches = False
    settings = _settings(training) | data_settings(parts, model, data.max_length) | {"lora_rank": arguments.lora_rank}
    if "do_train" in wanted:
        model = add_adapters(model, arguments, pictures)
    # old checkpoints are deleted when the new one is whole, which the Trainer can't know
    keep_whole = WholeCheckpointCallback(settings, training.save_total_limit)
    training.save_total_limit = None
    training.data_seed = training.seed if training.data_seed is None else training.data_seed
    collator = DataCollatorForMner(processor)
    trainer = CardKeepingTrainer(
        model=model,
        args=training,
        data_collator=collator,
        train_dataset=encoded.get("train"),
        eval_dataset=encoded.get("validation"),
        processing_class=processor,
        compute_metrics=build_compute_metrics(model.config.id2label),
        # the scores of all tags would fill the memory, and only the best path counts
        preprocess_logits_for_metrics=lambda outputs, labels: outputs[1],
        callbacks=[LossPartsCallback(), keep_whole],
    )
    spread = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    if spread:
        collator.picture_shape = picture_shape(model, cache)
    if is_main:
        write_report(training.output_dir, list(model.config.label2id), parts)
    # weights were drawn alike in all processes, and so is the order; dropout and the samplers' noise are each one's own
    set_seed(training.seed + training.process_index)
    trainer.accelerator.wait_for_everyone()  # the output folder is there for all
    results: dict[str, float] = {}
    scores: dict[str, dict[str, Any]] = {}

    def keep(part: str, metrics: dict[str, float]) -> None:
        trainer.log_metrics(part, metrics)
        trainer.save_metrics(part, metrics)
        results.update(metrics)

    if "do_train" in wanted:
        checkpoint = _find_checkpoint(data, training, settings)
        begun = None
        if checkpoint is not None:  # read here, since the training may delete it
            begun = TrainerState.load_from_json(str(Path(checkpoint, TRAINER_STATE_NAME))).global_step
        outcome = trainer.train(checkpoint)
        warn_if_done(begun, trainer.state.max_steps)
        if arguments.lora_rank:
            # from here on a plain model, with the adapters in its weights
            trainer.model = trainer.model_wrapped = model = _merge_adapters(trainer.model)
        trainer.save_model()
        trainer.save_state()
        keep("train", outcome.metrics)
    if "do_eval" in wanted:
        scores["validation"] = trainer.evaluate()
        keep("eval", scores["validation"])
    if "do_predict" in wanted:
        part = "test" if "test" in sets else "validation"
        found = write_predictions(
            trainer.model,
            processor,
            sets[part],
            training.output_dir,
            batch_size=training.per_device_eval_batch_size,
            max_length=data.max_length,
            show_progress=not training.disable_tqdm,
            split=not spread,
            annotation_format=data.predictions_format,
        )
        if part == "test" and found:
            scores["test"] = found
            keep("test", {f"test_{name}": value for name, value in flat_scores(found).items()})
    if "do_train" in wanted:
        model.config.training_summary = summarize_training(
            trainer,
            data={part: report for part, (_, report) in parts.items() if report is not None},
            scores=scores,
            language=arguments.language,
            license=arguments.license,
            datasets=[data.dataset_name] if data.dataset_name and not Path(data.dataset_name).exists() else [],
            hyperparameters={"lora_rank": arguments.lora_rank},
            resumed=checkpoint is not None,
        )
        trainer.save_model()  # again, with what was measured
    return results


if __name__ == "__main__":
    run_main(main)
