"""What a stranger's files of weights may hold, and what comes of it: no code is run, what is broken is refused."""

import json
import re
import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_parts import LABELS, make_model, processor
from transformers import AutoModelForTokenClassification, AutoProcessor, AutoTokenizer, pipeline

from bga_mner import BgaMnerForTokenClassification, BgaMnerProcessor, predict
from bga_mner.modeling_bga.saving import checkpoint_files


TEXT = "kawhi wins b0 b0"


class Gadget:
    """Runs code where it is unpickled: it writes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    make_model().float().save_pretrained(folder)
    processor().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def load(folder, **options):
    # by either class, one of them through the Auto class
    BgaMnerForTokenClassification.from_pretrained(folder, **options)
    return AutoModelForTokenClassification.from_pretrained(folder, **options)


def change(folder, name, tensor):
    weights = load_file(folder / "model.safetensors")
    weights[name] = tensor(weights[name]) if callable(tensor) else tensor
    save_file(
        {key: value for key, value in weights.items() if value is not None},
        folder / "model.safetensors",
        {"format": "pt"},
    )


@pytest.mark.parametrize("end", [0, 4, 100, 5000, -1])
def test_weights_cut_off_are_refused(folder, end):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:end])
    with pytest.raises(ValueError, match="Expected a configuration and whole safetensors files"):
        load(folder)


@pytest.mark.parametrize(
    "content", [b"\xff" * 200, struct.pack("<Q", 2**62), struct.pack("<Q", 2) + b"{}x", b"PK\x03\x04" * 50]
)
def test_what_is_no_safetensors_is_refused(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="Expected a configuration and whole safetensors files"):
        load(folder)


@pytest.mark.parametrize("shape", [(), (3,), (9, 7), (5, 8, 1)])
def test_weights_of_other_shapes_are_refused(folder, shape):
    change(folder, "classifier.weight", torch.zeros(shape))
    message = rf"\(5, 8\) for classifier\.weight, got {re.escape(str(shape))}; 1 have another shape"
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_no_weights_are_made_for_a_model_that_the_files_do_not_fit(folder, monkeypatch):
    # without a text encoder in the configuration it is BERT-base
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["text_config"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.setattr(
        BgaMnerForTokenClassification, "_initialize_missing_keys", lambda *_: pytest.fail("new weights were made")
    )
    with pytest.raises(ValueError, match=r"have another shape\. Take config\.json and weights from the same model"):
        load(folder)


def test_weights_beyond_the_models_are_left_out(folder):
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "one.more": torch.zeros(3)}, folder / "model.safetensors", {"format": "pt"})
    assert set(load(folder).state_dict()) == set(weights)


def test_missing_weights_are_not_made_up_where_they_would_fill_the_memory(folder):
    name = "bga_mner.text_encoder.embeddings.word_embeddings.weight"
    change(folder, name, lambda _: None)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["text_config"] |= {"vocab_size": 2**24, "hidden_size": 2**12}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"68,963,346,432 numbers are missing, most of them of {name}"):
        load(folder, ignore_mismatched_sizes=True)


def test_few_missing_weights_are_new(folder, monkeypatch):
    change(folder, "classifier.weight", lambda _: None)
    assert load(folder).classifier.weight.isfinite().all()
    monkeypatch.setattr(checkpoint_files, "MAX_MISSING_NUMBERS", 5 * 8 - 1)
    with pytest.raises(ValueError, match=r"40 numbers are missing, most of them of classifier\.weight"):
        load(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "name",
    [
        "classifier.weight",
        "crf.transitions",
        "crf.start_transitions",
        "bga_mner.text_encoder.embeddings.word_embeddings.weight",
        "bga_mner.text_encoder.encoder.layer.0.output.dense.weight",
    ],
)
def test_weights_that_are_no_numbers_are_found_at_the_first_text(folder, name, value):
    change(folder, name, lambda tensor: torch.full_like(tensor, value))
    with pytest.raises(ValueError, match="Expected tag scores that are finite numbers, got NaN"):
        predict(load(folder), processor(), TEXT)
    with pytest.raises(ValueError, match="Expected tag scores that are finite numbers"):
        pipeline("multimodal-ner", model=str(folder), device="cpu")([TEXT, ""])


@pytest.mark.parametrize("loads", ["whole weights", "a gadget"])
def test_pickles_in_place_of_safetensors_are_refused(folder, tmp_path, loads):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    trace = tmp_path / "has_run"
    torch.save(weights if loads == "whole weights" else {"x": Gadget(trace)}, folder / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        load(folder)
    assert not trace.exists()
    if loads == "whole weights":  # where they are asked for
        assert torch.equal(load(folder, use_safetensors=False).classifier.weight, weights["classifier.weight"])
    else:
        with pytest.raises(ValueError, match="Expected a configuration and whole safetensors files"):
            load(folder, use_safetensors=False)
        assert not trace.exists()


def test_pickles_beside_safetensors_are_not_opened(folder, tmp_path):
    for name in (
        "pytorch_model.bin",
        "training_args.bin",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "model.pkl",
    ):
        torch.save({"x": Gadget(tmp_path / "has_run")}, folder / name)
    load(folder)
    BgaMnerProcessor.from_pretrained(folder)
    pipeline("multimodal-ner", model=str(folder), device="cpu")(TEXT)
    assert not (tmp_path / "has_run").exists()
    torch.load(folder / "pytorch_model.bin", weights_only=False)["x"].close()  # it would have left a trace
    assert (tmp_path / "has_run").exists()


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "weights.bin", "a/b.safetensors", 3, None])
def test_shards_are_safetensors_beside_their_list(folder, tmp_path, name):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ValueError, match="Expected names of safetensors files of the same folder"):
        load(folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}', "[" * 100_000])
def test_a_broken_list_of_shards_is_refused(folder, content):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="Expected a JSON object with a 'weight_map'"):
        load(folder)


def test_shards_are_loaded(folder):
    model = load(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="10KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert torch.equal(load(folder).classifier.weight, model.classifier.weight)


def test_code_in_the_folder_is_never_run_without_trust(folder, tmp_path):
    trace = tmp_path / "has_run"
    (folder / "evil.py").write_text(f"open({str(trace)!r}, 'w')\nclass Evil: pass\n", encoding="utf-8")
    names = ("AutoConfig", "AutoModelForTokenClassification", "AutoProcessor", "AutoTokenizer", "AutoImageProcessor")
    for file in ("config.json", "processor_config.json", "tokenizer_config.json"):
        values = json.loads((folder / file).read_text(encoding="utf-8"))
        values["auto_map"] = dict.fromkeys(names, "evil.Evil") | {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
        values["custom_pipelines"] = {
            "multimodal-ner": {"impl": "evil.Evil", "pt": ["AutoModelForTokenClassification"]}
        }
        (folder / file).write_text(json.dumps(values), encoding="utf-8")
    for loaded in (BgaMnerForTokenClassification, AutoModelForTokenClassification):
        for options in ({}, {"trust_remote_code": False}):
            assert loaded.from_pretrained(folder, **options).config.id2label == dict(enumerate(LABELS))
    for loaded in (BgaMnerProcessor, AutoProcessor, AutoTokenizer):
        loaded.from_pretrained(folder, trust_remote_code=False)
    pipeline("multimodal-ner", model=str(folder), device="cpu", trust_remote_code=False)(TEXT)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer.json", "{}", "Expected a processor of BGA-MNER that can be used"),
        ("tokenizer.json", "[]", "Expected a processor of BGA-MNER that can be used"),
        ("tokenizer.json", "\0", "Expected a processor of BGA-MNER that can be used"),
        ("processor_config.json", "[]", "Expected a processor of BGA-MNER that can be used"),
        ("processor_config.json", "{", "Expected a processor of BGA-MNER that can be used|not a valid JSON"),
        ("tokenizer_config.json", "[]", "Expected a processor of BGA-MNER that can be used"),
    ],
)
def test_processors_of_other_content_are_refused(folder, file, content, message):
    (folder / file).write_text(content, encoding="utf-8")
    with pytest.raises((ValueError, OSError), match=message):
        BgaMnerProcessor.from_pretrained(folder)


@pytest.mark.parametrize("size", [{"height": 10**6, "width": 16}, {"shortest_edge": 5000}, {"height": 0, "width": 9}])
def test_images_of_a_size_that_would_fill_the_memory_are_refused(folder, size):
    values = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
    for name in ("size", "crop_size"):
        changed = values | {"image_processor": values["image_processor"] | {name: size}}
        (folder / "processor_config.json").write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(
            ValueError, match="Expected an image processor that makes images of 1 to 2,048 pixels a side"
        ):
            BgaMnerProcessor.from_pretrained(folder)
