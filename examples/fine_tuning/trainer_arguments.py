"""The arguments of run_mner.py that are the Trainer's: their defaults, and what is refused."""

from collections.abc import Sequence
from typing import Any

from transformers import TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from bga_mner.configuration.errors import listed, shown
from bga_mner.examples.fine_tuning.arguments import ArgumentsParser, DataArguments, ModelArguments
from bga_mner.examples.fine_tuning.skeleton import FineTuning


def read_arguments(
    argv: list[str], description: str | None = None
) -> tuple[ModelArguments, DataArguments, TrainingArguments, dict[str, Any]]:
    """Read the command line, or the JSON file it names; the dict holds what the user gave, without defaults."""
    parser = ArgumentsParser((ModelArguments, DataArguments, TrainingArguments), description)
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
    _refuse_other_losses(training)
    training.remove_unused_columns = False  # or the Trainer drops the columns before they are encoded
    return model, data, training, given


def _refuse_other_losses(training: TrainingArguments) -> None:
    """Refuse what would stop the run later, or miss what it is for; see docs/reference/training_arguments.md."""
    refused = {
        "label_smoothing_factor": (training.label_smoothing_factor != 0, "0: the CRF's loss has no smoothed form"),
        "prediction_loss_only": (training.prediction_loss_only, "false: the best checkpoint is chosen by F1"),
        "label_names": (training.label_names not in (None, ["labels"]), "['labels'], which the model takes"),
    }
    for name, (is_wrong, expected) in refused.items():
        if is_wrong:
            raise ValueError(f"Expected --{name} {expected}, got {getattr(training, name)}. Leave it out.")


def refuse_saving_in_half_precision(training: TrainingArguments, wanted: list[str]) -> None:
    """Refuse an evaluation that leaves the model in half precision, if the run then saves what it trained."""
    if "do_train" in wanted and (training.bf16_full_eval or training.fp16_full_eval):
        raise ValueError(
            "Expected a run without --do_train for --bf16_full_eval and --fp16_full_eval, which leave the model in "
            "half precision, also where it is saved, got one that trains. Train without them, then evaluate with them: "
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


def fit_to_data(training: TrainingArguments, run: FineTuning) -> None:
    """Turn off what the data don't allow."""
    _check_best(training, run.labels)
    if "validation" not in run.parts or "do_train" not in run.wanted:
        training.eval_strategy, training.load_best_model_at_end = IntervalStrategy.NO, False
        training.save_strategy = SaveStrategy.EPOCH if training.save_strategy == "best" else training.save_strategy
    if run.data.streaming:
        if training.max_steps <= 0:
            raise ValueError("Expected --max_steps beside --streaming, got none, and a stream has no length. Give it.")
        # each process reads for itself: texts of different lengths can't be put together and handed out
        training.accelerator_config.dispatch_batches = False


def settings_of(training: TrainingArguments) -> dict[str, Any]:
    """Say what of the training has to be the same for a run to go on as if it had not been cut off."""
    names = ("per_device_train_batch_size", "gradient_accumulation_steps", "world_size", "seed", "data_seed")
    names += ("learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "optim")
    return {name: getattr(training, name) for name in (*names, "bf16", "fp16")}
