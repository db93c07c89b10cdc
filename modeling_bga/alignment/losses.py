"""Reconstruction and cycle losses: generated features against the real ones of the other modality; and their sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ...configuration.configuration_bga_mner import BgaMnerConfig
from ...configuration.errors import mismatch
from ..outputs import BgaMnerModelOutput
from .context_sampler import padding_bias
from .modality_branch import AlignedBranch, BranchTrace, at_sampled_stage
from .visual_target import reconstruction_target


class Alignment(NamedTuple):
    """Losses of shape (), and [`pair_match`] (batch,); None for what is switched off, and without images."""

    reconstruction_loss: Tensor | None = None
    cycle_loss: Tensor | None = None
    keep_loss: Tensor | None = None
    pair_match: Tensor | None = None


def feature_distance(generated: Tensor, target: Tensor, weight: Tensor, distance: str) -> Tensor:
    r"""Mean distance (batch,) of generated and real features (batch, length, width), by weights (batch, length).

    .. math:: \frac{\sum_i w_i\, d(g_i, t_i)}{\sum_i w_i}

    The target is detached: the encoder must not move its states towards what is easy to generate.

    Examples
    --------
    >>> generated, target = torch.zeros(1, 2, 4), torch.tensor([[[1.0, 1, 1, 1], [9, 9, 9, 9]]])
    >>> feature_distance(generated, target, torch.tensor([[1.0, 0.0]]), "mse")
    tensor([1.])
    """
    generated, target = generated.float(), target.detach().float()
    weight = weight.float()
    if distance == "mse":
        distances = F.mse_loss(generated, target, reduction="none").mean(dim=-1)
    elif distance == "smooth_l1":
        distances = F.smooth_l1_loss(generated, target, reduction="none").mean(dim=-1)
    elif distance == "cosine":
        distances = 1 - F.cosine_similarity(generated, target, dim=-1)
    else:
        raise mismatch("the distance 'mse', 'smooth_l1' or 'cosine'", distance, "Pass one of these.")
    # (batch, length) -> (batch,)
    return (distances * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


def pair_match(generated: Tensor, target: Tensor, pooled: bool = False) -> Tensor:
    """Cosine (batch,) of generated and real features (batch, positions, width); detached.

    Pooled features are compared as one vector, those of patches by their means.
    """
    generated, target = generated.detach().float(), target.detach().float()
    # (batch, positions, width) -> (batch, positions * width) or (batch, width)
    generated, target = (made.flatten(1) if pooled else made.mean(dim=1) for made in (generated, target))
    return F.cosine_similarity(generated, target, dim=-1)


def mean_over_batch(per_sentence: list[Tensor], counted: Tensor) -> Tensor:
    """Average losses (batch,) of stages over the stages and over the batch; rows that don't count add nothing.

    The divisor is the whole batch: so accumulating gradients over small batches equals one large batch.
    """
    stacked = torch.stack(per_sentence)  # (stages, batch)
    # not a product: 0 * nan is nan
    return torch.where(counted, stacked, 0.0).mean()


def keep_budget_loss(keep_mask: Tensor, budget: float) -> Tensor:
    r"""Price what the vision sampler keeps beyond its budget, one number per image: (batch, length) -> (batch,).

    .. math:: \max(0,\; \tfrac1n\textstyle\sum_i keep_i - budget)^2
    """
    return (keep_mask.float().mean(dim=1) - budget).clamp(min=0).square()


def alignment_losses(
    config: BgaMnerConfig,
    text_branch: AlignedBranch,
    vision_branch: AlignedBranch,
    text: BranchTrace,
    vision: BranchTrace,
    targets: list[Tensor],
    aligned: Tensor,
    from_last: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """Compute L_rec and L_cyc, each averaged over stages and the batch and summed over directions; None if off.

    Everything that exists is to be generated, kept or not, unless `keep_weighted_reconstruction` weights targets by
    their keep mask (detached: a sampler must not learn to keep what is easy to generate). Where stages were sampled,
    reconstruction of the texts and both cycles are those of a pair's sampled stage. `targets` are the visual targets of
    the stages; `aligned` (batch,) says which pairs take part. What the last text states generate, `from_last` (batch,
    positions, vision width), counts as one more stage, with the target of the last one.
    """
    textual_weight = text.last.new_ones(text.last.shape[:2]) if text.padding_mask is None else text.padding_mask
    visual_weight = targets[0].new_ones(targets[0].shape[:2])
    sampled = vision.sampled
    textual = [
        reconstruction_target(states, config.normalize_targets) for states in at_sampled_stage(text.states, sampled)
    ]

    def loss(
        generated: Sequence[Tensor], targets: list[Tensor], weight: Tensor, keep_masks: Sequence[Tensor] | None = None
    ) -> Tensor:
        weights = [weight] * len(generated)
        if keep_masks is not None and config.keep_weighted_reconstruction:
            weights = [weight * keep.detach() for keep in keep_masks]
        of_stages = [
            feature_distance(made, target, its_weight, config.reconstruction_distance)
            for made, target, its_weight in zip(generated, targets, weights, strict=True)
        ]
        return mean_over_batch(of_stages, aligned)

    reconstruction_loss = cycle_loss = None
    if config.reconstruction_weight > 0:
        parts = []
        if text.generated:
            made, of_made, keep_masks = text.generated, targets, vision.keep_masks
            if from_last is not None:
                made, of_made, keep_masks = [*made, from_last], [*targets, targets[-1]], [*keep_masks, keep_masks[-1]]
            parts.append(loss(made, of_made, visual_weight, keep_masks))
        if vision.generated:
            keep_masks = at_sampled_stage(text.keep_masks, sampled)
            parts.append(loss(vision.generated, textual, textual_weight, keep_masks))
        reconstruction_loss = torch.stack(parts).sum() if parts else None
    to_vision, to_text = text_branch.generator, vision_branch.generator
    if config.cycle_weight > 0 and to_vision is not None and to_text is not None:
        from_text, from_vision = at_sampled_stage(text.generated, sampled), vision.generated
        text_bias = padding_bias(text.padding_mask, text.states[0].dtype)
        back_to_text = [to_text(made, None, vision.queries) for made in from_text]
        back_to_vision = [to_vision(made, text_bias, text.queries) for made in from_vision]
        cycle_loss = loss(back_to_text, textual, textual_weight) + loss(
            back_to_vision, at_sampled_stage(targets, sampled), visual_weight
        )
    return reconstruction_loss, cycle_loss


def total_loss(config: BgaMnerConfig, head_loss: Tensor | None, outputs: BgaMnerModelOutput) -> Tensor | None:
    """Add the weighted alignment losses of the base model's output to a head's loss, of what there is of them."""
    loss = head_loss
    for part, weight in (
        (outputs.reconstruction_loss, config.reconstruction_weight),
        (outputs.cycle_loss, config.cycle_weight),
        (outputs.keep_loss, config.keep_budget_weight),
    ):
        if part is not None:
            loss = weight * part if loss is None else loss + weight * part
    return loss


__all__ = [
    "Alignment",
    "alignment_losses",
    "feature_distance",
    "keep_budget_loss",
    "mean_over_batch",
    "pair_match",
    "total_loss",
]
