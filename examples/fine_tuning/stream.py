"""Data sets of the Hub, row by row: streamed in training, or in the form that CoNLL files have."""

import ast
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from bga_mner.configuration.errors import brief, shown
from bga_mner.examples.fine_tuning.images import ImageReader
from bga_mner.processing.data.conll_writing import writable
from bga_mner.processing.sequences import as_list
from bga_mner.processing.tags.label_map import named, tag_names
from bga_mner.processing.tags.tag_conversion import convert_tags


def open_stream(
    stream: datasets.IterableDataset, split: str, data: Any, seed: int, endless: bool = False
) -> tuple[datasets.IterableDataset, list[str]]:
    """Bring a stream to the columns of `read_conll`, in an order that `seed` and the epoch's number shuffle.

    An `endless` one begins again at its end, in another order, for readers that cannot tell one epoch from the next.
    Images stay as they were stored: they are decoded where the rows are encoded. Return the tags as well: --labels,
    or what a ClassLabel names; without both none.
    """
    features = stream.features or stream._resolve_features().features
    check_columns(list(features), split, data)
    images = ImageReader.of_split(features, data)
    stream = _undecoded(stream, features)[0]
    tagged = data.tags_column in features
    names = ids_named(features[data.tags_column], data.tags_column) if tagged else {}
    named = [tag.strip() for tag in data.labels.split(",")] if data.labels else list(names.values())
    # nobody has read the tags: all that there are tell their scheme, and one sentence can't
    listed = convert_tags([named], data.tag_scheme)
    scheme = listed.scheme if named else data.tag_scheme or "BIO"

    def read_row(row: Mapping[str, Any], number: int) -> dict[str, Any]:
        found: dict[str, Any] = {
            "id": row_id(row.get(data.id_column), number),
            "tokens": list(map(writable, words_of(row[data.tokens_column]))),
            "ner_tags": tags_of(row.get(data.tags_column), names),
        }
        if found["ner_tags"] is not None and len(found["ner_tags"]) != len(found["tokens"]):
            # nobody has read it before, and a training isn't to end for one row
            warnings.warn(
                f"Row {shown(found['id'])} of {shown(split)} has {len(found['ner_tags'])} tags for "
                f"{len(found['tokens'])} words: its tags are taken as unknown.",
                stacklevel=2,
            )
            found["ner_tags"] = None
        if found["ner_tags"] is not None:
            found["ner_tags"] = convert_tags([found["ner_tags"]], scheme).tags[0]
        if images is not None:
            sources = images.read(row.get(data.image_column), str(row.get(data.id_column, number))).paths
            found["image"] = sources if images.has_lists else next(iter(sources), None)
        return found

    strings = datasets.List(datasets.Value("string"))
    made = {"id": datasets.Value("string"), "tokens": strings, "ner_tags": strings}
    if images is not None:
        made["image"] = images.feature
    rows = stream.map(read_row, with_indices=True, remove_columns=list(features), features=datasets.Features(made))
    if endless:
        rows = rows.repeat(None)
    rows = rows.shuffle(seed=seed, buffer_size=data.shuffle_buffer)
    return rows, [str(tag) for tag in listed.tags[0] or ()]


def read_whole(stream: datasets.IterableDataset) -> datasets.Dataset:
    """Read a stream to its end; images stay as they were stored."""
    stream, features = _undecoded(stream, stream.features or stream._resolve_features().features)
    return datasets.Dataset.from_list(list(stream), features=features)


def _undecoded(
    stream: datasets.IterableDataset, features: datasets.Features
) -> tuple[datasets.IterableDataset, datasets.Features]:
    """Leave the images of a stream as they were stored."""
    image = datasets.Image(decode=False)
    for name, kind in features.items():
        has_lists = isinstance(kind, datasets.List | datasets.LargeList)
        if isinstance(kind.feature if has_lists else kind, datasets.Image):
            stored = type(kind)(image) if has_lists else image
            stream = stream.cast_column(name, stored)
            features = datasets.Features({**features, name: stored})
    return stream, features


def check_columns(columns: Sequence[str], split: str, data: Any) -> None:
    """Refuse names of columns that aren't there; those that are there by default may be missing."""
    defaults = type(data)()
    for option in ("tokens_column", "tags_column", "image_column", "id_column"):
        name = getattr(data, option)
        must = option == "tokens_column" or name != getattr(defaults, option)
        if must and name not in columns and (option, name) != ("image_column", "none"):
            raise ValueError(
                f"Expected a column {shown(name)} in {shown(split)}, got {shown(list(columns))}. Name the right one "
                f"with --{option}."
            )


def ids_named(feature: Any, column: str) -> dict[int, str]:
    """Return the names of tags that are ids of a ClassLabel; none if they are strings, one per word or per row."""
    if getattr(feature, "dtype", None) in ("string", "large_string"):
        return {}  # cells of a CSV file, which items_of reads
    try:
        return tag_names(feature, column)
    except ValueError as error:
        raise ValueError(f"{brief(error)}. Or name another column: --tags_column.") from None


def tags_of(value: Any, names: Mapping[int, str]) -> list[str | None] | None:
    """Turn the tags of a sentence into strings; see `label_map.named`."""
    items = items_of(value, "tags")
    return None if items is None else named(items, names)


def items_of(value: Any, kind: str) -> list[Any] | None:
    """Read words or tags: a list, a list as Python or JSON writes it (pandas does, in CSV), or a string to split."""
    if isinstance(value, str):
        try:
            found = ast.literal_eval(value) if value.startswith("[") else None
        except (SyntaxError, ValueError):  # a tweet may begin with a bracket
            found = None
        return found if isinstance(found, list) else value.split()
    items = as_list(value)
    if items is None and value is not None:
        raise ValueError(
            f"Expected lists or strings as {kind}, got {type(value).__name__} {shown(value)}. Name another column with "
            f"--{kind}_column."
        )
    return items


def words_of(value: Any) -> list[str]:
    """Read the words of a sentence as `items_of` does; where one is missing, it is empty."""
    return ["" if word is None else str(word) for word in items_of(value, "tokens") or ()]


def row_id(value: Any, number: int) -> str:
    """Return the id of a row on one line: what stands in the column of ids, or the number of the row."""
    return ("" if value is None else " ".join(str(value).split())) or str(number)
