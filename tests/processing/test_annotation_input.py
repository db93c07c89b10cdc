"""What a bulk annotation reads: all formats give the same rows, and what is broken is a bad row with a reason."""

import bz2
import csv
import gzip
import json
import lzma
import os
import tracemalloc
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bga_mner.processing import annotation_input
from bga_mner.processing.annotation_chunks import AnnotatedChunk, InputRow, TextChunk, make_chunks
from bga_mner.processing.annotation_input import AnnotationInput, find_files


TEXTS = ["Kawhi wins", "In Zürich … \x85 “yes”", 'She said "no", twice', "日本 🏀", "a\tb"] * 3
ROWS = [InputRow(f"s{number}", text) for number, text in enumerate(TEXTS)]


def write(path, texts=TEXTS):
    names = [f"s{number}" for number in range(len(texts))]
    if ".parquet" in path.name:
        pq.write_table(pa.table({"other": names, "text": texts, "key": names}), path, row_group_size=4)
        return
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        if ".jsonl" in path.name:
            for name, text in zip(names, texts, strict=True):
                file.write(json.dumps({"key": name, "text": text}, ensure_ascii=False) + "\n")
        else:
            writer = csv.writer(file, delimiter="\t" if "tsv" in path.name else ",")
            writer.writerow(["other", "text", "key"])
            writer.writerows(zip(names, texts, names, strict=True))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.csv.gz", "a.tsv", "a.parquet"])
@pytest.mark.parametrize("skip", [0, 7, len(TEXTS)])
def test_all_formats_give_the_same_rows(tmp_path, name, skip):
    write(tmp_path / name)
    source = AnnotationInput((str(tmp_path / name),), id_column="key")
    assert list(source.rows(skip)) == ROWS[skip:]
    facts, total = source.inspect()
    assert total == (None if name.endswith(".gz") else len(TEXTS))
    assert facts["columns"] == ["text", "key"]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_several_files_are_read_in_order(tmp_path, ending):
    write(tmp_path / f"b.{ending}", TEXTS[5:])
    write(tmp_path / f"a.{ending}", TEXTS[:5])
    (tmp_path / f"_c.{ending}").write_text("ignored")
    (tmp_path / "notes.txt").write_text("ignored")
    for patterns in (
        [str(tmp_path)],
        [str(tmp_path / f"[ab].{ending}")],
        [str(tmp_path / f"b.{ending}"), str(tmp_path)],
    ):
        source = AnnotationInput(find_files(patterns))
        assert [row.content for row in source.rows()] == TEXTS
        assert [row.content for row in source.rows(6)] == TEXTS[6:]
    assert source.inspect()[1] == len(TEXTS)


def test_a_dataset_by_name(tmp_path):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train.parquet")
    source = AnnotationInput(dataset_name=str(tmp_path / "data"), split="train", id_column="key")
    assert list(source.rows()) == ROWS
    assert list(source.rows(4)) == ROWS[4:]
    facts, _ = source.inspect()
    assert facts["split"] == "train"
    json.dumps(facts)
    with pytest.raises(ValueError, match="Expected a split"):
        AnnotationInput(dataset_name="some/thing")
    with pytest.raises(ValueError, match=r"'content' in .* which has 'other', 'text', 'key'"):
        list(AnnotationInput(dataset_name=str(tmp_path / "data"), split="train", text_column="content").rows())
    with pytest.raises(ValueError, match="Expected input that can be read"):
        list(AnnotationInput(dataset_name=str(tmp_path / "data"), split="test").rows())


def test_words_that_are_split_already(tmp_path):
    rows = [["Kawhi", "wins"], ["日本"], None, [], ["a", None], "text"]
    path = tmp_path / "words.jsonl"
    path.write_text("".join(json.dumps({"tokens": words}) + "\n" for words in rows))
    found = list(AnnotationInput((str(path),), words_column="tokens").rows())
    assert [row.content for row in found] == [["Kawhi", "wins"], ["日本"], None, None, None, None]
    assert [row.reason for row in found[2:]] == ["missing text", "empty text", "wrong type", "wrong type"]
    pq.write_table(pa.table({"tokens": rows[:4]}), tmp_path / "words.parquet")
    assert list(AnnotationInput((str(tmp_path / "words.parquet"),), words_column="tokens").rows()) == found[:4]
    (tmp_path / "words.csv").write_text("tokens\na b\n")
    with pytest.raises(ValueError, match="CSV has no lists"):
        list(AnnotationInput((str(tmp_path / "words.csv"),), words_column="tokens").rows())


def test_bad_lines_of_jsonl(tmp_path):
    lines = {
        b'{"text": "good", "id": 7}': ("7", "good", ""),
        b'\xef\xbb\xbf{"text": "a mark in front", "id": "x"}': ("x", "a mark in front", ""),
        b'{"text": "cut off': (None, None, "malformed line"),
        b"": (None, None, "malformed line"),
        b"[1]": (None, None, "malformed line"),
        b"[" * 100_000: (None, None, "malformed line"),
        b'{"text": "caf\xe9"}': (None, None, "undecodable bytes"),
        b'{"id": 5}': ("5", None, "missing text"),
        b'{"text": null, "id": "\\ud800"}': ("\\ud800", None, "missing text"),
        b'{"text": 5}': (None, None, "wrong type"),
        b'{"text": ["a"]}': (None, None, "wrong type"),
        b'{"text": ""}': (None, None, "empty text"),
        b'{"text": " \\u00a0\\n"}': (None, None, "empty text"),
        b'{"text": "\\ud83c alone"}': (None, None, "lone surrogates"),
        b'{"text": "\\ud83c\\udfc0 together"}': (None, "🏀 together", ""),
    }
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"\n".join(lines))
    source = AnnotationInput((str(path),), id_column="id")
    found = list(source.rows())
    assert [(row.id, row.content, row.reason) for row in found] == list(lines.values())
    assert source.inspect()[1] == len(lines)


def test_bad_rows_of_csv(tmp_path):
    path = tmp_path / "bad.csv"
    rows = [
        b"good,1",
        b'"two\nlines",2',
        b"caf\xe9,3",
        b",4",
        b"too,many,5",
        b"",
        b'"' + b"x" * 200_000 + b'",7',
        b"last,8",
    ]
    path.write_bytes(b"\xef\xbb\xbftext,id\n" + b"\n".join(rows) + b"\n")
    found = list(AnnotationInput((str(path),), id_column="id").rows())
    assert [(row.id, row.content, row.reason) for row in found] == [
        ("1", "good", ""),
        ("2", "two\nlines", ""),
        ("3", None, "undecodable bytes"),
        ("4", None, "empty text"),
        (None, None, "malformed line"),
        (None, None, "malformed line"),
        (None, None, "malformed line"),
        ("8", "last", ""),
    ]
    assert list(AnnotationInput((str(path),), id_column="id").rows(3)) == found[3:]


def test_bad_rows_of_parquet(tmp_path):
    bad = pa.Array.from_buffers(pa.string(), 3, pa.array([b"good", b"caf\xe9", None], pa.binary()).buffers())
    pq.write_table(pa.table({"text": bad}), tmp_path / "string.parquet")
    pq.write_table(pa.table({"text": pa.array([b"good", b"caf\xe9", None])}), tmp_path / "binary.parquet")
    pq.write_table(pa.table({"text": [1, 2, None]}), tmp_path / "number.parquet")
    for name, reasons in (
        ("string", ["", "undecodable bytes", "missing text"]),
        ("binary", ["", "undecodable bytes", "missing text"]),
        ("number", ["wrong type", "wrong type", "missing text"]),
    ):
        found = list(AnnotationInput((str(tmp_path / f"{name}.parquet"),)).rows())
        assert [row.reason for row in found] == reasons


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet"])
def test_a_file_that_ends_too_early_stops_the_run(tmp_path, name):
    write(tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-20])
    with pytest.raises(ValueError, match="Expected input that can be read, but"):
        list(AnnotationInput((str(tmp_path / name),)).rows())


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz"])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_what_is_not_compressed_as_its_name_says_stops_the_run(tmp_path, kind, ending):
    packed = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[ending](b"text\n" + os.urandom(5000))
    file = tmp_path / f"a.{kind}.{ending}"
    for content in (b"text\nplain\n", packed[:40] + b"\xff" * 40 + packed[80:], packed[: len(packed) // 2]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="Expected input that can be read, but"):
            list(AnnotationInput((str(file),)).rows())


@pytest.mark.parametrize("content", [b'{"text": "%s"}', b'"%s",x', b'"",' * 10, b'"\n",' * 5])
def test_a_line_that_would_fill_the_memory_is_a_bad_row(tmp_path, content, monkeypatch):
    monkeypatch.setattr(annotation_input, "MAX_LINE", 1 << 17)
    long = content.replace(b"%s", b"a") * 30_000 if b"%s" not in content else content % (b"a" * 3_000_000)
    is_json = content.startswith(b"{")
    good = b'{"text": "good"}\n' if is_json else b"good,1\n"
    file = tmp_path / ("a.jsonl.gz" if is_json else "a.csv.gz")
    file.write_bytes(gzip.compress((b"" if is_json else b"text,other\n") + good + long + b"\n" + good, 1))
    source = AnnotationInput((str(file),))
    before = tracemalloc.start() or tracemalloc.get_traced_memory()[0]
    found = Counter((row.content, row.reason) for row in source.rows())
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    # behind a record of many lines it isn't known where the next one begins
    assert found.pop(("good", "")) == (2 if b"\n" not in content else 1)
    assert set(found) == {(None, "malformed line")}
    assert sum(1 for _ in source.rows(2)) == sum(found.values()) + (b"\n" in content) * -1
    assert peak < 2 << 20


def test_a_header_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'"' + b"x" * 200_000 + b'",7\n')
    with pytest.raises(ValueError, match=r"Expected a header in .*field larger"):
        list(AnnotationInput((str(tmp_path / "a.csv"),)).rows())


def test_ids_of_any_depth_are_read_or_bad(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"".join(b'{"text": "a", "id": %s1%s}\n' % (b"[" * n, b"]" * n) for n in range(1, 1100)))
    rows = list(AnnotationInput((str(file),), id_column="id").rows())
    assert len(rows) == 1099
    assert {row.reason for row in rows} == {"", "malformed line"}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_missing_column_is_named(tmp_path, ending):
    write(tmp_path / f"a.{ending}")
    for columns in ({"text_column": "content"}, {"id_column": "content"}):
        with pytest.raises(ValueError, match=r"the column 'content' in .*, which has 'other', 'text', 'key'"):
            list(AnnotationInput((str(tmp_path / f"a.{ending}"),), **columns).rows())


def test_what_to_read_has_to_be_clear(tmp_path):
    write(tmp_path / "a.jsonl")
    write(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="got neither"):
        AnnotationInput()
    with pytest.raises(ValueError, match="got both"):
        AnnotationInput(("a.jsonl",), dataset_name="b", split="train")
    with pytest.raises(ValueError, match="files of one format"):
        AnnotationInput(find_files([str(tmp_path)]))
    for name in ("a.parquet.gz", "a.jsonl.zip", "a.txt"):
        with pytest.raises(ValueError, match="files of one format"):
            AnnotationInput((name,))
    for nothing in ("nowhere.jsonl", "*.jsonlines"):
        with pytest.raises(ValueError, match="nothing is found for"):
            find_files([str(tmp_path / nothing)])


def test_another_input_has_other_facts(tmp_path):
    path = tmp_path / "a.jsonl"
    write(path)
    facts, _ = AnnotationInput((str(path),)).inspect()
    assert AnnotationInput((str(path),)).inspect()[0] == facts
    assert AnnotationInput((str(path),), text_column="key").inspect()[0] != facts
    path.write_text(path.read_text().replace("Kawhi", "Kawha", 1))
    assert AnnotationInput((str(path),)).inspect()[0] != facts


@pytest.mark.parametrize(("done", "buffer_rows"), [({}, 3), ({0: 5, 2: 5}, 4), ({1: 5}, 100), ({3: 2}, 1)])
def test_chunks_hold_each_row_once(done, buffer_rows):
    rows = [InputRow(None, str(number)) for number in range(17)]
    chunks = list(make_chunks(rows, 0, 5, done, buffer_rows))
    numbers = [chunk.first_row + place for chunk in chunks for place in range(len(chunk.rows))]
    assert numbers == [number for number in range(17) if number // 5 not in done]
    assert [int(row.content) for chunk in chunks for row in chunk.rows] == numbers
    assert all(len(chunk.rows) <= buffer_rows for chunk in chunks)
    assert all(chunk.first_row // 5 == (chunk.first_row + len(chunk.rows) - 1) // 5 for chunk in chunks if chunk.rows)
    assert [chunk.ends_input for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].first_row + len(chunks[-1].rows) == 17


def test_long_texts_make_short_chunks():
    rows = [InputRow(None, "x" * 60)] * 4 + [InputRow(None, ["x" * 200])] + [InputRow(None, None, "missing text")] * 3
    chunks = list(make_chunks(rows, 10, 100, {}, 100, buffer_characters=100))
    assert [len(chunk.rows) for chunk in chunks] == [2, 2, 1, 3]
    assert chunks[0].first_row == 10


def test_chunks_travel_as_bytes():
    rows = [InputRow("s1", "日本"), InputRow(None, ["a", "b"]), InputRow("s3", None, "empty text", "\udcff")]
    chunk = TextChunk(40, rows, ends_input=True)
    assert TextChunk.from_bytes(chunk.to_bytes()) == chunk
    table = pa.table({"row": [40], "id": ["s1"], "entities": [[]]})
    annotated = AnnotatedChunk(40, 2, table, [{"row": 41, "detail": "\udcff"}], {"PER": 2}, True)
    assert AnnotatedChunk.from_bytes(annotated.to_bytes()) == annotated
