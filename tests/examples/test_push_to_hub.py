"""Pushing a saved model, to a Hub on this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, ViTImageProcessorPil

from bga_mner import (
    BgaMnerForSequenceClassification,
    BgaMnerForTokenClassification,
    BgaMnerModel,
    BgaMnerProcessor,
    build_student,
    save_student,
)
from bga_mner.configuration.hub.remote_code import code_files
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "push_to_hub.py"


@pytest.fixture
def model_dir(make_model, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path / "model")
    image_processor = ViTImageProcessorPil(size={"height": 16, "width": 16})
    tokenizer = build_tokenizer([["Kawhi", "wins"]])
    BgaMnerProcessor(image_processor, tokenizer, label2id=model.config.label2id).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("---\nlicense: apache-2.0\n---\nMine.\n")
    return tmp_path / "model"


def test_dry_run_shows_every_file_and_pushes_nothing(script, model_dir, capsys, monkeypatch):
    monkeypatch.setattr(script, "HfApi", None)  # nothing may ask for it
    options = ["--model_dir", str(model_dir), "--repo_id", "org/bga-mner", "--dry_run"]
    sizes, slim = script.main(options), script.main([*options, "--text-only"])
    shown = capsys.readouterr().out
    assert set(sizes) == {path.name for path in model_dir.iterdir()}
    assert set(slim) == set(sizes)
    for name, size in {**sizes, "model.safetensors": slim["model.safetensors"]}.items():
        assert f"{size:,}  {name}" in shown
    assert f"{sum(sizes.values()):,}  bytes in {len(sizes)} files" in shown
    assert slim["model.safetensors"] < 0.6 * sizes["model.safetensors"]
    assert sizes["model.safetensors"] == os.path.getsize(model_dir / "model.safetensors")


def test_what_is_missing_is_named(script, model_dir, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"'.*nowhere' without config\.json"):
        script.main(["--model_dir", str(tmp_path / "nowhere"), "--repo_id", "org/x", "--dry_run"])
    monkeypatch.setattr(script, "get_token", lambda: None)
    with pytest.raises(ValueError, match=r"token of the Hub.*hf auth login.*HF_TOKEN"):
        script.main(["--model_dir", str(model_dir), "--repo_id", "org/x"])


@pytest.mark.parametrize("text_only", [False, True])
def test_a_classifier_is_pushed_with_its_own_weights(script, make_config, model_dir, tmp_path, text_only):
    model = BgaMnerForSequenceClassification(make_config(id2label={0: "bad", 1: "good"}))
    model.save_pretrained(model_dir)
    (tmp_path / "pushed").mkdir()
    script.save(model_dir, text_only, tmp_path / "pushed", "org/x")
    config = json.loads((tmp_path / "pushed" / "config.json").read_text())
    assert config["architectures"] == ["BgaMnerForSequenceClassification"]
    pushed = BgaMnerForSequenceClassification.from_pretrained(tmp_path / "pushed").state_dict()
    assert pushed.keys() <= model.state_dict().keys()
    assert (len(pushed) < len(model.state_dict())) is text_only
    assert torch.equal(pushed["classifier.weight"], model.classifier.weight)


def test_a_model_without_a_head_is_refused(script, make_config, model_dir, tmp_path):
    BgaMnerModel(make_config()).save_pretrained(model_dir)
    with pytest.raises(ValueError, match=r"one of 'BgaMnerForTokenClassification'.*got 'BgaMnerModel'"):
        script.save(model_dir, False, tmp_path, "org/x")


@pytest.fixture
def student_dir(make_model, tmp_path):
    tokenizer = build_tokenizer([["Kawhi", "wins"]])
    teacher = make_model(text_options={"vocab_size": len(tokenizer)})
    student = build_student(teacher, BgaMnerProcessor(None, tokenizer, label2id=teacher.config.label2id))
    save_student(tmp_path / "student", *student, teacher, training={})
    (tmp_path / "student" / "onnx").mkdir()
    (tmp_path / "student" / "onnx" / "model.onnx").write_bytes(b"graph")
    (tmp_path / "student" / "checkpoint-9").mkdir()
    (tmp_path / "student" / "checkpoint-9" / "optimizer.pt").write_bytes(b"state")
    (tmp_path / "student" / "training_args.bin").write_bytes(b"pickled")
    return tmp_path / "student"


def test_a_student_is_pushed_as_the_plain_model_that_it_is(
    student_dir, loopback_hub, run_python, bare_python, tmp_path
):
    environment = loopback_hub.environment(tmp_path / "home")
    code = f"""
import runpy
main = runpy.run_path({str(SCRIPT)!r})["main"]
main(["--model_dir", "student", "--repo_id", "org/student"])
"""
    run_python(code, environment=environment)
    files = loopback_hub.files("org/student", "main")
    assert set(files) - {".gitattributes"} == {
        *("README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        "onnx/model.onnx",
    }
    card = files["README.md"].decode()
    assert 'model="org/student"' in card
    assert "FOLDER_OR_HUB_NAME" not in card
    code = """
from transformers import pipeline
print(type(pipeline("token-classification", model="org/student").model).__name__)
"""
    assert "BertForTokenClassification" in run_python(code, bare_python, environment)


def test_what_is_no_student_is_refused(script, student_dir, tmp_path):
    with pytest.raises(ValueError, match="Expected a bga_mner model for --text_only"):
        script.save(student_dir, True, tmp_path, "org/x")
    BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)).save_pretrained(tmp_path / "bare")
    with pytest.raises(ValueError, match=r"Expected a tagger or a classifier .*got 'BertModel'"):
        script.save(tmp_path / "bare", False, tmp_path, "org/x")


def test_one_commit_holds_all(model_dir, loopback_hub, run_python, tmp_path):
    code = f"""
import runpy, sys
main = runpy.run_path({str(SCRIPT)!r})["main"]
main(["--model_dir", "model", "--repo_id", "org/bga-mner"])
main(["--model_dir", "model", "--repo_id", "org/secret", "--private", "--text_only"])
main(["--model_dir", "model", "--repo_id", "org/bga-mner", "--text_only", "--revision", "text-only"])
try:
    main(["--model_dir", "model", "--repo_id", "org/bga-mner", "--private"])
except ValueError as error:
    print(error)
"""
    shown = run_python(code, environment=loopback_hub.environment(tmp_path / "home"))
    assert "org/bga-mner, which is there already and public" in shown
    public, secret = loopback_hub.repositories["org/bga-mner"], loopback_hub.repositories["org/secret"]
    assert (public.private, secret.private) == (False, True)
    assert public.messages == ["initial commit", "Upload model and processor", "Upload model and processor"]
    assert f"Pushed: {loopback_hub.endpoint}/org/bga-mner/commit/{public.branches['main']}" in shown
    for repository, branch, text_only in ((public, "main", False), (secret, "main", True), (public, "text-only", True)):
        files = loopback_hub.files(repository.name, branch)
        assert set(code_files()) < set(files)
        assert b"Mine." in files["README.md"]
        folder = tmp_path / f"{repository.name}-{branch}"
        folder.mkdir(parents=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        assert BgaMnerForTokenClassification.from_pretrained(folder).config.text_only is text_only
        processor = BgaMnerProcessor.from_pretrained(folder)
        assert (processor.image_processor is None) is text_only
        assert json.loads(files["processor_config.json"])["label2id"] == processor.label2id
