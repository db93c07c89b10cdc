"""The command line of bulk annotation: formats, exit codes, refusals."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest


@pytest.fixture
def arguments(text_model_dir, tmp_path):
    texts = ["Kawhi wins", "Kawhi", None, "wins wins"]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text, "id": text}) + "\n" for text in texts))
    paths = {"model": text_model_dir.name, "input": "texts.jsonl", "output": "deep/out"}
    return [word for name, path in paths.items() for word in (f"--{name}", str(tmp_path / path))]


def test_annotates_and_goes_on(script, arguments, tmp_path, capsys):
    few = [*arguments, "--rows_per_part", "2", "--id_column", "id", "--max_bad_fraction", "0.25"]
    assert script.main(few) == script.ALL_FINE
    shown = capsys.readouterr()
    assert "4  rows\n" in shown.out
    assert "1  bad rows: missing text" in shown.out
    output = tmp_path / "deep" / "out"
    table = pq.read_table(output / "entities")
    assert table["row"].to_pylist() == [0, 1, 3]
    assert table["id"].to_pylist() == ["Kawhi wins", "Kawhi", "wins wins"]
    (output / "records" / "part-00000001.json").unlink()
    assert script.main([*few, "--batch_size", "1", "--buffer_rows", "1", "--threads", "1"]) == script.ALL_FINE
    shown = capsys.readouterr()
    assert "Goes on: 2 rows are done." in shown.err
    assert "entities/part-00000001.parquet is dropped: its part was not finished." in shown.err
    assert "2  rows in this run" in shown.out
    assert pq.read_table(output / "entities")["row"].to_pylist() == [0, 1, 3]
    assert json.loads((output / "summary.json").read_text())["rows"] == 4


def test_bad_rows_beyond_what_is_allowed(script, arguments, tmp_path, capsys):
    assert script.main([*arguments, "--output_format", "jsonl"]) == script.TOO_MANY_BAD
    assert "25.00% of the rows are bad" in capsys.readouterr().err
    (line,) = (tmp_path / "deep" / "out" / "bad_rows" / "part-00000000.jsonl").read_text().splitlines()
    assert json.loads(line)["row"] == 2
    (path,) = (tmp_path / "deep" / "out" / "entities").iterdir()
    assert [json.loads(line)["row"] for line in path.read_text().splitlines()] == [0, 1, 3]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--dtype", "bfloat16"], "dtype was 'float32' and is now 'bfloat16'"),
        (["--text_column", "id"], "input was"),
        (["--rows_per_part", "7"], "rows_per_part was 10000 and is now 7"),
        (["--input", "nowhere.jsonl"], "got 'nowhere.jsonl', which matches nothing"),
        (["--model", "/nowhere"], "can't be loaded"),
        (["--ray_address", "127.0.0.1:9", "--engine", "ray"], "Expected a Ray cluster at '127.0.0.1:9'"),
    ],
)
def test_what_does_not_fit_is_refused(script, arguments, capsys, more, message, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if "--engine" in more:
        pytest.importorskip("ray")
    assert script.main([*arguments, "--max_bad_fraction", "1"]) == script.ALL_FINE
    assert script.main([*arguments, *more]) == script.WRONG_INPUT
    assert message in capsys.readouterr().err


def test_an_output_that_cannot_be_written(script, arguments, tmp_path, capsys):
    (tmp_path / "deep").write_text("a file where a folder has to be")
    assert script.main(arguments) == script.NOT_WRITTEN
    assert "Not a directory" in capsys.readouterr().err
