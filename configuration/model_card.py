"""Write the model card, README.md, that goes with a saved model: filled with what its configuration knows was measured.

The facts are in `config.training_summary`, so a model that is loaded and saved again, in another process or with the
code that lies beside its weights, gets the same card. What isn't there is left out.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers.utils import logging

from .configuration_bga_mner import BgaMnerConfig
from .hub_names import is_hub_name


logger = logging.get_logger(__name__)

CARD_NAME = "README.md"
# By the class that the weights are of: the Auto class that loads it, the task on the Hub, and the task's name.
_HEADS = {
    "BgaMnerModel": ("AutoModel", "feature-extraction", "Feature extraction"),
    "BgaMnerForSequenceClassification": (
        "AutoModelForSequenceClassification",
        "text-classification",
        "Sentiment analysis",
    ),
    "BgaMnerForTokenClassification": (
        "AutoModelForTokenClassification",
        "token-classification",
        "Named entity recognition",
    ),
}
_EXAMPLE = "Kawhi Leonard wins the fan vote in Toronto"
_PLACEHOLDER = "FOLDER_OR_HUB_NAME"
_MARK = "<!-- Written by bga_mner when the model was saved. Edit it freely: an edited card is kept. Checksum: {} -->"
_MARK_PATTERN = re.compile(re.escape(_MARK).replace(r"\{\}", "([0-9a-f]{64})"))
_UNKNOWN_CHECKSUM = "0" * 64
# What `transformers.utils.hub.create_and_tag_model_card` fills huggingface_hub's template with.
_STUB_DESCRIPTION = (
    "This is the model card of a 🤗 transformers model that has been pushed on the Hub. "
    "This model card has been automatically generated."
)
_SETS = {"train": 0, "validation": 1, "test": 2}
# What stays true of a model that is trained further.
_LASTING = ("name", "repository", "language", "license", "tags", "widget_texts", "base_models", "longest_text")
_METRICS = {"f1": "F1", "precision": "Precision", "recall": "Recall", "accuracy": "Accuracy"}


def write_model_card(
    folder: str | os.PathLike[str],
    config: BgaMnerConfig,
    repository: str | None = None,
    tags: Sequence[str] | None = None,
) -> None:
    """Write README.md beside a saved model, unless a person wrote or changed the one that is there.

    Replaced are cards that this function wrote and nobody edited (they carry a checksum), and the empty card that
    transformers puts into a new repository; their tags are carried over. Nothing that goes wrong here stops a save:
    it is logged as a warning. Examples of the card load `repository`, by default that of the summary or a placeholder.
    """
    path = Path(folder, CARD_NAME)
    try:
        existing = path.read_text(encoding="utf-8-sig") if path.exists() else None
        if existing is not None and not _is_replaceable(existing):
            logger.warning(
                "%s was written or edited by hand and is kept as it is. To get a card with this model's facts, "
                "remove it and save again.",
                path,
            )
            return
        carried = [] if existing is None else ModelCard(existing).data.get("tags", [])
        content = build_model_card(config, folder, repository, [*carried, *(tags or ())])
        path.write_text(content, encoding="utf-8", newline="\n")
    except Exception as error:  # whatever a summary made by hand may hold, the weights are more important
        logger.warning(
            "No model card was written to %s (%s: %s). The model itself is not affected. Check "
            "config.training_summary, then save again.",
            path,
            type(error).__name__,
            error,
        )


def hand_written_card(folder: str | os.PathLike[str]) -> str | None:
    """Return the text of a folder's README.md if a person wrote or edited it, otherwise None."""
    path = Path(folder, CARD_NAME)
    text = path.read_text(encoding="utf-8-sig") if path.is_file() else None
    return None if text is None or _is_replaceable(text) else text


def build_model_card(
    config: BgaMnerConfig,
    folder: str | os.PathLike[str] | None = None,
    repository: str | None = None,
    tags: Sequence[str] | None = None,
) -> str:
    """Fill the template with what is known of a model; without a folder no code is taken to lie beside the weights.

    The front matter holds what the Hub understands: base models, `model-index`, tags. Raises whatever comes of a
    training summary that isn't as `bga_mner.summarize_training` makes it.
    """
    outdated = bool((config.training_summary or {}).get("outdated"))
    summary, reads = _known(config), reads_at_inference(config)
    measured_reading = summary.get("reads", reads)
    if measured_reading != reads:
        summary = {name: value for name, value in summary.items() if name != "scores"}
    saved_class = next((name for name in config.architectures or [] if name in _HEADS), "BgaMnerForTokenClassification")
    tagger, classifier = (saved_class == f"BgaMnerFor{kind}Classification" for kind in ("Token", "Sequence"))
    repository = repository or summary.get("repository") or _PLACEHOLDER
    texts = summary.get("widget_texts") or [_EXAMPLE]
    scores = summary.get("scores", {})
    facts = {
        "title": summary.get("name") or "BGA-MNER",
        "recorded": bool({"data", "hyperparameters", "progress", "scores"} & set(summary)),
        "outdated": outdated,
        "tagger": tagger,
        "classifier": classifier,
        "auto_class": _HEADS[saved_class][0],
        "labels": list(config.id2label.values()),
        "types": sorted({label[2:] for label in config.label2id if label[1:2] == "-"}),
        "trained_with_pictures": summary.get("trained_with_images"),
        "reads": reads,
        "measured_reading": measured_reading if measured_reading != reads else None,
        "text_only": getattr(config, "text_only", False),
        "repository": repository,
        "placeholder": _PLACEHOLDER,
        "example": json.dumps(texts[0], ensure_ascii=False),
        "options": _changed_options(config),
        "training": _training_rows(summary),
        "longest": summary.get("longest_text"),
        **_code_beside(config, folder),
        **_data_facts(summary.get("data", {})),
        **_score_facts(scores, summary, "accuracy" if classifier else "f1"),
    }
    if "seed" in summary.get("hyperparameters", {}) and scores:
        facts["seed"] = summary["hyperparameters"]["seed"]
    own_tags = ["multimodal", "bga-mner"] if classifier else ["named-entity-recognition", "multimodal", "bga-mner"]
    metadata = _metadata(summary, saved_class, texts, [*own_tags, *summary.get("tags", []), *(tags or ())])
    mark = _MARK.format(_UNKNOWN_CHECKSUM)
    card = ModelCard.from_template(metadata, template_str=card_template(), mark=mark, **facts)
    # the template's switches leave empty lines behind
    content = re.sub(r"\n{3,}", "\n\n", str(card)).rstrip() + "\n"
    return content.replace(_UNKNOWN_CHECKSUM, _checksum(content), 1)


@cache
def card_template() -> str:
    """Read the template, `model_card.md` at the top of the package."""
    return files("bga_mner").joinpath("model_card.md").read_text(encoding="utf-8")


def _known(config: BgaMnerConfig) -> dict[str, Any]:
    """Return what the training summary says of the weights as they are: sets in the order in which they are used."""
    # config.json sorts keys, and a model that was loaded is to get the same card
    known: dict[str, Any] = json.loads(json.dumps(config.training_summary or {}, sort_keys=True))
    for name in ("data", "scores"):
        if name in known:
            known[name] = dict(sorted(known[name].items(), key=lambda item: _SETS.get(item[0], len(_SETS))))
    return {name: value for name, value in known.items() if name in _LASTING} if known.get("outdated") else known


def _is_replaceable(content: str) -> bool:
    """Tell whether a card is as a program wrote it: ours, or transformers' empty one."""
    try:
        mark = _MARK_PATTERN.search(content)
        if mark is not None:
            return _checksum(content) == mark.group(1)
        stub = ModelCard.from_template(ModelCardData(), model_description=_STUB_DESCRIPTION)
        return ModelCard(content).text == stub.text
    except Exception:  # front matter that can't be read was written by a person
        return False


def _checksum(content: str) -> str:
    """Compute the SHA-256 of a card's facts and text, without the tags, which transformers adds to when it pushes."""
    card = ModelCard(content)
    metadata = {name: value for name, value in card.data.to_dict().items() if name != "tags"}
    text = _MARK_PATTERN.sub("", card.text).replace("\r\n", "\n").strip()
    return hashlib.sha256(json.dumps([metadata, text], sort_keys=True, default=str).encode()).hexdigest()


def _metadata(summary: Mapping[str, Any], saved_class: str, texts: Sequence[str], tags: list[str]) -> ModelCardData:
    """Make the front matter."""
    _, task, task_name = _HEADS[saved_class]
    has_head = saved_class != "BgaMnerModel"
    base_models = [model["name"] for model in summary.get("base_models", {}).values() if model.get("on_hub")]
    results = _eval_results(summary, task, task_name) if has_head else []
    in_its_language = "widget_texts" in summary or "en" in summary.get("language", ["en"])
    metadata = ModelCardData(
        language=summary.get("language"),
        license=summary.get("license"),
        library_name="transformers",
        pipeline_tag=task,
        tags=tags,
        base_model=list(filter(is_hub_name, base_models)) or None,
        datasets=list(filter(is_hub_name, summary.get("datasets", []))) or None,
        metrics=[metric for metric in _METRICS if any(r.metric_type == metric for r in results)] or None,
        model_name=(summary.get("name") or "BGA-MNER") if results else None,
        eval_results=results or None,
    )
    if has_head and in_its_language:
        metadata["widget"] = [{"text": text} for text in texts]
    return metadata


def _eval_results(summary: Mapping[str, Any], task: str, task_name: str) -> list[EvalResult]:
    """List the overall scores of each set, to the last digit."""
    results = []
    for part, scores in summary.get("scores", {}).items():
        source = summary.get("data", {}).get(part, {}).get("source")
        dataset = (summary.get("datasets") or [None])[0]
        for metric, label in _METRICS.items():
            if metric in scores:
                result = EvalResult(
                    task_type=task,
                    task_name=task_name,
                    # as other libraries do for data that aren't on the Hub
                    dataset_type=dataset or "unknown",
                    dataset_name=dataset or source or part,
                    dataset_split=part,
                    metric_type=metric,
                    metric_name=label,
                    metric_value=scores[metric],
                )
                results.append(result)
    return results


def reads_at_inference(config: BgaMnerConfig) -> str:
    """Say what the text attends to at inference: "generated" features, "real" ones, or "none"."""
    return config.visual_source if config.text_reads_features else "none"


def _code_beside(config: BgaMnerConfig, folder: str | os.PathLike[str] | None) -> dict[str, Any]:
    """Find out what code a saved model brings along: the facts that config.json states, or the configuration."""
    path = Path(folder, "config.json") if folder is not None else None
    saved = json.loads(path.read_text(encoding="utf-8")) if path is not None and path.is_file() else {}
    tasks = saved.get("custom_pipelines") or getattr(config, "custom_pipelines", None) or {}
    return {
        "remote_code": bool(saved.get("auto_map") or getattr(config, "auto_map", None)),
        "task": next(iter(tasks), None),
    }


def _changed_options(config: BgaMnerConfig) -> list[str]:
    """List the options that aren't the defaults, nor what a default becomes with these encoders."""
    left_out = ("text_config", "vision_config", "id2label", "label2id", "training_summary")
    fields = BgaMnerConfig.__annotations__
    changed = {name: getattr(config, name) for name in fields if name not in left_out}
    return [f"`{name}={json.dumps(value)}`" for name, value in changed.items() if value != config.option_default(name)]


def _training_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
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


def _data_facts(data: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Make the tables of sets, entities by type, and pictures, and the notes below them."""
    kinds = sorted({kind for part in data.values() for kind in part.get("entities", {})})
    rows, pictures, notes = [], [], []
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
            pictures.append(
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
        "pictures": pictures,
        "data_notes": notes,
        "rows_hashed": any(part.get("rows_hashed") for part in data.values()),
    }


def _score_facts(
    scores: Mapping[str, Mapping[str, Any]], summary: Mapping[str, Any], main_metric: str
) -> dict[str, Any]:
    """Make the tables of scores, the notes below them, and the headline, which tells the main metric."""
    rows = [_score_row(name, values) for name, values in scores.items()]
    intervals = [values for values in scores.values() if "f1_low" in values]
    note = ""
    if intervals:
        first = intervals[0]
        note = (
            f"Intervals are {first['confidence']:.0%} bootstrap intervals, from {first['samples']:,} draws of as many "
            "sentences with replacement."
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
    for metric in _METRICS:
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


__all__ = [
    "CARD_NAME",
    "build_model_card",
    "card_template",
    "hand_written_card",
    "reads_at_inference",
    "write_model_card",
]
