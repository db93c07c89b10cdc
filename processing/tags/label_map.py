"""Names of entity types and tags: ids get theirs, and types others, so that a model can be scored on other data."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import datasets

from ...configuration.errors import listed, shown
from .tag_lists import check_tags
from .tag_scheme import split_tag


__all__ = ["check_dataset", "entity_types", "map_labels", "name_tags", "named", "tag_names"]

Tags = Sequence[str | None] | None


def tag_names(feature: Any, column: str) -> dict[int, str]:
    """Return the names of tags that are ids of a `datasets.ClassLabel`, given a column's feature; none of strings."""
    kind = getattr(feature, "feature", feature[0] if isinstance(feature, list) else None)
    if isinstance(kind, datasets.ClassLabel):
        return dict(enumerate(kind.names))
    if getattr(kind, "dtype", None) in ("string", "large_string", "null") or getattr(feature, "dtype", None) == "null":
        return {}
    raise ValueError(
        f"Expected lists of strings, or of ids of a ClassLabel, in the column {shown(column)}, got {shown(feature)}. "
        "Give ids names: dataset.cast_column(..., datasets.List(datasets.ClassLabel(names=[...]))); spans of an "
        "annotation tool are read by read_annotations (--train_file)."
    )


def named(tags: Sequence[Any], names: Mapping[int, str]) -> list[Any]:
    """Put names in the place of ids; None, -100 and, as in a `ClassLabel`, -1 stand for unknown tags.

    >>> named([1, -1, None], {0: "O", 1: "B-PER"}), named(["B-PER"], {})
    (['B-PER', None, None], ['B-PER'])
    """
    return [None if tag in (None, -100) or (names and tag == -1) else names.get(tag, tag) for tag in tags]


def name_tags(dataset: datasets.Dataset, column: str = "ner_tags") -> datasets.Dataset:
    """Put the names of tags in the place of their ids.

    The ids of a `datasets.ClassLabel` are the data set's own. A model numbers its labels in another order, so its
    processor must not be given these ids.

    Parameters
    ----------
    dataset : datasets.Dataset
        Any; also one whose tags are strings already.
    column : str, default "ner_tags"
        Column of lists of ids that a `datasets.ClassLabel` names; None, -1 and -100 stand for unknown ones.

    Returns
    -------
    datasets.Dataset
        The same with lists of strings, None where unknown. A dataset loses its format or transform: set it afterwards.

    Raises
    ------
    ValueError
        If there is no such column, or its ids have no names.

    Examples
    --------
    >>> tags = datasets.List(datasets.ClassLabel(names=["O", "B-PER", "I-PER"]))
    >>> data = datasets.Dataset.from_dict({"ner_tags": [[1, 0]]}, features=datasets.Features(ner_tags=tags))
    >>> name_tags(data)[0]
    {'ner_tags': ['B-PER', 'O']}
    """
    check_dataset(dataset, [column])
    names = tag_names(dataset.features[column], column)
    plain = dataset.with_format(None)
    if not names:
        return plain
    tags = [None if row is None else named(row, names) for row in plain[column]]
    return _replaced(plain, column, tags, datasets.List(datasets.Value("string")))


def _replaced(dataset: datasets.Dataset, column: str, values: list[Any], feature: Any) -> datasets.Dataset:
    """Put values in the place of a column, which may be the only one."""
    new = f"new {column}"
    added = dataset.add_column(new, values, feature=feature).remove_columns(column)
    return added.rename_column(new, column).select_columns(dataset.column_names)


def check_dataset(dataset: Any, columns: Sequence[str]) -> None:
    """Refuse what is no dataset, or lacks a column."""
    if not isinstance(dataset, datasets.Dataset):
        raise ValueError(
            f"Expected a datasets.Dataset with the columns {listed(columns)}, got {type(dataset).__name__}. Make "
            "one: datasets.Dataset.from_dict(...); of several splits, name one: data['test']."
        )
    for name in columns:
        if name not in dataset.column_names:
            raise ValueError(f"Expected a column {shown(name)}, got {shown(dataset.column_names)}. Rename yours.")


def entity_types(sentences: Iterable[Tags]) -> list[str]:
    """List the entity types that occur in BIO tags, sorted; None stands for an unknown tag.

    >>> entity_types([["B-PER", "I-PER", "O"], None, ["B-LOC", None]])
    ['LOC', 'PER']
    """
    return sorted({split_tag(tag)[1] for tags in check_tags(sentences) for tag in tags or () if tag is not None} - {""})


def map_labels(data: datasets.Dataset | Iterable[Tags], mapping: Mapping[str, str | None]) -> Any:
    """Rename or drop entity types.

    Types may be merged. All are renamed at once, so two may also swap their names. Entities that touch stay apart, as
    long as each begins with "B-" (see `repair_bio`).

    Parameters
    ----------
    data : datasets.Dataset or iterable of (sequence of (str or None) or None)
        A dataset with the column `ner_tags`, or such a column: BIO tags, None where unknown. Ids that a `ClassLabel`
        names become strings, see `name_tags`.
    mapping : mapping of str to (str or None)
        New names of types, as in `{"OTHER": "MISC"}`; None makes their words "O". Other types stay.

    Returns
    -------
    datasets.Dataset or list of (list of (str or None) or None)
        What was given, with other tags. A dataset loses its format or transform: set it afterwards.

    Raises
    ------
    ValueError
        If there is no column `ner_tags`, a type of `mapping` does not occur, a new name is no type, or a tag is not
        in the BIO scheme.

    Examples
    --------
    >>> map_labels([["B-OTHER", "I-OTHER", "B-PER"], None], {"OTHER": "MISC", "PER": None})
    [['B-MISC', 'I-MISC', 'O'], None]
    """
    if isinstance(data, datasets.Dataset):
        plain = name_tags(data)
        tags = map_labels(plain["ner_tags"], mapping)
        return _replaced(plain, "ner_tags", tags, plain.features["ner_tags"])
    sentences = check_tags(data)
    if not isinstance(mapping, Mapping):
        raise ValueError(
            f"Expected a dict of types and their new names, got {shown(mapping)}. Pass one such as "
            "{'OTHER': 'MISC', 'PRODUCT': None}."
        )
    known = entity_types(sentences)
    unknown = sorted(set(mapping) - set(known), key=str)
    if unknown:
        raise ValueError(
            f"Expected types that occur as keys of the mapping, got {listed(map(str, unknown))}. There are: "
            f"{listed(known)}. Name only these."
        )
    for name in mapping.values():
        if name is not None and (not isinstance(name, str) or name in ("", "O") or name[:2] in ("B-", "I-")):
            raise ValueError(
                f"Expected names of types without a prefix, or None to drop them, as values, got {shown(name)} in "
                f"{shown(dict(mapping))}. Write 'PER' for 'B-PER'."
            )
    return [None if tags is None else [_rename(tag, mapping) for tag in tags] for tags in sentences]


def _rename(tag: str | None, mapping: Mapping[str, str | None]) -> str | None:
    if tag is None:
        return None
    prefix, kind = split_tag(tag)
    if kind not in mapping:
        return tag
    return "O" if mapping[kind] is None else f"{prefix}-{mapping[kind]}"
