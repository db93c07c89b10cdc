"""Spans of characters and words, and the BIO tags that say the same."""

import re
import warnings
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from ....configuration.errors import shown
from ...text.word_splitting import split_words


OFFSET_UNITS = ("characters", "utf-16")

# What can be wrong with a span, as reports call it.
WIDENED = "spans ended inside a word and were widened to whole words"
OVERLAPPING = "spans overlapped a longer or earlier one and were left out"
REPEATED = "spans were given twice"
OUTSIDE = "spans were empty or outside of their text and were left out"
OTHER_TEXT = "spans had another text than stands at their offsets and were left out"
OTHER_TYPE = "spans had a type that was not asked for and were left out"
UNREADABLE = "spans without two offsets and the name of a type were left out"

# `(start, end, label)`, or a mapping with these keys.
SpanLike = Sequence[Any] | Mapping[str, Any]
# Is told of each trouble: its kind, and the span.
Note = Callable[[str, str], None]


class Span(NamedTuple):
    """A labelled part of a text: its start and end (exclusive) in characters, type, and its text if given."""

    start: int
    end: int
    label: str
    text: str | None = None


def tags_from_spans(
    text: str, spans: Iterable[SpanLike], *, offset_unit: str = "characters"
) -> tuple[list[str], list[str | None]]:
    """Split a text into words, and tag those that labelled spans of characters hold.

    Parameters
    ----------
    text : str
        Running text; `split_words` splits it.
    spans : iterable of (sequence or mapping)
        Each `(start, end, label)`, or a mapping with these keys (or `start_offset`, `end_offset` and `type`,
        `entity` or `entity_group`), `end` exclusive. A mapping may hold the span's own `text`,
        which is compared.
    offset_unit : {"characters", "utf-16"}
        What offsets count: characters as Python does, or the units of JavaScript, of which most emoji take two.

    Returns
    -------
    tuple of (list of str, list of str)
        Words and BIO tags. A span that ends inside a word is widened to the whole word, since a word has one tag; of
        spans that overlap, the longest is kept, and of those the first. Spans without a word, or with another text,
        are left out. A warning counts all of these.

    Raises
    ------
    ValueError
        If a span has not two whole numbers and the name of a type.

    Examples
    --------
    >>> tags_from_spans("Kawhi wins in Seattle!", [(0, 5, "PER"), {"start": 14, "end": 21, "label": "LOC"}])
    (['Kawhi', 'wins', 'in', 'Seattle', '!'], ['B-PER', 'O', 'O', 'B-LOC', 'O'])
    """
    if not isinstance(text, str):
        raise ValueError(f"Expected a text, got {type(text).__name__} {shown(text)}. Join words with spaces first.")
    if offset_unit not in OFFSET_UNITS:
        raise ValueError(f"Expected offset_unit 'characters' or 'utf-16', got {shown(offset_unit)}. Give one of them.")
    if isinstance(spans, str | Mapping) or not hasattr(spans, "__iter__"):
        raise ValueError(f"Expected a list of spans, got {type(spans).__name__} {shown(spans)}. Wrap a single one.")
    read = []
    for item in spans:
        span = read_span(item)
        if span is None:
            raise ValueError(
                f"Expected spans as (start, end, label) or as mappings with these keys, got {shown(item)}. Give whole "
                "numbers as offsets, and names of types as labels."
            )
        read.append(span)
    troubles: Counter[str] = Counter()
    first: dict[str, str] = {}

    def note(kind: str, example: str) -> None:
        troubles[kind] += 1
        first.setdefault(kind, example)

    words = split_words(text)
    tags = tag_words(text, words, read, offset_unit, note)
    if troubles:
        listed = "; ".join(f"{count} {kind}, such as {first[kind]}" for kind, count in troubles.items())
        warnings.warn(f"Of {len(read)} spans in {shown(text, 40)}: {listed}.", stacklevel=2)
    return [word for word, _, _ in words], tags


def read_span(item: Any) -> Span | None:
    """Read a span off a sequence `(start, end, label)` or a mapping; None if it isn't one."""
    text = None
    if isinstance(item, Mapping):
        start, end = (item.get(name, item.get(f"{name}_offset")) for name in ("start", "end"))
        names = ("label", "labels", "type", "entity_group", "entity", "tag")
        label = next((item[name] for name in names if item.get(name) is not None), None)
        texts = (item.get(name) for name in ("text", "word"))
        text = next((value for value in texts if isinstance(value, str) and value), None)
    elif isinstance(item, list | tuple) and len(item) >= 3:
        start, end, label = item[:3]
    else:
        return None
    if isinstance(label, list | tuple) and label:  # of Label Studio
        label = label[0]
    start, end = _offset(start), _offset(end)
    if start is None or end is None or not isinstance(label, str):
        return None
    label = clean(label).strip()
    return None if not label or re.search(r"[\t\r\n]", label) else Span(start, end, label, text)


def _offset(value: Any) -> int | None:
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 12:
        return int(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if abs(value) < 2**53 and int(value) == value else None


def clean(text: str) -> str:
    """Replace halves of surrogate pairs, which no file in UTF-8 can hold, by U+FFFD."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def tag_words(
    text: str, words: Sequence[tuple[str, int, int]], spans: Iterable[Span], offset_unit: str, note: Note
) -> list[str | None]:
    """Tag the words of a text, as `split_words` gives them, that labelled spans of characters hold."""
    found = []
    for span in spans:
        example = f"{span.label} {span.start}-{span.end}"
        start, end = _characters(text, span, offset_unit)
        if not 0 <= start < end <= len(text) or text[start:end].isspace():
            note(OUTSIDE, example)
            continue
        example = f"{example} {shown(text[start:end], 40)}"
        if span.text is not None and not same_text(span.text, text[start:end]):
            note(OTHER_TEXT, f"{example}, whose own is {shown(span.text, 40)}")
            continue
        first, end_word = words_in(words, start, end)
        if first == end_word:  # zero-width spaces, which are of no word in scripts without spaces
            note(OUTSIDE, example)
            continue
        if start > words[first][1] or end < words[end_word - 1][2]:
            note(WIDENED, example)
        found.append((first, end_word, span.label, example))
    return tags_of_word_spans(len(words), found, note)


def words_in(words: Sequence[tuple[str, int, int]], start: int, end: int) -> tuple[int, int]:
    """Return the range of the words that a span of characters touches: first, and end (exclusive)."""
    return bisect_right(words, start, key=lambda word: word[2]), bisect_left(words, end, key=lambda word: word[1])


def _characters(text: str, span: Span, offset_unit: str) -> tuple[int, int]:
    """Return the offsets of a span in characters; its own text, if it has one, tells of a span in the other unit."""
    given = span.start, span.end
    if text.isascii():
        return given
    units = utf16_offsets(text)
    inside = all(0 <= offset <= units[-1] for offset in given)
    converted = (bisect_left(units, given[0]), bisect_left(units, given[1])) if inside else (-1, -1)
    first, second = (given, converted) if offset_unit == "characters" else (converted, given)
    if span.text is None or same_text(span.text, text[max(0, first[0]) : max(0, first[1])]):
        return first
    return second if same_text(span.text, text[max(0, second[0]) : max(0, second[1])]) else first


def tags_of_word_spans(count: int, spans: Iterable[tuple[int, int, str, str]], note: Note) -> list[str | None]:
    """Tag words that spans of words hold: first word, end (exclusive), type, and how messages call it."""
    tags: list[str | None] = ["O"] * count
    taken: set[tuple[int, int, str]] = set()
    for first, end, label, example in sorted(spans, key=lambda span: (span[0] - span[1], span[0])):
        if (first, end, label) in taken:
            note(REPEATED, example)
        elif any(tag != "O" for tag in tags[first:end]):
            note(OVERLAPPING, example)
        else:
            taken.add((first, end, label))
            tags[first:end] = [f"B-{label}"] + [f"I-{label}"] * (end - first - 1)
    return tags


def utf16_offsets(text: str) -> list[int]:
    """Return for each character, and for the end, how many UTF-16 code units stand before it."""
    return [0, *accumulate(1 + (character > "\uffff") for character in text)]


def same_text(own: str, found: str) -> bool:
    """Compare a span's own text with that at its offsets; tools differ in how they write line breaks and spaces."""
    own, found = (re.sub(r"\\[nrt]|\s", "", clean(value)) for value in (own, found))
    return own == found


def choose_unit(rows: Iterable[tuple[str, Sequence[Span]]], default: str) -> tuple[str, int, bool]:
    """Tell what offsets count by which reading fits: spans' own texts, or ends of words where there are none.

    Returns the unit, `default` if nothing tells; how many spans it matters to; and whether they told it.
    """
    hits: Counter[str] = Counter()
    matter = 0
    for text, spans in rows:
        if not spans or text.isascii() or all(character <= "\uffff" for character in text):
            continue
        units = utf16_offsets(text)
        points = {unit: offset for offset, unit in enumerate(units)}
        words = split_words(text)
        starts, ends = {start for _, start, _ in words}, {end for _, _, end in words}
        for span in spans:
            read = {
                "characters": (span.start, span.end),
                "utf-16": (points.get(span.start, -1), points.get(span.end, -1)),
            }
            if read["characters"] == read["utf-16"]:
                continue
            matter += 1
            for unit, (start, end) in read.items():
                if span.text is not None:
                    hits[unit] += 0 <= start < end and same_text(span.text, text[start:end])
                else:
                    hits[unit] += start in starts and end in ends
    told = hits["characters"] != hits["utf-16"]
    return max(OFFSET_UNITS, key=lambda unit: hits[unit]) if told else default, matter, told


__all__ = [
    "OFFSET_UNITS",
    "OTHER_TYPE",
    "OUTSIDE",
    "OVERLAPPING",
    "UNREADABLE",
    "WIDENED",
    "Span",
    "SpanLike",
    "choose_unit",
    "clean",
    "read_span",
    "same_text",
    "tag_words",
    "tags_from_spans",
    "tags_of_word_spans",
    "utf16_offsets",
    "words_in",
]
