"""What a bulk annotation reads: all formats give the same rows, and what is broken is a bad row with a reason."""

import bz2
import csv
import gzip
import json
import lzma
import os
import pickle
import re
import sys
import tracemalloc
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bga_mner.processing.annotation import input_files as annotation_files
from bga_mner.processing.annotation import json_documents as annotation_json
from bga_mner.processing.annotation.chunks import AnnotatedChunk, InputRow, TextChunk, make_chunks
from bga_mner.processing.annotation.input_files import find_files
from bga_mner.processing.annotation.input_rows import AnnotationInput


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


def as_array(texts, **options):
    rows = [{"key": f"s{number}", "text": text} for number, text in enumerate(texts)]
    return json.dumps(rows, **options)


def as_objects(texts, **options):
    return "\n".join(json.dumps(row, **options) for row in json.loads(as_array(texts)))


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.json.bz2", "a.json.xz"])
@pytest.mark.parametrize(
    ("make", "options"),
    [
        (as_array, {}),
        (as_array, {"indent": 2, "ensure_ascii": False}),
        (as_array, {"separators": (",", ":")}),
        (as_objects, {}),
        (as_objects, {"indent": 4}),
        (as_objects, {"indent": 0, "ensure_ascii": False}),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_documents_of_json_give_the_same_rows(tmp_path, monkeypatch, name, make, options, encoding):
    content = make(TEXTS, **options).encode(encoding)
    packed = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    (tmp_path / name).write_bytes(packed.get((tmp_path / name).suffix, bytes)(content))
    source = AnnotationInput((str(tmp_path / name),), id_column="key")
    for at_once in (1 << 16, 7, 1):
        monkeypatch.setattr(annotation_json, "_CHARACTERS_AT_ONCE", at_once)
        for skip in (0, 7, len(TEXTS)):
            assert list(source.rows(skip)) == ROWS[skip:]


def test_documents_and_lines_are_counted_together(tmp_path):
    (tmp_path / "a.json").write_text(as_array(TEXTS[:4], indent=1))
    (tmp_path / "b.json").write_text(as_objects(TEXTS[4:9]))
    (tmp_path / "c.json").write_text(" [ ] \n")
    (tmp_path / "d.json").write_text(as_array(TEXTS[9:]))
    source = AnnotationInput(find_files([str(tmp_path)]))
    for skip in range(len(TEXTS) + 1):
        assert [row.content for row in source.rows(skip)] == TEXTS[skip:]
    assert source.inspect()[1] is None


def test_items_that_cannot_be_used_are_bad_rows(tmp_path):
    items = [
        b'{"text": "good"}',
        b"1",
        b'"a"',
        b"null",
        b"[[1]]",
        b"{}",
        b'{"text": "caf\xe9"}',
        b'{"text": "\\ud83c"}',
        b"-2.5e3",
    ]
    reasons = ["", *["malformed line"] * 4, "missing text", "undecodable bytes", "lone surrogates", "malformed line"]
    (tmp_path / "a.json").write_bytes(b"[" + b" ,\n".join(items) + b"]")
    rows = list(AnnotationInput((str(tmp_path / "a.json"),)).rows())
    assert [row.reason for row in rows] == reasons
    assert "a number" in rows[1].detail
    assert "null" in rows[3].detail


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"text": "a"}, {"text": "b"}', "after 2 .*it ends there"),
        ('[{"text": "a"}, {"text": ', "after 1 .*Expecting value"),
        ('[{"text": "a"} {"text": "b"}]', "after 1 .*comma is missing before '{'"),
        ('[{"text": "a"}, {text: "b"}, ' + '{"text": "c"},' * 9, "after 1 .*Expecting property name"),
        ('[{"text": "a"}] {"text": "b"}', "after 1 .*'{' stands after the array's end"),
        ('[{"text": "a"},]', "after 1 .*Expecting value"),
        ("[" * 100_000, "after 0 .*recursion|after 0 .*it ends|after 0 .*more than"),
        ('{\n"text": "a"\n}\n{\n"text": "b"\n', "after 1 "),
        ("[", "after 0 .*"),
    ],
)
def test_a_document_that_breaks_stops_the_run(tmp_path, content, said):
    (tmp_path / "a.json").write_text(content)
    found = []
    with pytest.raises(
        ValueError, match=f"Expected an array of JSON objects in .*a.json', got one that .*{said}"
    ) as raised:
        found.extend(AnnotationInput((str(tmp_path / "a.json"),)).rows())
    assert len(str(raised.value)) < 1000


def test_an_item_that_would_fill_the_memory_stops_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(annotation_files, "MAX_LINE", 1 << 17)
    (tmp_path / "a.json.gz").write_bytes(
        gzip.compress(b'[{"text": "good"}, {"text": "' + b"a" * 30_000_000 + b'"}]', 1)
    )
    rows = AnnotationInput((str(tmp_path / "a.json.gz"),)).rows()
    assert next(rows).content == "good"
    tracemalloc.start()
    with pytest.raises(ValueError, match="an item has more than 131,072 characters"):
        next(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_long_array_is_read_in_little_memory(tmp_path):
    with gzip.open(tmp_path / "a.json.gz", "wt", compresslevel=1) as file:
        file.write("[" + ",".join(json.dumps({"text": f"{number} " + "a" * 300}) for number in range(50_000)) + "]")
    tracemalloc.start()
    count = sum(row.content is not None for row in AnnotationInput((str(tmp_path / "a.json.gz"),)).rows())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 50_000
    assert peak < 3 << 20


@pytest.mark.parametrize(
    ("name", "content", "detail"),
    [
        ("a.jsonl", '[{"text": "a"}]', "one object per line .*got an array. The items .* in .json"),
        ("a.jsonl", '{"text": "a"}, ', "Extra data"),
        ("a.jsonl", "{", "Expecting property name"),
        ("a.json", '{"text": "cut\n{"text": "good"}', "Unterminated|control character"),
        ("a.jsonl", '"text"', "got a string"),
        ("a.jsonl", "3", "got a number"),
        ("a.jsonl", '{"body": "a", "id": 1}', "no 'text' among 'body', 'id'"),
        ("a.jsonl", json.dumps(dict.fromkeys(map(str, range(9000)))), r"no 'text' among .*\(9000 in all\)"),
        ("a.jsonl", '{"text": null}', "^$"),
        ("a.jsonl", '{"text": true}', "a string, got true or false"),
        ("a.jsonl", '{"text": ["Kawhi"]}', "a string, got an array. A list of words is read as words_column"),
        ("a.jsonl", '{"text": {"0": "Kawhi"}}', "a string, got an object"),
        ("a.csv", 'text\n"a\nb\n', "unexpected end of data"),
        ("a.csv", 'text\n"a" b\n', "',' expected after '\"'"),
        ("a.tsv", 'text\tid\n"a" b\t1\n', "expected after"),
        ("a.csv", "text,id\na,b,c\n", "expected 2 fields, got 3"),
    ],
)
def test_a_bad_row_says_what_is_wrong_with_it(tmp_path, name, content, detail):
    (tmp_path / name).write_text(content + "\n")
    row = next(AnnotationInput((str(tmp_path / name),)).rows())
    assert row.content is None
    assert re.search(detail, row.detail), row.detail
    assert len(row.detail) < 300


@pytest.mark.parametrize(
    ("words", "detail"),
    [
        (["Kawhi", None], "word 1 is null"),
        ([None], "word 0 is null"),
        (["a", "b", 3], "word 2 is a number"),
        (["a", 1.5], "word 1 is a number"),
        ([True], "word 0 is true or false"),
        ([["a"], "b"], "word 0 is an array"),
        ([{"word": "a"}], "word 0 is an object"),
        ("Kawhi wins", "a list of words, got a string. A text is read as text_column"),
        (7, "a list of words, got a number"),
        ({"0": "a"}, "a list of words, got an object"),
    ],
)
def test_the_word_that_is_none_is_named(tmp_path, words, detail):
    (tmp_path / "a.jsonl").write_text(json.dumps({"words": words}) + "\n")
    (row,) = AnnotationInput((str(tmp_path / "a.jsonl"),), words_column="words").rows()
    assert (row.content, row.reason) == (None, "wrong type")
    assert row.detail.endswith(detail)


@pytest.mark.parametrize(
    ("column", "detail"),
    [
        (pa.array([["a", None]]), "a list of words, but word 1 is null"),
        (pa.array([[1, 2]]), "a list of words, but word 0 is a number"),
        (pa.array([[["a"]]]), "a list of words, but word 0 is an array"),
        (pa.array([[b"a"]]), "a list of words, but word 0 is bytes"),
        (pa.array(["Kawhi"]), "a list of words, got a string. A text is read as text_column"),
        (pa.array([{"a": 1}]), "a list of words, got an object"),
        (pa.array([1.5]), "a list of words, got a number"),
    ],
)
def test_columns_of_other_types_say_what_they_hold(tmp_path, column, detail):
    pq.write_table(pa.table({"words": column}), tmp_path / "a.parquet")
    (row,) = AnnotationInput((str(tmp_path / "a.parquet"),), words_column="words").rows()
    assert (row.content, row.reason, row.detail) == (None, "wrong type", f"expected {detail}")


def test_lines_after_a_quote_that_is_not_closed_are_no_text(tmp_path):
    (tmp_path / "a.csv").write_text('text\nfirst\n"never closed\nsecond\nthird "quoted" \nfourth\n')
    rows = list(AnnotationInput((str(tmp_path / "a.csv"),)).rows())
    assert [row.content for row in rows] == ["first", None, "fourth"]
    assert rows[1].reason == "malformed line"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv.gz"])
def test_other_encodings_are_refused_at_once(tmp_path, name, encoding):
    content = (as_objects(TEXTS) if "json" in name else "text\nKawhi\n").encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    source = AnnotationInput((str(tmp_path / name),))
    for read in (source.inspect, lambda: next(source.rows())):
        with pytest.raises(ValueError, match=r"Expected UTF-8 in .*Convert it"):
            read()


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
    with pytest.raises(ValueError, match=r"'content' in .* got 'other', 'text', 'key'"):
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
    monkeypatch.setattr(annotation_files, "MAX_LINE", 1 << 17)
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
    # after a record of many lines it isn't known where the next one begins
    assert found.pop(("good", "")) == (2 if b"\n" not in content else 1)
    assert set(found) == {(None, "malformed line")}
    assert sum(1 for _ in source.rows(2)) == sum(found.values()) + (b"\n" in content) * -1
    assert peak < 2 << 20


def test_a_header_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'"' + b"x" * 200_000 + b'",7\n')
    with pytest.raises(ValueError, match=r"Expected a header in .*field larger"):
        list(AnnotationInput((str(tmp_path / "a.csv"),)).rows())


@pytest.mark.parametrize("limit", [None, 5000])
def test_ids_of_any_depth_are_read_or_bad(tmp_path, limit):
    file = tmp_path / "a.jsonl"
    depths = [*range(1, 1100), 100_000]
    file.write_bytes(b"".join(b'{"text": "a", "id": %s1%s}\n' % (b"[" * n, b"]" * n) for n in depths))
    before = sys.getrecursionlimit()
    try:
        # other packages change it, and a run that goes on has to find the same rows
        sys.setrecursionlimit(limit or before)
        rows = list(AnnotationInput((str(file),), id_column="id").rows())
    finally:
        sys.setrecursionlimit(before)
    assert [row.reason for row in rows] == [""] * 100 + ["malformed line"] * (len(depths) - 100)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_missing_column_is_named(tmp_path, ending):
    write(tmp_path / f"a.{ending}")
    for columns in ({"text_column": "content"}, {"id_column": "content"}):
        with pytest.raises(ValueError, match=r"the column 'content' in .*, got 'other', 'text', 'key'"):
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
        with pytest.raises(ValueError, match="which matches nothing"):
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
    numbers = [chunk.first_row + index for chunk in chunks for index in range(len(chunk.rows))]
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
    assert pickle.loads(pickle.dumps(chunk)) == chunk
    table = pa.table({"row": [40], "id": ["s1"], "entities": [[]]})
    annotated = AnnotatedChunk(40, 2, table, [{"row": 41, "detail": "\udcff"}], True)
    assert pickle.loads(pickle.dumps(annotated)) == annotated
