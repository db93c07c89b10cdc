"""The benchmark of the cache, on sizes where only its machinery is tested."""

from __future__ import annotations

import json

import pytest


def test_prints_the_ratios_last(benchmark, capsys):
    found = benchmark.main(["--size", "tiny", "--repeats", "1", "--json"])
    last = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert last["vision_cache"] == found
    assert last["loss_difference"] <= 1e-5
    assert found.keys() == {"frozen_vision", "with_data", "plain_text", *benchmark.WITHOUT}
    assert min(found.values()) > 0


def test_other_losses_are_not_timed(benchmark, monkeypatch):
    monkeypatch.setattr(benchmark, "TOLERANCE", -1.0)
    with pytest.raises(RuntimeError, match="the same loss"):
        benchmark.main(["--size", "tiny", "--models", "frozen_vision"])
