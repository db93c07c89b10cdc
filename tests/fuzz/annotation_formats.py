"""Fuzzing target: any bytes as annotations of a tool, and any spans beside any text."""

from __future__ import annotations

import json
import tempfile
import warnings
from functools import cache
from pathlib import Path

import datasets
from byte_reader import ByteReader, refusals

from bga_mner import read_annotations, repair_bio, split_words, tags_from_spans, write_annotations
from bga_mner.processing.data.formats.reading import FORMATS
from bga_mner.processing.data.formats.writing import WRITTEN_FORMATS


ENDINGS = (".jsonl", ".json", ".txt")
MAX_LENGTH = 600


@cache
def _folder() -> Path:
    datasets.disable_progress_bars()
    return Path(tempfile.mkdtemp(prefix="fuzz_formats_"))


def one_input(data: bytes) -> None:
    """Read; words and tags have to fit together, and every row to be kept or counted. Spans are read alone, too."""
    reader = ByteReader(data)
    if reader.integer(0, 3) == 0:
        _one_text(reader)
        return
    file = _folder() / f"rows{reader.pick(ENDINGS)}"
    options = {"format": reader.pick((None, None, None, *FORMATS)), "offset_unit": reader.pick((None, None, "utf-16"))}
    file.write_bytes(reader.rest())
    with refusals():
        rows, report = read_annotations(file, check_images=False, return_report=True, show_progress=False, **options)
        assert report.sentences == len(rows) > 0
        for row in rows:
            assert len(row["tokens"]) == len(row["ner_tags"])
            assert all(word.strip() for word in row["tokens"])
            assert repair_bio(row["ner_tags"])[1] == 0
            assert row["id"].strip() == row["id"] != ""
        assert len(str(report)) < 20_000
        str(report).encode("utf-8")


def _one_text(reader: ByteReader) -> None:
    """Tag a text; what is written for any tool has to say the same when it is read."""
    text = reader.text(6)
    spans = [
        {"start": reader.integer(-1, 40), "end": reader.integer(-1, 40), "label": reader.pick(("PER", "X Y", "B-X"))}
        for _ in range(reader.integer(0, 4))
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        words, tags = tags_from_spans(text, spans, offset_unit=reader.pick(("characters", "utf-16")))
        assert words == [word for word, _, _ in split_words(text)]
        assert repair_bio(tags) == (tags, 0)
        expected = tags_from_spans(text, spans)[1]
    inside = [span for span in spans if 0 <= span["start"] < span["end"] <= len(text)]
    name = reader.pick(tuple(name for name in WRITTEN_FORMATS if name not in ("label-studio", "doccano", "gliner")))
    file = _folder() / "written.json"
    write_annotations(file, [text], [inside], name)
    rows = read_annotations(file, format=name, offset_unit="characters")
    # halves of surrogate pairs were replaced, which may part words otherwise
    assert rows[0]["ner_tags"] == expected or any("\ud800" <= character <= "\udfff" for character in text)


def seeds() -> list[bytes]:
    """Return rows of every format, whole and broken."""
    rows = [
        {"id": 1, "text": "Kawhi wins 😂 Seattle", "label": [[0, 5, "PER"], [14, 21, "LOC"]]},
        {"text": "a", "entities": [{"start_offset": 0, "end_offset": 1, "label": "X"}], "image": "../x.jpg"},
        {"text": "a b", "entities": [{"start": 0, "end": 1e400, "label": "X"}, {"start": 1, "end": 3, "label": "Y"}]},
        {"data": {"text": "Kawhi", "image": "/data/local-files/?d=a"}, "annotations": [{"was_cancelled": True}]},
        {"data": {"t": "Kawhi"}, "annotations": [{"result": [{"value": {"start": 0, "end": 5, "labels": ["P"]}}]}]},
        {"tweet": "Kawhi", "ner": [{"start": 0, "end": 5, "text": "Kawhi", "labels": ["P", "Q"]}], "id": " a\nb "},
        {"text": "Kawhi", "spans": [{"start": 0, "end": 5, "label": "P"}], "answer": "reject", "meta": {"id": 3}},
        ["Kawhi", {"entities": [[0, 5, "P"], ["0", "4", "Q"]]}],
        {"tokenized_text": ["Kawhi", "", "\t", "-DOCSTART-"], "ner": [[0, 0, "P"], [1, 9, "Q"]]},
        {"tokens": ["Kawhi", "wins"], "ner_tags": ["S-PER", "O"]},
        {"words": ["Kawhi"], "tags": [3], "image": ["a", "b"]},
        {"classes": ["P"], "annotations": [["Kawhi", {"entities": [[0, 5, "P"]]}], None]},
        {"text": "\ud83c alone", "entities": [[0, 1, "\ud83c"]], "id": "\ud83c"},
    ]
    lines = [json.dumps(row).encode() for row in rows]
    bodies = [*lines, b"\n".join(lines), b"[" + b",".join(lines) + b"]", b"a\tB-X\n", b"", b"{", b"[[[[", b"\xff\xfe{}"]
    files = [bytes([1, ending, form, 0]) + body for body in bodies for ending, form in ((0, 0), (1, 4), (2, 6))]
    return [*files, *(bytes([0, *range(start, start + 90)]) for start in range(0, 160, 20))]
