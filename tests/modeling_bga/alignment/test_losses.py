from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from bga_mner.modeling_bga.alignment.losses import (
    feature_distance,
    keep_budget_loss,
    mean_over_batch,
    reconstruction_target,
)


def slow_distance(generated, target, weight, distance, normalize):
    results = []
    for b in range(len(generated)):
        total, count = 0.0, 0.0
        for i in range(generated.shape[1]):
            real = target[b, i]
            if normalize:
                real = (real - real.mean()) / torch.sqrt(real.var(unbiased=False) + 1e-5)
            made = generated[b, i]
            if distance == "mse":
                value = ((made - real) ** 2).mean()
            elif distance == "smooth_l1":
                difference = (made - real).abs()
                value = torch.where(difference < 1, 0.5 * difference**2, difference - 0.5).mean()
            else:
                value = 1 - made @ real / (made.norm() * real.norm())
            total, count = total + weight[b, i] * value, count + weight[b, i]
        results.append(total / max(count, 1))
    return torch.stack(results)


@pytest.mark.parametrize("distance", ["mse", "smooth_l1", "cosine"])
@pytest.mark.parametrize("normalize", [False, True])
def test_against_a_slow_loop(distance, normalize):
    # batch 3 and length 3: a mask broadcast over the wrong axis would not fail on its shape
    generated, target = torch.randn(3, 3, 5), torch.randn(3, 3, 5) * 3 + 1
    weight = torch.tensor([[1.0, 0, 1], [1, 1, 1], [0, 0, 1]])
    fast = feature_distance(generated, reconstruction_target(target, normalize), weight, distance)
    assert torch.allclose(fast, slow_distance(generated, target, weight, distance, normalize), atol=1e-5)


def test_masked_positions_do_not_count():
    generated, target = torch.randn(2, 4, 5), torch.randn(2, 4, 5)
    weight = torch.tensor([[1.0, 1, 0, 0], [1, 0, 1, 1]])
    before = feature_distance(generated, reconstruction_target(target, True), weight, "mse")
    generated[0, 2:], target[1, 1] = 99, 99
    assert torch.equal(feature_distance(generated, reconstruction_target(target, True), weight, "mse"), before)


def test_nothing_kept_costs_nothing():
    assert (
        feature_distance(
            torch.randn(1, 2, 3), reconstruction_target(torch.randn(1, 2, 3), True), torch.zeros(1, 2), "mse"
        )
        == 0
    )


def test_gradient_reaches_what_was_generated_and_nothing_else():
    generated, target = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 3, 4, requires_grad=True)
    feature_distance(generated, reconstruction_target(target, True), torch.ones(2, 3), "mse").sum().backward()
    assert generated.grad.abs().sum() > 0
    # otherwise the encoder would learn easy states
    assert target.grad is None


def test_a_constant_scale_of_the_targets_does_not_matter_when_normalised():
    generated, target, weight = torch.randn(1, 3, 8), torch.randn(1, 3, 8), torch.ones(1, 3)
    assert torch.allclose(
        feature_distance(generated, reconstruction_target(target, True), weight, "mse"),
        feature_distance(generated, reconstruction_target(target * 50 + 7, True), weight, "mse"),
        atol=1e-4,
    )


def test_uncounted_sentences_add_nothing_whatever_they_hold():
    losses = [torch.tensor([1.0, float("nan"), 3.0]), torch.tensor([5.0, float("inf"), 7.0])]
    assert mean_over_batch(losses, torch.tensor([True, False, True])) == (1 + 3 + 5 + 7) / 6


def test_small_batches_average_to_a_large_one():
    losses, counted = torch.rand(4), torch.tensor([True, False, False, True])
    halves = [mean_over_batch([losses[h]], counted[h]) for h in (slice(0, 2), slice(2, 4))]
    assert torch.allclose(torch.stack(halves).mean(), mean_over_batch([losses], counted))


def test_half_precision_is_compared_in_single_precision():
    generated, target = torch.randn(1, 3, 8), torch.randn(1, 3, 8)
    loss = feature_distance(
        generated.bfloat16(), reconstruction_target(target.bfloat16(), True), torch.ones(1, 3).bfloat16(), "mse"
    )
    assert loss.dtype == torch.float32
    assert torch.allclose(loss, F.mse_loss(generated, F.layer_norm(target, (8,)))[None], atol=0.05)


def test_an_unknown_distance_is_refused():
    with pytest.raises(ValueError, match="'mse', 'smooth_l1' or 'cosine'"):
        feature_distance(
            torch.randn(1, 2, 3), reconstruction_target(torch.randn(1, 2, 3), True), torch.ones(1, 2), "l1"
        )


def test_budget_prices_what_is_kept_beyond_it():
    keep = torch.tensor([[1.0, 1, 1, 0, 1], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]], requires_grad=True)
    loss = keep_budget_loss(keep, 0.5)
    assert torch.allclose(loss, torch.tensor([0.3**2, 0.0, 0.5**2]))
    loss.sum().backward()
    assert torch.equal(keep.grad != 0, torch.tensor([[True], [False], [True]]).expand(3, 5))
