"""Read annotations of texts, whatever tool wrote them."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack, overload

import datasets

from ....configuration.errors import brief, shown
from ...tags.tag_conversion import TagError, convert_tags
from ...text.word_splitting import split_words
from ..conll import read_conll
from ..conll_writing import PLACEHOLDER, writable
from ..data_report import ConllReport
from ..tweets import ReadingOptions, Tweet, make_dataset, read_file
from .json_rows import READERS, detect_format, read_row
from .row_fields import BadRowError, Row
from .spans import (
    OFFSET_UNITS,
    OTHER_TYPE,
    OUTSIDE,
    UNREADABLE,
    Span,
    choose_unit,
    read_span,
    tag_words,
    tags_of_word_spans,
)


FORMATS = ("conll", *READERS)
BAD_ROWS = "rows could not be read and were left out"
# What offsets count where neither texts of spans nor ends of words tell: doccano takes them of its page in the browser.
_USUAL_UNIT = {"doccano": "utf-16"}


class _Options(ReadingOptions, total=False):
    format: str | None
    types: Iterable[str] | None
    offset_unit: str | None


@overload
def read_annotations(
    path: str | os.PathLike[str],
    image_dir: str | os.PathLike[str] | None = None,
    *,
    return_report: Literal[False] = False,
    **options: Unpack[_Options],
) -> datasets.Dataset: ...


@overload
def read_annotations(
    path: str | os.PathLike[str],
    image_dir: str | os.PathLike[str] | None = None,
    *,
    return_report: Literal[True],
    **options: Unpack[_Options],
) -> tuple[datasets.Dataset, ConllReport]: ...


def read_annotations(
    path: str | os.PathLike[str],
    image_dir: str | os.PathLike[str] | None = None,
    *,
    format: str | None = None,
    types: Iterable[str] | None = None,
    scheme: str | None = None,
    offset_unit: str | None = None,
    check_images: bool = True,
    encoding: str = "utf-8",
    show_progress: bool | None = None,
    return_report: bool = False,
) -> datasets.Dataset | tuple[datasets.Dataset, ConllReport]:
    """Read annotated texts of a file in any of the usual formats, and find their images.

    Running text is split by `split_words`, as it is at inference, and labelled spans of characters become BIO tags as
    `tags_from_spans` makes them. Everything that is mended or left out is counted in the report, with examples. Texts
    that nobody annotated, or whose annotation was cancelled or rejected, are kept without tags.

    Parameters
    ----------
    path : str or os.PathLike
        A file of lines of JSON, a JSON document, or a CoNLL file.
    image_dir : str, os.PathLike or None
        Folder with the images. A row names its own (`image`, also in `data` or `meta`); of addresses and
        absolute paths the last part counts. Rows that name none have one that is called as their id. None: the file's
        own folder, if rows name images, and otherwise no images.
    format : str or None
        "conll" (as `read_conll`), "doccano", "label-studio" (JSON or JSON-MIN), "prodigy" (text and `spans`),
        "spacy" (pairs of a text and `{"entities": [[0, 5, "PER"]]}`), "gliner" (words and `ner`), "entities" (text
        and `entities`, as in the predictions of examples/run_mner.py) or "tokens" (words and tags). None tells it
        from the content.
    types : iterable of str, optional
        The entity types to keep; spans of others are counted and left out.
    scheme : str or None
        What tags are in, as for `to_bio`; None tells it from the tags.
    offset_unit : {"characters", "utf-16"}, optional
        What offsets count, as for `tags_from_spans`. None tells it from spans after emoji and the like: by their own
        texts where the tool writes them, else by which unit meets ends of words; where neither tells, doccano's count
        UTF-16, and others' characters.
    check_images, encoding, show_progress, return_report
        As for `read_conll`.

    Returns
    -------
    datasets.Dataset or tuple of (datasets.Dataset, ConllReport)
        As `read_conll`.

    Raises
    ------
    ValueError
        If the file or folder is missing, the format can't be told, no row can be read, or tags are of no scheme.

    Examples
    --------
    >>> read_annotations("tweets.jsonl", "images")  # doctest: +SKIP
    """
    file = Path(path)
    _check_arguments(file, format, types, offset_unit)
    text, report = read_file(file, encoding, "a file of annotations")
    values = [] if format == "conll" else parse_json(text)
    format = format or _format_of(values, text, file)
    if format == "conll":
        if types is not None:
            raise ValueError("Expected `types` for spans, got a CoNLL file. Drop types with map_labels(...).")
        return read_conll(
            *(file, image_dir),
            scheme=scheme,
            check_images=check_images,
            encoding=encoding,
            show_progress=show_progress,
            return_report=return_report,  # type: ignore[call-overload]
        )
    report.format = format
    rows = _read_rows(values, file, report)
    named = any(row.image is not None for _, row in rows)
    tweets = _make_tweets(rows, report, None if types is None else set(types), scheme, offset_unit)
    if image_dir is None and named:
        image_dir = file.parent
    dataset = make_dataset(tweets, report, image_dir, check_images, show_progress)
    return (dataset, report) if return_report else dataset


def _check_arguments(file: Path, format: str | None, types: Iterable[str] | None, offset_unit: str | None) -> None:
    if format is not None and format not in FORMATS:
        raise ValueError(
            f"Expected a format of {', '.join(FORMATS)}, or None to tell it, got {shown(format)}. Name one."
        )
    if offset_unit not in (None, *OFFSET_UNITS):
        raise ValueError(
            f"Expected offset_unit 'characters', 'utf-16' or None, got {shown(offset_unit)}. Give one of them."
        )
    if isinstance(types, str):
        raise ValueError(f"Expected a list of entity types, got {shown(types)}. Wrap a single one in a list.")
    if format is None and file.suffix in (".parquet", ".csv", ".arrow"):
        raise ValueError(
            f"Expected JSON, lines of JSON or CoNLL, got {shown(file.name)}. Read tables with datasets.load_dataset, "
            "or with examples/run_mner.py, --dataset_name and their folder."
        )


def _format_of(rows: list[tuple[int, Any]], text: str, file: Path) -> str:
    """Tell the format: by the first row that can be of one only."""
    is_json = bool(rows) and isinstance(rows[0][1], dict | list)
    if not is_json and file.suffix not in (".json", ".jsonl", ".ndjson"):
        return "conll"
    values = [value for _, value in rows if not isinstance(value, BadRowError)]
    found = next(filter(None, map(detect_format, values)), None)
    if found is None:
        if not any(isinstance(value, dict) and isinstance(value.get("text"), str) for value in values):
            first = list(values[0]) if values and isinstance(values[0], dict) else values[0] if values else text[:80]
            raise ValueError(
                f"Expected annotations in {shown(str(file))}, got {shown(first)}. Give rows with 'text' and spans or "
                f"with 'tokens' and 'ner_tags', or name the format: {', '.join(FORMATS)}."
            )
        found = (
            "doccano" if any(isinstance(value, dict) and value.get("label") == [] for value in values) else "entities"
        )
    return found


def parse_json(text: str) -> list[tuple[int, Any]]:
    """Read a JSON document or lines of JSON: number of item or line, from 1, and the row, or what is wrong with it."""
    stripped = text.strip()
    try:
        whole = json.loads(stripped) if stripped[:1] in ("[", "{") else None
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, dict) and isinstance(whole.get("annotations"), list) and not {"data", "text"} & whole.keys():
        whole = [item for item in whole["annotations"] if item is not None]  # beside the names of classes
    if isinstance(whole, list) and detect_format(whole) is None:
        return list(enumerate(whole, start=1))
    if whole is not None:
        return [(1, whole)]
    rows: list[tuple[int, Any]] = []
    # not splitlines(), as in CoNLL files
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append((number, json.loads(line)))
        except (ValueError, RecursionError) as error:
            rows.append((number, BadRowError(f"expected JSON, got {shown(line.strip(), 60)}: {error}")))
    return rows


def _read_rows(values: list[tuple[int, Any]], file: Path, report: ConllReport) -> list[tuple[int, Row]]:
    rows: list[tuple[int, Row]] = []
    first = ""
    for number, value in values:
        try:
            if isinstance(value, BadRowError):
                raise value
            rows.append((number, read_row(value, report.format)))
        except BadRowError as error:
            first = first or f" The first, {number}: {error}."
            report.count(BAD_ROWS, f"{number} ({error})")
    if not rows:
        raise ValueError(
            f"Expected rows of the format {shown(report.format)} in {shown(str(file))}, got none that can be "
            f"read.{first} Name the right format: {', '.join(FORMATS)}."
        )
    return rows


def _make_tweets(
    rows: Sequence[tuple[int, Row]],
    report: ConllReport,
    types: set[str] | None,
    scheme: str | None,
    offset_unit: str | None,
) -> list[Tweet]:
    """Make words and BIO tags of rows."""
    tweets = []
    for number, row in rows:
        words = [writable(word) for word in row.words or ()]
        report.placeholder_words += words.count(PLACEHOLDER) - (row.words or []).count(PLACEHOLDER)
        image = row.image if row.has_image else row.id
        tweets.append(Tweet(number, row.id, words, image=image))
        for trouble in row.troubles:
            report.count(trouble, row.id or f"line-{number}")
    report.scheme = ""
    if report.format == "tokens":
        _convert_tags(tweets, rows, report, scheme)
        return tweets
    notes = [_noter(report, tweet) for tweet in tweets]
    if report.format == "gliner":
        for tweet, (_, row), note in zip(tweets, rows, notes, strict=True):
            tweet.tags = _tag_gliner(tweet.tokens, row, types, note)
        return tweets
    spans = [_read_spans(row.spans, types, note) for (_, row), note in zip(rows, notes, strict=True)]
    texts = [row.text or "" for _, row in rows]
    unit = offset_unit or _choose_unit(texts, spans, report)
    for tweet, (_, row), text, found, note in zip(tweets, rows, texts, spans, notes, strict=True):
        split = split_words(text)
        tweet.tokens = [writable(word) for word, _, _ in split]
        tagged = tag_words(text, split, found, unit, note)
        tweet.tags = [None] * len(split) if row.spans is None else tagged
    return tweets


def _convert_tags(
    tweets: list[Tweet], rows: Sequence[tuple[int, Row]], report: ConllReport, scheme: str | None
) -> None:
    try:
        converted = convert_tags([row.tags for _, row in rows], scheme)
    except TagError as error:
        raise ValueError(f"In row {rows[error.sentence][0]}, word {error.word}: {brief(error)}.") from None
    report.scheme, report.repaired_tags = converted.scheme, converted.broken
    for tweet, tags in zip(tweets, converted.tags, strict=True):
        tweet.tags = [None] * len(tweet.tokens) if tags is None else tags


def _choose_unit(texts: list[str], spans: list[list[Span]], report: ConllReport) -> str:
    """Tell what offsets count, and say so in the report where it matters."""
    default = _USUAL_UNIT.get(report.format, "characters")
    unit, matter, told = choose_unit(zip(texts, spans, strict=True), default)
    if matter and (unit != "characters" or not told):
        how = "their ends tell" if told else "nothing tells"
        report.troubles[f"spans stand after emoji or the like and are read in {unit}, as {how}"] = matter
    return unit


def _tag_gliner(
    words: list[str], row: Row, types: set[str] | None, note: Callable[[str, str], None]
) -> list[str | None]:
    if row.word_spans is None:
        return [None] * len(words)
    found = []
    for span in _read_spans(row.word_spans, types, note):
        if not 0 <= span.start <= span.end < len(words):
            note(OUTSIDE, f"{span.label} {span.start}-{span.end}")
            continue
        example = f"{span.label} {shown(' '.join(words[span.start : span.end + 1]), 40)}"
        found.append((span.start, span.end + 1, span.label, example))
    return tags_of_word_spans(len(words), found, note)


def _read_spans(items: Iterable[Any] | None, types: set[str] | None, note: Callable[[str, str], None]) -> list[Span]:
    """Read spans of the wanted types; others, and what is no span, are noted."""
    found = []
    for item in items or ():
        span = read_span(item)
        if span is None:
            note(UNREADABLE, shown(item, 80))
        elif types is not None and span.label not in types:
            note(OTHER_TYPE, f"{span.label} {span.start}-{span.end}")
        else:
            found.append(span)
    return found


def _noter(report: ConllReport, tweet: Tweet) -> Callable[[str, str], None]:
    name = tweet.id or f"line-{tweet.line}"
    return lambda kind, example: report.count(kind, f"{name}: {example}")


__all__ = ["FORMATS", "parse_json", "read_annotations"]
