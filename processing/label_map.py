"""Rename entity types, so that a model can be scored on a data set whose types have other names."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import datasets

from .tag_scheme import split_tag


__all__ = ["entity_types", "map_labels"]

Tags = Sequence[str | None] | None


def entity_types(sentences: Iterable[Tags]) -> list[str]:
    """List the entity types that occur in tags.

    Parameters
    ----------
    sentences : iterable of (sequence of (str or None) or None)
        BIO tags; None where unknown.

    Returns
    -------
    list of str
        Sorted.

    Raises
    ------
    ValueError
        If a tag is not in the BIO scheme.

    Examples
    --------
    >>> entity_types([["B-PER", "I-PER", "O"], None, ["B-LOC", None]])
    ['LOC', 'PER']
    """
    return sorted({split_tag(tag)[1] for tags in sentences for tag in tags or () if tag is not None} - {""})


def map_labels(data: datasets.Dataset | Iterable[Tags], mapping: Mapping[str, str | None]) -> Any:
    """Rename or drop entity types.

    Types may be merged. All are renamed at once, so two may also swap their names. Entities that touch stay apart, as
    long as each begins with "B-" (see `repair_bio`).

    Parameters
    ----------
    data : datasets.Dataset or iterable of (sequence of (str or None) or None)
        A dataset with the column ``ner_tags``, or such a column: BIO tags, None where unknown.
    mapping : mapping of str to (str or None)
        New names of types, as in ``{"OTHER": "MISC"}``; None makes their words "O". Other types stay.

    Returns
    -------
    datasets.Dataset or list of (list of (str or None) or None)
        What was given, with other tags. A dataset loses its format or transform: set it afterwards.

    Raises
    ------
    ValueError
        If there is no column ``ner_tags``, a type of `mapping` does not occur, a new name is empty, or a tag is not in
        the BIO scheme.

    Examples
    --------
    >>> map_labels([["B-OTHER", "I-OTHER", "B-PER"], None], {"OTHER": "MISC", "PER": None})
    [['B-MISC', 'I-MISC', 'O'], None]
    """
    if isinstance(data, datasets.Dataset):
        if "ner_tags" not in data.column_names:
            raise ValueError(f"Expected a column 'ner_tags', got {data.column_names}. Rename yours.")
        plain = data.with_format(None)
        tags = map_labels(plain["ner_tags"], mapping)
        renamed = plain.remove_columns("ner_tags").add_column("ner_tags", tags, feature=plain.features["ner_tags"])
        return renamed.select_columns(plain.column_names)
    sentences = list(data)
    known = entity_types(sentences)
    unknown = sorted(set(mapping) - set(known))
    if unknown:
        raise ValueError(
            f"Expected types that occur as keys of the mapping, got {', '.join(unknown)}. There are: "
            f"{', '.join(known) or 'none'}."
        )
    if "" in mapping.values():
        raise ValueError(f"Expected names of types, or None to drop them, as values, got '' in {dict(mapping)}.")
    return [None if tags is None else [_rename(tag, mapping) for tag in tags] for tags in sentences]


def _rename(tag: str | None, mapping: Mapping[str, str | None]) -> str | None:
    if tag is None:
        return None
    prefix, kind = split_tag(tag)
    if kind not in mapping:
        return tag
    return "O" if mapping[kind] is None else f"{prefix}-{mapping[kind]}"
