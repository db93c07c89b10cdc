"""Which columns of a dataset an example is made of."""

from collections.abc import Mapping
from typing import Any

from ...configuration.errors import shown
from ..sequences import as_list


def read_example_columns(
    batch: Mapping[str, Any], reads_images: bool, label2id: Mapping[str, int] | None
) -> dict[str, Any]:
    """Make lists of the columns that `encode_examples` reads, and check that no other seems to be meant for it."""
    name = "tokens" if "tokens" in batch else "text"
    if name not in batch:
        raise ValueError(
            f"Expected a column 'tokens' (lists of words) or 'text', got {shown(list(batch))}. Rename yours with "
            "dataset.rename_column. If Trainer dropped them, set TrainingArguments(remove_unused_columns=False)."
        )
    # an iterator can be read once
    lists = {column: as_list(batch.get(column)) for column in (name, "ner_tags", "label", "target")}
    columns = {**batch, **{column: rows for column, rows in lists.items() if rows is not None}}
    if name == "text" and columns.get("ner_tags") is not None:
        raise ValueError(
            "Expected a column 'tokens' with lists of words, since 'ner_tags' is there, got 'text'. Split the texts."
        )
    try:
        from .misnamed_columns import check_columns
    except ImportError:  # whoever trains saved code has named the columns already
        return columns
    check_columns(columns, reads_images, label2id)
    return columns


__all__ = ["read_example_columns"]
