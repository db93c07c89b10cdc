"""One row of each format of annotations, as its tool writes it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ...configuration.messages import shown
from .spans import clean


IMAGE_KEYS = ("image", "image_path", "image_file", "img", "picture", "photo")
_WORD_KEYS = ("tokens", "words", "tokenized_text")
_TAG_KEYS = ("ner_tags", "tags", "labels", "ner_labels", "ner")
_IMAGE_ENDING = re.compile(r"\.(?:jpe?g|png|gif|webp|bmp|tiff?|avif)(?:$|\?)", re.IGNORECASE)

# What can be wrong with a row, as reports call it.
REFUSED = "rows were not accepted by the annotator and are kept without tags"
SEVERAL = "further annotations of the same text were left out (the first that is not cancelled is read)"
OTHER_RESULTS = "annotations that label no part of the text were left out"
SEVERAL_LABELS = "spans had several types, of which the first is read"
SEVERAL_IMAGES = "rows have several images, of which the first is read"
INLINE_IMAGES = "images stand in the file as text, which is not read"


class BadRowError(ValueError):
    """A row that is not of the format."""


@dataclass
class Row:
    """A row of annotations: a text with spans of characters, or words with spans of words or tags.

    `spans`, `word_spans` and `tags` are None where nobody annotated.
    """

    text: str | None = None
    words: list[str] | None = None
    spans: list[Any] | None = None
    word_spans: list[Any] | None = None
    tags: list[Any] | None = None
    id: str | None = None
    image: str | None = None
    has_image: bool = False  # whether the row says which image belongs to it, if only that there is none
    troubles: list[str] = field(default_factory=list)


def detect_format(value: Any) -> str | None:
    """Tell the format of a row by its keys; None if it could be several or none."""
    if isinstance(value, list):
        pair = len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], Mapping)
        return "spacy" if pair else None
    if not isinstance(value, Mapping):
        return None
    if "tokenized_text" in value:
        return "gliner"
    if isinstance(value.get("data"), Mapping):
        return "label-studio"
    if any(_is_words(value.get(key)) for key in _WORD_KEYS):
        return "tokens"
    if "spans" in value or ("answer" in value and "text" in value):
        return "prodigy"
    entities = value.get("entities", value.get("ents"))
    if isinstance(entities, list) and entities:
        return "doccano" if isinstance(entities[0], Mapping) and "start_offset" in entities[0] else "entities"
    if any(_is_results(item) for item in value.values()):
        return "label-studio"
    labels = value.get("label", value.get("labels"))
    if isinstance(labels, list) and labels and isinstance(labels[0], list):
        return "doccano"
    return None


def read_row(value: Any, name: str) -> Row:
    """Read a row of the format `name`; a `BadRowError` says that it is another."""
    row = READERS[name](value)
    if row.text is not None:
        row.text = clean(row.text)
    return row


def _doccano(value: Any) -> Row:
    """Read ``{"text": ..., "label": [[0, 5, "PER"]]}``, or ``"entities"`` with ``start_offset``."""
    given = _mapping(value)
    spans = _first(given, ("label", "labels", "entities", "annotations"))
    row = _row(given, text=_text(given, ("text", "data")), spans=_list(spans))
    _need_spans(row)
    return row


def _entities(value: Any) -> Row:
    """Read ``{"text": ..., "entities": [{"start": 0, "end": 5, "label": "PER"}]}``."""
    given = _mapping(value)
    # "ents" is what spaCy's Doc.to_json writes
    row = _row(
        given, text=_text(given, ("text", "sentence")), spans=_list(_first(given, ("entities", "ents", "annotations")))
    )
    _need_spans(row)
    if "entities" not in given and isinstance(given.get("label", given.get("labels")), list | str):
        raise BadRowError(f"expected 'entities', got a label {shown(given.get('label', given.get('labels')), 60)}")
    if row.spans is None and (other := next((key for key in given if _is_span(_item(given[key]))), None)):
        raise BadRowError(f"expected spans in 'entities', got some in {shown(other)}; rename it")
    return row


def _prodigy(value: Any) -> Row:
    """Read ``{"text": ..., "spans": [{"start": 0, "end": 5, "label": "PER"}], "answer": "accept"}``."""
    given = _mapping(value)
    row = _row(given, text=_text(given, ("text",)), spans=_list(given.get("spans", [])))
    if given.get("answer", "accept") != "accept":
        row.spans = None
        row.troubles.append(REFUSED)
    return row


def _spacy(value: Any) -> Row:
    """Read ``["Kawhi wins", {"entities": [[0, 5, "PER"]]}]``."""
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], str):
        raise BadRowError(f"expected a text and a mapping with 'entities', got {shown(value, 80)}")
    given = _mapping(value[1])
    return _row(given, text=value[0], spans=_list(given.get("entities", [])))


def _gliner(value: Any) -> Row:
    """Read ``{"tokenized_text": ["Kawhi", "wins"], "ner": [[0, 0, "person"]]}``; the last word is included."""
    given = _mapping(value)
    return _row(given, words=_words(given, ("tokenized_text",)), word_spans=_list(given.get("ner")))


def _tokens(value: Any) -> Row:
    """Read ``{"tokens": ["Kawhi", "wins"], "ner_tags": ["B-PER", "O"]}``."""
    given = _mapping(value)
    row = _row(given, words=_words(given, _WORD_KEYS), tags=_list(_first(given, _TAG_KEYS)))
    if row.tags is not None and len(row.tags) != len(row.words or ()):
        raise BadRowError(f"expected one tag a word, got {len(row.tags)} tags for {len(row.words or ())} words")
    return row


def _label_studio(value: Any) -> Row:
    """Read a task of Label Studio's JSON, with ``data`` and ``annotations``, or of JSON-MIN, which is flat."""
    given = _mapping(value)
    troubles: list[str] = []
    if isinstance(given.get("data"), Mapping):
        data = given["data"]
        results = _annotation(given, troubles)
    else:
        data = given
        lists = [item for item in given.values() if _is_results(item)]
        results = [{"value": item} for one in lists for item in one] if lists else []
    spans = None
    if results is not None:
        values = [item["value"] for item in results if isinstance(item, Mapping) and _is_part(item.get("value"))]
        spans = [_label_studio_span(value) for value in values]
        troubles += [OTHER_RESULTS] * (len(results) - len(values))
        troubles += [SEVERAL_LABELS] * sum(len(_list(value.get("labels")) or ()) > 1 for value in values)
    row = _row({"id": given.get("id"), **data}, text=_task_text(data, spans or []), spans=spans)
    if not row.has_image:
        names = [item for item in data.values() if isinstance(item, str) and _IMAGE_ENDING.search(item)]
        row.image, row.has_image = (image_name(names[0]), True) if len(names) == 1 else (None, False)
    row.troubles = troubles + row.troubles
    return row


def _annotation(task: Mapping[str, Any], troubles: list[str]) -> Sequence[Any] | None:
    """Choose among the annotations of a task; None if nobody annotated it."""
    found = [
        item for item in _list(task.get("annotations", task.get("completions"))) or () if isinstance(item, Mapping)
    ]
    valid = [item for item in found if not item.get("was_cancelled") and not item.get("skipped")]
    if not valid:
        if found:
            troubles.append(REFUSED)
        return None
    chosen = next((item for item in valid if item.get("ground_truth")), valid[0])
    troubles += [SEVERAL] * (len(valid) - 1)
    return _list(chosen.get("result")) or []


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


READERS: dict[str, Callable[[Any], Row]] = {
    "doccano": _doccano,
    "label-studio": _label_studio,
    "prodigy": _prodigy,
    "spacy": _spacy,
    "gliner": _gliner,
    "entities": _entities,
    "tokens": _tokens,
}


def image_name(value: str) -> str:
    """Return the name in a folder of images of what a tool has as path or address.

    Examples
    --------
    >>> image_name("/data/local-files/?d=pictures/1.jpg"), image_name("https://example.com/a/2.jpg?x=1")
    ('pictures/1.jpg', '2.jpg')
    """
    address = urlsplit(value) if re.match(r"^(?:[a-z][a-z0-9+.-]+:/|/)", value) else None
    if address is None:
        return re.split(r"[\\/]", value)[-1] if re.match(r"^[A-Za-z]:", value) else value
    path = (parse_qs(address.query).get("d") or [unquote(address.path)])[0]
    return path if address.path.startswith("/data/local-files") and not path.startswith("/") else path.split("/")[-1]


def _row(given: Mapping[str, Any], **content: Any) -> Row:
    """Make a row with the id and the image that stand beside its content, or in ``meta``."""
    row = Row(**content)
    meta = given["meta"] if isinstance(given.get("meta"), Mapping) else {}
    name = given.get("id", meta.get("id"))
    if isinstance(name, str | int | float) and not isinstance(name, bool):
        row.id = " ".join(clean(str(name)).split()) or None  # on one line
    for source in (given, meta):
        key = next((key for key in IMAGE_KEYS if key in source), None)
        if key is not None:
            row.has_image = True
            _read_image(row, source[key])
            break
    return row


def _read_image(row: Row, value: Any) -> None:
    if isinstance(value, list):
        row.troubles += [SEVERAL_IMAGES] * (len(value) > 1)
        value = value[0] if value else None
    if isinstance(value, Mapping):  # of datasets
        value = value.get("path") or (value.get("bytes") and "data:")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str) and value.strip():
        if value.startswith("data:"):
            row.troubles.append(INLINE_IMAGES)
        else:
            row.image = image_name(clean(value.strip()))


def _item(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else None


def _is_span(item: Any) -> bool:
    """Tell a span, with two offsets and the name of a type, from other items of a list."""
    values = list(item.values() if isinstance(item, Mapping) else item if isinstance(item, list) else ())
    named = not isinstance(item, Mapping) or {"label", "labels", "type", "entity", "tag"} & item.keys()
    return (
        bool(named)
        and [isinstance(value, int) for value in values].count(True) >= 2
        and any(isinstance(value, str) for value in values)
    )


def _need_spans(row: Row) -> None:
    """Refuse a list of labels of the whole text, such as ``["positive"]``."""
    if any(not isinstance(item, list | tuple | Mapping) for item in row.spans or ()):
        raise BadRowError(f"expected spans with offsets, got {shown(row.spans, 80)}")


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadRowError(f"expected an object, got {type(value).__name__} {shown(value, 80)}")
    return value


def _first(given: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((given[key] for key in keys if given.get(key) is not None), None)


def _text(given: Mapping[str, Any], keys: Sequence[str]) -> str:
    value = _first(given, keys)
    if not isinstance(value, str):
        raise BadRowError(
            f"expected a text in {shown(keys[0])}, got {shown(value, 60)} and the keys {shown(list(given), 80)}"
        )
    return value


def _list(value: Any) -> list[Any] | None:
    if value is not None and not isinstance(value, list):
        raise BadRowError(f"expected a list of annotations, got {type(value).__name__} {shown(value, 80)}")
    return value


def _is_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _words(given: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    value = _first(given, keys)
    if not _is_words(value):
        raise BadRowError(f"expected a list of words in {shown(keys[0])}, got {shown(value, 80)}")
    return [clean(word) for word in value]


def _is_results(value: Any) -> bool:
    """Tell whether this is what JSON-MIN makes of labels: ``[{"start": 0, "end": 5, "labels": ["PER"]}]``."""
    return isinstance(value, list) and any(isinstance(item, Mapping) and "labels" in item for item in value)


__all__ = ["IMAGE_KEYS", "READERS", "BadRowError", "Row", "detect_format", "image_name", "read_row"]
