"""The benchmark of bfloat16, on sizes where only its machinery is tested."""

from __future__ import annotations

import json

import pytest
import torch


def test_measures_and_prints(benchmark, capsys):
    argv = ["--steps", "10", "--vision_steps", "2", "--images", "16", "--pairs", "24", "--test_sentences", "8"]
    found = benchmark.main([*argv, "--size", "tiny", "--json"])
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1]) == {"precision": found}
    assert list(found) == ["trained", "random"]
    for modes in found.values():
        assert list(modes) == ["autocast", "weights"]
        for values in modes.values():
            assert 0 < values["emissions_mean"] < values["emissions"] < 0.5 * values["emissions_scale"]
            assert 0 < values["probabilities_mean"] < values["probabilities"] < 0.3
            assert 0 <= values["tags"] < 0.5
            assert 0 <= values["kept"] < 0.5
            assert 0 < values["loss"] < 0.1


def test_what_is_compared(benchmark, make_model, make_batch):
    model, batch = make_model(), make_batch()
    attended = int(batch["attention_mask"].sum())
    exact, again = (benchmark.read(model, batch) for _ in range(2))
    assert exact["emissions"].shape == exact["probabilities"].shape == (attended, 5)
    assert exact["tags"].shape == (attended,)
    assert exact["kept"].shape == (2 * attended,)
    assert all(torch.equal(exact[name], again[name]) for name in exact)
    rounded = benchmark.read(model, batch, "weights")
    assert not torch.equal(rounded["emissions"], exact["emissions"])
    # the model itself stays as it was
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    found = benchmark.compare(model, [batch])["weights"]
    assert found["emissions"] == (rounded["emissions"] - exact["emissions"]).abs().max().item()
    assert found["loss"] == pytest.approx(abs(rounded["loss"].item() / exact["loss"].item() - 1), rel=1e-3)
