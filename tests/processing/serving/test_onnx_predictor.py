"""The predictor without torch finds what the pipeline finds, for every kind of tokenizer."""

from __future__ import annotations

import io
import json
import random
import shutil
import sys
from itertools import pairwise

import pytest
import torch
from transformers import pipeline, set_seed

from bga_mner import BgaMnerConfig, BgaMnerForTokenClassification, BgaMnerProcessor, OnnxPredictor, export_onnx
from bga_mner.processing.serving import onnx_predictor
from bga_mner.processing.serving.onnx_export import _write_tagger


TEXTS = [
    "Kawhi Leonard wins the fan vote for #NBA in Atlanta, don't miss it!",
    "",
    "   ",
    "é\u200d ️ \ud800 👩‍🚀 naïve http://t.co/abc @Bundesliga_EN",
    "Justin",
    " ".join(["Eric Nam announces", "concert dates", "10,000 people", "!"] * 25),  # several windows
]
WORDS = [["Eric", "Nam", "announces", ""], [], ["\u200d", "don't", "#NBA", "x" * 300], ["Seattle"] * 90]
# what a server that knows nothing of torch does; the first lines stand for an environment without it
WITHOUT_TORCH = """
import json, sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "bga_mner", "datasets", "evaluate", "onnx"):
            raise ImportError(f"No module named {name!r}")

sys.meta_path.insert(0, Missing())
sys.path.insert(0, FOLDER)
from onnx_predictor import OnnxPredictor

annotate = OnnxPredictor(FOLDER, threads=1)
print(json.dumps([annotate(TEXTS, batch_size=2), annotate(WORDS)]))
"""


@pytest.fixture(scope="module")
def model():
    """Make a model whose tags differ from word to word, with ids for the largest of the tokenizers."""
    set_seed(0)
    shape = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48}
    model = BgaMnerForTokenClassification(
        BgaMnerConfig(
            text_config={"model_type": "bert", "num_hidden_layers": 2, "vocab_size": 400, **shape},
            vision_config={"model_type": "vit", "num_hidden_layers": 1, "image_size": 32, "patch_size": 16, **shape},
            id2label=dict(enumerate(["O", *(f"{part}-{kind}" for kind in ("LOC", "PER") for part in "BI")])),
            text_only=True,
            gate_initial_bias=0.0,
        )
    ).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(40)
    return model


@pytest.fixture(scope="module")
def exported(model, tokenizers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    export_onnx(model, BgaMnerProcessor(None, tokenizers["wordpiece"], model.config.label2id), folder)
    return folder


@pytest.fixture
def folder(exported, model, tokenizer, tmp_path):
    """Return the exported folder with another tokenizer; the graph stays, and so do its inputs."""
    folder = shutil.copytree(exported, tmp_path / "onnx")
    _write_tagger(model, BgaMnerProcessor(None, tokenizer, model.config.label2id), folder, model.crf.numpy_scores())
    settings = json.loads((folder / "tagger.json").read_text(encoding="utf-8"))
    (folder / "tagger.json").write_text(json.dumps(settings | {"takes_token_type_ids": True}), encoding="utf-8")
    return folder


def check_same(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert [entity | {"score": 0} for entity in ours] == [entity | {"score": 0} for entity in theirs]
        assert [entity["score"] for entity in ours] == pytest.approx([entity["score"] for entity in theirs], abs=1e-4)


def test_finds_what_the_pipeline_finds_without_torch(folder, model, tokenizer, run_python):
    processor = BgaMnerProcessor(None, tokenizer, model.config.label2id)
    annotate = pipeline("multimodal-ner", model=model, processor=processor, device="cpu")
    code = WITHOUT_TORCH.replace("FOLDER", repr(str(folder))).replace("TEXTS", repr(TEXTS))
    texts, words = json.loads(run_python(code.replace("WORDS", repr(WORDS))).splitlines()[-1])
    expected = annotate(TEXTS), annotate(WORDS)
    assert sum(map(len, expected[0])) > 5
    check_same(texts, expected[0])
    check_same(words, expected[1])
    for text, entities in zip(TEXTS, texts, strict=True):
        assert all(text[entity["start"] : entity["end"]] == entity["word"] for entity in entities)


def test_one_text_many_texts_and_windows(exported):
    annotate = OnnxPredictor(exported, threads=1)
    many = annotate(TEXTS)
    check_same([annotate(text) for text in TEXTS], many)
    check_same([annotate(["Eric", "Nam"], is_split_into_words=True)], annotate([["Eric", "Nam"]]))
    assert annotate([]) == []
    assert annotate("") == []
    windows = annotate(TEXTS[5], max_length=16, stride=3)
    assert all(one["end"] <= two["start"] for one, two in pairwise(windows))


def test_what_was_exported_before_batches_had_tokens(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "old")
    settings = json.loads((folder / "tagger.json").read_text(encoding="utf-8"))
    del settings["batch_tokens"]
    (folder / "tagger.json").write_text(json.dumps(settings), encoding="utf-8")
    old, new = OnnxPredictor(folder), OnnxPredictor(exported)
    check_same(old(TEXTS * 20), new(TEXTS * 20))


def test_says_what_to_mend(exported, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere' is no folder.*export_onnx\.py"):
        OnnxPredictor(tmp_path / "nowhere")
    broken = shutil.copytree(exported, tmp_path / "broken")
    (broken / "tagger.json").unlink()
    with pytest.raises(ValueError, match=r"broken' has no 'tagger\.json'"):
        OnnxPredictor(broken)
    annotate = OnnxPredictor(exported)
    for options, message in (
        ({"max_length": 65}, "at most 64"),
        ({"max_length": 2}, "above the 2 special tokens"),
        ({"max_length": 0}, "above the 2 special tokens, got 0"),
        ({"batch_size": 0}, "batch_size of at least 1"),
        ({"stride": 62}, "a stride of 0 to 61"),
    ):
        with pytest.raises(ValueError, match=message):
            annotate("Go", **options)
    with pytest.raises(ValueError, match="Expected `text` as a string"):
        annotate(3)


def without(*path):
    """Return a function that drops what stands at a place in a tagger's file."""

    def change(text):
        part = settings = json.loads(text)
        for name in path[:-1]:
            part = part[name]
        del part[path[-1]]
        return json.dumps(settings)

    return change


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("model.onnx", lambda text: "broken", "model.onnx"),
        ("model.onnx.data", lambda text: "", "model.onnx"),
        ("tokenizer.json", lambda text: "broken", "tokenizer.json"),
        ("tokenizer.json", lambda text: "{}", "tokenizer.json"),
        ("tagger.json", lambda text: "broken", "tagger.json"),
        ("tagger.json", lambda text: "[]", "it has no 'id2label', 'max_length'"),
        ("tagger.json", without("word_prefix"), "it has no 'word_prefix'"),
        ("tagger.json", without("id2label", "0"), "it has no '0'"),
        ("tagger.json", without("special_tokens", "behind"), "it has no 'behind'"),
        ("tagger.json", without("crf", "transitions"), "it has no 'transitions'"),
    ],
)
def test_broken_files_are_named(exported, tmp_path, capsys, name, change, message):
    folder = shutil.copytree(exported, tmp_path / "onnx")
    text = (folder / name).read_bytes().decode("utf-8", "replace")
    (folder / name).write_text(change(text), encoding="utf-8")
    with pytest.raises(ValueError, match=f"Expected a folder that export_onnx wrote, .*{message}") as caught:
        OnnxPredictor(folder)
    assert "Write one: python examples/export_onnx.py" in str(caught.value)
    assert onnx_predictor.main([str(folder), "Go"]) == 2
    assert capsys.readouterr().err == f"error: {caught.value}\n"


def test_the_graph_of_something_else_is_refused(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "onnx")
    settings = json.loads((folder / "tagger.json").read_text(encoding="utf-8"))
    settings["takes_token_type_ids"] = not settings["takes_token_type_ids"]
    (folder / "tagger.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ValueError, match="its inputs are 'attention_mask', 'input_ids'"):
        OnnxPredictor(folder)


def test_command_line(exported, monkeypatch, capsys):
    assert onnx_predictor.main([str(exported), *TEXTS[:3]]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in lines] == TEXTS[:3]
    check_same([line["entities"] for line in lines], OnnxPredictor(exported)(TEXTS[:3]))
    texts = [" ".join(random.Random(0).choices(TEXTS[0].split(), k=count)) for count in range(1, 40)]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{text}\n" for text in texts)))
    assert onnx_predictor.main([str(exported), "-", "--batch_size", "2", "--threads", "1"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in lines] == texts
    check_same([line["entities"] for line in lines], OnnxPredictor(exported)(texts))


def test_command_line_says_what_to_mend(exported, capsys):
    assert onnx_predictor.main(["nowhere", "Go"]) == 2
    assert "error: Expected a folder that export_onnx wrote, but 'nowhere' is no folder" in capsys.readouterr().err
    assert onnx_predictor.main([str(exported), "Go", "--batch_size", "0"]) == 2
    assert "--batch_size of at least 1, got 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        onnx_predictor.main([str(exported)])
    assert "text" in capsys.readouterr().err
