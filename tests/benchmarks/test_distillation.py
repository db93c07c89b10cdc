"""The measurement of students runs at tiny sizes, on generated and on real text, and ends in one line of JSON."""

from __future__ import annotations

import json

import pytest


TINY = "--pairs 24 --test_sentences 4 --drawings 80 --vision_steps 1 --steps 2 --names_per_type 4 --student_epochs 1"
RUN = ["--student_epochs", "1", "--json"]


def test_generated_texts(benchmark, capsys):
    found = benchmark.main([*TINY.split(), "--json", "--quiet"])
    assert list(found) == ["student", "half", "subwords", "of_text_only"]
    line = json.loads(capsys.readouterr().out.splitlines()[-1])["distillation"]
    assert set(line) == {*found, "teacher", "agreement"}
    assert set(line["student"]) == set(line["teacher"]) == {"f1", "labelled_f1"}
    columns = {"teacher_f1", "teacher_labelled_f1", "f1", "labelled_f1", "f1_by_words", "agreement"}
    assert set(line["half"]) == columns
    assert all(len(values) == 1 for values in line["half"].values())
    assert len(line["agreement"]) == 1


def test_real_texts(benchmark, text_folder, tmp_path, capsys):
    (tmp_path / "more.txt").write_text("Kawhi wins\n", encoding="utf-8")
    options = ["--data_dir", str(text_folder), "--text_model", str(text_folder / "bert"), "--text_file"]
    found = benchmark.main([*options, str(tmp_path / "more.txt"), "--epochs", "1", "--max_length", "64", *RUN])
    assert list(found) == ["student", "half", "more_texts"]
    line = json.loads(capsys.readouterr().out.splitlines()[-1])["distillation"]
    assert set(line["teacher"]) == {"f1"}


def test_students_that_there_are_not_are_named(benchmark, text_folder, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--data_dir", str(text_folder), "--students", "student,subwords"])
    assert "--students subwords: possible here are student, half" in capsys.readouterr().err
