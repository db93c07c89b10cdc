"""The output of a bulk annotation: numbered parts, each of which is there whole, or not at all.

A part holds the rows `[number * rows_per_part, (number + 1) * rows_per_part)` of the input. It is done once its
record is there, which is written last; whatever else a killed run has left is removed when the next one starts.
"""

import errno
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from ...configuration.errors import brief, listed, shown
from .chunks import ENTITY_SCHEMA, AnnotatedChunk


OUTPUT_FORMATS = ("parquet", "jsonl")
RUN_FILE, LOCK_FILE, SUMMARY_FILE = "run.json", ".lock", "summary.json"
ENTITIES, BAD_ROWS, RECORDS = "entities", "bad_rows", "records"
_PART_NAME = re.compile(r"\.?part-(\d{8,})\.(?:parquet|jsonl|json)(?:\.tmp)?")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class AnnotationParts:
    """The folder that a bulk annotation writes, one process at a time.

    It holds `entities/part-00000000.parquet` (or `.jsonl`) and so on, `bad_rows/part-00000000.jsonl` for parts
    that have bad rows, `records/` with what each part holds and the checksums of its files, and `run.json`, which
    says what the run was started with.

    A run only goes on with the same `run`, which is what the output depends on: input, model and settings, as JSON.
    `done` has the rows of each part that is there and was verified, `dropped` a sentence on each file that was taken
    away because it was half-written or damaged, `entities` and `bad` the counts by type and reason of all parts done.
    """

    def __init__(self, folder: str | os.PathLike[str], run: Mapping[str, Any], output_format: str, rows_per_part: int):
        if output_format not in OUTPUT_FORMATS:
            raise ValueError(
                f"Expected an output format of {', '.join(OUTPUT_FORMATS)}, got {shown(output_format)}. Choose one."
            )
        if rows_per_part < 1:
            raise ValueError(f"Expected at least 1 row per part, got {rows_per_part}. Give more.")
        self.folder = Path(folder)
        self.output_format = output_format
        self.rows_per_part = rows_per_part
        self.done: dict[int, int] = {}
        self.dropped: list[str] = []
        self.entities: Counter[str] = Counter()
        self.bad: Counter[str] = Counter()
        _check_folder(self.folder)
        with self._explained():
            for name in (ENTITIES, BAD_ROWS, RECORDS):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.folder / LOCK_FILE)
            try:
                self._start_or_go_on(dict(run) | {"output_format": output_format, "rows_per_part": rows_per_part})
                self._verify()
            except BaseException:
                self.close()  # nobody else gets hold of it, and this process may try again
                raise

    def close(self) -> None:
        """Let other processes write to the folder."""
        self._lock.release()

    def __enter__(self) -> "AnnotationParts":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def leading_rows(self) -> int:
        """Rows of the whole parts that are done at the beginning of the input."""
        number = 0
        while self.done.get(number) == self.rows_per_part:
            number += 1
        return number * self.rows_per_part

    def commit(self, number: int, chunks: Sequence[AnnotatedChunk]) -> None:
        """Write a part, of which these are all rows, in order: its files first, its record last."""
        if number in self.done:
            raise RuntimeError(f"Expected each part once, got part {number} again. Report this.")
        table = pa.concat_tables([ENTITY_SCHEMA.empty_table(), *(chunk.table for chunk in chunks)])
        bad = [row for chunk in chunks for row in chunk.bad]
        files = {f"{ENTITIES}/{_name(number, self.output_format)}": _encode(table, self.output_format)}
        if bad:
            files[f"{BAD_ROWS}/{_name(number, 'jsonl')}"] = _json_lines(bad)
        record = {
            "part": number,
            "first_row": number * self.rows_per_part,
            "rows": sum(chunk.rows for chunk in chunks),
            "entities": _count_types(table),
            "bad": Counter(row["reason"] for row in bad),
            "files": {name: _facts(data) for name, data in files.items()},
        }
        files[f"{RECORDS}/{_name(number, 'json')}"] = json.dumps(record).encode()
        with self._explained():
            for name, data in files.items():
                write_atomically(self.folder / name, data)
        self._count(record)

    def finish(self, total: int) -> dict[str, Any]:
        """Check that every row of the input is in exactly one part; return what was found.

        That is "rows", "annotated", "bad_rows", "bad_by_reason" and "entities", by type.
        """
        expected = {
            number: min(self.rows_per_part, total - number * self.rows_per_part)
            for number in range(-(-total // self.rows_per_part))
        }
        if self.done != expected:
            odd = sorted(set(self.done.items()) ^ set(expected.items()))[:5]
            raise RuntimeError(
                f"Expected {total} rows in {len(expected)} whole parts, got others: {odd}. Run it again."
            )
        bad = self.bad.total()
        return {
            "rows": total,
            "annotated": total - bad,
            "bad_rows": bad,
            "bad_by_reason": dict(self.bad.most_common()),
            "entities": dict(sorted(self.entities.items())),
        }

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write `summary.json`."""
        with self._explained():
            write_atomically(self.folder / SUMMARY_FILE, json.dumps(summary, indent=2).encode())

    def _start_or_go_on(self, run: dict[str, Any]) -> None:
        path = self.folder / RUN_FILE
        if not path.exists():
            write_atomically(path, json.dumps(run, indent=2).encode())
            return
        started = json.loads(path.read_text(encoding="utf-8"))
        differences = [
            f"{name} was {shown(started.get(name), 100)} and is now {shown(run.get(name), 100)}"
            for name in sorted(started.keys() | run.keys())
            if started.get(name) != run.get(name)
        ]
        if differences:
            raise ValueError(
                f"Expected what the run in {shown(str(self.folder))} was started with, got other settings: "
                f"{brief('; '.join(differences), 500)}. Give the same again, or name another output folder."
            )

    def _verify(self) -> None:
        """Count the parts that are there as they were written, and remove the files of all others."""
        kept: set[Path] = set()
        for path in sorted((self.folder / RECORDS).iterdir()):
            if not _PART_NAME.fullmatch(path.name) or path.name.endswith(".tmp"):
                continue
            record = _read_record(path)
            trouble = "its record is damaged" if record is None else self._trouble(record, path)
            if record is None or trouble:
                self.dropped.append(f"{path.stem} is dropped and made again: {trouble}.")
                continue
            self._count(record)
            kept |= {path, *(self.folder / name for name in record["files"])}
        for name in (RECORDS, ENTITIES, BAD_ROWS):
            for path in sorted((self.folder / name).iterdir()):
                if path not in kept and _PART_NAME.fullmatch(path.name):
                    path.unlink()
                    if name != RECORDS or path.name.endswith(".tmp"):
                        self.dropped.append(f"{name}/{path.name} is dropped: its part was not finished.")

    def _trouble(self, record: Mapping[str, Any], path: Path) -> str:
        """Tell what is wrong with a part; an empty string if nothing is."""
        if path.name != _name(record["part"], "json") or record["first_row"] != record["part"] * self.rows_per_part:
            return "its record belongs to another part"
        for name, facts in record["files"].items():
            file = self.folder / name
            if not file.is_file():
                return f"{name} is missing"
            if _facts(file.read_bytes()) != facts:
                return f"{name} is not what was written"
        return ""

    def _count(self, record: Mapping[str, Any]) -> None:
        self.done[record["part"]] = record["rows"]
        self.entities.update(record["entities"])
        self.bad.update(record["bad"])

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say of a full disk how many rows are kept, and how to go on."""
        try:
            yield
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise OSError(
                error.errno,
                f"Expected room to write in {shown(str(self.folder))}, got none: the disk is full or a limit is "
                f"reached ({os.strerror(error.errno)}). {sum(self.done.values()):,} rows are done and kept. Make room "
                "and run the same again",
            ) from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, whatever happens; one that is there is replaced."""
    temporary = path.with_name(f".{path.name}.tmp")  # readers of Parquet folders pass over such names
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # or the new name might not outlive a power cut
    finally:
        os.close(folder)


def _name(number: int, ending: str) -> str:
    return f"part-{number:08d}.{ending}"


def _facts(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _count_types(table: pa.Table) -> dict[str, int]:
    types = pc.struct_field(pc.list_flatten(table["entities"]), "type")
    return {count["values"]: count["counts"] for count in pc.value_counts(types).to_pylist()}


def _json_lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "backslashreplace")


def _encode(table: pa.Table, output_format: str) -> bytes:
    if output_format == "jsonl":
        return _json_lines(table.to_pylist())
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue().to_pybytes()


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_bytes())
        kinds = {"part": int, "first_row": int, "rows": int, "entities": dict, "bad": dict, "files": dict}
        return record if all(isinstance(record[name], kind) for name, kind in kinds.items()) else None
    except (ValueError, KeyError, TypeError):
        return None


def _check_folder(folder: Path) -> None:
    """Refuse a folder with files that no run wrote."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"Expected a folder to write, got {shown(str(folder))}, which is a file. Name another.")
    if not folder.exists() or (folder / RUN_FILE).is_file():
        return
    own = {LOCK_FILE, f".{RUN_FILE}.tmp", ENTITIES, BAD_ROWS, RECORDS}  # a run that was killed at once
    others = sorted(path.name for path in folder.iterdir() if path.name not in own)
    others += sorted(path.name for name in own for path in (folder / name).glob("*"))
    if others:
        raise ValueError(
            f"Expected an empty folder or one of such a run, got {shown(str(folder))}, which holds "
            f"{listed(others[:5])} and no {RUN_FILE}. Name another."
        )


def _lock(path: Path) -> FileLock:
    """Take a lock that the system releases when the process ends."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"Expected to be the only process that writes to {shown(str(path.parent))}, got another one. Wait "
            "for it, or name another output folder."
        ) from error
    return lock


__all__ = ["OUTPUT_FORMATS", "AnnotationParts", "write_atomically"]
