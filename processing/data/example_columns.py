"""Which columns of a dataset an example is made of, and which look as if they were meant for it."""

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from ...configuration.errors import shown
from ..sequences import as_list
from ..tags.label_alignment import UNKNOWN


# Names that annotations have elsewhere; under these the processor doesn't read them.
_WORD_LABELS = re.compile(
    r"labels|tags|word_labels|label_ids|(.*_)?(ner|bio|iob)(_?(tags?|labels?|ids?))*", re.IGNORECASE
)
_ANY_TAG = re.compile(r"O|[BIESLUMW]-.+")
_SPAN_COLUMNS = ("entities", "spans", "named_entities", "annotations")
_IMAGE_COLUMNS = ("images", "img", "image_path", "image_file", "picture", "pictures", "photo")


def read_example_columns(batch: Mapping[str, Any], reads_images: bool) -> dict[str, Any]:
    """Make lists of the columns that `encode_examples` reads, and check that nothing else seems to be meant for it."""
    name = "tokens" if "tokens" in batch else "text"
    if name not in batch:
        raise ValueError(
            f"Expected a column 'tokens' (lists of words) or 'text', got {shown(list(batch))}. Rename yours with "
            "dataset.rename_column. If Trainer dropped them, set TrainingArguments(remove_unused_columns=False)."
        )
    # an iterator can be read once
    lists = {column: as_list(batch.get(column)) for column in (name, "ner_tags", "label", "target")}
    columns = {**batch, **{column: rows for column, rows in lists.items() if rows is not None}}
    _refuse_lost_columns(columns, reads_images)
    if name == "text" and columns.get("ner_tags") is not None:
        raise ValueError(
            "Expected a column 'tokens' with lists of words, since 'ner_tags' is there, got 'text'. Split the texts."
        )
    return columns


def _refuse_lost_columns(batch: Mapping[str, Sequence[Any]], reads_images: bool) -> None:
    """Refuse annotations under names that `encode_examples` doesn't read, which would be lost; of images, say so."""

    def given(name: str) -> bool:
        return batch.get(name) is not None and any(item is not None for item in batch[name])

    if not given("ner_tags"):
        if any(_is_span(item) for row in batch.get("label") or () if isinstance(row, list | tuple) for item in row):
            raise ValueError(_lost("label", batch["label"], spans=True))
        if not given("label"):
            tags = (name for name in batch if _WORD_LABELS.fullmatch(name) or _holds_tags(name, batch[name]))
            for name in (*_SPAN_COLUMNS, *tags):
                if given(name):
                    items = (item for row in batch[name] for item in _items_of(row))
                    raise ValueError(_lost(name, batch[name], name in _SPAN_COLUMNS or any(map(_is_span, items))))
    if reads_images and batch.get("image") is None and batch.get("vision_states") is None:
        unread = [name for name in _IMAGE_COLUMNS if given(name)]
        if unread:
            warnings.warn(
                f"Images are read of a column 'image', and there is none, but {shown(unread[0])}: the texts have no "
                f"images. If that column holds them: dataset.rename_column({shown(unread[0])}, 'image').",
                stacklevel=4,
            )


def warn_of_ids(word_labels: Sequence[Any], label2id: Mapping[str, int] | None) -> None:
    """Say how ids of a data set are read: as the model's own, whatever the data set calls them."""
    ids = {label for row in map(as_list, word_labels) for label in row or () if isinstance(label, int)} - {UNKNOWN}
    if ids:
        meant = {number: label for label, number in (label2id or {}).items() if number in ids}
        warnings.warn(
            f"The column 'ner_tags' holds ids, which are read as the model's own: {shown(meant)}. The data set's may "
            "have another order: dataset.features['ner_tags'].feature.names. bga_mner.name_tags(dataset) puts names in "
            "their place; call it before with_transform.",
            stacklevel=3,
        )


def _holds_tags(name: str, column: Sequence[Any]) -> bool:
    """Tell a column of tags of words by its first sentence, whatever it is called."""
    row = _items_of(next((row for row in column if row is not None), None))
    tags = (isinstance(item, str) and _ANY_TAG.fullmatch(item) for item in row or [0])
    return name not in ("tokens", "text") and all(tags)


def _items_of(row: Any) -> Sequence[Any]:
    return row if isinstance(row, list | tuple) else ()


def _is_span(item: Any) -> bool:
    """Tell a span, such as `[0, 3, "PER"]` or `{"start": 0, ...}`, from a label of a word or of a text."""
    return isinstance(item, list | tuple | Mapping)


def _lost(name: str, column: Sequence[Any], spans: bool) -> str:
    first = next(item for item in column if item is not None)
    if spans:
        fix = (
            "Make words and tags of spans first, with bga_mner.tags_from_spans(text, spans) or, of a file, "
            "bga_mner.read_annotations(path)"
        )
    else:
        fix = f"Rename it: dataset.rename_column({name!r}, 'ner_tags') for tags of words, or 'label' for one of a text"
    return (
        f"Expected tags of words in a column 'ner_tags', or a label of each text in 'label', got neither, but a column "
        f"{name!r} with {shown(first)}, which would be lost. {fix}. If it is no label, remove it: "
        f"dataset.remove_columns({name!r})."
    )


__all__ = ["read_example_columns", "warn_of_ids"]
