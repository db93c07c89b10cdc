"""The training benchmark, on sizes where only its machinery is tested."""

from __future__ import annotations

import json

import pytest
import torch


def test_prints_the_ratios_last(benchmark, capsys):
    found = benchmark.main(["--size", "tiny", "--repeats", "1", "--json"])
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1]) == {"training": found}
    assert found.keys() == {"12", "default", "cached_vision"}
    assert min(found.values()) > 0


def test_what_differs_from_the_slow_reference_is_not_timed(benchmark, monkeypatch):
    monkeypatch.setattr(benchmark, "TOLERANCE", 0.0)
    with pytest.raises(RuntimeError, match="one by one"):
        benchmark.main(["--size", "tiny", "--models", "default"])


def test_a_frozen_vision_encoder_is_not_run_from_the_cache(benchmark, monkeypatch):
    seen = []
    build = benchmark.make_model

    def make_model(*arguments, **options):
        model = build(*arguments, **options)
        model.bga_mner.vision_encoder.register_forward_pre_hook(lambda *call: seen.append("encoder"))
        model.bga_mner.vision_encoder.embeddings.register_forward_pre_hook(
            lambda *call: seen.append(torch.is_grad_enabled())
        )
        return model

    monkeypatch.setattr(benchmark, "make_model", make_model)
    benchmark.main(["--size", "tiny", "--repeats", "1", "--models", "cached_vision"])
    assert True not in seen  # for the states and the check alone, without gradients
