"""The tables and lists of the model card, made of a configuration and of its training summary."""

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

from ..configuration_bga_mner import DEFAULT_ALIGNED_LAYERS, BgaMnerConfig
from ..configuration_conv_stages import CONV_STAGES, ConvStagesConfig
from ..encoder_configs import own_image_size


METRICS = {"f1": "F1", "precision": "Precision", "recall": "Recall", "accuracy": "Accuracy"}


def code_facts(config: BgaMnerConfig, folder: str | os.PathLike[str] | None) -> dict[str, Any]:
    """Find out what code a saved model brings along: the facts that config.json states, or the configuration."""
    path = Path(folder, "config.json") if folder is not None else None
    saved = json.loads(path.read_text(encoding="utf-8")) if path is not None and path.is_file() else {}
    tasks = saved.get("custom_pipelines") or getattr(config, "custom_pipelines", None) or {}
    return {
        "remote_code": bool(saved.get("auto_map") or getattr(config, "auto_map", None)),
        "task": next(iter(tasks), None),
    }


def changed_options(config: BgaMnerConfig) -> list[str]:
    """List the options that aren't the defaults, nor what a default becomes with these encoders."""
    left_out = ("text_config", "vision_config", "id2label", "label2id", "training_summary")
    fields = BgaMnerConfig.__annotations__
    changed = {name: getattr(config, name) for name in fields if name not in left_out}
    return [f"`{name}={json.dumps(value)}`" for name, value in changed.items() if value != option_default(config, name)]


def option_default(config: BgaMnerConfig, name: str) -> Any:
    """Return the default of an option; where that is None, what it becomes with these encoders.

    There is no default of the image size if the vision encoder was made for oblong images.
    """
    if name == "num_bga_layers":
        return min(DEFAULT_ALIGNED_LAYERS, *config.depths)
    if name == "image_size":
        vision = config.vision_config
        if vision.model_type == CONV_STAGES:
            # these layers were fitted to the size that was chosen; what is below them still knows its own
            vision = ConvStagesConfig(backbone_config=deepcopy(vision.backbone_config))
        with suppress(ValueError):
            return own_image_size(vision)
    return getattr(BgaMnerConfig, name)


def training_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List what is known of the training, as rows of a table."""
    rows: list[tuple[str, str]] = []
    for kind, model in summary.get("base_models", {}).items():
        name = f"`{_cell(model['name'])}`" if model.get("name") else "made in memory"
        idle = "never run" if kind == "vision encoder" and summary.get("trained_with_images") is False else None
        frozen = "kept frozen" if model.get("frozen") and not idle else None
        details = "; ".join(filter(None, [model.get("description"), idle, frozen]))
        rows.append((kind, name + (f" ({_cell(details)})" if details else "")))
    if "parameters" in summary:
        rows.append(("parameters", f"{summary['parameters']:,}"))
    for name, value in summary.get("hyperparameters", {}).items():
        rows.append((f"`{name}`", _cell(value)))
    progress = summary.get("progress", {})
    if "steps" in progress:
        rows.append(("steps made", f"{progress['steps']:,}" + _at_epoch(progress.get("epochs"))))
    if "best_step" in progress:
        rows.append(
            ("checkpoint kept", f"step {progress['best_step']:,}, the best by `{_cell(progress['chosen_by'])}`")
        )
    if "seconds" in progress:
        time = _duration(progress["seconds"])
        resumed = f"{time} after it was resumed; before that not recorded"
        rows.append(("training time", resumed if progress.get("resumed") else time))
    for name, value in summary.get("hardware", {}).items():
        rows.append((name, _cell(value)))
    versions = summary.get("versions", {})
    if versions:
        rows.append(("versions", ", ".join(f"{_cell(name)} {_cell(version)}" for name, version in versions.items())))
    if "date" in summary:
        rows.append(("date", _cell(summary["date"])))
    return rows


def data_facts(data: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Make the tables of sets, entities by type, and images, and the notes below them."""
    kinds = sorted({kind for part in data.values() for kind in part.get("entities", {})})
    rows, images, notes = [], [], []
    for name, part in data.items():
        entities = part.get("entities")
        rows.append(
            {
                "set": _cell(name),
                "source": f"`{_cell(part['source'])}`" if "source" in part else "",
                "sha256": f"`{part['sha256']}`" if "sha256" in part else "",
                "sentences": _number(part.get("sentences")),
                "words": _number(part.get("words")),
                "entities": "" if entities is None else _number(sum(entities.values())),
                "by_type": [_number(entities.get(kind, 0)) for kind in kinds] if entities is not None else [],
            }
        )
        found = part.get("images")
        if found:
            broken = ", ".join(f"{number:,} {kind}" for kind, number in found["broken"].items())
            total = sum(found["broken"].values())
            counted = _number(total) + (f" ({_cell(broken)})" if total else "")
            checked = "" if found.get("checked") else " (not opened)"
            images.append(
                {
                    "set": _cell(name),
                    "found": _number(found["found"]) + checked,
                    "missing": _number(found["missing"]),
                    "broken": counted,
                }
            )
        notes += [f"{_cell(name)}: {note}" for note in part.get("notes", [])]
    return {
        "data": rows,
        "data_types": [_cell(kind) for kind in kinds],
        "images": images,
        "data_notes": notes,
        "rows_hashed": any(part.get("rows_hashed") for part in data.values()),
    }


def score_facts(
    scores: Mapping[str, Mapping[str, Any]], summary: Mapping[str, Any], main_metric: str
) -> dict[str, Any]:
    """Make the tables of scores, the notes below them, and the headline, which tells the main metric."""
    rows = [_score_row(name, values) for name, values in scores.items()]
    intervals = [values for values in scores.values() if "f1_low" in values]
    note = ""
    if intervals:
        first = intervals[0]
        note = (
            f"Intervals are {first['confidence']:.0%} bootstrap intervals, from {first['samples']:,} resamples of the "
            "sentences."
        )
    notes = []
    chosen_by = summary.get("progress", {}).get("chosen_by")
    if chosen_by and "validation" in scores:
        notes.append(
            f"The checkpoint was chosen by `{_cell(chosen_by)}` on the validation set, whose scores are therefore "
            "optimistic."
        )
    # the set that nothing was chosen by, where there is one
    told = [row for row in rows if row[main_metric]]
    headline = [row for row in told if row["set"] == "test"] or told[:1]
    for row in headline:
        source = summary.get("data", {}).get(row["set"], {}).get("source")
        row["source"] = f"`{_cell(source)}`" if source else ""
    return {
        "scores": rows,
        "headline": headline,
        "score_notes": notes,
        "interval_note": note,
        "any_interval": bool(intervals),
        "any_accuracy": any("accuracy" in values for values in scores.values()),
    }


def _score_row(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"set": _cell(name), "types": [], "interval": ""}
    for metric in METRICS:
        row[metric] = f"{values[metric]:.3f}" if metric in values else ""
    if "f1_low" in values:
        row["interval"] = f"{values['f1_low']:.3f} to {values['f1_high']:.3f}"
        row["confidence"] = f"{values['confidence']:.0%}" if "confidence" in values else ""
    if "number" in values:
        row["number"] = _number(values["number"])
    row["types"] = [_score_row(kind, found) for kind, found in sorted(values.get("types", {}).items())]
    return row


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _at_epoch(epochs: float | None) -> str:
    return "" if epochs is None else f" ({epochs:.3g} epochs)"


def _duration(seconds: float) -> str:
    """Write a duration as people do."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _cell(value: Any) -> str:
    """Keep what the user wrote from breaking a table."""
    return re.sub(r"\s+", " ", str(value)).replace("|", "\\|").replace("`", "'").replace("<", "&lt;")


__all__ = ["METRICS", "changed_options", "code_facts", "data_facts", "option_default", "score_facts", "training_rows"]
