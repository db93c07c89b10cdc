"""The benchmark of torch.compile, on sizes where only its machinery is tested."""

from __future__ import annotations

import json

import pytest
import torch


@pytest.fixture(autouse=True)
def _fresh_compiler():
    yield
    torch.compiler.reset()


@pytest.mark.slow
def test_prints_the_gains_last(benchmark, capsys):
    found = benchmark.main(["--size", "tiny", "--models", "baseline,default", "--repeats", "2", "--json"])
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1]) == {"compilation": found}
    assert found.keys() == {"baseline", "default"}
    assert min(found.values()) > 0


def test_training_is_called_with_images_and_labels(benchmark):
    model, batch = benchmark.make("default", "tiny", training=True)
    assert model.training
    assert {"pixel_values", "labels"} <= batch.keys()
    model, batch = benchmark.make("12", "tiny", training=False)
    assert not {"pixel_values", "labels"} & batch.keys()


def test_other_scores_are_noticed(benchmark):
    model, batch = benchmark.make("default", "tiny", training=False)
    benchmark.check(model, model, batch)
    other = benchmark.make("default", "tiny", training=False)[0]
    with pytest.raises(RuntimeError, match="scores within"):
        benchmark.check(model, other, batch)
