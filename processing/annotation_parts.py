"""The output of a bulk annotation: numbered parts, each of which is there whole, or not at all.

A part holds the rows ``[number * rows_per_part, (number + 1) * rows_per_part)`` of the input. It is done once its
record is there, which is written last; what else a killed run leaves behind is taken away when the next one starts.
"""

import errno
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..configuration.messages import brief, listed, shown
from .annotation_chunks import ENTITY_SCHEMA, AnnotatedChunk


OUTPUT_FORMATS = ("parquet", "jsonl")
RUN_FILE, LOCK_FILE, SUMMARY_FILE = "run.json", ".lock", "summary.json"
ENTITIES, BAD_ROWS, RECORDS = "entities", "bad_rows", "records"
_PART_NAME = re.compile(r"\.?part-(\d{8,})\.(?:parquet|jsonl|json)(?:\.tmp)?")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class AnnotationParts:
    """The folder that a bulk annotation writes.

    It holds ``entities/part-00000000.parquet`` (or ``.jsonl``) and so on, ``bad_rows/part-00000000.jsonl`` for parts
    that have bad rows, ``records/`` with what each part holds and the checksums of its files, and ``run.json``, which
    says what the run was started with. One process at a time writes to it.

    Parameters
    ----------
    folder : path
        The folder; made if it isn't there.
    run : mapping
        What the output depends on: input, model and settings, as JSON. A run only goes on with the same.
    output_format : {"parquet", "jsonl"}
        Format of the entities.
    rows_per_part : int
        Rows of a part.

    Attributes
    ----------
    done : dict of int to int
        Rows of each part that is there and was verified.
    dropped : list of str
        What was taken away because it was half-written or damaged, a sentence each.
    entities, bad : Counter
        Entities by type and bad rows by reason, of all parts that are done.

    Raises
    ------
    ValueError
        If the folder belongs to another run, holds something else, or another process is writing to it.
    """

    def __init__(self, folder: str | os.PathLike[str], run: Mapping[str, Any], output_format: str, rows_per_part: int):
        if output_format not in OUTPUT_FORMATS:
            raise ValueError(f"Expected an output format of {', '.join(OUTPUT_FORMATS)}, got {shown(output_format)}.")
        if rows_per_part < 1:
            raise ValueError(f"Expected at least 1 row a part, got {rows_per_part}.")
        self.folder = Path(folder)
        self.output_format = output_format
        self.rows_per_part = rows_per_part
        self.done: dict[int, int] = {}
        self.dropped: list[str] = []
        self.entities: Counter[str] = Counter()
        self.bad: Counter[str] = Counter()
        _check_folder(self.folder)
        try:
            for name in (ENTITIES, BAD_ROWS, RECORDS):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.folder / LOCK_FILE)
            try:
                self._start_or_go_on(dict(run) | {"output_format": output_format, "rows_per_part": rows_per_part})
                self._verify()
            except BaseException:
                self.close()  # nobody else gets hold of it, and this process may try again
                raise
        except OSError as error:
            raise self._explained(error) from error

    def close(self) -> None:
        """Let other processes write to the folder."""
        os.close(self._lock)

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
        """Write a part: its files first, its record last.

        Parameters
        ----------
        number : int
            Number of the part.
        chunks : sequence of AnnotatedChunk
            All its rows, in order and without a gap.

        Raises
        ------
        OSError
            If there is no room. What was written before is kept.
        RuntimeError
            If the part is done already.
        """
        if number in self.done:
            raise RuntimeError(f"Expected each part once, got part {number} again.")
        rows = sum(chunk.rows for chunk in chunks)
        table = pa.concat_tables([ENTITY_SCHEMA.empty_table(), *(chunk.table for chunk in chunks)])
        bad = [row for chunk in chunks for row in chunk.bad]
        entities, reasons = Counter[str](), Counter(row["reason"] for row in bad)
        for chunk in chunks:
            entities.update(chunk.entities)
        files = {f"{ENTITIES}/{_name(number, self.output_format)}": _encode(table, self.output_format)}
        if bad:
            files[f"{BAD_ROWS}/{_name(number, 'jsonl')}"] = _json_lines(bad)
        record = {
            "part": number,
            "first_row": number * self.rows_per_part,
            "rows": rows,
            "entities": dict(entities),
            "bad": dict(reasons),
            "files": {name: _facts(data) for name, data in files.items()},
        }
        files[f"{RECORDS}/{_name(number, 'json')}"] = json.dumps(record).encode()
        try:
            for name, data in files.items():
                write_atomically(self.folder / name, data)
        except OSError as error:
            raise self._explained(error) from error
        self._count(record)

    def finish(self, total: int) -> dict[str, Any]:
        """Check that every row of the input is in exactly one part; return what was found.

        Parameters
        ----------
        total : int
            Rows of the input.

        Returns
        -------
        dict
            "rows", "annotated", "bad_rows", "bad_by_reason" and "entities", by type.

        Raises
        ------
        RuntimeError
            If a row is missing.
        """
        expected = {
            number: min(self.rows_per_part, total - number * self.rows_per_part)
            for number in range(-(-total // self.rows_per_part))
        }
        if self.done != expected:
            odd = sorted(set(self.done.items()) ^ set(expected.items()))[:5]
            raise RuntimeError(f"Expected {total} rows in {len(expected)} whole parts, but these differ: {odd}.")
        bad = sum(self.bad.values())
        return {
            "rows": total,
            "annotated": total - bad,
            "bad_rows": bad,
            "bad_by_reason": dict(self.bad.most_common()),
            "entities": dict(sorted(self.entities.items())),
        }

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write ``summary.json``."""
        try:
            write_atomically(self.folder / SUMMARY_FILE, json.dumps(summary, indent=2).encode())
        except OSError as error:
            raise self._explained(error) from error

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
                f"Expected the run in {shown(str(self.folder))} to go on with what it was started with, but "
                f"{brief('; '.join(differences), 500)}. Give the same again, or name another output folder."
            )

    def _verify(self) -> None:
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

    def _explained(self, error: OSError) -> OSError:
        if error.errno not in _NO_ROOM:
            return error
        return OSError(
            error.errno,
            f"Expected room to write in {shown(str(self.folder))}, but the disk is full or a limit is reached "
            f"({os.strerror(error.errno or 0)}). {sum(self.done.values()):,} rows are done and kept. Make room and run "
            "the same again",
        )


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, whatever happens.

    Parameters
    ----------
    path : Path
        The file; one that is there is replaced.
    data : bytes
        What to write.

    Raises
    ------
    OSError
        If it can't be written; nothing is left of it then.
    """
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
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"Expected a folder to write, but {shown(str(folder))} is a file. Name another.")
    if not folder.exists() or (folder / RUN_FILE).is_file():
        return
    own = {LOCK_FILE, f".{RUN_FILE}.tmp", ENTITIES, BAD_ROWS, RECORDS}  # a run that was killed at once
    others = sorted(path.name for path in folder.iterdir() if path.name not in own)
    others += sorted(path.name for name in own for path in (folder / name).glob("*"))
    if others:
        raise ValueError(
            f"Expected a new or empty folder, or that of a run, but {shown(str(folder))} holds {listed(others[:5])} "
            f"and no {RUN_FILE}. Name another."
        )


def _lock(path: Path) -> int:
    """Open a file that only one process at a time can hold; the system lets it go when the process ends."""
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ValueError(
            f"Expected to be the only process that writes to {shown(str(path.parent))}, but another one does. Wait "
            "for it, or name another output folder."
        ) from error
    return descriptor


__all__ = ["OUTPUT_FORMATS", "AnnotationParts", "write_atomically"]
