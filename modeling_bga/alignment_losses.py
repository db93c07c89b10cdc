"""Reconstruction and cycle losses: generated features against the real ones of the other modality."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def feature_distance(
    generated: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    distance: str,
    normalize_target: bool,
) -> torch.Tensor:
    r"""Weighted mean distance of generated and real features, one number per sentence.

    .. math:: \frac{\sum_i w_i\, d(g_i, t_i)}{\sum_i w_i}

    Target and weight are detached: the encoder must not move its states, nor the sampler its choice, towards what is
    easy to generate.

    Parameters
    ----------
    generated : torch.FloatTensor of shape (batch, length, width)
        Generated features.
    target : torch.FloatTensor of shape (batch, length, width)
        Real features of the same positions.
    weight : torch.FloatTensor of shape (batch, length)
        The target's keep mask; 0 at padding.
    distance : {"mse", "smooth_l1", "cosine"}
        Distance of two vectors; the first two are averaged over dimensions.
    normalize_target : bool
        Whether to layer-normalise each target vector first.

    Returns
    -------
    torch.FloatTensor of shape (batch,)
        In float32; 0 for a sentence without any weight.

    Examples
    --------
    >>> generated, target = torch.zeros(1, 2, 4), torch.tensor([[[1.0, 1, 1, 1], [9, 9, 9, 9]]])
    >>> feature_distance(generated, target, torch.tensor([[1.0, 0.0]]), "mse", normalize_target=False)
    tensor([1.])
    """
    generated, target = generated.float(), target.detach().float()
    weight = weight.detach().float()
    if normalize_target:
        target = F.layer_norm(target, target.shape[-1:])
    if distance == "mse":
        distances = F.mse_loss(generated, target, reduction="none").mean(dim=-1)
    elif distance == "smooth_l1":
        distances = F.smooth_l1_loss(generated, target, reduction="none").mean(dim=-1)
    elif distance == "cosine":
        distances = 1 - F.cosine_similarity(generated, target, dim=-1)
    else:
        raise ValueError(f"The distance must be 'mse', 'smooth_l1' or 'cosine', but is {distance!r}.")
    # (batch, length) -> (batch,)
    return (distances * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


def mean_over_batch(per_sentence: list[torch.Tensor], counted: torch.Tensor) -> torch.Tensor:
    """Average a loss over stages and over the batch.

    The divisor is the whole batch, not the number of counted sentences: then every sentence weighs the same wherever
    it lands, and accumulating gradients over small batches equals one large batch.

    Parameters
    ----------
    per_sentence : list of torch.FloatTensor of shape (batch,)
        One entry per stage (and direction).
    counted : torch.BoolTensor of shape (batch,)
        Sentences that take part; the others add nothing.

    Returns
    -------
    torch.FloatTensor of shape ()
        The loss.
    """
    stacked = torch.stack(per_sentence)  # (stages, batch)
    # where, not a product: a sentence that isn't counted may hold anything, and 0 * nan is nan
    return torch.where(counted, stacked, 0.0).mean()


__all__ = ["feature_distance", "mean_over_batch"]
