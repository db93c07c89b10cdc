"""Exporting a saved model, and annotating with what was written."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bga_mner import BgaMnerForTokenClassification


@pytest.mark.slow
@pytest.mark.parametrize("int8", [False, True])
def test_what_is_written_annotates(script, text_model_dir, tmp_path, capsys, int8):
    output = tmp_path / "deep" / "onnx"
    for _ in range(2 - int8):  # once more into the same folder
        sizes = script.main(["--model", str(text_model_dir), "--output", str(output), *(["--int8"] if int8 else [])])
    assert set(sizes) == {path.name for path in output.iterdir()}
    assert {"model.onnx", "model.onnx.data", "tagger.json", "tokenizer.json", "onnx_predictor.py"} == set(sizes)
    model = BgaMnerForTokenClassification.from_pretrained(text_model_dir)
    assert sizes["model.onnx.data"] < 2 * 4 * model.num_parameters()
    shown = capsys.readouterr().out
    assert all(f"{size:,}  {name}" in shown for name, size in sizes.items())
    command = [sys.executable, str(output / "onnx_predictor.py"), str(output), "Kawhi wins"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout)["text"] == "Kawhi wins"


def test_what_is_missing_is_named(script, make_model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    arguments = ["--model", str(tmp_path / "nowhere"), "--output", str(tmp_path / "onnx")]
    with pytest.raises(ValueError, match=r"nowhere', which can't be loaded.*Check --model"):
        script.main(arguments)
    make_model().save_pretrained(tmp_path / "model")  # without a processor
    with pytest.raises(ValueError, match=r"model', which can't be loaded.*Check --model"):
        script.main(["--model", str(tmp_path / "model"), *arguments[2:]])
    (tmp_path / "onnx").write_text("")
    with pytest.raises(ValueError, match=r"got the file .*onnx'"):
        script.main(arguments)
    with pytest.raises(SystemExit):
        script.main(["--output", "somewhere"])
