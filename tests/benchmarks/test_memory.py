"""The memory benchmark, on sizes where only its machinery is tested."""

from __future__ import annotations

import json

import pytest


@pytest.mark.slow
def test_prints_the_ratios_last(benchmark, capfd):
    found = benchmark.main(["--size", "tiny", "--json"])
    assert json.loads(capfd.readouterr().out.strip().splitlines()[-1]) == {"memory": found}
    assert found.keys() == {"12", "default", "cached_vision", "frozen_vision"}
    assert min(found.values()) > 0


def test_counts_weights_and_gradients(benchmark):
    found = {name: benchmark.measure(name, "tiny")["weights_and_gradients"] for name in ("baseline", "default")}
    assert found["baseline"] == 2 * sum(weight.nbytes for weight in benchmark.make_baseline("tiny").parameters())
    whole = benchmark.make_model("tiny")
    assert found["default"] <= 2 * sum(weight.nbytes for weight in whole.parameters())
    # without the vision encoder's own
    encoder = sum(weight.nbytes for weight in whole.bga_mner.vision_encoder.parameters())
    without = benchmark.measure("cached_vision", "tiny")["weights_and_gradients"]
    assert found["default"] - 2 * encoder <= without <= found["default"] - encoder
    # a frozen one has weights and no gradients
    frozen = benchmark.measure("frozen_vision", "tiny")["weights_and_gradients"]
    assert frozen == without + encoder
