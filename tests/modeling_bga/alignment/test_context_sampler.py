from __future__ import annotations

import pytest
import torch

from bga_mner.modeling_bga.alignment.context_sampler import ContextSampler, keep_mask_bias


@pytest.fixture
def sampler() -> ContextSampler:
    return ContextSampler(width=8, temperature=1.0, initial_keep=0.9).eval()


class FixedLogits(ContextSampler):
    """A sampler that wants to keep what `wanted` says, whatever the states are."""

    def __init__(self, wanted: torch.Tensor) -> None:
        super().__init__(8, 1.0, 0.5)
        self.wanted = wanted

    def logits(self, states, previous_keep):
        return torch.stack([self.wanted, 1 - self.wanted], dim=-1) * 100


def test_decisions_are_taken_position_by_position():
    # a count of kept positions, turned into a prefix mask, could not give these holes
    wanted = torch.tensor([[0.0, 1, 0, 0, 1, 1, 0]])
    keep = FixedLogits(wanted).eval()(torch.randn(1, 7, 8), torch.ones(1, 7), None)
    assert torch.equal(keep, wanted)


def test_in_doubt_a_position_is_kept():
    undecided = FixedLogits(torch.full((1, 3), 0.5)).eval()
    assert torch.equal(undecided(torch.randn(1, 3, 8), torch.ones(1, 3), None), torch.ones(1, 3))


def test_what_an_earlier_stage_dropped_stays_dropped():
    previous = torch.tensor([[1.0, 1, 0, 0, 1]])
    keep = FixedLogits(torch.tensor([[1.0, 0, 1, 0, 1]])).eval()(torch.randn(1, 5, 8), previous, None)
    assert torch.equal(keep, torch.tensor([[1.0, 0, 0, 0, 1]]))


@pytest.mark.parametrize("training", [False, True])
def test_class_token_is_kept_and_padding_is_not(training):
    padding = torch.tensor([[0.0, 1, 1, 1]])
    class_token = torch.tensor([[False, True, False, False]])
    sampler = FixedLogits(torch.zeros(1, 4)).train(training)
    assert torch.equal(sampler(torch.randn(1, 4, 8), padding, class_token), torch.tensor([[0.0, 1, 0, 0]]))
    sampler = FixedLogits(torch.ones(1, 4)).train(training)
    assert torch.equal(sampler(torch.randn(1, 4, 8), padding, class_token), padding)


def test_a_sentence_that_would_lose_everything_keeps_what_it_had():
    previous = torch.tensor([[1.0, 0, 1], [1, 1, 1]])
    keep = FixedLogits(torch.tensor([[0.0, 1, 0], [0, 1, 0]])).eval()(torch.randn(2, 3, 8), previous, None)
    assert torch.equal(keep, torch.tensor([[1.0, 0, 1], [0, 1, 0]]))


def test_the_global_half_reads_only_what_the_previous_stage_kept(sampler):
    states, previous = torch.randn(1, 5, 8), torch.tensor([[1.0, 1, 0, 1, 1]])
    changed = states.clone()
    changed[0, 2] = torch.randn(8)
    others = [0, 1, 3, 4]
    before, after = sampler.logits(states, previous), sampler.logits(changed, previous)
    assert torch.allclose(before[:, others], after[:, others], atol=1e-6)
    before, after = sampler.logits(states, torch.ones(1, 5)), sampler.logits(changed, torch.ones(1, 5))
    assert not torch.allclose(before[:, others], after[:, others], atol=1e-4)


def test_noise_in_training_only(sampler):
    states, previous = torch.randn(4, 50, 8), torch.ones(4, 50)
    assert torch.equal(sampler(states, previous, None), sampler(states, previous, None))
    sampler.train()
    assert not torch.equal(sampler(states, previous, None), sampler(states, previous, None))


@pytest.mark.parametrize("width", [8, 9])
def test_gradients_reach_every_parameter_through_the_attention_bias(width):
    sampler = ContextSampler(width, 1.0, 0.7).train()
    keep = sampler(torch.randn(3, 20, width), torch.ones(3, 20), None)
    assert set(keep.detach().unique().tolist()) == {0.0, 1.0}
    weights = torch.softmax(torch.randn(3, 20) + keep_mask_bias(keep, None, training=True), dim=-1)
    (weights * torch.randn(3, 20)).sum().backward()
    for name, parameter in sampler.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_only_the_states_are_left_for_the_backward_pass(sampler):
    states, saved = torch.randn(3, 20, 8, requires_grad=True), []

    def save(tensor):
        if tensor.dim() == 3 and tensor.shape[-1] > 2:  # as wide as states, and no logits
            saved.append(tensor.shape)

    with torch.autograd.graph.saved_tensors_hooks(save, lambda _: None):
        sampler.train()(states, torch.ones(3, 20), None)
        assert saved == [states.shape]
        sampler.eval().logits(states, torch.ones(3, 20))
        assert len(saved) == 4


def test_what_matches_keeps_more():
    sampler = ContextSampler(8, 1.0, 0.5, reads_match=True).eval()
    with torch.no_grad():
        sampler.decision.weight *= 20
    # one image, five times
    states, previous = torch.randn(1, 200, 8).expand(5, -1, -1), torch.ones(5, 200)
    kept = sampler(states, previous, None, torch.tensor([-0.2, -0.1, 0.0, 0.1, 0.2]))
    assert (kept[:-1] <= kept[1:]).all()
    assert (kept.sum(dim=1).diff() > 0).all()
    assert torch.equal(kept[2], sampler(states, previous, None)[2])
    without = ContextSampler(8, 1.0, 0.5)
    without.load_state_dict({name: value for name, value in sampler.state_dict().items() if name != "match_weight"})
    assert torch.equal(without.eval()(states, previous, None, torch.ones(5)), sampler(states, previous, None))


def test_weight_of_the_match_is_learned():
    sampler = ContextSampler(8, 1.0, 0.5, reads_match=True).train()
    keep = sampler(torch.randn(3, 20, 8), torch.ones(3, 20), None, torch.tensor([0.9, -0.5, 0.1]))
    (keep * torch.randn(3, 20)).sum().backward()
    assert sampler.match_weight.grad != 0


@pytest.mark.parametrize("training", [False, True])
def test_dropped_positions_and_padding_get_no_attention(training):
    keep, padding = torch.tensor([[1.0, 0, 1, 1]]), torch.tensor([[True, True, True, False]])
    weights = torch.softmax(keep_mask_bias(keep, padding, training), dim=-1)
    expected = torch.tensor([[0.5, 0, 0.5, 0]])
    assert torch.allclose(weights, expected, atol=1e-6 if training else 0)
    assert weights[0, 3] == 0
