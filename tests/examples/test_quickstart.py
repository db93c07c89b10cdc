"""The quickstart, shortened; `make demo` and CI run it whole."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import metadata_load
from huggingface_hub.repocard_data import model_index_to_eval_results
from PIL import Image

from bga_mner import BgaMnerForTokenClassification, BgaMnerProcessor, predict


@pytest.mark.slow
def test_it_trains_saves_annotates_and_draws(script, tmp_path, capsys):
    sizes = {"steps": 60, "vision_steps": 20, "images": 128, "pairs": 160, "test_sentences": 12}
    arguments = [f"--{name}={value}" for name, value in sizes.items()]
    scores = script.main([f"--output_dir={tmp_path}", *arguments])
    assert json.loads((tmp_path / "scores.json").read_text()) == scores
    for variant in ("text and images", "text alone"):
        assert set(scores[variant]) == {"labelled", "never_labelled"}
        assert 0 <= scores[variant]["labelled"]["f1"] <= 1
    with Image.open(tmp_path / "alignment.png") as image:
        assert image.format == "PNG"
        # four pairs, each with the image and two stages at least
        assert image.width > 700
        assert image.height > 1000
    model = BgaMnerForTokenClassification.from_pretrained(tmp_path / "model")
    processor = BgaMnerProcessor.from_pretrained(tmp_path / "model")
    assert isinstance(predict(model, processor, "we need to talk about Kawhi"), list)
    results = model_index_to_eval_results(metadata_load(tmp_path / "model" / "README.md")["model-index"])[1]
    f1 = {result.dataset_split: result.metric_value for result in results if result.metric_type == "f1"}
    assert f1 == {
        "labelled names": scores["text and images"]["labelled"]["f1"],
        "never-labelled names": scores["text and images"]["never_labelled"]["f1"],
    }
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "It was trained on texts with images." in card
    printed = capsys.readouterr().out
    for step in ("1/5", "2/5", "3/5", "4/5", "5/5", "never-labelled names"):
        assert step in printed
