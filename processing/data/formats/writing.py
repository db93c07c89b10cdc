"""Write what was found in texts so that tools of annotation import it."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from ....configuration.errors import shown
from ...text.word_splitting import split_words
from .spans import Span, SpanLike, clean, read_span, utf16_offsets, words_in


def write_annotations(
    path: str | os.PathLike[str],
    texts: Iterable[str | Sequence[str]],
    entities: Iterable[Iterable[SpanLike]],
    format: str,
    *,
    ids: Iterable[str | None] | None = None,
    images: Iterable[str | None] | None = None,
    model_version: str = "bga-mner",
) -> None:
    """Write texts with their entities for a tool of annotation; `read_annotations` reads the file, too.

    Parameters
    ----------
    path : str or os.PathLike
        The file to write, in UTF-8.
    texts : iterable of (str or sequence of str)
        Texts, or words, which are joined by spaces.
    entities : iterable of iterables of (mapping or sequence)
        Of each text, with offsets in characters: as `predict` gives them, or as `tags_from_spans` takes spans.
    format : {"doccano", "label-studio", "prodigy", "spacy", "gliner", "entities"}
        "doccano" and "prodigy": lines of JSON. "label-studio": tasks with predictions, for the labelling interface with
        `<Labels name="label" toName="text">` and `<Text name="text" value="$text">`. "spacy": a JSON list of pairs.
        "gliner": a JSON list of words and spans of words. "entities": lines with all that `predict` gives.
    ids : iterable of (str or None), optional
        Ids of the texts.
    images : iterable of (str or None), optional
        Names or addresses of their images.
    model_version : str
        What Label Studio calls these predictions.

    Raises
    ------
    ValueError
        If the format is unknown, numbers don't fit, or an entity isn't in its text. Nothing is written then.

    Examples
    --------
    >>> write_annotations("found.jsonl", texts, predict(model, processor, texts), "doccano")  # doctest: +SKIP
    """
    if format not in WRITTEN_FORMATS:
        raise ValueError(f"Expected a format of {', '.join(WRITTEN_FORMATS)}, got {shown(format)}. Choose one.")
    if isinstance(texts, str):
        raise ValueError(f"Expected a list of texts, got the string {shown(texts)}. Wrap a single text in a list.")
    given, found = list(texts), [list(items) for items in entities]
    names, images_ = (
        [None] * len(given) if column is None else [None if item is None else str(item) for item in column]
        for column in (ids, images)
    )
    if not len(given) == len(found) == len(names) == len(images_):
        raise ValueError(
            f"Expected entities, ids and images for each text, got {len(given)} texts, {len(found)} lists of entities, "
            f"{len(names)} ids and {len(images_)} images. Give one of each for each text."
        )
    rows = []
    for index, (content, items, name, image) in enumerate(zip(given, found, names, images_, strict=True)):
        text = clean(content if isinstance(content, str) else " ".join(content))
        words = split_words(text) if isinstance(content, str) else _words_in(text, content)
        beside = {key: value for key, value in (("id", name), ("image", image)) if value is not None}
        spans = [_check(item, text, index) for item in items]
        rows.append(_WRITERS[format](_Found(text, words, spans, items, beside, model_version)))
    if format in _DOCUMENTS:
        written = json.dumps(rows, ensure_ascii=False, indent=1, default=float) + "\n"
    else:  # scores may be NumPy's
        written = "".join(json.dumps(row, ensure_ascii=False, default=float) + "\n" for row in rows)
    Path(path).write_text(written, encoding="utf-8", newline="\n")


class _Found(NamedTuple):
    """A text with its words, its entities as spans and as they were given, and what is written beside them."""

    text: str
    words: Sequence[tuple[str, int, int]]
    spans: list[Span]
    items: list[Any]
    beside: dict[str, str]
    model_version: str


def _doccano(found: _Found) -> dict[str, Any]:
    units = utf16_offsets(found.text)  # as doccano's page counts
    return found.beside | {"text": found.text, "label": [[units[s.start], units[s.end], s.label] for s in found.spans]}


def _label_studio(found: _Found) -> dict[str, Any]:
    text, results = found.text, []
    for number, (span, item) in enumerate(zip(found.spans, found.items, strict=True)):
        value = {"start": span.start, "end": span.end, "text": text[span.start : span.end], "labels": [span.label]}
        result = {"id": f"e{number}", "from_name": "label", "to_name": "text", "type": "labels", "value": value}
        score = item.get("score") if isinstance(item, Mapping) else None
        results.append(result if score is None else result | {"score": float(score)})
    predictions = [{"model_version": found.model_version, "result": results}]
    return {"data": {"text": text, **found.beside}, "predictions": predictions}


def _prodigy(found: _Found) -> dict[str, Any]:
    return found.beside | {"text": found.text, "spans": [_plain(span) for span in found.spans]}


def _spacy(found: _Found) -> list[Any]:
    return [found.text, {"entities": [[span.start, span.end, span.label] for span in found.spans], **found.beside}]


def _gliner(found: _Found) -> dict[str, Any]:
    touched = [(*words_in(found.words, span.start, span.end), span.label) for span in found.spans]
    ner = [[first, end - 1, label] for first, end, label in touched if first < end]
    return found.beside | {"tokenized_text": [word for word, _, _ in found.words], "ner": ner}


def _entities(found: _Found) -> dict[str, Any]:
    pairs = zip(found.items, found.spans, strict=True)
    entities = [dict(item) if isinstance(item, Mapping) else _plain(span) for item, span in pairs]
    return found.beside | {"text": found.text, "entities": entities}


_WRITERS: dict[str, Callable[[_Found], Any]] = {
    "doccano": _doccano,
    "label-studio": _label_studio,
    "prodigy": _prodigy,
    "spacy": _spacy,
    "gliner": _gliner,
    "entities": _entities,
}
WRITTEN_FORMATS = tuple(_WRITERS)
# Files of one JSON list; the others have a row per line.
_DOCUMENTS = ("label-studio", "spacy", "gliner")


def _plain(span: Span) -> dict[str, Any]:
    return {"start": span.start, "end": span.end, "label": span.label}


def _check(item: Any, text: str, index: int) -> Span:
    span = read_span(item)
    if span is None or not 0 <= span.start < span.end <= len(text):
        raise ValueError(
            f"Expected entities with start, end and label inside of text {index}, which has {len(text)} characters, "
            f"got {shown(item)}. Correct its offsets."
        )
    return span


def _words_in(text: str, words: Sequence[str]) -> list[tuple[str, int, int]]:
    """Say where words stand in the text that joins them by spaces."""
    ends = accumulate(len(word) + 1 for word in words)
    starts = [end - 1 - len(word) for word, end in zip(words, ends, strict=False)]
    return [
        (text[start : start + len(word)], start, start + len(word)) for word, start in zip(words, starts, strict=True)
    ]


__all__ = ["WRITTEN_FORMATS", "write_annotations"]
