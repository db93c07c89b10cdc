"""The files of a bulk annotation: which ones, in which format, and their lines or records, however broken."""

import codecs
import csv
import hashlib
from collections.abc import Iterable, Iterator
from glob import glob
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

import fsspec
from datasets.utils import tqdm

from ...configuration.errors import shown
from .json_documents import is_document, read_items


# Endings of the files of each format. Those of lines may also be compressed.
FORMATS = {"jsonl": (".jsonl", ".ndjson", ".json"), "csv": (".csv", ".tsv"), "parquet": (".parquet",)}
COMPRESSED = (".gz", ".bz2", ".xz")
# A longer line, or record of CSV, is a bad row: compressed, a few kilobytes may hold one that fills the memory.
MAX_LINE = 2**24
TOO_LONG = f"expected a line or record of at most {MAX_LINE:,} bytes. Split it, or leave it out"
_HEAD = 1 << 16


def find_files(patterns: Iterable[str]) -> tuple[str, ...]:
    """Find the files that names, patterns ("data/*.jsonl") and folders mean, in the order of their paths, each once.

    Of a folder, all files of a known format are taken, also in folders inside.
    """
    found: set[str] = set()
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            files = (file for file in path.rglob("*") if file.is_file() and not file.name.startswith((".", "_")))
            here = {str(file) for file in files if format_of(str(file))}
        elif path.is_file():
            here = {str(path)}
        else:
            here = {name for name in glob(pattern, recursive=True) if Path(name).is_file()}
        if not here:
            raise ValueError(
                f"Expected a file, a folder of JSONL, CSV or Parquet files, or a pattern, got {shown(pattern)}, which "
                "matches nothing. Check the path."
            )
        found |= here
    return tuple(sorted(found))


def format_of(path: str) -> str | None:
    """Tell the format of a file by its ending."""
    for name, endings in FORMATS.items():
        compressed = tuple(a + b for a in endings for b in COMPRESSED) if name != "parquet" else ()
        if path.endswith(endings + compressed):
            return name
    return None


def check_file(path: str, bar: tqdm) -> tuple[str, int]:
    """Return a file's checksum, and how many lines it has."""
    checksum, lines, last = hashlib.sha256(), 0, b"\n"
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            checksum.update(block)
            lines += block.count(b"\n")
            last = block
            bar.update(len(block))
    return checksum.hexdigest(), lines + (not last.endswith(b"\n"))


def read_head(path: str) -> bytes:
    """Read the beginning of a file of text; refuse what isn't UTF-8 from its first bytes on."""
    with _open(path) as file:
        head = file.read(_HEAD)
    # a text without such a mark begins with a letter, which has zero bytes beside it
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in head[:4]:
        raise ValueError(
            f"Expected UTF-8 in {shown(path)}, got UTF-16 or another encoding with zero bytes. Convert it: "
            "iconv -f UTF-16 -t UTF-8."
        )
    return head


def is_json_document(path: str) -> bool:
    """Tell whether a file of text is JSON, but no object per line."""
    head = read_head(path)
    return ".json" in Path(path).suffixes and is_document(head)


def json_rows(path: str) -> Iterator[bytes | None]:
    """Read the lines or items of a file; None for lines that are too long."""
    as_document = is_json_document(path)
    with _open(path) as file:
        if as_document:
            yield from read_items(file, path, MAX_LINE)
            return
        while line := file.readline(MAX_LINE + 1):
            too_long = len(line) > MAX_LINE
            while too_long and line and not line.endswith(b"\n"):
                line = file.readline(MAX_LINE)
            yield None if too_long else line


def csv_records(path: str) -> Iterator[list[str] | csv.Error]:
    """Read the header and the records of a file; an error for one that can't be read, such as a quote never closed."""
    delimiter = csv_delimiter(path)
    read_head(path)
    # bytes that aren't UTF-8 become lone surrogates, which are found later: one bad row, not a bad file
    with TextIOWrapper(_open(path), encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = _RecordLines(file)
        # strict: or the lines after a quote that isn't closed would become one text
        records = csv.reader(lines, delimiter=delimiter, strict=True)
        while True:
            lines.length = 0
            try:
                yield next(records)
            except StopIteration:
                return
            except csv.Error as error:
                yield error


def csv_delimiter(path: str) -> str:
    """Tell by its ending what parts the fields of a file."""
    return "\t" if ".tsv" in Path(path).suffixes else ","


class _RecordLines:
    """Lines of text for `csv.reader`, which gives up a record that is too long: it would gather it in memory."""

    def __init__(self, file: TextIOWrapper):
        self.file, self.length = file, 0

    def __iter__(self) -> "_RecordLines":
        return self

    def __next__(self) -> str:
        line = self.file.readline(MAX_LINE + 1 - self.length)
        if not line:
            raise StopIteration
        self.length += len(line)
        if self.length <= MAX_LINE:
            return line
        while line and line[-1] not in "\r\n":
            line = self.file.readline(MAX_LINE)
        raise csv.Error(TOO_LONG)


def _open(path: str) -> IO[Any]:
    return fsspec.open(path, "rb", compression="infer").open()


__all__ = [
    "COMPRESSED",
    "FORMATS",
    "MAX_LINE",
    "TOO_LONG",
    "check_file",
    "csv_delimiter",
    "csv_records",
    "find_files",
    "format_of",
    "is_json_document",
    "json_rows",
    "read_head",
]
