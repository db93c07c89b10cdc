"""The benchmark of calibration, on sizes where only its machinery is tested; and its measure, against an oracle."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from PIL import Image


def test_error_by_hand(benchmark):
    # (0, 0.5]: 0.2 and 0.4, one of two right: |0.3 - 0.5|; above: 0.9 and 1.0, both right: |0.95 - 1|
    error, rows = benchmark.expected_calibration_error([0.2, 0.9, 0.4, 1.0], [False, True, True, True], bins=2)
    assert error == pytest.approx((2 * 0.2 + 2 * 0.05) / 4)
    assert [row["count"] for row in rows] == [2, 2]
    assert rows[1] == {"count": 2, "confidence": pytest.approx(0.95), "accuracy": 1.0}
    # always sure, never right; and nothing at all
    assert benchmark.expected_calibration_error([1.0] * 5, [False] * 5)[0] == 1
    assert math.isnan(benchmark.expected_calibration_error([], [])[0])


def test_error_against_an_oracle(benchmark):
    random = np.random.default_rng(0)
    sure = random.random(20_000)
    # right as often as said: what is left is chance, of order sqrt(p (1 - p) / n) in each bin
    assert benchmark.expected_calibration_error(sure, random.random(20_000) < sure)[0] < 0.02
    # right with the square of what is said: the distance p - p^2, on average 1/2 - 1/3
    error, _ = benchmark.expected_calibration_error(sure, random.random(20_000) < sure**2)
    assert error == pytest.approx(1 / 6, abs=0.01)
    # the same sum, one answer at a time
    correct = random.random(300) < 0.6
    bins = [[n for n in range(300) if low / 7 <= sure[n] < (low + 1) / 7] for low in range(7)]
    expected = sum(abs(sum(sure[n] - correct[n] for n in inside)) for inside in bins) / 300
    assert benchmark.expected_calibration_error(sure[:300], correct, bins=7)[0] == pytest.approx(expected)


def test_measures_prints_and_plots(benchmark, text_folder, capsys, tmp_path):
    argv = ["--steps", "5", "--vision_steps", "2", "--images", "16", "--pairs", "24", "--test_sentences", "8"]
    argv += ["--data_dir", str(text_folder), "--text_model", str(text_folder / "bert"), "--epochs", "1"]
    argv += ["--max_length", "64", "--plot", str(tmp_path / "new" / "plot.png"), "--json"]
    found = benchmark.main(argv)
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1].replace("NaN", "null"))["calibration"]
    assert list(found) == ["generated, labelled names", "generated, never-labelled names", "real text"]
    for models in found.values():
        for kinds in models.values():
            # every word has a tag
            assert kinds["tag"]["count"] == models["plain"]["tag"]["count"] > 0
            for value in kinds.values():
                assert 0 <= value["ece"] <= 1
                assert value["count"] == sum(row["count"] for row in value["bins"])
                assert value["wrong"] == pytest.approx(value["count"] * (1 - value["accuracy"]))
        assert "span" not in models["plain"]
    scores = found["real text"]["bga-mner"]
    assert scores["span"]["count"] == scores["mean"]["count"] > 0
    # exactly these words is no more probable than that their tags are as they are, on average
    assert scores["span"]["confidence"] <= scores["mean"]["confidence"] + 1e-9
    with Image.open(tmp_path / "new" / "plot.png") as image:
        assert min(image.size) > 300
