"""The input of a bulk annotation: JSONL, CSV and Parquet files, or a dataset of `datasets`, row by row."""

import codecs
import csv
import hashlib
import json
import lzma
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from glob import glob
from io import TextIOWrapper
from itertools import chain, islice
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.utils import tqdm

from ..configuration.messages import brief, listed, shown
from .annotation_chunks import EMPTY, MALFORMED, MISSING, SURROGATES, UNDECODABLE, WRONG_TYPE, InputRow
from .annotation_json import is_document, read_items


# Endings of the files of each format. Those of lines may also be compressed.
FORMATS = {"jsonl": (".jsonl", ".ndjson", ".json"), "csv": (".csv", ".tsv"), "parquet": (".parquet",)}
_COMPRESSED = (".gz", ".bz2", ".xz")
_ROWS_AT_ONCE = 1000
# of lists and objects in an id; where Python itself gives up depends on its recursion limit
_MOST_LEVELS = 100
_HEAD = 1 << 16
# A longer line, or record of CSV, is a bad row: compressed, a few kilobytes may hold one that fills the memory.
MAX_LINE = 2**24
_TOO_LONG = f"expected a line or record of at most {MAX_LINE:,} bytes. Split it, or leave it out"
_UNDECODED = object()


@dataclass(frozen=True)
class AnnotationInput:
    """What is to be annotated.

    Give files or a dataset, and a column of texts or of words. Row numbers count from 0 over all files, in the order
    of their names; of JSONL each line is a row, of CSV each record. A file that ends in ``.json`` may also
    hold an array, or objects of several lines each: each item is a row.

    Attributes
    ----------
    files : tuple of str
        JSONL, CSV (or TSV) or Parquet files, all of one format; the first two possibly compressed (``.gz``).
    dataset_name, dataset_config_name, split : str or None
        Dataset of the Hub, or a folder that `datasets.load_dataset` reads, in place of files. It is streamed.
    text_column : str
        Column of the texts.
    words_column : str or None
        Column of lists of words, in place of texts.
    id_column : str or None
        Column of ids, which are written beside what is found.

    Raises
    ------
    ValueError
        If it isn't clear what to read, or a column isn't there.
    """

    files: tuple[str, ...] = ()
    dataset_name: str | None = None
    dataset_config_name: str | None = None
    split: str | None = None
    text_column: str = "text"
    words_column: str | None = None
    id_column: str | None = None

    def __post_init__(self) -> None:
        if bool(self.files) == bool(self.dataset_name):
            raise ValueError(
                f"Expected files or the name of a dataset, got {'both' if self.files else 'neither'}. Give one of them."
            )
        if self.dataset_name and not self.split:
            raise ValueError(f"Expected a split of {shown(self.dataset_name)}, such as 'train', got none. Name one.")
        if self.files:
            _ = self.format

    @property
    def format(self) -> str:
        """Format of the files: "jsonl", "csv" or "parquet"."""
        found = {_format_of(path) for path in self.files}
        if len(found) != 1 or None in found:
            endings = ", ".join(ending for group in FORMATS.values() for ending in group)
            raise ValueError(
                f"Expected files of one format, that end in {endings} (all but Parquet also with "
                f"{', '.join(_COMPRESSED)}), got {listed(self.files)}. Convert or rename them."
            )
        return str(found.pop())

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read: content first, ids second."""
        return (self.words_column or self.text_column, *([self.id_column] if self.id_column else []))

    def inspect(self, show_progress: bool = False) -> tuple[dict[str, Any], int | None]:
        """Read the input's bytes once, to know it again; of a dataset only what `datasets` knows.

        Parameters
        ----------
        show_progress : bool, default False
            Show a progress bar.

        Returns
        -------
        tuple of (dict, int or None)
            What tells the input from another one, as JSON; and about how many rows there are, if it is known.
        """
        facts: dict[str, Any] = {"columns": [*self.columns], "words": self.words_column is not None}
        if self.dataset_name:
            with _explained("the dataset can't be loaded. Check its name and split"):
                builder = datasets.load_dataset_builder(self.dataset_name, self.dataset_config_name)
            origin = [data_files.origin_metadata for data_files in (builder.config.data_files or {}).values()]
            known = (builder.info.splits or {}).get(self.split or "")
            facts |= {"dataset": self.dataset_name, "config": builder.config.name, "split": self.split}
            facts |= {"origin": json.loads(json.dumps([builder.hash, origin]))}
            return facts, known.num_examples if known is not None and known.num_examples else None
        size = sum(Path(path).stat().st_size for path in self.files)
        with tqdm(total=size, desc="Checksums", unit="B", unit_scale=True, disable=not show_progress) as bar:
            checked = [_check_file(path, bar) for path in self.files]
        with _explained("one of them can't be read"):
            documents = [path for path in self.files if self.format != "parquet" and _is_document(path)]
        facts["files"] = [
            {"name": Path(path).name, "sha256": checksum}
            for path, (checksum, _) in zip(self.files, checked, strict=True)
        ]
        if self.format == "parquet":
            with _explained("one of them can't be read"):
                return facts, sum(pq.read_metadata(path).num_rows for path in self.files)
        if documents or any(path.endswith(_COMPRESSED) for path in self.files):
            return facts, None
        headers = len(self.files) if self.format == "csv" else 0
        return facts, max(0, sum(lines for _, lines in checked) - headers)

    def rows(self, skip: int = 0) -> Iterator[InputRow]:
        """Read row by row.

        Parameters
        ----------
        skip : int, default 0
            Rows to pass over.

        Yields
        ------
        InputRow
            A row, with the reason why if it is bad.

        Raises
        ------
        ValueError
            If a column isn't there, or a file can't be read on.
        """
        with _explained("reading stopped. What is annotated is kept. Mend the input, or try again"):
            if self.files and self.format == "jsonl":
                rows = chain.from_iterable(map(_json_rows, self.files))
                yield from map(self._from_json, islice(rows, skip, None))
            elif self.files and self.format == "csv":
                yield from self._from_csv(skip)
            else:
                yield from self._from_tables(skip)

    def _from_json(self, line: bytes | None) -> InputRow:
        if line is None:
            return InputRow(None, None, MALFORMED, _TOO_LONG)
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            return InputRow(None, None, UNDECODABLE, str(error))
        try:
            values = json.loads(text.removeprefix("\ufeff"))
        except (ValueError, RecursionError) as error:
            return InputRow(None, None, MALFORMED, str(error))
        if not isinstance(values, dict):
            hint = ". The items of an array are read from a file that ends in .json" if isinstance(values, list) else ""
            return InputRow(None, None, MALFORMED, f"expected one object a line (JSONL), got {_kind(values)}{hint}")
        if self.id_column and _is_nested(values.get(self.id_column), _MOST_LEVELS):
            return InputRow(None, None, MALFORMED, f"the id has more than {_MOST_LEVELS} levels of lists or objects")
        row = self._make_row([values.get(name) for name in self.columns])
        if self.columns[0] not in values:
            return row._replace(detail=f"no {shown(self.columns[0])} among {listed(values)}")
        return row

    def _from_csv(self, skip: int) -> Iterator[InputRow]:
        if self.words_column:
            raise ValueError(
                f"Expected JSONL or Parquet for the column of words {shown(self.words_column)}, since CSV has no "
                "lists, got CSV. Convert it, or annotate a column of texts."
            )
        number = 0
        for path in self.files:
            delimiter = "\t" if ".tsv" in Path(path).suffixes else ","
            _read_head(path)
            # bytes that aren't UTF-8 become lone surrogates, which are found later: one bad row, not a bad file
            with TextIOWrapper(_open(path), encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                lines = _RecordLines(file)
                # strict: or the lines behind a quote that isn't closed would become one text
                records = csv.reader(lines, delimiter=delimiter, strict=True)
                header = next(_records(records, lines), [])
                if isinstance(header, csv.Error):
                    raise ValueError(
                        f"Expected a header in {shown(path)}, got a line that can't be read: {header}. Mend the file."
                    )
                missing = [name for name in self.columns if name not in header]
                if missing:
                    raise _no_column(missing, header, path, f" Fields are split at {shown(delimiter)}.")
                places = [header.index(name) for name in self.columns]
                for record in _records(records, lines):
                    number += 1
                    if number > skip:
                        yield self._from_record(record, places, len(header))

    def _from_record(self, record: list[str] | csv.Error, places: list[int], width: int) -> InputRow:
        if isinstance(record, csv.Error):
            return InputRow(None, None, MALFORMED, str(record))
        if len(record) != width:
            return InputRow(None, None, MALFORMED, f"expected {width} fields, got {len(record)}")
        return self._make_row([record[place] for place in places])

    def _from_tables(self, skip: int) -> Iterator[InputRow]:
        if self.files:
            dataset = datasets.load_dataset(
                "parquet", data_files=[*self.files], split="train", streaming=True, batch_size=_ROWS_AT_ONCE
            )
        else:
            dataset = datasets.load_dataset(
                self.dataset_name, self.dataset_config_name, split=self.split, streaming=True
            )
        if dataset.column_names is None:
            dataset = dataset._resolve_features()
        missing = [name for name in self.columns if name not in dataset.column_names]
        if missing:
            raise _no_column(missing, dataset.column_names, self.dataset_name or self.files[0])
        dataset = dataset.select_columns([*self.columns])
        if skip:
            dataset = dataset.skip(skip)
        for table in dataset.with_format("arrow").iter(batch_size=_ROWS_AT_ONCE):
            columns = [_values(table.column(name)) for name in self.columns]
            yield from map(self._make_row, zip(*columns, strict=True))

    def _make_row(self, values: Sequence[Any]) -> InputRow:
        content = values[0]
        name = _as_id(values[1]) if self.id_column else None
        if content is None:
            return InputRow(name, None, MISSING)
        if content is _UNDECODED:
            return InputRow(name, None, UNDECODABLE)
        if self.words_column is None:
            if isinstance(content, bytes):
                content = _decode_bytes(content)
                if content is _UNDECODED:
                    return InputRow(name, None, UNDECODABLE)
            if not isinstance(content, str):
                hint = ". A list of words is read as words_column" if isinstance(content, list) else ""
                return InputRow(name, None, WRONG_TYPE, f"expected a string, got {_kind(content)}{hint}")
            text = content
        else:
            if not isinstance(content, list):
                hint = ". A text is read as text_column" if isinstance(content, str) else ""
                return InputRow(name, None, WRONG_TYPE, f"expected a list of words, got {_kind(content)}{hint}")
            for number, word in enumerate(content):
                if not isinstance(word, str):
                    return InputRow(
                        name, None, WRONG_TYPE, f"expected a list of words, but word {number} is {_kind(word)}"
                    )
            text = " ".join(content)
        if not text or text.isspace():
            return InputRow(name, None, EMPTY)
        if not text.isascii():
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                undecoded = all("\udc80" <= character <= "\udcff" for character in text[error.start : error.end])
                return InputRow(name, None, UNDECODABLE if undecoded else SURROGATES, f"at character {error.start}")
        return InputRow(name, content)


def find_files(patterns: Iterable[str]) -> tuple[str, ...]:
    """Find the files that are meant by names, folders and patterns.

    Parameters
    ----------
    patterns : iterable of str
        Files; folders, of which all files of a known format are taken, also in folders inside; patterns such as
        ``data/*.jsonl``.

    Returns
    -------
    tuple of str
        The files in the order of their paths, each once.

    Raises
    ------
    ValueError
        If one of the patterns finds no file.
    """
    found: set[str] = set()
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            here = {
                str(file)
                for file in path.rglob("*")
                if file.is_file() and _format_of(str(file)) and not file.name.startswith((".", "_"))
            }
        elif path.is_file():
            here = {str(path)}
        else:
            here = {name for name in glob(pattern, recursive=True) if Path(name).is_file()}
        if not here:
            raise ValueError(
                f"Expected a file, a folder of JSONL, CSV or Parquet files, or a pattern, but nothing is found for "
                f"{shown(pattern)}. Check the path."
            )
        found |= here
    return tuple(sorted(found))


class _explained:  # noqa: N801
    """Make one kind of error of the many that broken input gives."""

    def __init__(self, what: str):
        self.what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        known = (
            *(OSError, EOFError, zlib.error, lzma.LZMAError, UnicodeError),
            *(pa.ArrowException, datasets.exceptions.DatasetsError),
        )
        if isinstance(error, known) or (isinstance(error, ValueError) and not str(error).startswith("Expected")):
            raise ValueError(f"Expected input that can be read, but {self.what}: {brief(error)}.") from error


def _format_of(path: str) -> str | None:
    for name, endings in FORMATS.items():
        compressed = tuple(a + b for a in endings for b in _COMPRESSED) if name != "parquet" else ()
        if path.endswith(endings + compressed):
            return name
    return None


def _open(path: str) -> Any:
    return fsspec.open(path, "rb", compression="infer").open()


def _read_head(path: str) -> bytes:
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


def _is_document(path: str) -> bool:
    """Tell whether a file of text is JSON, but no object a line."""
    head = _read_head(path)
    return ".json" in Path(path).suffixes and is_document(head)


def _json_rows(path: str) -> Iterator[bytes | None]:
    """Read the lines or items of a file; None for lines that are too long."""
    as_document = _is_document(path)
    with _open(path) as file:
        if as_document:
            yield from read_items(file, path, MAX_LINE)
            return
        while line := file.readline(MAX_LINE + 1):
            too_long = len(line) > MAX_LINE
            while too_long and line and not line.endswith(b"\n"):
                line = file.readline(MAX_LINE)
            yield None if too_long else line


def _kind(value: Any) -> str:
    """Call a value what JSON and people call it."""
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "an array"}
    return (names | {dict: "an object"}).get(type(value), type(value).__name__)


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
        raise csv.Error(_TOO_LONG)


def _check_file(path: str, bar: Any) -> tuple[str, int]:
    """Return a file's checksum, and how many lines it has."""
    checksum, lines, last = hashlib.sha256(), 0, b"\n"
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            checksum.update(block)
            lines += block.count(b"\n")
            last = block
            bar.update(len(block))
    return checksum.hexdigest(), lines + (not last.endswith(b"\n"))


def _records(reader: Any, lines: _RecordLines) -> Iterator[list[str] | csv.Error]:
    """Go on behind records that can't be read, such as of a quote that is never closed."""
    while True:
        lines.length = 0
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield error


def _decode_bytes(data: bytes) -> Any:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _UNDECODED


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Make Python objects of a column; Arrow doesn't check that its strings can be decoded."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        values = []
        for scalar in column:
            try:
                values.append(scalar.as_py())
            except UnicodeDecodeError:
                values.append(_UNDECODED)
        return values


def _as_id(value: Any) -> str | None:
    if value is None or value is _UNDECODED:
        return None
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def _is_nested(value: Any, levels: int) -> bool:
    """Tell whether a value of JSON has more levels of lists and objects than these, without recursion."""
    layer = [value]
    for _ in range(levels + 1):
        parts = [part for part in layer if isinstance(part, list | dict)]
        if not parts:
            return False
        layer = [item for part in parts for item in (part.values() if isinstance(part, dict) else part)]
    return True


def _no_column(missing: Sequence[str], there: Sequence[str], where: str, hint: str = "") -> ValueError:
    return ValueError(
        f"Expected the column {shown(missing[0])} in {shown(where)}, which has {listed(there)}. Name the columns of "
        f"texts (or words) and ids.{hint}"
    )


__all__ = ["AnnotationInput", "find_files"]
