"""Parts of a bulk annotation: there whole or not at all, whatever stops the run."""

import errno
import json
import os
import resource
import shutil
import subprocess

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from bga_mner.processing.annotation.chunks import ENTITY_SCHEMA, AnnotatedChunk
from bga_mner.processing.annotation.parts import AnnotationParts, write_atomically


RUN = {"input": {"files": ["a"]}, "model": "0123", "dtype": "float32"}


def chunk(first, rows, bad=()):
    good = [row for row in range(first, first + rows) if row not in bad]
    entity = {"type": "PER", "text": "Kawhi", "start": 0, "end": 5, "score": 0.5}
    columns = {"row": good, "id": [f"s{row}" for row in good], "entities": [[entity]] * len(good)}
    faults = [{"row": row, "id": None, "reason": "empty text", "detail": "\udcff"} for row in bad]
    return AnnotatedChunk(first, rows, pa.table(columns, schema=ENTITY_SCHEMA), faults)


def open_parts(folder, output_format="parquet", rows_per_part=4, **changes):
    return AnnotationParts(folder, RUN | changes, output_format, rows_per_part)


@pytest.fixture
def finished(tmp_path):
    """Write parts of rows 0 to 3, 4 to 7 (5 is bad) and 8 to 9."""
    with open_parts(tmp_path / "out") as parts:
        parts.commit(0, [chunk(0, 3), chunk(3, 1)])
        parts.commit(2, [chunk(8, 2)])
        parts.commit(1, [chunk(4, 4, bad=[5])])
    return tmp_path / "out"


@pytest.mark.parametrize("output_format", ["parquet", "jsonl"])
def test_what_is_committed_is_there_and_known_again(tmp_path, output_format):
    with open_parts(tmp_path, output_format) as parts:
        parts.commit(0, [chunk(0, 4, bad=[1])])
        with pytest.raises(RuntimeError, match="got part 0 again"):
            parts.commit(0, [chunk(0, 4)])
    (path,) = (tmp_path / "entities").iterdir()
    if output_format == "parquet":
        table = pq.read_table(path)
        assert table.schema.equals(ENTITY_SCHEMA)
        rows = table.to_pylist()
    else:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["row"] for row in rows] == [0, 2, 3]
    assert rows[0] == chunk(0, 1).table.to_pylist()[0]
    (bad,) = (tmp_path / "bad_rows" / "part-00000000.jsonl").read_text().splitlines()
    assert json.loads(bad) == {"row": 1, "id": None, "reason": "empty text", "detail": "\udcff"}
    with open_parts(tmp_path, output_format) as parts:
        assert parts.done == {0: 4}
        assert (parts.leading_rows, parts.dropped) == (4, [])
        assert (parts.entities, parts.bad) == ({"PER": 3}, {"empty text": 1})


def test_a_folder_of_parts_is_what_parquet_readers_take(finished):
    (finished / "entities" / ".part-00000003.parquet.tmp").write_bytes(b"half")
    assert sorted(ds.dataset(finished / "entities", format="parquet").to_table()["row"].to_pylist()) == [
        *(0, 1, 2, 3, 4, 6, 7, 8, 9)
    ]


def test_the_end_finds_rows_that_are_missing(finished):
    with open_parts(finished) as parts:
        found = parts.finish(10)
        assert found == {
            **{"rows": 10, "annotated": 9, "bad_rows": 1},
            **{"bad_by_reason": {"empty text": 1}, "entities": {"PER": 9}},
        }
        for total in (9, 11, 13):
            with pytest.raises(RuntimeError, match=f"Expected {total} rows"):
                parts.finish(total)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("entities/part-00000001.parquet", cut, "is not what was written"),
        ("entities/part-00000001.parquet", flip, "is not what was written"),
        ("entities/part-00000001.parquet", os.unlink, "is missing"),
        ("bad_rows/part-00000001.jsonl", os.unlink, "is missing"),
        ("records/part-00000001.json", cut, "record is damaged"),
        ("records/part-00000001.json", lambda path: path.write_text("[]"), "record is damaged"),
        ("records/part-00000001.json", lambda path: shutil.copy(path.with_name("part-00000000.json"), path), "another"),
        ("records/part-00000001.json", os.unlink, "was not finished"),
    ],
)
def test_a_damaged_part_is_dropped_with_a_word(finished, name, damage, message):
    damage(finished / name)
    with open_parts(finished) as parts:
        assert parts.done == {0: 4, 2: 2}
        assert parts.leading_rows == 4
        assert any("part-00000001" in dropped and message in dropped for dropped in parts.dropped)
        assert not list(finished.rglob("*part-00000001*"))
        parts.commit(1, [chunk(4, 4, bad=[5])])
        assert parts.finish(10)["annotated"] == 9


def test_half_written_files_are_dropped(finished):
    left = [finished / "entities" / ".part-00000003.parquet.tmp", finished / "records" / ".part-00000003.json.tmp"]
    for path in left:
        path.write_bytes(b"half")
    (finished / "entities" / "notes.txt").write_text("mine")
    with open_parts(finished) as parts:
        assert len(parts.dropped) == 2
        assert len(parts.done) == 3
    assert not any(path.exists() for path in left)
    assert (finished / "entities" / "notes.txt").exists()


@pytest.mark.parametrize(
    "changes", [{"model": "4567"}, {"input": {"files": ["b"]}}, {"output_format": "jsonl"}, {"rows_per_part": 5}]
)
def test_another_run_is_refused(finished, changes):
    before = sorted(finished.rglob("*"))
    (name,) = changes
    with pytest.raises(ValueError, match=rf"was started with, got other settings: {name} was .* and is now"):
        open_parts(finished, **changes)
    assert sorted(finished.rglob("*")) == before


def test_what_no_run_wrote_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"holds 'thesis.tex' and no run.json"):
        open_parts(tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        open_parts(tmp_path / "thesis.tex")
    (tmp_path / "entities").mkdir()
    (tmp_path / "thesis.tex").rename(tmp_path / "entities" / "part-00000000.parquet")
    with pytest.raises(ValueError, match=r"holds 'part-00000000.parquet' and no run.json"):
        open_parts(tmp_path)


def test_a_run_killed_at_once_goes_on(tmp_path):
    for name in ("entities", "records"):
        (tmp_path / name).mkdir()
    (tmp_path / ".lock").write_text("")
    (tmp_path / ".run.json.tmp").write_text("{")
    with open_parts(tmp_path) as parts:
        assert parts.done == {}


def test_only_one_process_writes(finished):
    with open_parts(finished), pytest.raises(ValueError, match="got another one"):
        open_parts(finished)
    with open_parts(finished):
        pass


@pytest.mark.parametrize("trouble", ["another run", "run.json is damaged", "a file can't be dropped"])
def test_a_process_that_was_refused_may_try_again(finished, trouble):
    run, fault = finished / "run.json", finished / "entities" / "part-00000007.parquet"
    content, changes = run.read_bytes(), {}
    if trouble == "another run":
        changes = {"model": "4567"}
    elif trouble == "run.json is damaged":
        run.write_bytes(content[:-5])
    else:
        fault.mkdir()
    for _ in range(2):
        with pytest.raises((ValueError, OSError)) as error:
            open_parts(finished, **changes)
        assert "another one does" not in str(error.value)
    if fault.exists():
        fault.rmdir()
    run.write_bytes(content)
    with open_parts(finished) as parts:
        assert len(parts.done) == 3


def test_a_process_that_had_no_room_to_begin_may_try_again(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    for _ in range(2):
        with pytest.raises(OSError, match="Make room and run the same"):
            open_parts(tmp_path)
    monkeypatch.undo()
    with open_parts(tmp_path) as parts:
        assert parts.done == {}


def test_arguments_are_checked(tmp_path):
    with pytest.raises(ValueError, match="parquet, jsonl, got 'csv'"):
        open_parts(tmp_path, output_format="csv")
    with pytest.raises(ValueError, match="at least 1 row"):
        open_parts(tmp_path, rows_per_part=0)


@pytest.fixture(params=["file size limit", "small file system"])
def cramped(request, tmp_path):
    """Give a folder in which room ends, and how many bytes a file may have there."""
    if request.param == "file size limit":
        yield tmp_path, 1024  # records and run.json stay below it, a part of 2,000 rows doesn't
        return
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("may not mount a file system here")
    yield folder, resource.RLIM_INFINITY
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_says_so_and_nothing_is_lost(cramped):
    folder, limit = cramped
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(parts):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            for number in range(50):
                parts.commit(number, [chunk(2000 * number, 2000)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    message = r"disk is full or a limit is reached.*Make room and run the same"
    with open_parts(folder / "out", rows_per_part=2000) as parts, pytest.raises(OSError, match=message) as error:
        fill(parts)
    assert error.value.errno in (errno.ENOSPC, errno.EFBIG)
    with open_parts(folder / "out", rows_per_part=2000) as parts:
        assert f"{sum(parts.done.values()):,} rows are done and kept" in str(error.value)
        assert (len(parts.done) > 0) == (limit == resource.RLIM_INFINITY)
        assert not list(folder.rglob("*.tmp"))
        assert len(list((folder / "out" / "entities").iterdir())) == len(parts.done)
        if parts.done:
            assert ds.dataset(folder / "out" / "entities", format="parquet").count_rows() == sum(parts.done.values())


def test_other_errors_are_not_called_a_full_disk(finished):
    shutil.rmtree(finished / "entities")
    (finished / "entities").write_text("")
    with pytest.raises(OSError, match="exists") as error:
        open_parts(finished)
    assert error.value.errno == errno.EEXIST


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
