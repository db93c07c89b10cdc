"""Hybrid attention for encoders whose attention isn't built on transformers' interface: MPNet and DeBERTa.

Their attention adds scores that depend on relative positions, and knows no other function. The classes here have the
library's weights, compute the same, and read generated features as well, which have no place in the sentence and
therefore get no such scores.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention
from transformers.models.mpnet.modeling_mpnet import MPNetLayer, MPNetSelfAttention

from ..alignment.hybrid_attention import HybridStates, LayerMask, hybrid_attention_forward


class HybridMPNetAttention(MPNetSelfAttention):
    """MPNet's self-attention, which reads the states of a [`HybridStates`] too."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: LayerMask = None,
        position_bias: Tensor | None = None,
        output_attentions: bool = False,
        **kwargs: object,
    ) -> tuple[Tensor]:
        """Attend; arguments as the library's, and no weights are returned."""
        split = (*hidden_states.shape[:-1], self.num_attention_heads, self.attention_head_size)
        # (batch, length, width) -> (batch, heads, length, head width)
        query, key, value = (part(hidden_states).view(split).transpose(1, 2) for part in (self.q, self.k, self.v))
        mask = _add_scores(attention_mask, position_bias)
        dropout = self.dropout.p if self.training else 0.0
        attended, _ = hybrid_attention_forward(self, query, key, value, mask, dropout)
        return (self.o(attended.flatten(2)),)


class CheckpointedMPNetLayer(GradientCheckpointingLayer, MPNetLayer):
    """MPNet's layer, which can be computed again in the backward pass; the library's can't."""


class HybridDebertaAttention(DisentangledSelfAttention):
    """DeBERTa's disentangled self-attention, which reads the states of a [`HybridStates`] too."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: LayerMask,
        output_attentions: bool = False,
        query_states: Tensor | None = None,
        relative_pos: Tensor | None = None,
        rel_embeddings: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Attend; arguments as the library's, and no weights are returned."""
        heads = self.num_attention_heads
        projections = (
            (self.query_proj, hidden_states if query_states is None else query_states),
            (self.key_proj, hidden_states),
            (self.value_proj, hidden_states),
        )
        # (batch * heads, length, head width)
        query, key, value = (self.transpose_for_scores(part(states), heads) for part, states in projections)
        scale_factor = 1 + ("c2p" in self.pos_att_type) + ("p2c" in self.pos_att_type)
        scores = None
        if self.relative_attention:
            relative = self.disentangled_attention_bias(
                query, key, relative_pos, self.pos_dropout(rel_embeddings), scale_factor
            )
            if isinstance(relative, Tensor):  # 0 where no kind of relative attention is on
                scores = relative.unflatten(0, (-1, heads))
        # (batch, heads, length, head width)
        query, key, value = (part.unflatten(0, (-1, heads)) for part in (query, key, value))
        mask = _add_scores(attention_mask, scores)
        dropout = self.dropout.p if self.training else 0.0
        scaling = (query.shape[-1] * scale_factor) ** -0.5
        attended, _ = hybrid_attention_forward(self, query, key, value, mask, dropout, scaling)
        return attended.flatten(2), None


def _add_scores(attention_mask: LayerMask, scores: Tensor | None) -> LayerMask:
    """Add scores of a layer's own tokens (batch or 1, heads, length, length) to what its attention mask says."""
    hybrid = attention_mask if isinstance(attention_mask, HybridStates) else None
    own_mask: Tensor | None = attention_mask if hybrid is None else hybrid.attention_mask
    if own_mask is not None and not own_mask.is_floating_point():
        own_mask = own_mask.bool()
    if scores is not None:
        if own_mask is None:
            own_mask = scores
        elif own_mask.dtype == torch.bool:
            own_mask = scores.masked_fill(~own_mask, torch.finfo(scores.dtype).min)
        else:
            own_mask = scores + own_mask
    return own_mask if hybrid is None else hybrid._replace(attention_mask=own_mask)


def make_attention_hybrid(encoder: PreTrainedModel, layers: nn.ModuleList) -> None:
    """Give an MPNet or a DeBERTa with random weights the attention of this file, in place; weights keep their names."""
    config = encoder.config
    if config.model_type == "mpnet":
        encoder.encoder.layer = layers = nn.ModuleList(CheckpointedMPNetLayer(config) for _ in layers)
    for layer in layers:
        if config.model_type == "mpnet":
            layer.attention.attn = HybridMPNetAttention(config)
        else:
            layer.attention.self = HybridDebertaAttention(config)


__all__ = ["CheckpointedMPNetLayer", "HybridDebertaAttention", "HybridMPNetAttention", "make_attention_hybrid"]
