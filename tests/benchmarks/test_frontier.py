"""The benchmark of quality and time, on sizes where only its machinery is tested."""

from __future__ import annotations

import json

import pytest
from PIL import Image


@pytest.fixture
def short(caption_folder, tmp_path):
    """Return the shortest command line."""
    argv = ["--data_dir", str(caption_folder), "--text_model", str(caption_folder / "bert"), "--image_size", "16"]
    argv += ["--vision_model", str(caption_folder / "vit"), "--names", "4", "--pairs_per_name", "3", "--epochs", "1"]
    argv += ["--variants", "full,one_stage", "--results", str(tmp_path / "new" / "results.jsonl")]
    return [*argv, "--cache_dir", str(tmp_path / "states"), "--threads", "1", "--quiet", "--json"]


def test_quality_and_time_are_measured_once_and_plotted(benchmark, short, capsys, monkeypatch, tmp_path):
    trained, timed = [], []

    class Watched(benchmark.captions.CaptionExperiment):
        def train(self, variant):
            trained.append((self.seed, variant.options.get("num_bga_layers")))
            return super().train(variant)

    def time_in_turn(functions, repeats, **options):
        timed.append((sorted(functions), repeats))
        return real_time_in_turn(functions, repeats, **options)

    real_time_in_turn = benchmark.time_in_turn
    monkeypatch.setattr(benchmark.captions, "CaptionExperiment", Watched)
    monkeypatch.setattr(benchmark, "time_in_turn", time_in_turn)
    captions = benchmark.captions.main([*short, "--seeds", "4", "--report"])
    timing = ["--repeats", "1"]
    times = benchmark.main([*short, *timing])
    assert [values["f1"] for values in times.values()] == [[], []]
    # a training step and twice as many taggings, of two variants
    assert timed == [(["ours", "plain"], 1), (["ours", "plain"], 2)] * 2
    capsys.readouterr()
    chart = tmp_path / "figures" / "frontier.png"
    found = benchmark.main([*short, *timing, "--seeds", "3,4", "--plot", str(chart)])
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1]) == {"frontier": found}
    assert trained == [(4, None), (4, 1), (3, None), (3, 1)]
    assert len(timed) == 4
    for name, values in found.items():
        assert values["f1"][1:] == captions[name]["f1"]
        assert values | {"f1": []} == times[name]
        assert min(values["training"], values["tagging"]) > 0
    with Image.open(chart) as image:
        assert min(image.size) > 100


def test_what_costs_or_saves_time_is_among_the_variants(benchmark):
    assert {*benchmark.COSTLY} < benchmark.captions.VARIANTS.keys()
