"""Every fuzzing target runs over some hundred inputs in each test run, so that none goes stale; `make fuzz` goes on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from importlib import import_module

import pytest
from run import TARGETS


# Inputs beside the seeds; those of the slow ones are fewer.
COUNTS = {"pipeline_inputs": 60, "saved_files": 24, "conll_reader": 120, "crf_scores": 120}


def mutated(seeds: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Yield the seeds, and then inputs that are made of them."""
    yield from seeds
    rng = random.Random(seed)
    for _ in range(count):
        made = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 6)):
            place = rng.randint(0, len(made))
            made[place : place + rng.choice((0, 0, 1, 4))] = rng.randbytes(rng.choice((0, 1, 1, 1, 8)))
        if rng.random() < 0.2:
            del made[rng.randint(0, len(made)) :]
        yield bytes(made)


@pytest.mark.parametrize("name", TARGETS)
def test_target(name: str) -> None:
    target = import_module(name)
    for data in mutated(target.seeds(), COUNTS.get(name, 200), seed=0):
        target.one_input(data)
