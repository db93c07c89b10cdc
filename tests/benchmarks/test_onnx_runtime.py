"""The benchmark of ONNX Runtime, with tiny models, since only the machinery is tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bga_mner import BgaMnerProcessor, read_conll, write_conll
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "onnx_runtime.py"


@pytest.mark.slow
def test_compares_and_times_from_the_command_line(tmp_path):
    arguments = ["--size", "tiny", "--batch_size", "2", "--length", "7", "--repeats", "2", "--json"]
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])["onnx"]
    assert found["max_abs_difference"] < 1e-4 < found["int8_max_abs_difference"]
    assert 0 <= found["int8_same_tags"] <= found["same_tags"] <= 1
    assert all(found[name] > 0 for name in ("fp32_speedup", "int8_speedup"))
    assert {name: len(seconds) for name, seconds in found["seconds"].items()} == {"eager": 2, "fp32": 2, "int8": 2}


@pytest.mark.slow
def test_scores_a_saved_model_on_real_text(benchmark, make_model, tmp_path, capsys):
    words = [["Kawhi", "wins", "in", "Seattle"], ["wins"], ["Seattle", "in", "Kawhi"]]
    tokenizer = build_tokenizer(words)
    model = make_model(use_text_to_image=False, text_options={"vocab_size": len(tokenizer)})
    with torch.no_grad():
        model.classifier.weight.mul_(20)
    model.save_pretrained(tmp_path / "model")
    processor = BgaMnerProcessor(None, tokenizer, label2id=model.config.label2id)
    processor.save_pretrained(tmp_path / "model")
    write_conll(tmp_path / "valid.txt", words, [["B-PER", "O", "O", "B-LOC"], ["O"], ["B-LOC", "O", "B-PER"]])
    assert len(read_conll(tmp_path / "valid.txt")) == 3
    found = benchmark.main(["--data_dir", str(tmp_path), "--model", str(tmp_path / "model"), "--json"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"onnx": found}
    assert found["words"] == 8
    assert found["changed_words"]["fp32"] == 0
    assert found["f1"]["fp32"] == found["f1"]["torch"]
    assert found["int8_cost"] == 100 * (found["f1"]["torch"] - found["f1"]["int8"])


def test_says_what_is_missing(benchmark, tmp_path):
    with pytest.raises(ValueError, match=r"Expected train\.txt and valid\.txt"):
        benchmark.main(["--data_dir", str(tmp_path)])
