"""Multi-level cross-modal generator (MCG): features of one modality, generated from the other's states."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ...configuration.errors import mismatch
from ..saving.offloaded_weights import fetched


class PreparedQueries(NamedTuple):
    """Modality queries that have read each other: the same for every source, so for all stages and for the cycle."""

    states: Tensor  # (batch or 1, queries, width), after the first layer's self-attention
    asked: Tensor  # the same, projected for the first layer's cross-attention
    # (batch or 1, 1, 1 or queries, queries): which queries each may read in further layers; None for all
    visible: Tensor | None


class GeneratorAttention(nn.Module):
    """Multi-head attention of modality queries over themselves or over source states."""

    def __init__(self, width: int, source_width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        # a bias of the keys would add the same to all scores of a query
        self.key = nn.Linear(source_width, width, bias=False)
        self.value = nn.Linear(source_width, width)
        self.output = nn.Linear(width, width)

    def forward(self, asked: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
        """Read a source (batch, length, source_width) with projected queries (batch or 1, queries, width).

        The mask (batch or 1, 1, 1 or queries, length) is of booleans, or added to the scores.
        """
        attended = F.scaled_dot_product_attention(
            self._split(asked).expand(source.shape[0], -1, -1, -1),
            self._split(self.key(source)),
            self._split(self.value(source)),
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        # (batch, heads, queries, head width) -> (batch, queries, width)
        return self.output(attended.transpose(1, 2).flatten(2))

    def _split(self, states: Tensor) -> Tensor:
        # (batch, length, width) -> (batch, heads, length, head width)
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class GeneratorLayer(nn.Module):
    """One pre-norm decoder layer: queries read each other, then the source, then pass a feed-forward block."""

    def __init__(self, width: int, source_width: int, num_heads: int, ffn_width: int, dropout: float) -> None:
        super().__init__()
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = GeneratorAttention(width, width, num_heads, dropout)
        self.cross_norm = nn.LayerNorm(width)
        self.cross_attention = GeneratorAttention(width, source_width, num_heads, dropout)
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn = nn.Sequential(nn.Linear(width, ffn_width), nn.GELU(), nn.Linear(ffn_width, width))
        self.dropout = nn.Dropout(dropout)

    def read_each_other(self, queries: Tensor, visible: Tensor | None) -> Tensor:
        """Return the queries after their self-attention; shapes as in [`PreparedQueries`]."""
        normed = self.self_norm(queries)
        return queries + self.dropout(self.self_attention(self.self_attention.query(normed), normed, visible))

    def ask(self, queries: Tensor) -> Tensor:
        """Project the queries for their cross-attention; the shape stays."""
        return self.cross_attention.query(self.cross_norm(queries))

    def read(self, queries: Tensor, asked: Tensor, source: Tensor, source_mask: Tensor | None) -> Tensor:
        """Return the queries after they have read the source, and after the feed-forward block."""
        queries = queries + self.dropout(self.cross_attention(asked, source, source_mask))
        return queries + self.dropout(self.ffn(self.ffn_norm(queries)))


class CrossModalGenerator(nn.Module):
    """Generate features of one modality from the states of the other; one per direction, shared by all stages.

    A transformer decoder whose inputs are learned modality queries, one per target position, which attend to each other
    and to the source states under the source's keep mask. Where the target is ordered and of any length, as texts are,
    queries attend to those before them only: then neither length nor padding of the target makes a difference.
    """

    def __init__(
        self,
        source_width: int,
        target_width: int,
        max_target_length: int,
        num_heads: int,
        num_layers: int,
        ffn_ratio: float,
        dropout: float,
        causal: bool,
    ) -> None:
        super().__init__()
        self.causal = causal
        ffn_width = int(target_width * ffn_ratio)
        self.modality_queries = nn.Parameter(torch.empty(max_target_length, target_width))
        self.source_norm = nn.LayerNorm(source_width)
        self.layers = nn.ModuleList(
            GeneratorLayer(target_width, source_width, num_heads, ffn_width, dropout) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(target_width)
        # a LayerNorm fixes the length of what comes out; unsure of its target, a generator has to give less
        self.output = nn.Linear(target_width, target_width)

    def prepare(self, target_length: int, target_mask: Tensor | None = None) -> PreparedQueries:
        """Let the modality queries of a batch's targets read each other.

        `target_mask` (batch, target_length) is False at padding, on either side; other positions count from there.
        """
        if target_length > (most := len(self.modality_queries)):
            expected = f"at most {most} positions to generate, one per modality query"
            raise mismatch(expected, target_length, "Shorten the text, or use images of config.image_size.")
        first = self.layers[0]
        with fetched(self):
            # (max target length, width) -> (1, target length, width)
            own_queries = self.modality_queries[:target_length].unsqueeze(0)
        visible = None
        if self.causal:
            # (target length, target length) -> (1, 1, target length, target length)
            ones = torch.ones(target_length, target_length, dtype=torch.bool, device=own_queries.device)
            visible = ones.tril()[None, None]
        queries = first.read_each_other(own_queries, visible)
        asked = first.ask(queries)
        if target_mask is not None:
            positions = (target_mask.long().cumsum(dim=1) - 1).clamp(min=0)
            # (1, target length, width) -> (batch, target length, width)
            queries, asked = queries[0][positions], asked[0][positions]
        if len(self.layers) == 1:
            return PreparedQueries(queries, asked, None)
        if target_mask is not None:
            own = target_mask[:, None, None, :]
            visible = own if visible is None else visible & own
            # a padding position sees at least itself
            visible = visible | torch.eye(target_length, dtype=torch.bool, device=visible.device)
        return PreparedQueries(queries, asked, visible)

    def forward(self, source: Tensor, source_bias: Tensor | None, prepared: PreparedQueries) -> Tensor:
        """Generate features (batch, target_length, target_width) from states (batch, length, source_width) at a stage.

        `source_bias` (batch, length), the log of their keep mask, is added to the attention scores.
        """
        if self.training and torch.is_grad_enabled():
            # computed again in the backward pass: what all stages would leave for it outweighs what both encoders leave
            return checkpoint(self._read, source, source_bias, prepared, use_reentrant=False)
        return self._read(source, source_bias, prepared)

    def _read(self, source: Tensor, source_bias: Tensor | None, prepared: PreparedQueries) -> Tensor:
        queries, asked, visible = prepared
        source = self.source_norm(source)
        # (batch, length) -> (batch, 1, 1, length)
        source_mask = None if source_bias is None else source_bias[:, None, None, :].to(source.dtype)
        for number, layer in enumerate(self.layers):
            if number > 0:
                queries = layer.read_each_other(queries, visible)
                asked = layer.ask(queries)
            queries = layer.read(queries, asked, source, source_mask)
        return self.output(self.norm(queries))


__all__ = ["CrossModalGenerator", "GeneratorAttention", "GeneratorLayer", "PreparedQueries"]
