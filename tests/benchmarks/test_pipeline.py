"""The pipeline benchmark, shortened to where only its machinery is tested."""

from __future__ import annotations

import json

import pytest


def test_prints_the_ratio_last(benchmark, capsys):
    found = benchmark.main(["--sentences", "12", "--batch_size", "5", "--repeats", "3", "--json"])
    lines = capsys.readouterr().out.strip().splitlines()
    assert json.loads(lines[-1]) == {"pipeline": found}
    assert sorted(found["ratios"])[1] == found["ratio"] > 0
    assert len(found["one_by_one_seconds"]) == len(found["batched_seconds"]) == 3
    assert 0 <= found["score_difference"] <= benchmark.TOLERANCE
    assert (found["layers"], found["width"], found["sentences"], found["batch_size"]) == (2, 128, 12, 5)
    assert found["parameters"] > 1_000_000
    assert "2 layers of width 128" in "\n".join(lines)


def test_sentences_hold_entities_and_are_of_mixed_length(benchmark):
    sentences, words = benchmark.make_sentences(200, 0)
    lengths = {len(sentence.split()) for sentence in sentences}
    assert min(lengths) == benchmark.SHORTEST
    assert max(lengths) == benchmark.LONGEST
    assert benchmark.make_sentences(200, 0)[0] == sentences != benchmark.make_sentences(200, 1)[0]
    found = benchmark.build_pipeline("tiny", words)(sentences[:4])
    assert all(found)


def test_outputs_that_differ_are_refused(benchmark):
    entity = {"entity_group": "PER", "score": 0.5, "word": "a", "start": 0, "end": 1}
    assert benchmark.check_same([[entity], []], [[{**entity, "score": 0.50005}], []]) == pytest.approx(5e-5)
    for other in ({**entity, "entity_group": "LOC"}, {**entity, "end": 2}, {**entity, "score": 0.6}):
        with pytest.raises(RuntimeError, match="Expected"):
            benchmark.check_same([[entity]], [[other]])
    with pytest.raises(RuntimeError, match="same entities"):
        benchmark.check_same([[entity]], [[]])
