"""Fuzzing target: any bytes as input of a bulk annotation: JSONL and CSV, also compressed."""

from __future__ import annotations

import gzip
import json
import pickle
import tempfile
from functools import cache
from pathlib import Path

from byte_reader import ByteReader, refusals

from bga_mner.processing.annotation.chunks import make_chunks
from bga_mner.processing.annotation.input_rows import AnnotationInput


ENDINGS = (".jsonl", ".csv", ".tsv", ".jsonl.gz", ".csv.gz", ".json.bz2", ".csv.xz", ".json")
REASONS = {"", "missing text", "wrong type", "empty text", "undecodable bytes", "lone surrogates", "malformed line"}
MAX_LENGTH = 600


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz_annotation_"))


def one_input(data: bytes) -> None:
    """Read row by row; each is a text or words that can be written as UTF-8, or bad with a reason."""
    reader = ByteReader(data)
    ending = reader.pick(ENDINGS)
    columns = {"words_column": "words"} if reader.integer(0, 3) == 0 else {"text_column": "text"}
    columns |= {"id_column": "id"} if reader.chance() else {}
    compress, skip = reader.chance(), reader.integer(0, 2)
    content = reader.rest()
    file = _folder() / f"input{ending}"
    file.write_bytes(gzip.compress(content, 1) if ending.endswith(".gz") and compress else content)
    source = AnnotationInput(files=(str(file),), **columns)
    with refusals():
        source.inspect()
        rows = list(source.rows())
        for row in rows:
            assert row.reason in REASONS
            assert (row.content is None) == bool(row.reason)
            texts = [] if row.content is None else [row.content] if isinstance(row.content, str) else row.content
            assert isinstance(row.content, list) == ("words_column" in columns and row.content is not None)
            for text in (*texts, row.id or ""):
                text.encode("utf-8")
        assert list(source.rows(skip)) == rows[skip:]
        chunks = list(make_chunks(rows, 0, 3, {}, 2))
        assert [row for chunk in chunks for row in chunk.rows] == rows
        assert all(pickle.loads(pickle.dumps(chunk)) == chunk for chunk in chunks)


def seeds() -> list[bytes]:
    """Return rows of every kind, in both formats, whole and broken."""
    lines = [
        json.dumps({"text": "Kawhi wins", "id": 7}).encode(),
        json.dumps({"words": ["Kawhi", "wins"], "id": ["x"]}).encode(),
        b'{"text": "\\ud83c alone", "id": "\\ud83c"}',
        b'{"text": 1e999, "id": NaN}',
        b'{"text": "\\u0000", "id": {"a": [[[[1]]]]}}',
        b'{"words": ["", " ", 3]}',
        b'{"id": ' + b"[" * 200 + b"]" * 200 + b', "text": "a"}',
        *(b"[", b"null", b"\xff\xfe", b"\xef\xbb\xbf{}", b'"text"', b"9" * 500, b"{" * 500),
    ]
    table = b'id,text,x\n1,"a, ""b""",\n2,"never closed\n3,\xff\xfe,y\n4,a\n5,\r\n\n6,\0,z,more\n'
    items = b",".join(line for line in lines if line.startswith(b"{") and line.endswith(b"}"))
    bodies = [
        *lines,
        b"[%s]" % items,
        b"[\n%s,\n" % items,
        b'{\n"text": "a",\n"id": 1\n}\n' * 2,
        b"\n".join(lines),
        table,
        b"",
        b"text\na\n",
        b'"text\n',
        b"\xef\xbb\xbftext\r\na\rb\n",
    ]
    return [
        bytes([ending, words, 1, 1, 0]) + body
        for body in bodies
        for ending, words in ((0, 1), (0, 0), (1, 1), (2, 1), (3, 1), (4, 1), (7, 1))
    ]
