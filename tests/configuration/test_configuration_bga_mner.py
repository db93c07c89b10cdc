from __future__ import annotations

import json
import math

import pytest
from transformers import BertConfig, CLIPConfig, Siglip2Config, SiglipConfig, SiglipVisionConfig

from bga_mner.configuration.configuration_bga_mner import BgaMnerConfig
from bga_mner.configuration.hub.card_facts import option_default
from bga_mner.modeling_bga.modeling_bga_mner import BgaMnerModel


SMALL = {
    "text_config": {"model_type": "bert", "num_hidden_layers": 3},
    "vision_config": {"model_type": "vit", "num_hidden_layers": 5},
}

TINY = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}


def test_defaults_are_the_papers_encoders():
    config = BgaMnerConfig()
    assert (config.text_config.model_type, config.vision_config.model_type) == ("bert", "clip_vision_model")
    assert config.num_vision_tokens == 7 * 7 + 1


def test_sub_configs_may_be_objects_or_dicts_without_a_model_type():
    config = BgaMnerConfig(text_config=BertConfig(num_hidden_layers=2), vision_config={"patch_size": 16})
    assert config.text_config.num_hidden_layers == 2
    assert config.vision_config.model_type == "clip_vision_model"


@pytest.mark.parametrize(
    ("whole", "tower"),
    [
        (CLIPConfig(), "clip_vision_model"),
        (SiglipConfig(), "siglip_vision_model"),
        (Siglip2Config(), "siglip2_vision_model"),
    ],
)
def test_a_whole_clip_or_siglip_configuration_stands_for_its_vision_tower(whole, tower):
    assert BgaMnerConfig(vision_config=whole).vision_config.model_type == tower
    assert BgaMnerConfig(vision_config=whole.to_dict()).vision_config.model_type == tower


def test_round_trip_keeps_everything(tmp_path):
    config = BgaMnerConfig(**SMALL, id2label={0: "O", 1: "B-PER"}, cycle_weight=0.25, num_bga_layers=2)
    config.save_pretrained(tmp_path)
    assert BgaMnerConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_stages_default_to_two_or_the_shallower_encoder():
    assert BgaMnerConfig().num_bga_layers == 2
    assert BgaMnerConfig(**SMALL).num_bga_layers == 2
    one_layer = {"model_type": "bert", "num_hidden_layers": 1}
    assert BgaMnerConfig(**SMALL | {"text_config": one_layer}).num_bga_layers == 1


@pytest.mark.parametrize("given", [{"id2label": {0: "O", 1: "B-X"}}, {"label2id": {"O": 0, "B-X": 1}}])
def test_one_label_map_makes_the_other(given):
    config = BgaMnerConfig(**given)
    assert config.id2label == {0: "O", 1: "B-X"}
    assert config.label2id == {"O": 0, "B-X": 1}
    assert config.num_labels == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_config": {"model_type": "albert"}}, "bert, roberta, xlm-roberta, distilbert, electra.*'albert'"),
        ({"vision_config": {"model_type": "swin"}}, "clip_vision_model, vit, .*resnet, .*'swin'"),
        ({"text_config": {"model_type": "bert", "is_decoder": True}}, "is_decoder"),
        (SMALL | {"num_bga_layers": 4}, "between 1 and 3"),
        ({"num_bga_layers": 0}, "between 1 and 12"),
        ({"image_size": 16}, "at least one patch of 32"),
        ({"vision_config": {"image_size": [224, 112]}}, "square"),
        ({"id2label": {0: "O", 2: "B-X"}}, "without gaps"),
        ({"id2label": {0: "O", 1: "B-X"}, "label2id": {"O": 1, "B-X": 0}}, "inverse"),
        ({"generator_dropout": 1.5}, "between 0 and 1"),
        ({"sampler_initial_keep": 1.0}, "use_context_sampler=False"),
        ({"sampler_temperature": 0}, "a positive number"),
        ({"cycle_weight": -1}, "cycle_weight of at least 0"),
        ({"visual_source": "real", "hybrid_attention": "none"}, 'visual_source="real".*hybrid_attention="text"'),
        ({"keep_budget": 0}, "1 switches it off"),
        ({"keep_budget": 1.5}, "above 0 and at most 1, got 1.5"),
        ({"keep_budget_weight": -1}, "keep_budget_weight of at least 0"),
        (
            {"entity_replacement_probability": 0.5, "replaced_entities_read": "real", "hybrid_attention": "none"},
            "probability=0 .*Set it to 0",
        ),
        (
            {"entity_replacement_probability": 0.5, "replaced_entities_read": "real", "use_text_to_image": False},
            "probability=0 .*Set it to 0",
        ),
        ({"cycle_wieght": 1.0}, "Did you mean 'cycle_weight'"),
        ({"context_hiding_probability": 1.1}, "context_hiding_probability as a probability between 0 and 1"),
        ({"keep_weighted_reconstruction": True}, 'visual_target="last" or "layer" with .* got \'pooled\'. Set keep_'),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_fix(options, message):
    with pytest.raises(ValueError, match=message):
        BgaMnerConfig(**options)


def test_the_paper_s_model_aligns_all_layers_with_the_paper_s_losses():
    config = BgaMnerConfig.paper()
    assert config.num_bga_layers == 12
    assert (config.hybrid_attention, config.visual_target, config.context_hiding_probability) == ("both", "layer", 0)
    assert (config.reconstruction_weight, config.cycle_weight, config.loss_stages) == (1, 1, "all")
    assert config.num_target_positions == config.num_vision_tokens
    assert config.keep_weighted_reconstruction
    assert BgaMnerConfig.paper(**SMALL).num_bga_layers == 3
    changed = BgaMnerConfig.paper(**SMALL, num_bga_layers=2, cycle_weight=0.5)
    assert (changed.num_bga_layers, changed.cycle_weight, changed.visual_target) == (2, 0.5, "layer")


def test_configurations_that_are_passed_in_stay_as_they_are():
    text, vision = BertConfig(num_hidden_layers=2, **TINY), SiglipVisionConfig(num_hidden_layers=1, **TINY)
    before = text.to_dict(), vision.to_dict()
    BgaMnerModel(BgaMnerConfig(text_config=text, vision_config=vision, num_bga_layers=1))
    assert (text.to_dict(), vision.to_dict()) == before
    assert text._attn_implementation is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_bga_layers": "four"}, r"num_bga_layers as int \| None, got 'four'"),
        ({"visual_source": "reel"}, "visual_source as one of 'generated', 'real', 'none', got 'reel'"),
        ({"text_only": "no"}, "text_only as bool, got 'no'"),
        ({"problem_type": "sentiment"}, "problem_type as one of 'regression', .*, None, got 'sentiment'"),
        ({"text_config": {"hidden_size": "16"}}, "(?s)a text_config that can be used, .*'hidden_size' expected int"),
        ({"reconstruction_weight": "1" * 100_000}, r"reconstruction_weight as int \| float, got '1111"),
        ({"num_stages": 2}, "no num_stages, which follows from other options"),
        ({"num_labels": 3, "id2label": {0: "O", 1: "B-X"}}, "num_labels to be the number of id2label, 2, got 3"),
        ({"id2label": {0: "O", 1: "O"}}, "id2label that names each tag once"),
        ({"training_summary": {"scores": {"test": {"f1": math.nan}}}}, "training_summary that JSON can"),
    ],
)
def test_types_are_checked(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        BgaMnerConfig(**options)
    assert len(str(caught.value)) < 1000


def test_options_that_transformers_adds_are_not_taken_for_typing_errors():
    assert BgaMnerConfig(auto_map={"AutoConfig": "x.Y"}, tokenizer_class="BertTokenizer").tokenizer_class


def test_a_saved_configuration_names_encoders_of_the_hub_but_no_folders(make_config, tmp_path):
    config = make_config()
    (tmp_path / "bert").mkdir()
    for source, kept in (
        ("google-bert/bert-base-cased", True),
        (str(tmp_path / "bert"), False),
        ("/home/me/encoders/bert", False),
    ):
        config.text_config._name_or_path = source
        config.save_pretrained(tmp_path)
        saved = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
        assert ("_name_or_path" in saved["text_config"]) is kept
        assert (source in (tmp_path / "config.json").read_text(encoding="utf-8")) is kept
        assert config.text_config._name_or_path == source


def test_no_folder_is_named_of_an_encoder_inside_another(make_config, tmp_path):
    config = make_config("bert", "resnet")
    for source, kept in (("microsoft/resnet-50", True), (str(tmp_path), False), ("/home/me/encoders/resnet", False)):
        config.vision_config.backbone_config._name_or_path = source
        config.save_pretrained(tmp_path)
        text = (tmp_path / "config.json").read_text(encoding="utf-8")
        assert (source in text) is kept
        assert ("_name_or_path" in json.loads(text)["vision_config"]["backbone_config"]) is kept
        assert config.vision_config.backbone_config._name_or_path == source
        loaded = BgaMnerConfig.from_pretrained(tmp_path).vision_config.backbone_config
        assert loaded._name_or_path == (source if kept else "")


@pytest.mark.parametrize("vision", ["vit", "siglip2_vision_model", "resnet"])
def test_what_is_filled_in_is_the_default(make_config, vision):
    # a convolutional encoder's own size, and not the one that the layers on it were fitted to
    size = {"vit": 16, "siglip2_vision_model": 16, "resnet": 224}[vision]
    for chosen in (None, 32):
        config = make_config("bert", vision, num_bga_layers=None, image_size=chosen)
        assert option_default(config, "image_size") == size
        assert option_default(config, "num_bga_layers") == config.num_bga_layers == 2
    assert option_default(config, "cycle_weight") == 0.0
    assert option_default(make_config(num_bga_layers=1), "num_bga_layers") == 2


def test_an_encoder_of_oblong_images_has_no_default_size(make_config):
    config = make_config(vision_options={"image_size": [16, 32]}, image_size=16)
    assert option_default(config, "image_size") is None
