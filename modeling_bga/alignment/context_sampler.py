"""Stage-refined context sampler (SCS): which tokens or patches of a stage the generators read."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils.checkpoint import checkpoint


# What the match is worth at first, in logits: enough to tell a pair that fits from one that doesn't.
INITIAL_MATCH_WEIGHT = 2.0
# log(_DROPPED_WEIGHT) is what training adds to the score of a dropped position: small enough to hide it. The gradient
# of log(keep + eps), 1 / eps, times the position's attention weight of order eps, stays of order one.
_DROPPED_WEIGHT = 1e-6


class ContextSampler(nn.Module):
    r"""Sample the positions of one modality at one stage.

    With u = GELU(W LayerNorm(H)), split in two halves along its channels, a position is judged by its own first half
    (local) beside the mean of the second half over the positions that the previous stage kept (global). An MLP maps
    both to two logits, keep and drop. The keep mask is the product of all decisions so far:

    .. math:: keep^l = keep^{l-1} \cdot decision^l

    so the kept set only shrinks. The class token is always kept, padding never; a sentence (or image) that would lose
    everything keeps what the previous stage kept. Where `match` says how well image and text fit, a learned multiple of
    it is added to the logits of keeping (not in the paper).

    In training decisions are sampled by a hard straight-through Gumbel softmax; in evaluation the larger logit decides.
    """

    def __init__(self, width: int, temperature: float, initial_keep: float, reads_match: bool = False) -> None:
        super().__init__()
        self.temperature = float(temperature)
        # softmax([d, 0])[0] = initial_keep
        self.initial_logit = math.log(initial_keep / (1 - initial_keep))
        self.norm = nn.LayerNorm(width)
        self.local_global = nn.Linear(width, 2 * (width // 2))
        self.hidden = nn.Linear(2 * (width // 2), width // 2)
        self.decision = nn.Linear(width // 2, 2, bias=False)
        # A parameter of this module itself: transformers initialises a module anew only if one of its own is missing.
        self.decision_bias = nn.Parameter(torch.tensor([self.initial_logit, 0.0]))
        # FSDP can't split a scalar
        self.match_weight = nn.Parameter(torch.tensor([INITIAL_MATCH_WEIGHT])) if reads_match else None

    def forward(
        self,
        states: Tensor,
        previous_keep: Tensor,
        class_token_mask: Tensor | None,
        match: Tensor | None = None,
    ) -> Tensor:
        """Return the keep mask (batch, length) of this stage, with a straight-through gradient in training.

        Parameters
        ----------
        states : torch.FloatTensor of shape (batch, length, width)
            Hidden states that enter the layer.
        previous_keep : torch.FloatTensor of shape (batch, length)
            Keep mask of the previous stage (before the first: 1, and 0 at padding).
        class_token_mask : torch.BoolTensor of shape (batch, length) or None
            True at the class token.
        match : torch.FloatTensor of shape (batch,), optional
            How well the other modality fits this one, from -1 to 1.
        """
        if self.training and torch.is_grad_enabled():
            # computed again in the backward pass, as it would keep what is as wide as states
            logits = checkpoint(self.logits, states, previous_keep, use_reentrant=False)
        else:
            logits = self.logits(states, previous_keep)
        if self.match_weight is not None and match is not None:
            # (batch,) -> (batch, 1, 2), added to the logit of keeping
            logits = logits + self.match_weight * F.pad(match.to(logits.dtype)[:, None, None], (0, 1))
        if self.training:
            decision = F.gumbel_softmax(logits.float(), tau=self.temperature, hard=True)[..., 0].to(states.dtype)
        else:
            decision = (logits[..., 0] >= logits[..., 1]).to(states.dtype)
        if class_token_mask is not None:
            decision = decision.masked_fill(class_token_mask, 1.0)
        keep = previous_keep * decision
        emptied = keep.detach().sum(dim=1, keepdim=True) == 0  # (batch, 1)
        return torch.where(emptied, previous_keep, keep)

    def logits(self, states: Tensor, previous_keep: Tensor) -> Tensor:
        """Score keeping and dropping each position: (batch, length, width), (batch, length) -> (batch, length, 2)."""
        local, context = F.gelu(self.local_global(self.norm(states))).chunk(2, dim=-1)
        weight = previous_keep.unsqueeze(-1)  # (batch, length, 1)
        mean = (context * weight).sum(dim=1, keepdim=True) / weight.sum(dim=1, keepdim=True).clamp(min=1)
        if _computes_from_weight(self.hidden):
            # `hidden` of [local, mean] joined, without joining: the mean is the same for all positions
            of_local, of_mean = self.hidden.weight.chunk(2, dim=1)
            hidden = F.linear(local, of_local, self.hidden.bias) + F.linear(mean, of_mean)
        else:
            hidden = self.hidden(torch.cat([local, mean.expand_as(local)], dim=-1))
        return self.decision(F.gelu(hidden)) + self.decision_bias


def _computes_from_weight(layer: nn.Module) -> bool:
    """Whether a layer computes with its weight and bias alone: no adapters, quantisation, pruning or offloading."""
    if type(layer) is not nn.Linear or is_traceable_wrapper_subclass(layer.weight):
        return False
    return not (layer._forward_pre_hooks or layer._forward_hooks or "forward" in layer.__dict__)


def keep_mask_bias(keep_mask: Tensor, padding_mask: Tensor | None, training: bool) -> Tensor:
    """Turn a keep mask (batch, length) into what is added to attention scores: 0 where kept, else very negative.

    In training that is log(keep + eps), so that gradients reach the samplers.
    """
    lowest = torch.finfo(keep_mask.dtype).min
    if training:
        # fp32: 1e-6 beside 1 is below the resolution of half precision
        bias = torch.log(keep_mask.float() + _DROPPED_WEIGHT).to(keep_mask.dtype)
    else:
        bias = torch.zeros_like(keep_mask).masked_fill(keep_mask == 0, lowest)
    return bias if padding_mask is None else bias.masked_fill(~padding_mask, lowest)


def padding_bias(padding_mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Turn a padding mask (batch, length) into what is added to attention scores; None stays None."""
    if padding_mask is None:
        return None
    zeros = torch.zeros(padding_mask.shape, dtype=dtype, device=padding_mask.device)
    return zeros.masked_fill(~padding_mask, torch.finfo(dtype).min)


__all__ = ["INITIAL_MATCH_WEIGHT", "ContextSampler", "keep_mask_bias", "padding_bias"]
