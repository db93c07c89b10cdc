"""Rows of a bulk annotation on their way: chunks of texts, and chunks of entities. Both travel as bytes."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa


# Why a row can't be annotated.
MISSING, WRONG_TYPE, EMPTY = "missing text", "wrong type", "empty text"
UNDECODABLE, SURROGATES, MALFORMED = "undecodable bytes", "lone surrogates", "malformed line"

ENTITY_SCHEMA = pa.schema(
    {
        "row": pa.int64(),
        "id": pa.string(),
        "entities": pa.list_(
            pa.struct(
                {
                    "type": pa.string(),
                    "text": pa.string(),
                    "start": pa.int64(),
                    "end": pa.int64(),
                    "score": pa.float32(),
                }
            )
        ),
    }
)


class InputRow(NamedTuple):
    """A row of the input.

    Attributes
    ----------
    id : str or None
        Its id, if there is a column of ids.
    content : str, list of str, or None
        Text or words; None if the row is bad.
    reason, detail : str
        Why it is bad, and what was seen there; both empty if it isn't.
    """

    id: str | None
    content: str | list[str] | None
    reason: str = ""
    detail: str = ""


@dataclass
class TextChunk:
    """Neighbouring rows of one part.

    Attributes
    ----------
    first_row : int
        Number of the first row.
    rows : list of InputRow
        The rows.
    ends_input : bool
        Whether no row comes behind these, which may be none.
    """

    first_row: int
    rows: list[InputRow]
    ends_input: bool = False

    def to_bytes(self) -> bytes:
        """Pack for another process."""
        return json.dumps([self.first_row, self.rows, self.ends_input]).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "TextChunk":
        """Unpack what `to_bytes` made."""
        first_row, rows, ends_input = json.loads(data)
        return cls(first_row, [InputRow(*row) for row in rows], ends_input)


@dataclass
class AnnotatedChunk:
    """What was found in neighbouring rows.

    Attributes
    ----------
    first_row, rows : int
        Number of the first row, and how many there are, bad ones included.
    table : pyarrow.Table
        Rows that aren't bad, as of `ENTITY_SCHEMA`.
    bad : list of dict
        The others: "row", "id", "reason", "detail".
    entities : dict of str to int
        Entities by type.
    ends_input : bool
        As of `TextChunk`.
    """

    first_row: int
    rows: int
    table: pa.Table
    bad: list[dict[str, Any]] = field(default_factory=list)
    entities: dict[str, int] = field(default_factory=dict)
    ends_input: bool = False

    def to_bytes(self) -> bytes:
        """Pack for another process."""
        rest = [self.first_row, self.rows, self.bad, self.entities, self.ends_input]
        table = self.table.replace_schema_metadata({"rest": json.dumps(rest)})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue().to_pybytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "AnnotatedChunk":
        """Unpack what `to_bytes` made."""
        table = pa.ipc.open_stream(data).read_all()
        first_row, rows, bad, entities, ends_input = json.loads(table.schema.metadata[b"rest"])
        return cls(first_row, rows, table.replace_schema_metadata(None), bad, entities, ends_input)


def make_chunks(
    rows: Iterable[InputRow],
    first_row: int,
    rows_per_part: int,
    done: Mapping[int, int],
    buffer_rows: int,
    buffer_characters: int = 4_000_000,
) -> Iterator[TextChunk]:
    """Group rows into chunks that fit into memory and don't cross the border of a part.

    Parameters
    ----------
    rows : iterable of InputRow
        Rows of the input from `first_row` on, which is the first of a part.
    first_row : int
        Number of the first of them.
    rows_per_part : int
        Rows of a part.
    done : mapping of int to int
        Parts whose rows are passed over.
    buffer_rows, buffer_characters : int
        Rows of a chunk at most, and characters after which it is full.

    Yields
    ------
    TextChunk
        In order. The last one, and no other, has `ends_input`; it may be empty.

    Examples
    --------
    >>> rows = [InputRow(None, text) for text in "abcde"]
    >>> [(chunk.first_row, len(chunk.rows)) for chunk in make_chunks(rows, 0, 2, {1: 2}, 2)]
    [(0, 2), (4, 1)]
    """
    waiting: list[InputRow] = []
    characters, position = 0, first_row
    for row in rows:
        if position // rows_per_part not in done:
            waiting.append(row)
            if row.content is not None:
                characters += len(row.content) if isinstance(row.content, str) else sum(map(len, row.content))
        position += 1
        full = len(waiting) >= buffer_rows or characters >= buffer_characters
        if waiting and (full or position % rows_per_part == 0):
            yield TextChunk(position - len(waiting), waiting)
            waiting, characters = [], 0
    yield TextChunk(position - len(waiting), waiting, ends_input=True)


__all__ = [
    "EMPTY",
    "ENTITY_SCHEMA",
    "MALFORMED",
    "MISSING",
    "SURROGATES",
    "UNDECODABLE",
    "WRONG_TYPE",
    "AnnotatedChunk",
    "InputRow",
    "TextChunk",
    "make_chunks",
]
