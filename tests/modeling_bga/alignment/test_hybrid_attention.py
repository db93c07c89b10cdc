from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bga_mner.modeling_bga.alignment.hybrid_attention import HybridProjection, HybridStates, hybrid_attention_forward
from bga_mner.modeling_bga.encoders.encoder import build_encoder


BATCH, HEADS, LENGTH, FEATURES, HEAD_WIDTH = 2, 3, 5, 4, 2
WIDTH = HEADS * HEAD_WIDTH


class Attention(nn.Module):
    """An attention module whose projections have the names that some encoder family gives them."""

    def __init__(self, names: str) -> None:
        super().__init__()
        self.key_of, self.value_of = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        if names == "Wqkv":
            self.Wqkv = nn.Linear(WIDTH, 3 * WIDTH)
            with torch.no_grad():
                self.Wqkv.weight[WIDTH:] = torch.cat([self.key_of.weight, self.value_of.weight])
                self.Wqkv.bias[WIDTH:] = torch.cat([self.key_of.bias, self.value_of.bias])
        else:
            for name, projection in zip(names.split(), (self.key_of, self.value_of), strict=True):
                setattr(self, name, projection)


def slow_hybrid_attention(module, query, key, value, mask, states, bias):
    """Loop over sentences, heads and queries."""
    output = torch.zeros(BATCH, LENGTH, HEADS, HEAD_WIDTH)
    for b in range(BATCH):
        for h in range(HEADS):
            channels = slice(h * HEAD_WIDTH, (h + 1) * HEAD_WIDTH)
            for q in range(LENGTH):
                scores, values = [], []
                for k in range(LENGTH):
                    if mask is None or mask[b, 0, 0, k]:
                        scores.append(query[b, h, q] @ key[b, h, k] / math.sqrt(HEAD_WIDTH))
                        values.append(value[b, h, k])
                for f in range(FEATURES):
                    generated_key = module.key_of(states[b, f])[channels]
                    scores.append(query[b, h, q] @ generated_key / math.sqrt(HEAD_WIDTH) + bias[b, 0, 0, f])
                    values.append(module.value_of(states[b, f])[channels])
                weights = torch.softmax(torch.stack(scores), dim=0)
                output[b, q, h] = sum(w * v for w, v in zip(weights, values, strict=True))
    return output


@pytest.mark.parametrize("names", ["key value", "k_lin v_lin", "k_proj v_proj", "k v", "key_proj value_proj", "Wqkv"])
@pytest.mark.parametrize("padded", [False, True])
def test_against_a_slow_loop(padded, names):
    module = Attention(names)
    query, key, value = (torch.randn(BATCH, HEADS, LENGTH, HEAD_WIDTH) for _ in range(3))
    states, bias = torch.randn(BATCH, FEATURES, WIDTH), torch.randn(BATCH, 1, 1, FEATURES)
    mask = None
    if padded:
        mask = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]]).bool()[:, None, None]
    fast, _ = hybrid_attention_forward(
        module, query, key, value, HybridStates(mask, states, bias), scaling=HEAD_WIDTH**-0.5
    )
    slow = slow_hybrid_attention(module, query, key, value, mask, states, bias)
    assert torch.allclose(fast, slow, atol=1e-6)


def test_projection_adds_gate_and_keep_bias_and_nothing_else():
    projection = HybridProjection(3, WIDTH, gate_initial_bias=-2.0)
    features = torch.randn(BATCH, FEATURES, 3)
    hybrid = projection(features, None)
    assert torch.equal(hybrid.score_bias, torch.full((1, 1, 1, FEATURES), -2.0))
    assert torch.equal(hybrid.states, projection.projection(projection.norm(features)))
    keep_bias = torch.randn(BATCH, FEATURES)
    assert torch.allclose(projection(features, None, keep_bias).score_bias[:, 0, 0], keep_bias - 2)


def test_an_encoder_run_by_its_own_forward_still_masks_padding(make_config):
    encoder = build_encoder(make_config().text_config).eval()
    ids = torch.randint(5, 60, (1, 6))
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    short = encoder(input_ids=ids[:, :4]).last_hidden_state
    assert torch.allclose(encoder(input_ids=ids, attention_mask=mask).last_hidden_state[:, :4], short, atol=1e-5)


def test_a_module_without_key_and_value_projections_is_refused():
    states = HybridStates(None, torch.randn(2, 3, WIDTH), torch.zeros(1, 1, 1, 3))
    tensor = torch.randn(BATCH, HEADS, LENGTH, HEAD_WIDTH)
    with pytest.raises(ValueError, match="key and value projections"):
        hybrid_attention_forward(nn.Linear(1, 1), tensor, tensor, tensor, states)
