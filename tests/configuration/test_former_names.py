"""Files that release 0.1.0 saved load, and are saved in the words of today."""

import json

import pytest
from transformers import AutoConfig

from bga_mner import BgaMnerConfig, BgaMnerForTokenClassification
from bga_mner.configuration.hub.model_card import build_model_card


PICTURES = {"found": 1190, "missing": 4, "broken": {"empty": 5}, "checked": True}
# Of release 0.1.0, whose files leave out what is the default.
OLD_DEFAULTS = {
    "visual_target": "last",
    "context_hiding_probability": 0.0,
    "gate_initial_bias": -4.0,
    "reconstruction_weight": 1.0,
    "cycle_weight": 1.0,
    "loss_stages": "all",
    "generators_learn_from_labels": True,
    "align_last_states": False,
}
OLD_SUMMARY = {
    "name": "tweets",
    "trained_with_pictures": True,
    "data": {"train": {"sentences": 1200, "pictures": PICTURES}, "test": {"sentences": 7}},
}
NEW_SUMMARY = {
    "name": "tweets",
    "trained_with_images": True,
    "data": {"train": {"sentences": 1200, "images": PICTURES}, "test": {"sentences": 7}},
}


@pytest.fixture
def saved(make_model, tmp_path):
    """Save a model whose configuration is in the words of release 0.1.0; return the folder."""
    make_model().save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    values |= {"loss_stages": "drawn", "training_summary": OLD_SUMMARY}
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return tmp_path


def test_old_words_are_read(saved):
    values = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    for config in (
        BgaMnerConfig.from_pretrained(saved),
        AutoConfig.from_pretrained(saved, cycle_weight=1.0),
        BgaMnerConfig.from_dict(values),
        BgaMnerConfig.from_json_file(saved / "config.json"),
        BgaMnerForTokenClassification.from_pretrained(saved).config,
    ):
        assert config.loss_stages == "sampled"
        assert config.training_summary == NEW_SUMMARY
    assert values["training_summary"] == OLD_SUMMARY


def test_new_words_are_saved_and_stay(saved, make_config):
    for _ in range(2):
        BgaMnerForTokenClassification.from_pretrained(saved).save_pretrained(saved)
        values = json.loads((saved / "config.json").read_text(encoding="utf-8"))
        assert values["loss_stages"] == "sampled"
        assert values["training_summary"] == NEW_SUMMARY
    card = (saved / "README.md").read_text(encoding="utf-8")
    assert "It was trained on texts with" in card
    assert "1,190" in card
    assert build_model_card(make_config(training_summary=NEW_SUMMARY)).count("1,190") == 1


def test_old_words_are_no_option_of_a_caller(saved):
    with pytest.raises(ValueError, match="Expected loss_stages as one of 'all', 'sampled', got 'drawn'"):
        BgaMnerConfig(loss_stages="drawn")
    with pytest.raises(ValueError, match="got 'drawn'"):
        BgaMnerConfig.from_pretrained(saved, loss_stages="drawn")


@pytest.mark.parametrize("summary", [3, {"data": 3}, {"data": {"train": 3}}, {"data": None}])
def test_what_is_no_summary_is_left_to_the_checks(saved, summary):
    values = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    (saved / "config.json").write_text(json.dumps({**values, "training_summary": summary}), encoding="utf-8")
    if isinstance(summary, dict):
        assert BgaMnerConfig.from_pretrained(saved).training_summary == summary
    else:
        with pytest.raises(ValueError, match="Expected training_summary as"):
            BgaMnerConfig.from_pretrained(saved)


def test_what_old_files_leave_out_is_as_it_was(tmp_path):
    BgaMnerConfig().save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    # what has a new default is always said
    assert OLD_DEFAULTS.keys() <= values.keys()
    assert BgaMnerConfig.from_pretrained(tmp_path).visual_target == "pooled"
    file.write_text(json.dumps({k: v for k, v in values.items() if k not in OLD_DEFAULTS}), encoding="utf-8")
    old = BgaMnerConfig.from_pretrained(tmp_path)
    assert {name: getattr(old, name) for name in OLD_DEFAULTS} == OLD_DEFAULTS
    assert all(getattr(BgaMnerConfig(), name) != value for name, value in OLD_DEFAULTS.items())
    assert AutoConfig.from_pretrained(tmp_path, visual_target="layer").visual_target == "layer"
