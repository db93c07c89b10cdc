"""One row of each format of annotations, as its tool writes it."""

from collections.abc import Callable, Mapping
from typing import Any

from ....configuration.errors import shown
from .label_studio import is_results, read_task
from .row_fields import REFUSED, BadRowError, Row, as_items, as_mapping, first_of, is_words, make_row, text_of, words_of
from .spans import clean


_WORD_KEYS = ("tokens", "words", "tokenized_text")
_TAG_KEYS = ("ner_tags", "tags", "labels", "ner_labels", "ner")


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
    if any(is_words(value.get(key)) for key in _WORD_KEYS):
        return "tokens"
    if "spans" in value or ("answer" in value and "text" in value):
        return "prodigy"
    entities = value.get("entities", value.get("ents"))
    if isinstance(entities, list) and entities:
        return "doccano" if isinstance(entities[0], Mapping) and "start_offset" in entities[0] else "entities"
    if any(is_results(item) for item in value.values()):
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
    """Read `{"text": ..., "label": [[0, 5, "PER"]]}`, or `"entities"` with `start_offset`."""
    given = as_mapping(value)
    spans = first_of(given, ("label", "labels", "entities", "annotations"))
    row = make_row(given, text=text_of(given, ("text", "data")), spans=as_items(spans))
    _need_spans(row)
    return row


def _entities(value: Any) -> Row:
    """Read `{"text": ..., "entities": [{"start": 0, "end": 5, "label": "PER"}]}`."""
    given = as_mapping(value)
    # "ents" is what spaCy's Doc.to_json writes
    row = make_row(
        given,
        text=text_of(given, ("text", "sentence")),
        spans=as_items(first_of(given, ("entities", "ents", "annotations"))),
    )
    _need_spans(row)
    if "entities" not in given and isinstance(given.get("label", given.get("labels")), list | str):
        raise BadRowError(f"expected 'entities', got a label {shown(given.get('label', given.get('labels')), 60)}")
    if row.spans is None and (other := next((key for key in given if _is_span(_item(given[key]))), None)):
        raise BadRowError(f"expected spans in 'entities', got some in {shown(other)}; rename it")
    return row


def _prodigy(value: Any) -> Row:
    """Read `{"text": ..., "spans": [{"start": 0, "end": 5, "label": "PER"}], "answer": "accept"}`."""
    given = as_mapping(value)
    row = make_row(given, text=text_of(given, ("text",)), spans=as_items(given.get("spans", [])))
    if given.get("answer", "accept") != "accept":
        row.spans = None
        row.troubles.append(REFUSED)
    return row


def _spacy(value: Any) -> Row:
    """Read `["Kawhi wins", {"entities": [[0, 5, "PER"]]}]`."""
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], str):
        raise BadRowError(f"expected a text and a mapping with 'entities', got {shown(value, 80)}")
    given = as_mapping(value[1])
    return make_row(given, text=value[0], spans=as_items(given.get("entities", [])))


def _gliner(value: Any) -> Row:
    """Read `{"tokenized_text": ["Kawhi", "wins"], "ner": [[0, 0, "person"]]}`; the last word is included."""
    given = as_mapping(value)
    return make_row(given, words=words_of(given, ("tokenized_text",)), word_spans=as_items(given.get("ner")))


def _tokens(value: Any) -> Row:
    """Read `{"tokens": ["Kawhi", "wins"], "ner_tags": ["B-PER", "O"]}`."""
    given = as_mapping(value)
    row = make_row(given, words=words_of(given, _WORD_KEYS), tags=as_items(first_of(given, _TAG_KEYS)))
    if row.tags is not None and len(row.tags) != len(row.words or ()):
        raise BadRowError(f"expected one tag per word, got {len(row.tags)} tags for {len(row.words or ())} words")
    return row


READERS: dict[str, Callable[[Any], Row]] = {
    "doccano": _doccano,
    "label-studio": read_task,
    "prodigy": _prodigy,
    "spacy": _spacy,
    "gliner": _gliner,
    "entities": _entities,
    "tokens": _tokens,
}


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
    """Refuse a list of labels of the whole text, such as `["positive"]`."""
    if any(not isinstance(item, list | tuple | Mapping) for item in row.spans or ()):
        raise BadRowError(f"expected spans with offsets, got {shown(row.spans, 80)}")


__all__ = ["READERS", "detect_format", "read_row"]
