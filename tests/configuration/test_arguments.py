"""Options that are given beside a saved configuration, or change later, meet the constructor's checks."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification

from bga_mner import (
    BgaMnerConfig,
    BgaMnerForSequenceClassification,
    BgaMnerForTokenClassification,
    BgaMnerModel,
)
from bga_mner.configuration.arguments import check_names
from bga_mner.modeling_bga.crf.crf import bio_constraints


LABELS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
OTHERS = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG"]
MODELS = (
    *(BgaMnerModel, BgaMnerForTokenClassification, BgaMnerForSequenceClassification),
    *(AutoModel, AutoModelForTokenClassification, AutoModelForSequenceClassification),
)


@pytest.fixture
def saved(make_model, tmp_path):
    """Save a tiny model; return its folder."""
    make_model().save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


GOOD = [
    {"cycle_weight": 0.5, "visual_source": "none"},
    {"use_context_sampler": False},
    {"constrain_transitions": False, "normalize_targets": False},
    {"num_bga_layers": 3, "image_size": 24},
    {"id2label": dict(enumerate(OTHERS))},
    {"label2id": {label: number for number, label in enumerate(OTHERS)}},
    {"id2label": {0: "O", 1: "B-X", 2: "I-X"}},
    {"problem_type": "regression", "training_summary": {"name": "tweets"}},
]


@pytest.mark.parametrize("options", GOOD)
def test_options_have_the_effect_that_they_have_in_the_constructor(make_config, tmp_path, options):
    make_config().save_pretrained(tmp_path)
    labels = {} if "label2id" not in options else {"id2label": None}
    made = make_config(**options, **labels)
    assigned, updated = make_config(), make_config()
    for name, value in options.items():
        setattr(assigned, name, value)
    updated.update(options)
    values = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    before = copy.deepcopy(values)
    for config in (
        BgaMnerConfig.from_pretrained(tmp_path, **options),
        AutoConfig.from_pretrained(tmp_path, **options),
        BgaMnerConfig.from_dict(values, **options),
        assigned,
        updated,
    ):
        assert config.to_diff_dict() == made.to_diff_dict()
    assert values == before


WRONG = [
    ({"visual_source": "reel"}, "Expected visual_source as one of 'generated', 'real', 'none', got 'reel'"),
    ({"cycle_weight": -1}, "Expected cycle_weight of at least 0, got -1. 0 switches the loss off."),
    ({"cycle_weight": "high"}, "Expected cycle_weight as int | float, got 'high'"),
    ({"reconstruction_weight": float("nan")}, "Expected a finite reconstruction_weight"),
    ({"classifier_dropout": 2}, "classifier_dropout as a probability"),
    ({"keep_budget": 0}, "keep_budget as a share"),
    ({"recontruction_weight": 0.5}, "Did you mean 'reconstruction_weight'?"),
    ({"num_stages": 3}, "num_stages"),
    ({"id2label": {0: "O", 2: "B-X"}}, "id2label that numbers the tags 0, 1, 2, ... without gaps"),
    ({"id2label": ["O", "B-X"]}, "Expected id2label as a dict of numbers and strings"),
    ({"label2id": {"O": "zero"}}, "Expected label2id as a dict of numbers and strings"),
    ({"id2label": dict(enumerate(OTHERS)), "label2id": {"O": 0}}, "each other's inverse"),
    ({"id2label": {0: "O", 1: "O"}}, "id2label that names each tag once"),
    ({"training_summary": {"scores": {1: 2}}}, "training_summary that JSON can hold"),
    ({"text_config": 3}, "Expected text_config as a dict or PreTrainedConfig, got 3"),
    ({"text_config": {"model_type": "albert"}}, "Expected a text encoder of"),
    ({"text_config": {"num_hidden_layers": "two"}}, "num_hidden_layers"),
    ({"vision_config": {"model_type": "swin"}}, "Expected a vision encoder of"),
    ({"num_bga_layers": 9}, "num_bga_layers between 1 and 3"),
    ({"image_size": 4}, "image_size of at least one patch"),
    ({"visual_source": "real", "hybrid_attention": "none"}, 'with visual_source="real", which lets the text attend'),
    ({"text_only": True, "visual_source": "real"}, "in a model with text_only=True, which has no encoder of images"),
]


def _refusal(load) -> str:
    """Call what has to be refused; return the message."""
    try:
        load()
    except (ValueError, AttributeError) as error:  # of a property that can't be assigned
        return str(error)
    return "nothing was refused"


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_wrong_options_are_named_and_no_file_is_blamed(saved, make_config, options, message):
    config = make_config()
    before = config.to_dict()
    constructed = {**before, **options}
    if {"id2label", "label2id"} & options.keys():
        constructed = {name: value for name, value in constructed.items() if "2" not in name or name in options}
    ways = {
        "constructor": lambda: BgaMnerConfig(**constructed),
        "configuration": lambda: BgaMnerConfig.from_pretrained(saved, **options),
        "automatic": lambda: AutoConfig.from_pretrained(saved, **options),
        "update": lambda: config.update(options),
    }
    ways |= {model.__name__: partial(model.from_pretrained, saved, **options) for model in MODELS}
    for way, load in ways.items():
        found = _refusal(load)
        assert message in found or (way == "update" and "num_stages" in options), (way, found)
        assert "file" not in found
        assert len(found) < 1000
    assert config.to_dict() == before


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_wrong_options_are_not_saved_however_they_came_in(make_config, tmp_path, options, message):
    config = make_config()

    def assign_and_save():
        for name, value in options.items():
            setattr(config, name, value)
        config.save_pretrained(tmp_path / "new")

    if {"id2label", "label2id"} <= options.keys():  # the last one is followed
        message = "label2id"
        options = {"label2id": {"O": 1}}
    found = _refusal(assign_and_save)
    assert message in found or "num_stages" in options, found
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("model", [BgaMnerForTokenClassification, AutoModelForTokenClassification])
def test_unknown_arguments_are_named(saved, make_config, model):
    for arguments, name in (
        ({"labels": LABELS}, "'labels'"),
        ({"weight_of_cycles": 3}, "'weight_of_cycles'"),
        ({"config": make_config(), "visual_source": "none"}, "'visual_source'"),
    ):
        with pytest.raises(ValueError, match=f"Expected arguments of from_pretrained.*got {name}"):
            model.from_pretrained(saved, **arguments)


@pytest.mark.parametrize("option", [{"to_dict": 1}, {"text_config": {}}, {"hub_token": "secret"}])
def test_what_is_no_option_of_a_model_of_two_encoders_is_named(make_model, option):
    base = make_model().bga_mner
    with pytest.raises(ValueError, match=f"Expected options of BgaMnerConfig, got .*'{next(iter(option))}'"):
        BgaMnerModel.from_text_vision_pretrained(base.text_encoder, base.vision_encoder, **option)


@pytest.mark.parametrize("argument", [{"dtype": "flot16"}, {"quantization_config": "int8"}])
def test_loading_arguments_that_fail_are_named(saved, argument):
    with pytest.raises(ValueError, match=next(iter(argument))) as caught:
        AutoModelForTokenClassification.from_pretrained(saved, **argument)
    assert "fetch it again" not in str(caught.value)


def test_a_broken_file_is_blamed_whatever_else_is_given(saved):
    content = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    (saved / "config.json").write_text(json.dumps(content | {"dtype": "system"}), encoding="utf-8")
    for options in ({}, {"cycle_weight": 0.5}):
        with pytest.raises(ValueError, match="Correct the file, or fetch it again"):
            AutoConfig.from_pretrained(saved, **options)
    # what the caller gives may be what was wrong in the file
    (saved / "config.json").write_text(json.dumps(content | {"id2label": {"0": "O"}}), encoding="utf-8")
    labels = dict(enumerate(LABELS))
    assert BgaMnerForTokenClassification.from_pretrained(saved, id2label=labels).config.id2label == labels


def test_names_of_transformers_are_no_misspelt_options():
    arguments = (
        "cache_dir force_download proxies token revision subfolder local_files_only trust_remote_code variant dtype"
    )
    arguments += " torch_dtype device_map max_memory offload_folder offload_buffers quantization_config adapter_name"
    arguments += (
        " output_loading_info ignore_mismatched_sizes use_safetensors weights_only key_mapping gguf_file tp_plan"
    )
    arguments += " low_cpu_mem_usage attn_implementation code_revision tokenizer_class transformers_weights use_kernels"
    arguments += " fusion_config distributed_config model_max_length padding_side truncation_side add_prefix_space"
    arguments += " do_lower_case use_fast processor_class feature_extractor_type torchscript tie_word_embeddings"
    check_names(BgaMnerConfig, arguments.split(), BgaMnerConfig.__dataclass_fields__)


@pytest.mark.parametrize("name", ["id2label", "label2id"])
def test_new_labels_are_followed_by_all_that_depends_on_them(saved, make_batch, tmp_path, name):
    labels = dict(enumerate(OTHERS))
    given_labels = labels if name == "id2label" else {label: number for number, label in labels.items()}
    for model in (BgaMnerForTokenClassification, AutoModelForTokenClassification):
        loaded = model.from_pretrained(saved, **{name: given_labels})
        assert loaded.config.id2label == labels
        assert loaded.config.label2id == {label: number for number, label in labels.items()}
        allowed, starts = bio_constraints(labels)
        assert (loaded.crf.allowed_transitions.equal(allowed), loaded.crf.allowed_starts.equal(starts)) == (True, True)
        loaded.save_pretrained(tmp_path / "again")
        again = BgaMnerForTokenClassification.from_pretrained(tmp_path / "again")
        assert again(**make_batch()).predictions.equal(loaded(**make_batch()).predictions)


@pytest.mark.parametrize(
    "options",
    [{"num_labels": 7}, {"id2label": {0: "O", 1: "B-X", 2: "I-X"}}, {"label2id": {"O": 0, "B-X": 1, "I-X": 2}}],
)
def test_labels_of_another_number_replace_the_classifier_if_asked_to(saved, options):
    with pytest.raises(ValueError, match="ignore_mismatched_sizes=True"):
        BgaMnerForTokenClassification.from_pretrained(saved, **options)
    model = AutoModelForTokenClassification.from_pretrained(saved, ignore_mismatched_sizes=True, **options)
    count = options.get("num_labels", 3)
    assert model.classifier.out_features == model.crf.transitions.shape[0] == model.config.num_labels == count
    assert len(model.config.label2id) == count


def test_the_number_of_labels_that_the_file_has_changes_no_name(saved):
    assert AutoConfig.from_pretrained(saved, num_labels=5).id2label == dict(enumerate(LABELS))


SMALL_CLIP = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
CHANGED = {
    "num_labels": 7,
    # of which other transitions are allowed
    "id2label": dict(enumerate(["O", "B-LOC", "B-PER", "I-LOC", "I-PER"])),
    "num_bga_layers": 1,
    "generator_num_layers": 2,
    "use_context_sampler": False,
    "constrain_transitions": False,
    "text_only": True,
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_model_is_not_saved_with_a_configuration_that_its_weights_do_not_fit(make_model, tmp_path, name):
    model = make_model()
    setattr(model.config, name, CHANGED[name])
    changed = "id2label" if name == "num_labels" else name
    with pytest.raises(ValueError, match=f"Expected a configuration that fits the weights, got .*{changed}"):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_changes_no_weight_may_change_and_so_may_what_changes_with_them(make_model, tmp_path):
    model = make_model()
    model.config.id2label = {number: label.replace("PER", "PERSON") for number, label in model.config.id2label.items()}
    model.config.update({"cycle_weight": 0.25, "visual_source": "none"})
    model.config.text_config.hidden_dropout_prob = 0.25
    model.resize_token_embeddings(70)
    model.save_pretrained(tmp_path)
    loaded = BgaMnerForTokenClassification.from_pretrained(tmp_path)
    assert loaded.config.label2id["B-PERSON"] == 3
    assert loaded.get_input_embeddings().num_embeddings == 70


def test_encoders_may_be_edited_and_are_checked_where_it_matters(make_config, tmp_path):
    config = make_config()
    config.text_config.num_hidden_layers = 1
    for use in (lambda: config.save_pretrained(tmp_path / "new"), lambda: BgaMnerForTokenClassification(config)):
        with pytest.raises(ValueError, match="num_bga_layers between 1 and 1"):
            use()
    assert not (tmp_path / "new").exists()
    config.num_bga_layers = 1
    config.vision_config = {"model_type": "clip", "vision_config": SMALL_CLIP}
    assert config.vision_config.model_type == "clip_vision_model"
    config.save_pretrained(tmp_path)
    assert BgaMnerConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_the_feature_map_follows_the_size_of_images(make_config, tmp_path):
    config = make_config("bert", "resnet")
    config.image_size = 64
    config.save_pretrained(tmp_path)
    assert config.num_vision_tokens == make_config("bert", "resnet", image_size=64).num_vision_tokens
    assert BgaMnerConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_a_json_file_of_something_else_is_refused(tmp_path, make_config):
    make_config().text_config.to_json_file(tmp_path / "bert.json", use_diff=False)
    with pytest.raises(ValueError, match="Expected a configuration with model_type 'bga_mner', got 'bert'"):
        BgaMnerConfig.from_json_file(tmp_path / "bert.json")
    make_config().to_json_file(tmp_path / "own.json")
    assert BgaMnerConfig.from_json_file(tmp_path / "own.json").to_dict() == make_config().to_dict()


@pytest.mark.parametrize("note", [object(), {1, 2}, b"bytes"])
def test_what_json_cannot_hold_leaves_the_saved_file_as_it_is(make_config, tmp_path, note):
    config = make_config()
    config.save_pretrained(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    config.note = note
    with pytest.raises(ValueError, match="Expected a configuration that can be saved"):
        config.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before


NUMBERS = st.one_of(
    st.integers(-2, 5), st.floats(-2, 2), st.sampled_from([float("nan"), float("inf"), None, "x", True])
)
LABEL_MAPS = st.dictionaries(st.integers(0, 3), st.sampled_from(LABELS), max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(),
    lambda part: st.lists(part) | st.dictionaries(st.text(max_size=3), part),
    max_leaves=4,
)
VALUES = {
    "id2label": LABEL_MAPS,
    "label2id": LABEL_MAPS.map(lambda labels: {label: number for number, label in labels.items()}),
    "num_labels": st.integers(1, 4),
    "training_summary": st.dictionaries(st.text(max_size=3), JSON, max_size=3),
    "a_note": JSON,
    "dtype": st.sampled_from(["float16", "flot16", None]),
    "problem_type": st.sampled_from(["regression", "single_label_classification", "x"]),
    "visual_source": st.sampled_from(["real", "none", "generated", "x"]),
    "hybrid_attention": st.sampled_from(["text", "both", "none", "x"]),
    "text_config.hidden_act": st.sampled_from(["relu", "x"]),
    **dict.fromkeys(
        ["text_config.hidden_dropout_prob", "vision_config.layer_norm_eps", "text_config.pad_token_id"], NUMBERS
    ),
    **dict.fromkeys(["text_config.num_hidden_layers", "vision_config.image_size"], NUMBERS),
    **{
        name: NUMBERS
        for name in BgaMnerConfig.__annotations__
        if not name.endswith(("_config", "label", "id", "summary", "type", "source", "attention"))
    },
}
EDIT = st.sampled_from(sorted(VALUES)).flatmap(lambda name: st.tuples(st.just(name), VALUES[name]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("configurations")


@given(edits=st.lists(EDIT, max_size=6))
def test_whatever_is_saved_is_loaded_as_it_was(make_config, folder, edits):
    config = make_config()
    for path, value in edits:
        *owner, name = path.split(".")
        # of encoders it is transformers that refuses
        with suppress(Exception if owner else ValueError):
            setattr(getattr(config, owner[0]) if owner else config, name, value)
    try:
        config.save_pretrained(folder)
    except ValueError:
        return
    loaded = BgaMnerConfig.from_pretrained(folder)
    values, expected = loaded.to_dict(), config.to_dict()
    assert repr(values) == repr(expected) or values == expected


@pytest.mark.parametrize("count", [2, 6])
def test_labels_keep_the_order_of_their_numbers_when_loaded(make_config, tmp_path, count):
    """A file has them by the alphabet, and "10" before "2"."""
    labels = ["O", *(f"{prefix}-{kind}" for kind in "ZYXWVU"[:count] for prefix in "BI")]
    make_config(id2label=dict(enumerate(labels))).save_pretrained(tmp_path)
    given = {"label2id": {label: number for number, label in reversed(list(enumerate(labels)))}}
    for config in (BgaMnerConfig.from_pretrained(tmp_path), make_config(id2label=None, **given)):
        assert list(config.id2label.items()) == list(enumerate(labels))
        assert list(config.label2id) == labels
