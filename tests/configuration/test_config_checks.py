"""What a stranger's config.json may ask for, and what it gets: a ValueError, before anything is built."""

import copy
import json
from functools import reduce

import pytest
from transformers import AutoConfig

from bga_mner import BgaMnerConfig, BgaMnerForTokenClassification


HUGE = 10**9


@pytest.fixture
def write(make_config, tmp_path):
    """Return a function that saves a configuration in which one value is another: path to it, value."""
    make_config().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))

    def change(path, value):
        values = copy.deepcopy(saved)
        *folders, name = path.split(".")
        reduce(lambda place, key: place[key], folders, values)[name] = value
        (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
        return tmp_path

    return change


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "text_config.hidden_size",
            HUGE,
            "text_config.hidden_size must be between 1 and 16,777,216, but is 1000000000",
        ),
        ("text_config.hidden_size", 0, "text_config.hidden_size must be between 1"),
        ("text_config.hidden_size", -16, "text_config.hidden_size must be between 1"),
        ("text_config.hidden_size", "16", "'hidden_size' expected int, got str"),
        ("text_config.hidden_size", None, "'hidden_size' expected int, got NoneType"),
        ("text_config.vocab_size", 10**12, "text_config.vocab_size must be between"),
        ("text_config.num_hidden_layers", 10**6, "text_config.num_hidden_layers must be between 1 and 1,000"),
        ("text_config.max_position_embeddings", HUGE, "max_position_embeddings must be between"),
        ("text_config.num_attention_heads", 0, "num_attention_heads must be between 1"),
        ("text_config.num_attention_heads", -2, "num_attention_heads must be between 1"),
        ("text_config.hidden_act", "os.system", "hidden_act must name an activation function"),
        ("text_config.layer_norm_eps", float("nan"), "text_config.layer_norm_eps must be finite"),
        ("text_config.pad_token_id", 999, "pad_token_id must be a token of the vocabulary, 0 to 59, but is 999"),
        ("text_config.pad_token_id", -1, "pad_token_id must be a token of the vocabulary"),
        ("text_config.model_type", [1], "model_type must be a string, but text_config has"),
        ("text_config.model_type", "../evil", "The text encoder must be one of|Unrecognized model|'../evil'"),
        ("text_config", [], "text_config must be a dict"),
        ("vision_config", "x", "vision_config must be a dict"),
        ("vision_config.patch_size", 0, "vision_config.patch_size must be between 1"),
        ("vision_config.num_channels", HUGE, "vision_config.num_channels must be between"),
        ("image_size", HUGE, "image_size must be between"),
        ("image_size", -16, "at least one patch"),
        ("generator_num_layers", HUGE, "generator_num_layers must be between"),
        ("generator_ffn_ratio", 1e300, "generator_ffn_ratio must be between"),
        ("sampler_temperature", float("nan"), "sampler_temperature must be finite"),
        ("reconstruction_weight", float("inf"), "reconstruction_weight must be finite"),
        ("id2label", [], "id2label must be a dict of numbers and strings"),
        ("id2label", {"0": ["O"]}, "id2label must be a dict of numbers and strings"),
        ("id2label", {"zero": "O"}, "id2label must be a dict of numbers and strings"),
        ("id2label", {"0": "O"}, "each other's inverse"),
        ("label2id", 3, "label2id must be a dict of numbers and strings"),
        ("dtype", "system", "can be used, but AttributeError is raised"),
        # which transformers would fetch from the Hub, and run
        (
            "attn_implementation",
            "someone/kernel",
            "attn_implementation must be 'sdpa' or left out, but is 'someone/kernel'",
        ),
        ("_attn_implementation", "someone/kernel", "attn_implementation must be 'sdpa' or left out"),
        ("attn_implementation", {"text_config": "someone/kernel"}, "attn_implementation must be 'sdpa' or left out"),
    ],
)
def test_what_no_model_can_be_made_of_is_refused(write, path, value, message):
    folder = write(path, value)
    for load in (BgaMnerConfig, AutoConfig, BgaMnerForTokenClassification):
        with pytest.raises(ValueError, match=message):
            load.from_pretrained(folder)


@pytest.mark.parametrize("content", ["null", "[]", "3", '"x"', "[" * 100_000, '{"a":' * 100_000])
def test_other_json_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="Expected a configuration of BGA-MNER that can be used, but"):
        BgaMnerConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", ["", "{", '{"text_config": {'])
def test_what_is_no_json_is_refused_as_transformers_does(tmp_path, content):
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(OSError, match=r"config\.json.*not a valid JSON"):
        BgaMnerConfig.from_pretrained(tmp_path)


def test_unknown_fields_are_kept_and_do_nothing(write):
    assert BgaMnerConfig.from_pretrained(write("something_of_tomorrow", [1])).something_of_tomorrow == [1]


def test_attention_from_the_hub_is_refused_before_it_is_fetched(make_config, monkeypatch):
    monkeypatch.setattr(
        "transformers.modeling_utils.lazy_import_flash_attention", lambda *_, **__: pytest.fail("fetched")
    )
    config = make_config()
    config._attn_implementation = "someone/kernel"
    with pytest.raises(ValueError, match="runs on attn_implementation"):
        BgaMnerForTokenClassification(config)
