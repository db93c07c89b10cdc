"""The alignment benchmark, shortened to where only its machinery is tested."""

from __future__ import annotations

import json
import random

import pytest
from PIL import Image

from bga_mner.examples.synthetic.drawings import ENTITY_TYPES
from bga_mner.examples.synthetic.experiment import score
from bga_mner.examples.synthetic.photographs import read_photos


SHORT = ["--steps", "2", "--vision_steps", "2", "--drawings", "40", "--pairs", "24", "--names_per_type", "2"]
SHORT += ["--test_sentences", "8", "--batch_size", "8", "--quiet", "--json"]


@pytest.mark.slow
def test_prints_every_variant_for_every_seed(benchmark, capsys):
    names = list(benchmark.VARIANTS)
    found = benchmark.main([*SHORT, "--seeds", "3,4", "--variants", ",".join(names), "--report"])
    line = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert line["alignment"] == found
    # they generate one modality only, or states of inner layers, which are not returned
    assert found.keys() - line["report"].keys() == {"text_to_image_only", "image_to_text_only", "paper"}
    assert list(found) == names
    for values in found.values():
        assert set(values) == {"f1", "span_recall", "type_accuracy", "labelled_f1"}
        assert all(len(of_seeds) == 2 for of_seeds in values.values())
        assert all(0 <= value <= 1 for of_seeds in values.values() for value in of_seeds)


def test_same_seed_same_scores(benchmark, capsys):
    # after two steps every F1 is near 0; the report's figures tell one model from another
    def last_line(seed):
        benchmark.main([*SHORT, "--seeds", seed, "--variants", "full", "--report"])
        return capsys.readouterr().out.strip().splitlines()[-1]

    assert last_line("5") == last_line("5")
    assert last_line("5") != last_line("6")


def test_reports_without_labels(benchmark, capsys):
    benchmark.main([*SHORT, "--variants", "full", "--report"])
    lines = capsys.readouterr().out.strip().splitlines()
    report = json.loads(lines[-1])["report"]["full"]
    assert set(report) >= {"text_to_image_ratio", "text_to_image_to_text_ratio", "generated_spread", "median_rank"}
    assert all(len(values) == 1 for values in report.values())
    assert 1 <= report["median_rank"][0] <= 100


def test_goes_on_from_what_was_measured(benchmark, capsys, tmp_path, monkeypatch):
    trained, train = [], benchmark.AlignmentExperiment.train

    def watched(self, variant):
        trained.append((self.seed, variant.images))
        return train(self, variant)

    monkeypatch.setattr(benchmark.AlignmentExperiment, "train", watched)
    kept = [*SHORT, "--results", str(tmp_path / "results.jsonl"), "--report"]
    benchmark.main([*kept, "--seeds", "4", "--variants", "full,real_images"])
    assert trained == [(4, "paired")]  # they only differ at test
    capsys.readouterr()
    benchmark.main([*kept, "--seeds", "3,4", "--variants", "full,text_only"])
    shown = capsys.readouterr().out
    assert trained[1:] == [(3, "paired"), (3, "none"), (4, "none")]
    benchmark.main([*kept, "--seeds", "3,4", "--variants", "full,text_only"])
    assert len(trained) == 4
    again = capsys.readouterr().out  # tables and the last line, made of what was kept
    assert "text_only" in again
    assert shown.endswith(again)


def test_scores_are_of_entities_spans_and_types(benchmark):
    expected = [["B-PER", "I-PER", "O"], ["B-LOC", "O", "B-ORG"], ["O", "B-MISC", "O"]]
    predicted = [["B-PER", "I-PER", "O"], ["B-PER", "O", "B-ORG"], ["O", "O", "O"]]
    scores = score(predicted, expected)
    assert scores["span_recall"] == 3 / 4
    assert scores["type_accuracy"] == 2 / 3
    assert scores["f1"] == pytest.approx(2 * 2 / (3 + 4))
    assert score([["O"]], [["B-PER"]]) == {"f1": 0.0, "span_recall": 0.0, "type_accuracy": 0.0}


@pytest.fixture
def photos(tmp_path):
    rng = random.Random(0)
    for concept in ("airplane", "bird", "dog", "ship"):
        (tmp_path / concept).mkdir()
        for i in range(4):
            colour = tuple(rng.randrange(256) for _ in range(3))
            Image.new("RGB", (32, 32), colour).save(tmp_path / concept / f"{i}.jpg")
    return tmp_path


def test_takes_photographs(benchmark, photos, capsys):
    found = benchmark.main([*SHORT, "--variants", "full,real_images", "--images", str(photos)])
    assert len(found["real_images"]["f1"]) == 1
    assert sorted(read_photos(photos)) == sorted(ENTITY_TYPES)


def test_says_what_to_mend(benchmark, photos, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--variants", "fulll"])
    assert "got fulll" in capsys.readouterr().err
    for path in (photos / "ship").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="'ship': 0"):
        read_photos(photos)
    with pytest.raises(ValueError, match="Expected 4 folders"):
        read_photos(photos / "nowhere")
