"""Write the model card, README.md, that goes with a saved model: filled with what its configuration knows was measured.

The facts are in `config.training_summary`, so a model that is loaded and saved again in another process gets the same
card. What isn't there is left out.
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
from huggingface_hub.constants import REPOCARD_NAME
from transformers.utils import logging

from ..configuration_bga_mner import BgaMnerConfig
from .card_facts import METRICS, changed_options, code_facts, data_facts, score_facts, training_rows
from .hub_names import is_hub_name


logger = logging.get_logger(__name__)

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
    path = Path(folder, REPOCARD_NAME)
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
    path = Path(folder, REPOCARD_NAME)
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
        "trained_with_images": summary.get("trained_with_images"),
        "reads": reads,
        "generates": config.use_text_to_image,
        "measured_reading": measured_reading if measured_reading != reads else None,
        "text_only": getattr(config, "text_only", False),
        "repository": repository,
        "placeholder": _PLACEHOLDER,
        "example": json.dumps(texts[0], ensure_ascii=False),
        "options": changed_options(config),
        "training": training_rows(summary),
        "longest": summary.get("longest_text"),
        **code_facts(config, folder),
        **data_facts(summary.get("data", {})),
        **score_facts(scores, summary, "accuracy" if classifier else "f1"),
    }
    if "seed" in summary.get("hyperparameters", {}) and scores:
        facts["seed"] = summary["hyperparameters"]["seed"]
    own_tags = ["multimodal", "bga-mner"] if classifier else ["named-entity-recognition", "multimodal", "bga-mner"]
    metadata = _metadata(summary, saved_class, texts, [*own_tags, *summary.get("tags", []), *(tags or ())])
    return fill_template(card_template(), metadata, facts)


def fill_template(template: str, metadata: ModelCardData, facts: Mapping[str, Any]) -> str:
    """Fill a template with facts and a `mark`, by which a card that nobody edited is known."""
    card = ModelCard.from_template(metadata, template_str=template, mark=_MARK.format(_UNKNOWN_CHECKSUM), **facts)
    # the template's switches leave empty lines
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
        metrics=[metric for metric in METRICS if any(r.metric_type == metric for r in results)] or None,
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
        for metric, label in METRICS.items():
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


__all__ = [
    "build_model_card",
    "card_template",
    "fill_template",
    "hand_written_card",
    "reads_at_inference",
    "write_model_card",
]
