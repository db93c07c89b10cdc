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
            "text_config.hidden_size between 1 and 16,777,216, got 1000000000",
        ),
        ("text_config.hidden_size", 0, "Expected text_config.hidden_size between 1"),
        ("text_config.hidden_size", -16, "Expected text_config.hidden_size between 1"),
        ("text_config.hidden_size", "16", "'hidden_size' expected int, got str"),
        ("text_config.hidden_size", None, "'hidden_size' expected int, got NoneType"),
        ("text_config.vocab_size", 10**12, "Expected text_config.vocab_size between"),
        ("text_config.num_hidden_layers", 10**6, "Expected text_config.num_hidden_layers between 1 and 1,000"),
        ("text_config.max_position_embeddings", HUGE, "max_position_embeddings between"),
        ("text_config.num_attention_heads", 0, "num_attention_heads between 1"),
        ("text_config.num_attention_heads", -2, "num_attention_heads between 1"),
        ("text_config.hidden_act", "os.system", "hidden_act that names an activation function"),
        ("text_config.layer_norm_eps", float("nan"), "Expected a finite text_config.layer_norm_eps"),
        ("text_config.pad_token_id", 999, "a token of the vocabulary, 0 to 59, as text_config.pad_token_id, got 999"),
        ("text_config.pad_token_id", -1, "a token of the vocabulary, .* as text_config.pad_token_id"),
        ("text_config.model_type", [1], "a string as text_config.model_type"),
        ("text_config.model_type", "../evil", "Expected a text encoder of|Unrecognized model|'../evil'"),
        ("text_config", [], "Expected text_config as a dict or PreTrainedConfig"),
        ("vision_config", "x", "Expected vision_config as a dict or PreTrainedConfig"),
        ("vision_config.patch_size", 0, "Expected vision_config.patch_size between 1"),
        ("vision_config.num_channels", HUGE, "Expected vision_config.num_channels between"),
        ("image_size", HUGE, "Expected image_size between"),
        ("image_size", -16, "at least one patch"),
        ("generator_num_layers", HUGE, "Expected generator_num_layers between"),
        ("generator_ffn_ratio", 1e300, "Expected generator_ffn_ratio between"),
        ("sampler_temperature", float("nan"), "Expected a finite sampler_temperature"),
        ("reconstruction_weight", float("inf"), "Expected a finite reconstruction_weight"),
        ("id2label", [], "Expected id2label as a dict of numbers and strings"),
        ("id2label", {"0": ["O"]}, "Expected id2label as a dict of numbers and strings"),
        ("id2label", {"zero": "O"}, "Expected id2label as a dict of numbers and strings"),
        ("id2label", {"0": "O"}, "each other's inverse"),
        ("label2id", 3, "Expected label2id as a dict of numbers and strings"),
        ("dtype", "system", "can be used, got AttributeError: "),
        # which transformers would fetch from the Hub, and run
        (
            "attn_implementation",
            "someone/kernel",
            "Expected attn_implementation 'sdpa' or none, got 'someone/kernel'",
        ),
        ("_attn_implementation", "someone/kernel", "Expected attn_implementation 'sdpa' or none"),
        ("attn_implementation", {"text_config": "someone/kernel"}, "Expected attn_implementation 'sdpa' or none"),
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
    with pytest.raises(ValueError, match="Expected a configuration of BGA-MNER that can be used, got "):
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
    with pytest.raises(ValueError, match="attn_implementation 'sdpa', on which BGA-MNER runs"):
        BgaMnerForTokenClassification(config)
