"""Collect what a training was and what it brought, for the model card."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow.compute as pc
import torch
from datasets import Dataset, IterableDataset
from transformers import Trainer
from transformers.utils import logging

from ...configuration.errors import shown
from ...configuration.hub.hub_names import came_from_hub
from ...configuration.hub.model_card import reads_at_inference
from ...modeling_bga.encoders.encoder import is_frozen, longest_text, pretrained_part
from ..data.data_report import ConllReport


if TYPE_CHECKING:
    from torch.utils.data import Dataset as TorchDataset
    from transformers import PreTrainedConfig, PreTrainedModel

Rows: TypeAlias = "Dataset | IterableDataset | TorchDataset[Any] | Sequence[Mapping[str, Any]]"

logger = logging.get_logger(__name__)

__all__ = ["TrainingRun", "summarize_training"]

# Chosen one by one: a card is public, and training arguments also hold paths and tokens.
_HYPERPARAMETERS = (
    *("learning_rate", "lr_scheduler_type", "warmup_steps", "optim", "weight_decay", "max_grad_norm"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "label_smoothing_factor", "bf16", "fp16"),
    *("gradient_checkpointing", "seed", "data_seed"),
)
# What `encode_examples` and the model read, and beside it nothing that could be an image.
_IMAGE_COLUMNS = ("image", "vision_states", "pixel_values")
_TEXT_COLUMNS = (
    *("id", "text", "tokens", "ner_tags", "label", "labels", "target", "target_mask", "word_start_mask"),
    *("input_ids", "attention_mask", "token_type_ids", "image_mask"),
)
_PACKAGES = ("bga_mner", "torch", "transformers", "datasets", "accelerate", "tokenizers", "seqeval", "huggingface_hub")
_LANGUAGE = re.compile(r"^[a-z]{2,3}$|^multilingual$|^code$")


@dataclass
class TrainingRun:
    """What `summarize_training` reads of a training, whatever loop it ran in."""

    model: PreTrainedModel  # without wrappers of Accelerate; an encoder that needs no gradient counts as frozen
    name: str  # of the model
    arguments: Mapping[str, Any]  # as `TrainingArguments` names them; paths and tokens among them stay private
    steps: int
    device: torch.device
    epochs: float | None = None
    seconds: float | None = None
    best_step: int | None = None  # whose weights were taken in the end
    chosen_by: str | None = None  # the metric that chose them
    processes: int = 1
    gpus: int = 0  # of each process
    repository: str | None = None  # on the Hub
    train_dataset: Rows | None = None  # needed only where there is no report of what was read
    eval_dataset: Rows | None = None
    reads_images: bool = True  # whether images of the rows reach the model

    @classmethod
    def from_trainer(cls, trainer: Trainer) -> TrainingRun:
        """Read a run off any Trainer, after `train`."""
        arguments, state = trainer.args, trainer.state
        times = [entry["train_runtime"] for entry in state.log_history if "train_runtime" in entry]
        chosen = arguments.load_best_model_at_end and state.best_model_checkpoint
        processor = getattr(getattr(trainer, "data_collator", None), "processor", None)
        return cls(
            model=trainer.accelerator.unwrap_model(trainer.model),
            name=(arguments.hub_model_id or Path(arguments.output_dir).resolve().name).split("/")[-1],
            arguments=vars(arguments),
            steps=state.global_step,
            device=arguments.device,
            epochs=state.epoch,
            seconds=times[-1] if times else None,
            best_step=state.best_global_step if chosen else None,
            chosen_by=arguments.metric_for_best_model if chosen else None,
            processes=arguments.world_size,
            gpus=arguments.n_gpu,
            repository=getattr(trainer, "hub_model_id", None),
            train_dataset=trainer.train_dataset,
            eval_dataset=trainer.eval_dataset,
            reads_images=processor is None or processor.image_processor is not None,
        )


def summarize_training(
    trainer: Trainer | TrainingRun,
    *,
    data: Mapping[str, ConllReport] | None = None,
    scores: Mapping[str, Mapping[str, Any]] | None = None,
    name: str | None = None,
    language: str | Sequence[str] | None = None,
    license: str | None = None,
    datasets: Sequence[str] = (),
    widget_texts: Sequence[str] = (),
    hyperparameters: Mapping[str, Any] | None = None,
    resumed: bool = False,
) -> dict[str, Any]:
    """Collect the facts of a training that has just ended, for `model.config.training_summary`.

    Parameters
    ----------
    trainer : transformers.Trainer or TrainingRun
        Any Trainer, after `train`. A loop of your own says with a `TrainingRun` what is read off a Trainer.
    data : mapping of str to ConllReport, optional
        What was read: reports of `read_conll` by set: "train", "validation", "test". Of paths only the file's name is
        kept. Without a report the card only says how many sentences and images the rows of the Trainer have.
    scores : mapping of str to mapping, optional
        What was measured, by set: what `Trainer.evaluate` returned with `build_compute_metrics`, or, with intervals,
        `score_with_interval`; of a sequence classifier, whatever has an accuracy.
    name : str, optional
        Of the model. Default: that of its repository on the Hub if there is one, or of the output folder.
    language : str or sequence of str, optional
        Of the texts, as ISO 639 codes such as "en".
    license : str, optional
        Of the weights, as the Hub writes it, such as "cc-by-4.0".
    datasets : sequence of str, optional
        Names on the Hub of the datasets that were used; those of folders and files are left out.
    widget_texts : sequence of str, optional
        Examples to show on the card, the first of them also in its code.
    hyperparameters : mapping of str to object, optional
        Further ones, which the Trainer's arguments don't have, such as the rank of adapters.
    resumed : bool, default False
        Whether the run continued from a checkpoint, so that the time it knows isn't all.

    Returns
    -------
    dict
        JSON values only. What isn't known has no key.

    Raises
    ------
    ValueError
        If scores have neither F1 nor accuracy.

    Examples
    --------
    >>> model.config.training_summary = summarize_training(
    ...     trainer, data={"train": report}, scores={"validation": trainer.evaluate()}
    ... )  # doctest: +SKIP
    >>> trainer.save_model("outputs/mner")  # doctest: +SKIP
    """
    run = trainer if isinstance(trainer, TrainingRun) else TrainingRun.from_trainer(trainer)
    model, data = run.model, data or {}
    summary = {
        "name": name or run.name,
        "repository": run.repository,
        "language": _languages(language),
        "license": license,
        "datasets": list(filter(came_from_hub, datasets)),
        "widget_texts": list(widget_texts),
        "date": datetime.now(UTC).date().isoformat(),
        "base_models": _base_models(model),
        "parameters": model.num_parameters(),
        "longest_text": longest_text(model.config.text_config),
        "data": _sizes(run) | {part: _data_set(report) for part, report in data.items()},
        "reads": reads_at_inference(model.config),
        "trained_with_images": _trained_with_images(run, data.get("train")),
        "hyperparameters": _hyperparameters(run.arguments) | dict(hyperparameters or {}),
        "progress": _progress(run) | {"resumed": resumed or None},
        "hardware": _hardware(run),
        "versions": _versions(),
        "scores": {part: _normalized(values) for part, values in (scores or {}).items()},
    }
    return {key: value for key, value in _plain(summary).items() if value not in (None, [], {})}


def _languages(language: str | Sequence[str] | None) -> list[str]:
    codes = [language] if isinstance(language, str) else list(language or ())
    for code in codes:
        if not _LANGUAGE.match(code):
            logger.warning(
                "Expected ISO 639 codes such as 'en' as language, got %r, which the Hub refuses. It is left out.", code
            )
    return [code for code in codes if _LANGUAGE.match(code)]


def _base_models(model: PreTrainedModel) -> dict[str, dict[str, Any]]:
    """Say what the weights started from: a saved model, or two encoders."""
    if model.config.name_or_path:
        return {"started from": _origin(model.config.name_or_path)}
    base = getattr(model, model.base_model_prefix, model)
    found = {}
    for kind in ("text", "vision"):
        encoder = getattr(base, f"{kind}_encoder")
        if encoder is None:  # with text_only=True
            continue
        # new layers on a convolutional encoder came from nowhere, unless they were saved with it
        started_from = encoder if encoder.config.name_or_path else pretrained_part(encoder)
        found[f"{kind} encoder"] = _origin(started_from.config.name_or_path) | {
            "description": _description(encoder.config, started_from.config),
            "frozen": is_frozen(started_from),
        }
    return found


def _description(config: PreTrainedConfig, started_from: PreTrainedConfig) -> str:
    """Say what an encoder is like, and on what its new layers stand, if it has any."""
    layers, width = config.num_hidden_layers, config.hidden_size
    if started_from is not config:
        return f"{started_from.model_type}, below {layers} new layers of width {width}"
    return f"{config.model_type}, {layers} layers, width {width}"


def _origin(name: str) -> dict[str, Any]:
    """Tell a Hub name from a folder, of which only the last part is anyone's business."""
    on_hub = came_from_hub(name)
    return {"name": (name if on_hub or not name else Path(name).resolve().name) or None, "on_hub": on_hub}


def _sizes(run: TrainingRun) -> dict[str, dict[str, Any]]:
    sets = {"train": run.train_dataset, "validation": run.eval_dataset}
    found: dict[str, dict[str, Any]] = {
        part: {"sentences": len(rows)} for part, rows in sets.items() if isinstance(rows, Sized)
    }
    for part, values in found.items():
        if images := _count_images(sets[part]):
            missing = values["sentences"] - images
            values["images"] = {"found": images, "missing": missing, "broken": {}, "checked": False}
    return found


def _count_images(rows: Rows | None) -> int | None:
    """Count the rows with an image, or with states of one; None if that can't be told without encoding them."""
    if isinstance(rows, list) and all(isinstance(row, Mapping) for row in rows):
        names = {name for row in rows for name in row}
        images = [row for row in rows if any(row.get(name) is not None for name in _IMAGE_COLUMNS)]
        count = sum(bool(row.get("image_mask", True)) for row in images)
    elif isinstance(rows, Dataset):
        names = set(rows.column_names)
        present = [pc.is_valid(rows.data.column(name)) for name in _IMAGE_COLUMNS if name in names]
        mask = reduce(pc.or_, present) if present else None
        if mask is not None and rows._indices is not None:  # of a selection, or shuffled
            mask = mask.take(rows._indices.column(0))
        count = 0 if mask is None else pc.sum(mask).as_py() or 0
    else:
        return None
    # in another column there may be images for a transform of the user's own
    return count if count or names <= {*_IMAGE_COLUMNS, *_TEXT_COLUMNS} else None


def _data_set(report: ConllReport) -> dict[str, Any]:
    """Keep of a report what a reader of the card needs."""
    path = Path(report.path)
    # there was a folder or column of images
    had_images = report.images_found or report.images_missing or report.images_broken
    notes = [
        f"{count:,} {what}"
        for count, what in (
            (report.unknown_tags, "words without a tag"),
            (report.empty_sentences, "sentences without words"),
            (report.repaired_tags, report.repairs),
            (report.placeholder_words, "words were empty or white space"),
            (report.replaced_characters, "undecodable byte sequences were replaced"),
            *((count, what) for what, count in sorted(report.troubles.items())),
        )
        if count
    ]
    return {
        "source": path.name if path.is_file() or path.is_absolute() else report.path,
        "sha256": report.sha256,
        "rows_hashed": not path.is_file() or None,
        "sentences": report.sentences,
        "words": report.tokens,
        "entities": dict(report.entities),
        "images": {
            "found": report.images_found,
            "missing": report.images_missing,
            "broken": dict(report.images_broken),
            "checked": report.images_checked,
        }
        if had_images
        else None,
        "notes": notes,
    }


def _trained_with_images(run: TrainingRun, report: ConllReport | None) -> bool | None:
    """Tell whether images were read in training, by the rows themselves if these tell."""
    if run.model.config.text_only or not run.reads_images:
        return False
    count = _count_images(run.train_dataset)
    if count is None and report is not None:
        count = report.images_found
    return None if count is None else count > 0


def _hyperparameters(arguments: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: arguments.get(name) for name in _HYPERPARAMETERS}
    names = ["max_steps" if arguments.get("max_steps", 0) > 0 else "num_train_epochs"]
    if "adam" in str(found["optim"]).lower():
        names += ["adam_beta1", "adam_beta2", "adam_epsilon"]
    found |= {name: arguments.get(name) for name in names}
    # switches that are off say nothing
    return {name: value for name, value in found.items() if value not in (None, False) or name == "seed"}


def _progress(run: TrainingRun) -> dict[str, Any]:
    names = ("steps", "epochs", "seconds", "best_step", "chosen_by")
    return {name: getattr(run, name) for name in names}


def _hardware(run: TrainingRun) -> dict[str, Any]:
    return {
        "device": f"{run.device.type}: {_device_name(run.device)}",
        "processes": run.processes,
        "GPUs of a process": run.gpus or None,
        "threads of a process": torch.get_num_threads(),
        "CPU cores": os.cpu_count(),
    }


def _device_name(device: torch.device) -> str:
    """Name the GPU or the processor, as far as the system tells."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), flags=re.MULTILINE)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _normalized(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Bring a Trainer's metrics to what `score_with_interval` gives."""
    if "types" in scores:
        return dict(scores)
    # Trainer puts the set in front; of a classifier often nothing but the accuracy is measured
    prefixes = (
        key.removesuffix(metric)
        for metric in ("f1", "accuracy")
        for key in sorted(scores, key=len)
        if key == metric or key.endswith(f"_{metric}")
    )
    prefix = next(prefixes, None)
    if prefix is None:
        raise ValueError(
            f"Expected scores with an F1 or an accuracy, got {shown(sorted(scores))}. Give the Trainer compute_metrics="
            "build_compute_metrics(model.config.id2label), or of your own for a sequence classifier, or pass "
            "score_with_interval(...)."
        )
    own = {key.removeprefix(prefix): value for key, value in scores.items() if key.startswith(prefix)}
    names = ("precision", "recall", "f1", "accuracy")
    kinds = [key.removeprefix("number_") for key in own if key.startswith("number_")]
    types = {kind: {name: own[f"{name}_{kind}"] for name in ("precision", "recall", "f1", "number")} for kind in kinds}
    return {name: own[name] for name in names if name in own} | {"types": types}


def _plain(value: Any) -> Any:
    """Turn what a summary may hold into JSON values; what is unknown or not finite is left out of mappings."""
    if isinstance(value, Mapping):
        plain = {str(key): _plain(item) for key, item in value.items()}
        return {key: item for key, item in plain.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):  # of NumPy and torch
        value = value.item()
    if isinstance(value, float) and not isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(getattr(value, "value", value))
