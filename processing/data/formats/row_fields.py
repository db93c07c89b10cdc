"""What a row of annotations holds in any format: a text or words, its id and its image."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ....configuration.errors import shown
from .spans import clean


IMAGE_KEYS = ("image", "image_path", "image_file", "img", "picture", "photo")

# What can be wrong with a row, as reports call it.
REFUSED = "rows were not accepted by the annotator and are kept without tags"
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


def make_row(given: Mapping[str, Any], **content: Any) -> Row:
    """Make a row with the id and the image that stand beside its content, or in `meta`."""
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


def image_name(value: str) -> str:
    """Return the name in a folder of images of what a tool has as path or address."""
    address = urlsplit(value) if re.match(r"^(?:[a-z][a-z0-9+.-]+:/|/)", value) else None
    if address is None:
        return re.split(r"[\\/]", value)[-1] if re.match(r"^[A-Za-z]:", value) else value
    path = (parse_qs(address.query).get("d") or [unquote(address.path)])[0]
    return path if address.path.startswith("/data/local-files") and not path.startswith("/") else path.split("/")[-1]


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Refuse what is no object of JSON."""
    if not isinstance(value, Mapping):
        raise BadRowError(f"expected an object, got {type(value).__name__} {shown(value, 80)}")
    return value


def first_of(given: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """Return what stands under the first of the keys that is there and not null."""
    return next((given[key] for key in keys if given.get(key) is not None), None)


def text_of(given: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Return the text that stands under one of the keys."""
    value = first_of(given, keys)
    if not isinstance(value, str):
        raise BadRowError(
            f"expected a text in {shown(keys[0])}, got {shown(value, 60)} and the keys {shown(list(given), 80)}"
        )
    return value


def as_items(value: Any) -> list[Any] | None:
    """Refuse what is no list of annotations, nor None."""
    if value is not None and not isinstance(value, list):
        raise BadRowError(f"expected a list of annotations, got {type(value).__name__} {shown(value, 80)}")
    return value


def is_words(value: Any) -> bool:
    """Whether a value is a list of strings."""
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def words_of(given: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """Return the words that stand under one of the keys."""
    value = first_of(given, keys)
    if not is_words(value):
        raise BadRowError(f"expected a list of words in {shown(keys[0])}, got {shown(value, 80)}")
    return [clean(word) for word in value]


__all__ = [
    "IMAGE_KEYS",
    "REFUSED",
    "BadRowError",
    "Row",
    "as_items",
    "as_mapping",
    "first_of",
    "image_name",
    "is_words",
    "make_row",
    "text_of",
    "words_of",
]
