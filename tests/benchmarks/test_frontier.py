"""The benchmark of quality and time, on sizes where only its machinery is tested."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from bga_mner import BgaMnerConfig


@pytest.fixture
def short(caption_folder, tmp_path):
    """Return the shortest command line."""
    argv = ["--data_dir", str(caption_folder), "--text_model", str(caption_folder / "bert"), "--image_size", "16"]
    argv += ["--vision_model", str(caption_folder / "vit"), "--names", "4", "--pairs_per_name", "3", "--epochs", "1"]
    argv += ["--presets", "2 layers;1 layer", "--repeats", "1", "--results", str(tmp_path / "new" / "results.jsonl")]
    return [*argv, "--cache_dir", str(tmp_path / "states"), "--threads", "1", "--quiet", "--json"]


def test_quality_and_time_are_measured_once_and_plotted(benchmark, short, capsys, monkeypatch, tmp_path):
    layers, timed = [], []

    class Watched(benchmark.captions.CaptionExperiment):
        def train(self, variant):
            layers.append((self.seed, self.options.config["num_bga_layers"]))
            return super().train(variant)

    def time_in_turn(functions, repeats):
        timed.append(sorted(functions))
        return real_time_in_turn(functions, repeats)

    real_time_in_turn = benchmark.time_in_turn
    monkeypatch.setattr(benchmark.captions, "CaptionExperiment", Watched)
    monkeypatch.setattr(benchmark, "time_in_turn", time_in_turn)
    first = benchmark.main([*short, "--seeds", "4"])
    assert {name: list(values) for name, values in first.items()} == {"2 layers": ["f1"], "1 layer": ["f1"]}
    found = benchmark.main([*short, "--seeds", "3,4", "--time"])
    assert layers == [(4, 2), (4, 1), (3, 2), (3, 1)]
    # a training step and tagging, of two presets
    assert timed == [["ours", "plain"]] * 4
    capsys.readouterr()
    picture = tmp_path / "figures" / "frontier.png"
    assert benchmark.main([*short, "--seeds", "3,4", "--time", "--plot", str(picture)]) == found
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1]) == {"frontier": found}
    for name, values in found.items():
        assert values["f1"][1:] == first[name]["f1"]
        assert min(values["training"], values["tagging"]) > 0
    assert (len(layers), len(timed)) == (4, 4)
    with Image.open(picture) as image:
        assert min(image.size) > 100


def test_every_preset_is_a_configuration_and_one_is_the_default(benchmark):
    for preset in benchmark.PRESETS.values():
        BgaMnerConfig(**preset)
    assert benchmark.PRESETS[benchmark.default_preset()] == {"num_bga_layers": 4}


def test_an_unknown_preset_is_refused(benchmark, short, capsys):
    with pytest.raises(SystemExit):
        benchmark.main([*short, "--presets", "3 layers"])
    assert "expected some of 6 layers" in capsys.readouterr().err
