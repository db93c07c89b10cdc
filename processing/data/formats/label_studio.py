"""Tasks of Label Studio: its JSON export, and JSON-MIN."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ....configuration.errors import shown
from .row_fields import REFUSED, BadRowError, Row, as_items, as_mapping, image_name, make_row


_IMAGE_ENDING = re.compile(r"\.(?:jpe?g|png|gif|webp|bmp|tiff?|avif)(?:$|\?)", re.IGNORECASE)

# What can be wrong with a task, as reports call it.
SEVERAL = "further annotations of the same text were left out (the first that is not cancelled is read)"
OTHER_RESULTS = "annotations that label no part of the text were left out"
SEVERAL_LABELS = "spans had several types, of which the first is read"


def read_task(value: Any) -> Row:
    """Read a task of Label Studio's JSON, with `data` and `annotations`, or of JSON-MIN, which is flat."""
    given = as_mapping(value)
    troubles: list[str] = []
    if isinstance(given.get("data"), Mapping):
        data = given["data"]
        results = _annotation(given, troubles)
    else:
        data = given
        lists = [item for item in given.values() if is_results(item)]
        results = [{"value": item} for one in lists for item in one] if lists else []
    spans = None
    if results is not None:
        values = [item["value"] for item in results if isinstance(item, Mapping) and _is_part(item.get("value"))]
        spans = [_label_studio_span(value) for value in values]
        troubles += [OTHER_RESULTS] * (len(results) - len(values))
        troubles += [SEVERAL_LABELS] * sum(len(as_items(value.get("labels")) or ()) > 1 for value in values)
    row = make_row({"id": given.get("id"), **data}, text=_task_text(data, spans or []), spans=spans)
    if not row.has_image:
        names = [item for item in data.values() if isinstance(item, str) and _IMAGE_ENDING.search(item)]
        row.image, row.has_image = (image_name(names[0]), True) if len(names) == 1 else (None, False)
    row.troubles = troubles + row.troubles
    return row


def is_results(value: Any) -> bool:
    """Tell whether this is what JSON-MIN makes of labels: `[{"start": 0, "end": 5, "labels": ["PER"]}]`."""
    return isinstance(value, list) and any(isinstance(item, Mapping) and "labels" in item for item in value)


def _annotation(task: Mapping[str, Any], troubles: list[str]) -> Sequence[Any] | None:
    """Choose among the annotations of a task; None if nobody annotated it."""
    found = [
        item for item in as_items(task.get("annotations", task.get("completions"))) or () if isinstance(item, Mapping)
    ]
    valid = [item for item in found if not item.get("was_cancelled") and not item.get("skipped")]
    if not valid:
        if found:
            troubles.append(REFUSED)
        return None
    chosen = next((item for item in valid if item.get("ground_truth")), valid[0])
    troubles += [SEVERAL] * (len(valid) - 1)
    return as_items(chosen.get("result")) or []


def _is_part(value: Any) -> bool:
    return isinstance(value, Mapping) and ("start" in value or "globalOffsets" in value)


def _label_studio_span(value: Mapping[str, Any]) -> Any:
    labels = value.get("labels", value.get("hypertextlabels"))
    offsets = value.get("globalOffsets")  # of HTML, where start and end are within an element
    if not isinstance(offsets, Mapping):
        offsets = value
    return {"start": offsets.get("start"), "end": offsets.get("end"), "label": labels, "text": value.get("text")}


def _task_text(data: Mapping[str, Any], spans: Sequence[Any]) -> str:
    """Find the text among the data of a task, whose keys are the project's own."""
    known = ("id", "image", "annotator", "annotation_id", "created_at", "updated_at", "completed_by")
    texts = {
        key: value
        for key, value in data.items()
        if isinstance(value, str) and key not in known and not _IMAGE_ENDING.search(value)
    }
    if "text" in texts:
        return texts["text"]
    own = [span["text"] for span in spans if isinstance(span.get("text"), str)]
    fitting = [value for value in texts.values() if all(part in value for part in own)]
    if len(fitting) != 1:
        raise BadRowError(f"expected a text, got the keys {shown(list(data), 80)}; name the right one 'text'")
    return fitting[0]


__all__ = ["is_results", "read_task"]
