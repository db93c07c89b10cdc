"""The benchmark of growth, on sizes where only its machinery is tested."""

from __future__ import annotations

import json

import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def _few_sizes(benchmark, monkeypatch):
    monkeypatch.setattr(benchmark, "GROWTH", {"length": [4, 8, 16], "tags": [3, 9], "aligned layers": [1, 3]})


@pytest.mark.parametrize("what", ["inference", "training"])
def test_measures_prints_and_plots(benchmark, capsys, tmp_path, what):
    path = tmp_path / "new" / "plot.png"
    found = benchmark.main(["--size", "tiny", "--repeats", "1", "--what", what, "--plot", str(path), "--json"])
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1]) == {"scaling": found}
    assert found.keys() == {"length", "tags", "aligned layers"}
    assert len(found["length"]["ours"]["seconds"]["values"]) == 3
    with Image.open(path) as image:
        assert min(image.size) > 100


def test_exponents_of_powers(benchmark):
    found = benchmark.exponents([1, 2, 4, 8], [5, 5, 20, 80])
    assert found["upper"] == pytest.approx(2)
    assert 1 < found["exponent"] < 2


def test_memory_is_that_of_the_call_alone(benchmark):
    kept = bytearray(50_000_000)
    # more than malloc ever takes from memory that was freed before (32 MiB on Linux)
    assert 79_000_000 < benchmark.measure_bytes(lambda: bytearray(80_000_000)) < 100_000_000
    assert benchmark.measure_bytes(lambda: None) < 5_000_000
    assert len(kept)


def test_models_have_the_tags_and_layers_asked_for(benchmark):
    model, inputs = benchmark.make(
        "ours", {"length": 7, "batch": 2, "tags": 5, "aligned layers": 2}, "tiny", "training"
    )
    assert list(model.config.id2label.values()) == ["O", "B-1", "I-1", "B-2", "I-2"]
    assert model.config.num_bga_layers == 2
    assert inputs["input_ids"].shape == (2, 7)


def test_an_unknown_axis_is_refused(benchmark, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--axes", "width"])
    assert "expected some of length" in capsys.readouterr().err
