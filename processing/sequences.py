"""Lists of whatever people keep texts, labels and images in: columns of datasets and data frames, arrays, iterators."""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any


# What makes a list of a column: of pyarrow; of numpy, pandas and torch; of polars.
_LIST_METHODS = ("to_pylist", "tolist", "to_list")


def as_list(values: Any) -> list[Any] | None:
    """Make a list of a sequence of any library, with None for what is missing; None for anything else, such as a table.

    >>> as_list(("Go", float("nan"))), as_list(iter("ab")), as_list("ab")
    (['Go', None], ['a', 'b'], None)
    """
    if isinstance(values, list | tuple):  # nearly always, and what follows takes time
        return [item if isinstance(item, str) or not _is_missing(item) else None for item in values]
    if isinstance(values, str | bytes | bytearray | memoryview | Mapping | Set):
        return None
    if is_table(values) or hasattr(values, "read"):
        return None
    if not isinstance(values, Sequence):
        convert = next((getattr(values, name) for name in _LIST_METHODS if callable(getattr(values, name, None))), None)
        values = values if convert is None else convert()
        if isinstance(values, str) or not isinstance(values, Iterable):
            return None
    return [None if _is_missing(item) else item for item in values]


def is_table(values: Any) -> bool:
    """Tell a dataset or a data frame, of which one column can be a sequence."""
    return hasattr(values, "columns") or hasattr(values, "column_names")


def _is_missing(item: Any) -> bool:
    """Tell what pandas puts where there is nothing, without importing it."""
    return type(item).__name__ in ("NAType", "NaTType") or (isinstance(item, float) and item != item)


__all__ = ["as_list", "is_table"]
