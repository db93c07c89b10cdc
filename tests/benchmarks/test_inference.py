"""The inference benchmark, on sizes where only its machinery is tested."""

from __future__ import annotations

import json

import pytest
import torch


def test_prints_the_ratios_last(benchmark, capsys):
    found = benchmark.main(["--size", "tiny", "--repeats", "2", "--json"])
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1]) == {"inference": found}
    assert found.keys() == {"12", "6", "4", "default", "no_hybrid"}
    assert min(found.values()) > 0


def test_what_differs_from_the_slow_reference_is_not_timed(benchmark, monkeypatch):
    monkeypatch.setattr(benchmark, "TOLERANCE", 0.0)
    with pytest.raises(RuntimeError, match="of float64, got a difference"):
        benchmark.main(["--size", "tiny", "--models", "default"])


def test_other_tags_are_not_timed(benchmark):
    torch.manual_seed(0)
    model, batch = benchmark.make_model("tiny", text_only=True).eval(), benchmark.make_batch("tiny")
    del batch["labels"]
    with torch.no_grad():
        model.classifier.weight.mul_(50)
    benchmark.check(model, batch)

    def change(module, arguments, output):
        if len(output["predictions"]) > 1:  # not the sentences on their own
            output["predictions"] += 1

    model.register_forward_hook(change)
    with pytest.raises(RuntimeError, match="got others in row"):
        benchmark.check(model, batch)
