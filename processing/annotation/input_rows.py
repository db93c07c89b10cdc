"""The input of a bulk annotation: JSONL, CSV and Parquet files, or a dataset of `datasets`, row by row."""

import csv
import json
import lzma
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.utils import tqdm

from ...configuration.errors import brief, listed, shown
from .chunks import EMPTY, MALFORMED, MISSING, SURROGATES, UNDECODABLE, WRONG_TYPE, InputRow
from .input_files import (
    COMPRESSED,
    FORMATS,
    TOO_LONG,
    check_file,
    csv_delimiter,
    csv_records,
    format_of,
    is_json_document,
    json_rows,
)


_ROWS_AT_ONCE = 1000
# of lists and objects in an id; where Python itself gives up depends on its recursion limit
_MOST_LEVELS = 100
_UNDECODED = object()
# What broken input raises, beside ValueErrors.
_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException, datasets.exceptions.DatasetsError)


@dataclass(frozen=True)
class AnnotationInput:
    """What is to be annotated: files of one format, or a dataset that is streamed; and a column of texts or of words.

    Row numbers count from 0 over all files, in the order of their names; of JSONL each line is a row, of CSV each
    record. A file that ends in `.json` may also hold an array, or objects of several lines each: each item is a row.
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
        found = {format_of(path) for path in self.files}
        if len(found) != 1 or None in found:
            endings = ", ".join(ending for group in FORMATS.values() for ending in group)
            raise ValueError(
                f"Expected files of one format, that end in {endings} (all but Parquet also with "
                f"{', '.join(COMPRESSED)}), got {listed(self.files)}. Convert or rename them."
            )
        return str(found.pop())

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read: content first, ids second."""
        return (self.words_column or self.text_column, *([self.id_column] if self.id_column else []))

    def inspect(self, show_progress: bool = False) -> tuple[dict[str, Any], int | None]:
        """Return what tells this input from another one, as JSON, and about how many rows there are, if it is known.

        Reads the bytes of files once; of a dataset only what `datasets` knows.
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
            checked = [check_file(path, bar) for path in self.files]
        facts["files"] = [
            {"name": Path(path).name, "sha256": checksum}
            for path, (checksum, _) in zip(self.files, checked, strict=True)
        ]
        with _explained("one of them can't be read"):
            if self.format == "parquet":
                return facts, sum(pq.read_metadata(path).num_rows for path in self.files)
            documents = [path for path in self.files if is_json_document(path)]
        if documents or any(path.endswith(COMPRESSED) for path in self.files):
            return facts, None
        headers = len(self.files) if self.format == "csv" else 0
        return facts, max(0, sum(lines for _, lines in checked) - headers)

    def rows(self, skip: int = 0) -> Iterator[InputRow]:
        """Read row by row, after passing over `skip` rows; a ValueError says why a file can't be read on."""
        with _explained("reading stopped. What is annotated is kept. Mend the input, or try again"):
            if self.files and self.format == "jsonl":
                lines = chain.from_iterable(map(json_rows, self.files))
                yield from map(self._from_json, islice(lines, skip, None))
            elif self.files and self.format == "csv":
                yield from islice(chain.from_iterable(map(self._from_csv, self.files)), skip, None)
            else:
                yield from self._from_tables(skip)

    def _from_json(self, line: bytes | None) -> InputRow:
        if line is None:
            return InputRow(None, None, MALFORMED, TOO_LONG)
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
            return InputRow(None, None, MALFORMED, f"expected one object per line (JSONL), got {_kind(values)}{hint}")
        if self.id_column and _is_nested(values.get(self.id_column), _MOST_LEVELS):
            return InputRow(None, None, MALFORMED, f"the id has more than {_MOST_LEVELS} levels of lists or objects")
        row = self._make_row([values.get(name) for name in self.columns])
        if self.columns[0] not in values:
            return row._replace(detail=f"no {shown(self.columns[0])} among {listed(values)}")
        return row

    def _from_csv(self, path: str) -> Iterator[InputRow]:
        if self.words_column:
            raise ValueError(
                f"Expected JSONL or Parquet for the column of words {shown(self.words_column)}, since CSV has no "
                "lists, got CSV. Convert it, or annotate a column of texts."
            )
        records = csv_records(path)
        header = next(records, [])
        if isinstance(header, csv.Error):
            raise ValueError(
                f"Expected a header in {shown(path)}, got a line that can't be read: {header}. Mend the file."
            )
        self._check_columns(header, path, f" Fields are split at {shown(csv_delimiter(path))}.")
        numbers = [header.index(name) for name in self.columns]
        for record in records:
            if isinstance(record, csv.Error):
                yield InputRow(None, None, MALFORMED, str(record))
            elif len(record) != len(header):
                yield InputRow(None, None, MALFORMED, f"expected {len(header)} fields, got {len(record)}")
            else:
                yield self._make_row([record[number] for number in numbers])

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
        self._check_columns(dataset.column_names, self.dataset_name or self.files[0])
        dataset = dataset.select_columns([*self.columns])
        if skip:
            dataset = dataset.skip(skip)
        for table in dataset.with_format("arrow").iter(batch_size=_ROWS_AT_ONCE):
            columns = [_values(table.column(name)) for name in self.columns]
            yield from map(self._make_row, zip(*columns, strict=True))

    def _check_columns(self, there: Sequence[str], where: str, hint: str = "") -> None:
        missing = [name for name in self.columns if name not in there]
        if missing:
            raise ValueError(
                f"Expected the column {shown(missing[0])} in {shown(where)}, got {listed(there)}. Name the columns of "
                f"texts (or words) and ids.{hint}"
            )

    def _make_row(self, values: Sequence[Any]) -> InputRow:
        """Check the content of a row, and the id after it, if there are ids."""
        content, name = values[0], _as_id(values[1]) if self.id_column else None
        if self.words_column is None and isinstance(content, bytes):
            content = _decode(content)
        if content is None:
            return InputRow(name, None, MISSING)
        if content is _UNDECODED:
            return InputRow(name, None, UNDECODABLE)
        if detail := _wrong_type(content) if self.words_column is None else _wrong_words(content):
            return InputRow(name, None, WRONG_TYPE, detail)
        text = content if isinstance(content, str) else " ".join(content)
        if not text or text.isspace():
            return InputRow(name, None, EMPTY)
        if not text.isascii():
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                undecoded = all("\udc80" <= character <= "\udcff" for character in text[error.start : error.end])
                return InputRow(name, None, UNDECODABLE if undecoded else SURROGATES, f"at character {error.start}")
        return InputRow(name, content)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Make one kind of error of the many that broken input gives."""
    try:
        yield
    except (*_BROKEN, ValueError) as error:
        if not isinstance(error, _BROKEN) and str(error).startswith("Expected"):
            raise
        raise ValueError(f"Expected input that can be read, but {what}: {brief(error)}.") from error


def _wrong_type(content: Any) -> str:
    """Say what content is that is no text."""
    if isinstance(content, str):
        return ""
    hint = ". A list of words is read as words_column" if isinstance(content, list) else ""
    return f"expected a string, got {_kind(content)}{hint}"


def _wrong_words(content: Any) -> str:
    """Say what content is that is no list of words."""
    if not isinstance(content, list):
        hint = ". A text is read as text_column" if isinstance(content, str) else ""
        return f"expected a list of words, got {_kind(content)}{hint}"
    wrong = next((number for number, word in enumerate(content) if not isinstance(word, str)), None)
    return "" if wrong is None else f"expected a list of words, but word {wrong} is {_kind(content[wrong])}"


def _kind(value: Any) -> str:
    """Call a value what JSON and people call it."""
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "an array"}
    return (names | {dict: "an object"}).get(type(value), type(value).__name__)


def _decode(data: bytes) -> Any:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _UNDECODED


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Make Python objects of a column; Arrow doesn't check that its strings can be decoded."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [_value(scalar) for scalar in column]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return _UNDECODED


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


__all__ = ["AnnotationInput"]
