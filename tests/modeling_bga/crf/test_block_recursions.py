"""Recursions by blocks, which other devices than the CPU take, against the loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bga_mner.modeling_bga.crf import recursions
from bga_mner.modeling_bga.crf.block_recursions import best_path_by_blocks
from bga_mner.modeling_bga.crf.crf import FORBIDDEN_SCORE
from bga_mner.modeling_bga.crf.recursions import best_path, log_space_posterior, posterior


LENGTHS = [1, 2, 3, 4, 5, 9, 10, 16, 17, 50]


def make_batch(length: int, tags: int = 5, spread: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
    """Emissions, masks of every kind, and scores with a forbidden transition."""
    generator = torch.Generator().manual_seed(length)
    emissions = spread * torch.randn(6, length, tags, generator=generator, dtype=torch.float64)
    mask = torch.ones(6, length, dtype=torch.bool)
    mask[1, length // 2 :] = False  # on the right
    mask[2, : length // 2] = False  # on the left
    mask[3] = torch.rand(length, generator=generator) < 0.6  # holes
    mask[4] = False
    emissions[~mask] = torch.nan
    scores = spread * torch.randn(tags + 1, tags + 1, generator=generator, dtype=torch.float64)
    scores[0, 2] = scores[-1, 2] = FORBIDDEN_SCORE
    scores[-1, -1] = 0
    return emissions, mask, scores


@pytest.fixture
def by_blocks(monkeypatch):
    """Let the recursions go the way of a device whose values are costly to read."""

    def switch() -> None:
        monkeypatch.setattr(recursions, "is_cheap_to_read", lambda _: False)

    return switch


@pytest.mark.parametrize("spread", [0.1, 2.0, 30.0])
@pytest.mark.parametrize("length", LENGTHS)
def test_the_posterior_is_that_of_the_loops(by_blocks, length, spread):
    emissions, mask, scores = make_batch(length, spread=spread)
    expected = posterior(emissions, mask, scores, True)
    by_blocks()
    found = posterior(emissions, mask, scores, True)
    for results in (found, expected):
        results[2][:, -1, -1] = 0  # the boundary follows itself, or is passed on: no score counts there
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    assert (found[1][~mask] == 0).all()


@pytest.mark.parametrize("length", LENGTHS)
def test_the_best_path_is_that_of_the_loops(length):
    emissions, mask, scores = make_batch(length)
    expected, found = best_path(emissions, mask, scores), best_path_by_blocks(emissions, mask, scores)
    assert found.shape == expected.shape
    assert torch.equal(found[mask], expected[mask])
    assert ((found >= 0) & (found < emissions.shape[2])).all()


def test_among_equally_good_paths_one_is_chosen_as_a_whole():
    """A path that mixes two of them would cost a transition that neither pays."""
    emissions, mask = torch.zeros(1, 30, 3, dtype=torch.float64), torch.ones(1, 30, dtype=torch.bool)
    scores = torch.full((4, 4), -50.0, dtype=torch.float64).fill_diagonal_(0.0)
    scores[-1] = scores[:, -1] = 0
    assert len(best_path_by_blocks(emissions, mask, scores).unique()) == 1


def test_sentences_that_would_underflow_go_through_log_space(by_blocks):
    emissions, mask, scores = make_batch(40, spread=3.0)
    scores[:-1, :-1] = torch.where(torch.eye(5, dtype=torch.bool), -1000.0, 0.0)
    emissions[0] = torch.where(torch.arange(5) == 1, 0.0, -900.0)  # one tag throughout, at any price
    expected = log_space_posterior(emissions, mask, scores)
    by_blocks()
    for one, other in zip(posterior(emissions, mask, scores, False)[:2], expected, strict=False):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_blocks_are_left_out_in_float32_and_where_they_would_fill_the_memory(by_blocks):
    by_blocks()
    _, mask, scores = make_batch(16)
    assert recursions._pays_by_blocks(mask, scores)
    assert not recursions._pays_by_blocks(mask, scores.float())
    assert not recursions._pays_by_blocks(mask.expand(6, 16).repeat(50, 1), scores.new_zeros(134, 134))


class _Count(TorchDispatchMode):
    """Counts operations that compute; views cost no launch."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations += not func.is_view
        return func(*args, **(kwargs or {}))


def test_operations_grow_with_the_root_of_the_length(by_blocks):
    def count(length: int) -> int:
        emissions, mask, scores = make_batch(length)
        with _Count() as counted:
            posterior(emissions.nan_to_num(), mask, scores, False)
            recursions.best_path(emissions.nan_to_num(), mask, scores)
        return counted.operations

    loops = count(256)
    by_blocks()
    short, long = count(64), count(256)
    assert long < 300 < loops / 4
    assert long < 2.2 * short  # the length has grown by 4
