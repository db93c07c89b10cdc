"""The benchmark of quality and time, on sizes where only its machinery is tested."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from bga_mner import BgaMnerConfig


@pytest.mark.slow
def test_quality_is_measured_with_the_presets_options(benchmark, monkeypatch, tmp_path):
    given, train = [], benchmark.alignment.main
    monkeypatch.setattr(benchmark.alignment, "main", lambda arguments: given.append(arguments) or train(arguments))
    found = benchmark.main(
        ["--results", str(tmp_path / "results"), "--presets", "4 layers, fewer queries", "--seeds", "3,4", "--quick"]
    )
    assert found.keys() == {"4 layers, fewer queries"}
    assert len(found["4 layers, fewer queries"]["f1"]) == 2
    assert [arguments[arguments.index("--seeds") + 1] for arguments in given] == ["3", "4"]
    assert json.loads(given[1][given[1].index("--config") + 1]) == {
        **benchmark._PER_PATCH,
        "num_bga_layers": 4,
        "image_size": 32,
    }


def test_times_are_added_to_what_was_measured_before_and_plotted(benchmark, capsys, tmp_path):
    results, plot = tmp_path / "new" / "results", tmp_path / "plot.png"
    arguments = ["--results", str(results), "--presets", "1 layer;4 layers, fewer queries"]
    first = benchmark.main([*arguments, "--time", "--size", "tiny", "--repeats", "1"])
    assert first["1 layer"].keys() == {"f1", "inference", "training"}
    with results.open("a") as file:
        file.writelines(json.dumps({"preset": "1 layer", "seed": seed, "f1": 0.25}) + "\n" for seed in (0, 1))
    capsys.readouterr()
    found = benchmark.main([*arguments, "--plot", str(plot), "--json"])
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1]) == {"frontier": found}
    assert found["1 layer"] == first["1 layer"] | {"f1": [0.25, 0.25]}
    with Image.open(plot) as image:
        assert min(image.size) > 100


def test_every_preset_is_a_configuration_and_one_is_the_default(benchmark):
    for preset in benchmark.PRESETS.values():
        BgaMnerConfig(**benchmark._sized(preset, 224))
    assert benchmark.default_preset() in benchmark.PRESETS


def test_an_unknown_preset_is_refused(benchmark, capsys, tmp_path):
    with pytest.raises(SystemExit):
        benchmark.main(["--results", str(tmp_path / "results"), "--presets", "3 layers"])
    assert "expected some of 12 layers" in capsys.readouterr().err
