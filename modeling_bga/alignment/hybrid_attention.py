"""Hybrid attention: an encoder layer's own tokens attend to themselves and to generated features.

It is built on transformers' attention interface, so that the layers stay the library's own, with their pretrained
weights. What the generated side needs travels in place of the attention mask, as a [`HybridStates`]: that is the one
argument which every supported encoder hands to its attention function (SigLIP drops keyword arguments), and an
attention function that doesn't know it fails at once instead of ignoring the features.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ...configuration.errors import mismatch


HYBRID_ATTENTION = f"bga_hybrid_{__name__}"
"""Name of the attention function: each copy of this code in a process, as saved models bring along, has its own."""

# Of queries, keys and values. ModernBERT's are one module.
_PROJECTION_NAMES = (
    ("query", "key", "value"),
    ("q_lin", "k_lin", "v_lin"),
    ("q_proj", "k_proj", "v_proj"),
    ("q", "k", "v"),
    ("query_proj", "key_proj", "value_proj"),
    ("Wqkv",),
)


class HybridStates(NamedTuple):
    """What a layer attends to beside its own tokens: features of the other modality, projected to its width."""

    # of own positions: booleans (batch, 1, 1 or length, length), or added to scores (batch or 1, heads, length, length)
    attention_mask: Tensor | None
    states: Tensor  # (batch, features, width)
    score_bias: Tensor  # (batch or 1, 1, 1, features): the layer's gate, and what hides padding


LayerMask: TypeAlias = Tensor | HybridStates | None
"""What a layer takes as its attention mask."""


class HybridProjection(nn.Module):
    """Bring features of the other modality into a layer: LayerNorm, projection to the layer's width, and the gate.

    The LayerNorm stands first because the vision encoders are pre-norm: their hidden states have no fixed scale. A very
    negative gate closes it: the layer then computes what it did without.
    """

    def __init__(self, feature_width: int, layer_width: int, gate_initial_bias: float) -> None:
        super().__init__()
        self.gate_initial_bias = float(gate_initial_bias)
        self.norm = nn.LayerNorm(feature_width)
        self.projection = nn.Linear(feature_width, layer_width)
        # one element, not none: FSDP refuses parameters without dimensions
        self.gate = nn.Parameter(torch.full((1,), self.gate_initial_bias))

    def forward(
        self,
        features: Tensor,
        attention_mask: Tensor | None,
        feature_bias: Tensor | None = None,
    ) -> HybridStates:
        """Project features (batch, features, feature_width) for one layer, to be its mask with its own one.

        `feature_bias` (batch, features) is added to their scores.
        """
        bias = self.gate.view(1, 1, 1, 1).expand(1, 1, 1, features.shape[1])  # (1, 1, 1, features)
        if feature_bias is not None:
            bias = bias + feature_bias[:, None, None, :]  # (batch, 1, 1, features)
        return HybridStates(attention_mask, self.projection(self.norm(features)), bias)


def hybrid_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: LayerMask,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Attend to own tokens and, where `attention_mask` is a [`HybridStates`], to its states as well.

    The states go through the calling module's own key and value projections. Arguments are those of transformers'
    attention functions: from (batch, heads, length, head width) to (batch, length, heads, head width).
    """
    if isinstance(attention_mask, HybridStates):
        own_mask, states, score_bias = attention_mask
        batch, heads, length, head_width = key.shape
        # (batch, features, heads * head width) -> (batch, heads, features, head width)
        split = (*states.shape[:2], heads, head_width)
        more_keys, more_values = (part.view(split).transpose(1, 2) for part in _project(module, states))
        key, value = torch.cat([key, more_keys], dim=2), torch.cat([value, more_values], dim=2)
        own_bias = _as_bias(own_mask, query, length)
        score_bias = score_bias.to(query.dtype).expand(batch, *own_bias.shape[1:3], -1)
        # (batch, 1 or heads, 1 or length, length + features)
        attention_mask = torch.cat([own_bias.expand(batch, -1, -1, -1), score_bias], dim=-1)
    kwargs["is_causal"] = False
    return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)


def _as_bias(own_mask: Tensor | None, query: Tensor, length: int) -> Tensor:
    """Turn a mask of own positions into what is added to their scores."""
    if own_mask is None:
        return query.new_zeros(query.shape[0], 1, 1, length)
    if own_mask.dtype != torch.bool:
        return own_mask.to(query.dtype)
    return query.new_zeros(own_mask.shape).masked_fill(~own_mask, torch.finfo(query.dtype).min)


def projection_names(module: nn.Module) -> tuple[str, ...] | None:
    """Return what an attention module calls its projections to queries, keys and values; None if it isn't one."""
    # the keys and values tell: where these are, there are queries
    return next((names for names in _PROJECTION_NAMES if all(hasattr(module, name) for name in names[-2:])), None)


def _project(module: nn.Module, states: Tensor) -> tuple[Tensor, Tensor]:
    """Make keys and values of states with the projections of an attention module, which adapters may wrap."""
    names = projection_names(module)
    if names is None:
        expected = f"an attention module with key and value projections named like one of {_PROJECTION_NAMES}"
        raise mismatch(expected, type(module).__name__, "Use an encoder that BgaMnerConfig accepts.")
    # called, and never read: an adapter is in what a projection computes, and not in its weights
    parts = [getattr(module, name)(states) for name in names[-2:]]
    if len(parts) == 1:  # fused
        _, key, value = parts[0].chunk(3, dim=-1)
        return key, value
    key, value = parts
    return key, value


def register_hybrid_attention() -> None:
    """Register the attention function, and a mask function for encoders that are run by their own forward."""
    AttentionInterface.register(HYBRID_ATTENTION, hybrid_attention_forward)
    AttentionMaskInterface.register(HYBRID_ATTENTION, sdpa_mask)


__all__ = [
    "HYBRID_ATTENTION",
    "HybridProjection",
    "HybridStates",
    "LayerMask",
    "hybrid_attention_forward",
    "projection_names",
    "register_hybrid_attention",
]
