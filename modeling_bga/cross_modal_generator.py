"""Multi-level cross-modal generator (MCG): features of one modality, generated from the other's states."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class GeneratorAttention(nn.Module):
    """Multi-head attention of modality queries over themselves or over source states.

    Parameters
    ----------
    width : int
        Width of the queries and of the output.
    source_width : int
        Width of the states that are read.
    num_heads : int
        Number of heads; divides `width`.
    dropout : float
        Probability of dropping an attention weight.
    """

    def __init__(self, width: int, source_width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        # A bias of the keys adds the same to all scores of a query: it would have no effect, and no gradient.
        self.key = nn.Linear(source_width, width, bias=False)
        self.value = nn.Linear(source_width, width)
        self.output = nn.Linear(width, width)

    def forward(self, queries: torch.Tensor, source: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Attend.

        Parameters
        ----------
        queries : torch.FloatTensor of shape (batch or 1, queries, width)
            What asks.
        source : torch.FloatTensor of shape (batch, length, source_width)
            What is read.
        bias : torch.FloatTensor of shape (batch, length) or None
            Added to the scores of the source positions.

        Returns
        -------
        torch.FloatTensor of shape (batch, queries, width)
            What was read.
        """
        attended = F.scaled_dot_product_attention(
            # queries that don't depend on the input come as a batch of one
            self._split(self.query(queries)).expand(source.shape[0], -1, -1, -1),
            self._split(self.key(source)),
            self._split(self.value(source)),
            attn_mask=None if bias is None else bias[:, None, None, :].to(queries.dtype),
            dropout_p=self.dropout if self.training else 0.0,
        )
        # (batch, heads, queries, head width) -> (batch, queries, width)
        return self.output(attended.transpose(1, 2).flatten(2))

    def _split(self, states: torch.Tensor) -> torch.Tensor:
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

    def forward(
        self,
        queries: torch.Tensor,
        source: torch.Tensor,
        source_bias: torch.Tensor | None,
        query_bias: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return the queries, one layer on; shapes as in [`CrossModalGenerator`]."""
        normed = self.self_norm(queries)
        queries = queries + self.dropout(self.self_attention(normed, normed, query_bias))
        queries = queries + self.dropout(self.cross_attention(self.cross_norm(queries), source, source_bias))
        return queries + self.dropout(self.ffn(self.ffn_norm(queries)))


class CrossModalGenerator(nn.Module):
    """Generate features of one modality from the states of the other; one per direction, shared by all stages.

    A transformer decoder whose inputs are learned modality queries, one per target position, which attend to the
    source states under the source's keep mask.

    Parameters
    ----------
    source_width : int
        Hidden size of the modality that is read.
    target_width : int
        Hidden size of the modality that is generated.
    max_target_length : int
        Number of modality queries, the longest target.
    num_heads, num_layers : int
        Heads of the attention blocks, which must divide `target_width`, and decoder layers.
    ffn_ratio : float
        Width of the feed-forward block over `target_width`.
    dropout : float
        Dropout probability.
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
    ) -> None:
        super().__init__()
        ffn_width = int(target_width * ffn_ratio)
        self.modality_queries = nn.Parameter(torch.empty(max_target_length, target_width))
        self.source_norm = nn.LayerNorm(source_width)
        self.layers = nn.ModuleList(
            GeneratorLayer(target_width, source_width, num_heads, ffn_width, dropout) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(target_width)
        # A LayerNorm fixes the length of what comes out; unsure of its target, a generator has to give less.
        self.output = nn.Linear(target_width, target_width)

    def forward(
        self,
        source: torch.Tensor,
        source_bias: torch.Tensor | None,
        target_length: int,
        target_bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Generate.

        Parameters
        ----------
        source : torch.FloatTensor of shape (batch, length, source_width)
            States of the modality that is read.
        source_bias : torch.FloatTensor of shape (batch, length) or None
            Log of the source's keep mask, added to the attention scores.
        target_length : int
            How many positions to generate.
        target_bias : torch.FloatTensor of shape (batch, target_length), optional
            Very negative at the target's padding, so that real positions don't depend on how much of it there is.

        Returns
        -------
        torch.FloatTensor of shape (batch, target_length, target_width)
            Generated features.
        """
        if target_length > len(self.modality_queries):
            raise ValueError(
                f"The generator has {len(self.modality_queries)} modality queries, but {target_length} positions were "
                "asked for. Shorten the text to the text encoder's maximum, or use pictures of config.image_size."
            )
        # (max target length, width) -> (1, target length, width): without a target bias, what the first block does to
        # the queries is the same for the whole batch, and computed once
        queries = self.modality_queries[:target_length].unsqueeze(0)
        if target_bias is not None:
            queries = queries.expand(len(source), -1, -1)
        source = self.source_norm(source)
        for layer in self.layers:
            queries = layer(queries, source, source_bias, target_bias)
        return self.output(self.norm(queries))


__all__ = ["CrossModalGenerator", "GeneratorAttention", "GeneratorLayer"]
