"""Keep masks: which positions of a modality are read, and how attention sees that."""

from __future__ import annotations

import torch


# log(_DROPPED_WEIGHT) is what training adds to the score of a dropped position: small enough to hide it, large enough
# for the straight-through gradient d log(keep + eps) / d keep = 1 / eps, times the position's attention weight of
# order eps, to stay of order one.
_DROPPED_WEIGHT = 1e-6


def keep_mask_bias(keep_mask: torch.Tensor, padding_mask: torch.Tensor | None, training: bool) -> torch.Tensor:
    """Turn a keep mask into a bias of attention scores.

    Parameters
    ----------
    keep_mask : torch.FloatTensor of shape (batch, length)
        1 for kept, 0 for dropped; in training it carries the samplers' straight-through gradient.
    padding_mask : torch.BoolTensor of shape (batch, length) or None
        False at padding, which is hidden completely.
    training : bool
        In training log(keep + eps), so that gradients reach the samplers; otherwise dropped positions are hidden
        completely.

    Returns
    -------
    torch.FloatTensor of shape (batch, length)
        0 (up to eps) where kept, very negative elsewhere.

    Examples
    --------
    >>> keep_mask_bias(torch.tensor([[1.0, 0.0]]), None, training=True).round(decimals=2)
    tensor([[  0.0000, -13.8200]])
    """
    lowest = torch.finfo(keep_mask.dtype).min
    if training:
        # fp32: 1e-6 beside 1 is below the resolution of half precision
        bias = torch.log(keep_mask.float() + _DROPPED_WEIGHT).to(keep_mask.dtype)
    else:
        bias = torch.zeros_like(keep_mask).masked_fill(keep_mask == 0, lowest)
    return bias if padding_mask is None else bias.masked_fill(~padding_mask, lowest)


def padding_bias(padding_mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """Turn a padding mask (batch, length) into a bias of attention scores; None stays None."""
    if padding_mask is None:
        return None
    zeros = torch.zeros(padding_mask.shape, dtype=dtype, device=padding_mask.device)
    return zeros.masked_fill(~padding_mask, torch.finfo(dtype).min)


__all__ = ["keep_mask_bias", "padding_bias"]
