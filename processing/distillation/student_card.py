"""Save a student as a plain model, with a card that says who taught it, on what, and how well."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.constants import REPOCARD_NAME
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ...configuration.hub.card_facts import METRICS
from ...configuration.hub.hub_names import came_from_hub
from ...configuration.hub.model_card import fill_template, hand_written_card
from ..serving.student_export import EXACT_FILE, QUANTISED_FILE, export_student


logger = logging.get_logger(__name__)

EXAMPLES_FILE = "examples.json"

_TASKS = {"token-classification": "Named entity recognition", "text-classification": "Text classification"}
_EXAMPLE = "Kawhi Leonard wins the fan vote in Toronto"
_PLACEHOLDER = "FOLDER_OR_HUB_NAME"


def save_student(
    folder: str | os.PathLike[str],
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    teacher: PreTrainedModel,
    *,
    training: Mapping[str, Any],
    report: Mapping[str, Any] | None = None,
    name: str | None = None,
    language: str | None = None,
    license: str | None = None,
    widget_texts: Sequence[str] = (),
    repository: str | None = None,
    onnx: bool = False,
) -> None:
    """Save a student, its tokenizer and its card: a folder without any code, which transformers alone loads.

    A card that a person wrote or edited is kept.

    Parameters
    ----------
    folder : str or path
        Made if it isn't there.
    student, tokenizer
        What [`build_student`] made, trained.
    teacher : BgaMnerForTokenClassification or BgaMnerForSequenceClassification
        Named in the card if it came from the Hub.
    training : mapping of str to object
        Rows of the card's table, such as `{"texts": 3373, "steps": 900}`.
    report : mapping, optional
        What [`compare_with_teacher`] measured; with `data`, on what.
    name, language, license, widget_texts, repository
        For the card: the model's name, language (such as "en") and license, texts for the Hub's widget (by default
        those of the teacher's card), and the name on the Hub, with which its examples load the model.
    onnx : bool, default False
        Whether to write what browsers load, as [`export_student`] does, and the widget's texts beside it, for
        examples/browser. Without it, what an older student left there is removed.
    """
    student.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    summary = teacher.config.training_summary or {}
    texts = list(widget_texts or summary.get("widget_texts") or ([_EXAMPLE] if language in (None, "en") else []))
    if onnx:
        export_student(student, tokenizer, folder)
        Path(folder, "onnx", EXAMPLES_FILE).write_text(json.dumps(texts, ensure_ascii=False) + "\n", encoding="utf-8")
    else:
        for file in (EXACT_FILE, QUANTISED_FILE, EXAMPLES_FILE):
            Path(folder, "onnx", file).unlink(missing_ok=True)
    if hand_written_card(folder) is not None:
        logger.warning("%s was edited and is kept as it is. Remove it and save again for a new one.", folder)
        return
    labels = [str(label) for label in student.config.id2label.values()]
    tagger = hasattr(teacher, "crf")
    teacher_name = str(teacher.config.name_or_path or "")
    facts = {
        "title": name or "BGA-MNER student",
        "tagger": tagger,
        "task": "token-classification" if tagger else "text-classification",
        "labels": labels,
        "types": sorted({label[2:] for label in labels if label[1:2] == "-"}),
        "architecture": type(student).__name__,
        "teacher": teacher_name if came_from_hub(teacher_name) else None,
        "trained_with_images": summary.get("trained_with_images"),
        "repository": repository or _PLACEHOLDER,
        "placeholder": _PLACEHOLDER,
        "example": json.dumps(texts[0] if texts else _EXAMPLE, ensure_ascii=False),
        "onnx": onnx,
        "training": {
            "parameters": f"{student.num_parameters():,}",
            **training,
            "most tokens of a text": tokenizer.model_max_length,
        },
        **_score_facts(report or {}),
    }
    metadata = _metadata(facts, report or {}, language, license, texts)
    Path(folder, REPOCARD_NAME).write_text(fill_template(_template(), metadata, facts), encoding="utf-8", newline="\n")


def _metadata(
    facts: Mapping[str, Any], report: Mapping[str, Any], language: str | None, license: str | None, texts: Sequence[str]
) -> ModelCardData:
    """Make the front matter."""
    results = _eval_results(report, facts["task"]) if "student" in report else []
    own = ["named-entity-recognition"] if facts["tagger"] else []
    metadata = ModelCardData(
        language=language,
        license=license,
        library_name="transformers",
        pipeline_tag=facts["task"],
        tags=[*own, "bga-mner", "distillation"],
        base_model=facts["teacher"],
        metrics=[result.metric_type for result in results] or None,
        model_name=facts["title"] if results else None,
        eval_results=results or None,
    )
    if texts:
        metadata["widget"] = [{"text": text} for text in texts]
    return metadata


@cache
def _template() -> str:
    return files("bga_mner.processing.distillation").joinpath("student_card.md").read_text(encoding="utf-8")


def with_repository(card: str, repository: str) -> str:
    """Name the repository in the examples of a card that was written before there was one."""
    return re.sub(rf"Replace `{_PLACEHOLDER}`[^.]*\.\n\n", "", card).replace(_PLACEHOLDER, repository)


def _score_facts(report: Mapping[str, Any]) -> dict[str, Any]:
    """Write what was measured as the template shows it."""
    facts: dict[str, Any] = {"contradictions": report.get("contradictions"), "scores": []}
    if "agreement" in report:
        facts |= {"agreement": f"{report['agreement']:.3f}", "compared_texts": f"{report['texts']:,}"}
    names = {"student": "student", "student_by_words": "student, word by word", "teacher": "teacher"}
    for who, name in names.items():
        if (scores := report.get(who)) is None:
            continue
        row = {key: f"{scores[key]:.3f}" for key in METRICS if key in scores} | {"name": name}
        if "f1_low" in scores:
            row["interval"] = f"{scores['f1_low']:.3f} to {scores['f1_high']:.3f}"
            facts["interval_note"] = (
                f"Intervals ({scores['confidence']:.0%}) are of {scores['samples']} bootstrap samples of the texts."
            )
        facts["scores"].append(row | {"number": scores.get("number")})
    return facts


def _eval_results(report: Mapping[str, Any], task: str) -> list[EvalResult]:
    return [
        EvalResult(
            task_type=task,
            task_name=_TASKS[task],
            dataset_type="unknown",
            dataset_name=str(report.get("data", "test set")),
            metric_type=metric,
            metric_name=label,
            metric_value=report["student"][metric],
        )
        for metric, label in METRICS.items()
        if metric in report["student"]
    ]


__all__ = ["save_student", "with_repository"]
