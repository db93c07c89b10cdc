"""What the fine-tuning scripts predict, and the scores of it."""

import json
from pathlib import Path
from typing import Any

import datasets
from accelerate import PartialState
from accelerate.utils import gather_object

from bga_mner import (
    BgaMnerForTokenClassification,
    BgaMnerProcessor,
    predict,
    score_with_interval,
    write_annotations,
    write_conll,
)


def write_predictions(
    model: BgaMnerForTokenClassification,
    processor: BgaMnerProcessor,
    rows: datasets.Dataset,
    output_dir: str,
    *,
    batch_size: int,
    max_length: int | None,
    show_progress: bool,
    split: bool,
    annotation_format: str | None,
) -> dict[str, Any]:
    """Predict, write `predictions.*`, and score the words as `build_compute_metrics` does; {} without tags.

    With `split` each process takes a share. A model whose weights are spread over processes runs in all of them at
    the same time, so then each has to take everything.
    """
    state = PartialState()
    share = -(-len(rows) // state.num_processes) if split else len(rows)
    start = share * state.process_index if split else 0
    part = rows[start : start + share]
    found = predict(
        model,
        processor,
        part["tokens"],
        part.get("image"),
        is_split_into_words=True if part["tokens"] else None,
        batch_size=batch_size,
        max_length=max_length,
        show_progress=state.is_main_process and show_progress,
    )
    found = gather_object(found) if split else found
    ids, tokens, known = list(rows["id"]), list(rows["tokens"]), list(rows["ner_tags"])
    tags = [_tags(words, entities) for words, entities in zip(tokens, found, strict=True)]
    if state.is_main_process:
        write_conll(Path(output_dir, "predictions.conll"), tokens, tags, ids)
        with Path(output_dir, "predictions.jsonl").open("w", encoding="utf-8") as file:
            for name, words, entities in zip(ids, tokens, found, strict=True):
                line = {"id": name, "text": " ".join(words), "entities": entities}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        if annotation_format:
            ending = "json" if annotation_format in ("label-studio", "spacy", "gliner") else "jsonl"
            copy = Path(output_dir, f"predictions.{annotation_format}.{ending}")
            write_annotations(copy, tokens, found, annotation_format, ids=ids)
    if all(tag is None for sentence in known for tag in sentence):
        return {}
    return score_with_interval(tags, known)


def flat_scores(scores: dict[str, Any]) -> dict[str, float]:
    """Bring scores to the form of a Trainer's metrics."""
    flat = {name: value for name, value in scores.items() if name not in ("types", "samples", "confidence")}
    by_type = scores["types"].items()
    return flat | {f"{name}_{kind}": value for kind, values in by_type for name, value in values.items()}


def _tags(words: list[str], entities: list[dict[str, Any]]) -> list[str]:
    """Turn entities of a text into one tag per word."""
    tags, offset = [], 0
    for word in words:
        inside = next((entity for entity in entities if entity["start"] <= offset < entity["end"]), None)
        tags.append(f"{'B' if inside['start'] == offset else 'I'}-{inside['label']}" if inside else "O")
        offset += len(word) + 1
    return tags
