"""Results of trainings that several runs share."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest


def options(file, **others):
    return argparse.Namespace(results=file, seeds=[0], data_dir=Path("tweets"), **others)


def test_another_run_has_what_was_kept(benchmark, tmp_path):
    file = tmp_path / "new" / "results.jsonl"
    first = benchmark.KeptResults(options(file, epochs=2, quiet=True))
    assert (3, "images") not in first
    first.add(3, "images", {"f1": 0.25, "counts": [[1, 2]]})
    again = benchmark.KeptResults(options(file, epochs=2, quiet=False))
    assert again[3, "images"] == first[3, "images"] == {"f1": 0.25, "counts": [[1, 2]]}
    assert (3, "text_only") not in again
    assert (2, "images") not in again
    # what other options gave stays in the file, for them
    other = benchmark.KeptResults(options(file, epochs=3))
    assert (3, "images") not in other
    other.add(3, "images", None)
    assert benchmark.KeptResults(options(file, epochs=2))[3, "images"]["f1"] == 0.25


def test_a_report_is_measured_once(benchmark, tmp_path):
    file = tmp_path / "results.jsonl"
    benchmark.KeptResults(options(file, report=True)).add(0, "full", "scores and report")
    benchmark.KeptResults(options(file, report=False)).add(1, "full", "scores alone")
    assert benchmark.KeptResults(options(file, report=False)).found.keys() == {(0, "full"), (1, "full")}
    assert benchmark.KeptResults(options(file, report=True)).found.keys() == {(0, "full")}


def test_a_file_may_lack_the_end_of_its_last_line(benchmark, tmp_path):
    file = tmp_path / "results.jsonl"
    benchmark.KeptResults(options(file)).add(0, "full", [1])
    file.write_bytes(file.read_bytes()[:-1])
    results = benchmark.KeptResults(options(file))
    results.add(1, "full", [2])
    results.add(2, "full", [3])
    assert benchmark.KeptResults(options(file)).found == {(0, "full"): [1], (1, "full"): [2], (2, "full"): [3]}


def test_without_a_file_results_last_as_long_as_the_run(benchmark):
    results = benchmark.KeptResults(options(None))
    results.add(0, "full", [1])
    assert results[0, "full"] == [1]


@pytest.mark.parametrize("line", ["half a li", "3", '{"run": 0}', '{"run": 0, "variant": "images", "result": []}'])
def test_names_a_line_that_cannot_be_read(benchmark, tmp_path, line):
    file = tmp_path / "results.jsonl"
    benchmark.KeptResults(options(file)).add(1, "images", [])
    with file.open("a", encoding="utf-8") as lines:
        lines.write(line)
    with pytest.raises(ValueError, match=r"in line 2 of .*Delete the line, or name another file"):
        benchmark.KeptResults(options(file))
    with pytest.raises(ValueError, match="Expected a file to write as --results"):
        benchmark.KeptResults(options(tmp_path))
