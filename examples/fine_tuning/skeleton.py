"""What both fine-tuning scripts do before and after their training."""

import logging
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import transformers
from accelerate import PartialState

from bga_mner import DataCollatorForMner, last_whole_checkpoint, summarize_training
from bga_mner.configuration.errors import shown
from bga_mner.examples.fine_tuning.arguments import DataArguments, ModelArguments
from bga_mner.examples.fine_tuning.data import (
    Parts,
    has_images,
    log_reports,
    prepare_rows,
    read_data,
    write_report,
)
from bga_mner.examples.fine_tuning.model import CHANGEABLE, build_model
from bga_mner.examples.fine_tuning.predictions import flat_scores, write_predictions
from bga_mner.examples.fine_tuning.sharding import image_shape


logger = logging.getLogger("run_mner")

# What each step can be done with; of several sets the first there is.
VERBS = {"do_train": ["train"], "do_eval": ["validation"], "do_predict": ["test", "validation"]}


def start_logging(is_main: bool) -> None:
    """Let the main process alone say what happens."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logger.setLevel(logging.INFO if is_main else logging.ERROR)
    if not is_main:
        transformers.utils.logging.set_verbosity_error()
        datasets.disable_progress_bars()


class FineTuning:
    """A run of either script: the data, the steps that are wanted, the model, and what was measured.

    `given` are the arguments without defaults, and `endless` is as in `read_data`. What the arguments say of the data
    is checked at once; `build` makes the model and encodes the data.
    """

    def __init__(
        self,
        arguments: ModelArguments,
        data: DataArguments,
        output_dir: str,
        given: Mapping[str, Any],
        seed: int,
        endless: bool = False,
    ) -> None:
        self.arguments, self.data, self.output_dir = arguments, data, output_dir
        self.parts, self.labels = read_data(data, seed, endless)
        log_reports(self.parts)
        self.wanted = wanted_verbs(given, self.parts, bool(arguments.model_name_or_path))
        self.cached = arguments.cache_vision_states and "do_train" in self.wanted
        self.scores: dict[str, dict[str, Any]] = {}

    def build(self) -> None:
        """Build or load the model and its processor, and make of the data what is read in training."""
        self.has_images = has_images(self.parts)
        self.model, self.processor = build_model(self.arguments, self.labels, self.has_images, self.data.max_length)
        self.sets, self.encoded = prepare_rows(
            self.parts, self.model, self.processor, max_length=self.data.max_length, cache=self.cached
        )
        self.collator = DataCollatorForMner(self.processor)

    def share_layers(self) -> None:
        """Let all processes run the same layers, as those have to that share a model's weights."""
        self.collator.image_shape = image_shape(self.model, self.cached)

    def settings(self) -> dict[str, Any]:
        """Say what of data and model has to be the same for a run to go on from a checkpoint."""
        report = self.parts["train"][1] if "train" in self.parts else None
        config = self.model.config
        return {
            "labels": list(config.label2id),
            "training data (sha256)": report and report.sha256,
            "max_length": self.data.max_length,
            "trained parameters": sum(weight.numel() for weight in self.model.parameters() if weight.requires_grad),
            **{name: value for name, value in config.to_dict().items() if name in CHANGEABLE},
        }

    def write_report(self) -> None:
        """Write what was read to the output folder."""
        write_report(self.output_dir, list(self.model.config.label2id), self.parts)

    def choose_checkpoint(self, given: str | None) -> str | None:
        """Return the checkpoint to continue from, or make room for a new start."""
        if given not in (None, "auto"):
            return given
        if not self.data.overwrite_output_dir:
            return last_whole_checkpoint(self.output_dir)
        # old checkpoints would push out the new ones, which are of earlier steps
        with PartialState().main_process_first():
            for folder in Path(self.output_dir).glob("checkpoint-*") if PartialState().is_main_process else ():
                shutil.rmtree(folder)
        return None

    def predict(self, model: Any, *, batch_size: int, show_progress: bool, split: bool) -> dict[str, float]:
        """Annotate the test set, or else the validation set; return test scores if it has tags."""
        part = "test" if "test" in self.sets else "validation"
        found = write_predictions(
            model,
            self.processor,
            self.sets[part],
            self.output_dir,
            batch_size=batch_size,
            max_length=self.data.max_length,
            show_progress=show_progress,
            split=split,
            annotation_format=self.data.predictions_format,
        )
        if part != "test" or not found:
            return {}
        self.scores["test"] = found
        return {f"test_{name}": value for name, value in flat_scores(found).items()}

    def summarize(self, trainer: Any, **more: Any) -> dict[str, Any]:
        """Collect what the model card tells of the training."""
        name = self.data.dataset_name
        return summarize_training(
            trainer,
            data=reports_of(self.parts),
            scores=self.scores,
            language=self.arguments.language,
            license=self.arguments.license,
            datasets=[name] if name and not Path(name).exists() else [],
            **more,
        )


def reports_of(parts: Parts) -> dict[str, Any]:
    """Return the reports on the sets; a stream has none."""
    return {part: report for part, (_, report) in parts.items() if report is not None}


def wanted_verbs(given: Mapping[str, Any], parts: Parts, is_saved: bool) -> list[str]:
    """Choose what to do: what was asked for, or all that there is data for."""
    wanted = [verb for verb in VERBS if given.get(verb)] or [verb for verb in VERBS if set(VERBS[verb]) & set(parts)]
    for verb in wanted:
        if not set(VERBS[verb]) & set(parts):
            raise ValueError(
                f"Expected a {' or '.join(VERBS[verb])} set for --{verb}, got {shown(list(parts))} only. Give one."
            )
    if "do_train" not in wanted and not is_saved:
        raise ValueError("Expected a trained model, since nothing is trained, got none. Give --model_name_or_path.")
    return wanted


def warn_if_done(begun: int | None, last: int) -> None:
    """Say that a run of `last` steps was over already, if the checkpoint that it went on from is of that step."""
    if begun is not None and begun >= last:
        logger.warning(
            "Nothing was left to train: the checkpoint is of the last step, %d. Give --overwrite_output_dir to start "
            "over, another --output_dir for another training, or a larger --num_train_epochs to train on.",
            last,
        )
