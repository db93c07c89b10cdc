"""Rows of a bulk annotation on their way: chunks of texts, and chunks of entities. Both travel as bytes."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa


# Why a row can't be annotated.
MISSING, WRONG_TYPE, EMPTY = "missing text", "wrong type", "empty text"
UNDECODABLE, SURROGATES, MALFORMED = "undecodable bytes", "lone surrogates", "malformed line"

_ENTITY = pa.struct(
    {"type": pa.string(), "text": pa.string(), "start": pa.int64(), "end": pa.int64(), "score": pa.float32()}
)
ENTITY_SCHEMA = pa.schema({"row": pa.int64(), "id": pa.string(), "entities": pa.list_(_ENTITY)})


class InputRow(NamedTuple):
    """A row of the input: text or words; or None, the reason why it can't be annotated, and what was seen there."""

    id: str | None
    content: str | list[str] | None
    reason: str = ""
    detail: str = ""


@dataclass
class TextChunk:
    """Neighbouring rows of one part, maybe none; the last chunk of the input says that it `ends_input`."""

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
    """What was found in the rows of a `TextChunk`, of which there are `rows`, bad ones included.

    `table` has those that aren't bad, as of `ENTITY_SCHEMA`, and `bad` the others: "row", "id", "reason", "detail".
    """

    first_row: int
    rows: int
    table: pa.Table
    bad: list[dict[str, Any]] = field(default_factory=list)
    ends_input: bool = False

    def to_bytes(self) -> bytes:
        """Pack for another process."""
        rest = [self.first_row, self.rows, self.bad, self.ends_input]
        table = self.table.replace_schema_metadata({"rest": json.dumps(rest)})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue().to_pybytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "AnnotatedChunk":
        """Unpack what `to_bytes` made."""
        table = pa.ipc.open_stream(data).read_all()
        first_row, rows, bad, ends_input = json.loads(table.schema.metadata[b"rest"])
        return cls(first_row, rows, table.replace_schema_metadata(None), bad, ends_input)


def make_chunks(
    rows: Iterable[InputRow],
    first_row: int,
    rows_per_part: int,
    done: Mapping[int, int],
    buffer_rows: int,
    buffer_characters: int = 4_000_000,
) -> Iterator[TextChunk]:
    """Group rows into chunks of so many rows, or about so many characters, that don't cross the border of a part.

    The rows begin with the first of a part, number `first_row`; those of parts that are `done` are passed over.
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
