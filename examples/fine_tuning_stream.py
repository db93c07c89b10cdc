"""Data sets of the Hub, row by row: streamed in training, or in the form that CoNLL files have."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from bga_mner import repair_bio
from bga_mner.processing.conll import PLACEHOLDER


def open_stream(
    stream: datasets.IterableDataset, split: str, data: Any, seed: int, endless: bool = False
) -> tuple[datasets.IterableDataset, list[str]]:
    """Bring a stream to the columns of `read_conll`, in an order that `seed` and the epoch's number shuffle.

    Parameters
    ----------
    stream : datasets.IterableDataset
        As `datasets.load_dataset(..., streaming=True)` opens it.
    split : str
        Its name.
    data : DataArguments
        Names of columns, and the size of the shuffle buffer.
    seed : int
        Of the shuffle.
    endless : bool
        Whether to begin again at the end, in another order, for readers that cannot tell one epoch from the next.

    Returns
    -------
    tuple of datasets.IterableDataset and list of str
        The rows, whose pictures are as they were stored: they are decoded where the rows are encoded. And the tags:
        --labels, or what a ClassLabel names; without both none.

    Raises
    ------
    ValueError
        If a column is missing, or tags are numbers without names.
    """
    features = stream.features or stream._resolve_features().features
    check_columns(list(features), split, data)
    stored = isinstance(features.get(data.image_column), datasets.Image)
    if stored:
        stream = stream.cast_column(data.image_column, datasets.Image(decode=False))
    tagged = data.tags_column in features
    names = tag_names(features[data.tags_column], data.tags_column) if tagged else {}

    def read_row(row: Mapping[str, Any], number: int) -> dict[str, Any]:
        found = {
            "id": str(row.get(data.id_column, number)),
            "tokens": [writable(word) for word in row[data.tokens_column] or ()],
            "ner_tags": name_tags(row.get(data.tags_column), names),
        }
        if found["ner_tags"] is not None:
            found["ner_tags"] = repair_bio(found["ner_tags"])[0]
        picture = row.get(data.image_column)
        if picture is not None and not stored:
            picture = {"bytes": None, "path": str(Path(data.image_dir or "", picture))}
        return found | {"image": picture}

    strings = datasets.List(datasets.Value("string"))
    made = {"id": datasets.Value("string"), "tokens": strings, "ner_tags": strings}
    made["image"] = datasets.Image(decode=False)
    rows = stream.map(read_row, with_indices=True, remove_columns=list(features), features=datasets.Features(made))
    if endless:
        rows = rows.repeat(None)
    rows = rows.shuffle(seed=seed, buffer_size=data.shuffle_buffer)
    return rows, [tag.strip() for tag in data.labels.split(",")] if data.labels else list(names.values())


def read_whole(stream: datasets.IterableDataset) -> datasets.Dataset:
    """Read a stream to its end; pictures stay as they were stored."""
    features = stream.features or stream._resolve_features().features
    for name, kind in features.items():
        if isinstance(kind, datasets.Image):
            stream = stream.cast_column(name, datasets.Image(decode=False))
            features = datasets.Features({**features, name: datasets.Image(decode=False)})
    return datasets.Dataset.from_list(list(stream), features=features)


def check_columns(columns: Sequence[str], split: str, data: Any) -> None:
    """Refuse names of columns that aren't there; those that are there by default may be missing."""
    defaults = type(data)()
    for option in ("tokens_column", "tags_column", "image_column", "id_column"):
        name = getattr(data, option)
        must = option == "tokens_column" or name != getattr(defaults, option)
        if must and name not in columns and (option, name) != ("image_column", "none"):
            raise ValueError(
                f"Expected a column {name!r} in {split!r}, got {list(columns)}. Name the right one with --{option}."
            )


def tag_names(feature: Any, column: str) -> dict[int, str]:
    """Return the names of tags that are numbers of a ClassLabel; none if they are strings.

    Raises
    ------
    ValueError
        If they are numbers without names.
    """
    kind = getattr(feature, "feature", None)
    if not isinstance(kind, datasets.ClassLabel) and getattr(kind, "dtype", "string") not in ("string", "null"):
        raise ValueError(
            f"Expected strings or numbers of a ClassLabel in the column {column!r}, got {feature}. Give the numbers "
            "names: dataset.cast_column(..., datasets.List(datasets.ClassLabel(names=[...])))."
        )
    return dict(enumerate(kind.names)) if isinstance(kind, datasets.ClassLabel) else {}


def name_tags(tags: Iterable[Any] | None, names: Mapping[int, str]) -> list[str | None] | None:
    """Turn the tags of a sentence into strings; None and -100 are unknown."""
    return None if tags is None else [None if tag in (None, -100) else names.get(tag, tag) for tag in tags]


def writable(word: str) -> str:
    """Mend what no CoNLL file can hold: white space as a word, and tabs and line breaks inside."""
    word = word.replace("\t", " ").replace("\r", " ").replace("\n", " ")
    return word if word.strip() and word.split()[0] != "-DOCSTART-" else PLACEHOLDER
