"""Reconstruction and cycle losses: generated features against the real ones of the other modality; and their sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from ...configuration.configuration_bga_mner import BgaMnerConfig
from ...configuration.errors import shown
from ..outputs import BgaMnerModelOutput
from .branch import AlignedBranch, BranchTrace, at_sampled_stage
from .context_sampler import padding_bias


class Alignment(NamedTuple):
    """How well texts and images of a batch are aligned: losses of shape (), and [`pair_match`] of shape (batch,).

    None for what is switched off, and where the batch has no images.
    """

    reconstruction_loss: torch.Tensor | None = None
    cycle_loss: torch.Tensor | None = None
    keep_loss: torch.Tensor | None = None
    pair_match: torch.Tensor | None = None


def feature_distance(
    generated: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    distance: str,
) -> torch.Tensor:
    r"""Weighted mean distance of generated and real features, one number per sentence.

    .. math:: \frac{\sum_i w_i\, d(g_i, t_i)}{\sum_i w_i}

    The target is detached: the encoder must not move its states towards what is easy to generate.

    Parameters
    ----------
    generated, target : torch.FloatTensor of shape (batch, length, width)
        Generated features, and the real ones of the same positions.
    weight : torch.FloatTensor of shape (batch, length)
        0 at padding.
    distance : {"mse", "smooth_l1", "cosine"}
        Distance of two vectors; the first two are averaged over dimensions.

    Returns
    -------
    torch.FloatTensor of shape (batch,)
        In float32; 0 for a sentence without any weight.

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
        raise ValueError(
            f"Expected the distance 'mse', 'smooth_l1' or 'cosine', got {shown(distance)}. Pass one of it."
        )
    # (batch, length) -> (batch,)
    return (distances * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


def reconstruction_target(states: torch.Tensor, normalize: bool) -> torch.Tensor:
    """Return what is to be generated of real states (batch, length, width): in float32, detached, layer-normalised."""
    target = states.detach().float()
    return F.layer_norm(target, target.shape[-1:]) if normalize else target


def visual_targets(config: BgaMnerConfig, vision: BranchTrace) -> list[torch.Tensor]:
    """Return what the text is to generate at each stage; with `visual_target="last"` the same tensor every time."""
    if config.visual_target == "last":
        return [reconstruction_target(vision.last, config.normalize_targets)] * len(vision.states)
    return [reconstruction_target(states, config.normalize_targets) for states in vision.states]


def pair_match(generated: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cosine (batch,) of generated and real features (batch, positions, width), each averaged over positions.

    In float32 and detached: a sampler that reads it must not change what is generated.

    Examples
    --------
    >>> images = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    >>> pair_match(images, images.flip(0))
    tensor([0., 0.])
    """
    generated, target = generated.detach().float(), target.detach().float()
    # (batch, positions, width) -> (batch, width)
    return F.cosine_similarity(generated.mean(dim=1), target.mean(dim=1), dim=-1)


def mean_over_batch(per_sentence: list[torch.Tensor], counted: torch.Tensor) -> torch.Tensor:
    """Average losses (batch,) of stages over the stages and over the batch; rows that don't count add nothing.

    The divisor is the whole batch, not the number of counted sentences: then every sentence weighs the same wherever
    it lands, and accumulating gradients over small batches equals one large batch.
    """
    stacked = torch.stack(per_sentence)  # (stages, batch)
    # where, not a product: a sentence that isn't counted may hold anything, and 0 * nan is nan
    return torch.where(counted, stacked, 0.0).mean()


def keep_budget_loss(keep_mask: torch.Tensor, budget: float) -> torch.Tensor:
    r"""Price what the vision sampler keeps beyond its budget, one number per image: (batch, length) -> (batch,).

    .. math:: \max(0,\; \tfrac1n\textstyle\sum_i keep_i - budget)^2

    The reading losses alone hardly make a sampler drop anything, since attention can look away from what doesn't
    matter. A budget makes positions compete, and the reading losses decide which ones stay.

    Examples
    --------
    >>> keep_budget_loss(torch.tensor([[1.0, 1, 0, 0], [1, 0, 0, 0]]), 0.25)
    tensor([0.0625, 0.0000])
    """
    return (keep_mask.float().mean(dim=1) - budget).clamp(min=0).square()


def alignment_losses(
    config: BgaMnerConfig,
    text_branch: AlignedBranch,
    vision_branch: AlignedBranch,
    text: BranchTrace,
    vision: BranchTrace,
    targets: list[torch.Tensor],
    aligned: torch.Tensor,
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Compute L_rec and L_cyc, each averaged over stages and the batch and summed over directions.

    Everything that exists is to be generated, kept or not: keep masks say what the generators read. (The paper weights
    targets by their keep mask. Then fewer positions teach, and those dropped are generated untaught but read all the
    same.) Where stages were sampled for the images, reconstruction of the texts and both cycles are those of a pair's
    sampled stage.

    `targets` are the [`visual_targets`] of `vision`, and `aligned` (batch,) says which pairs take part. Returns the
    reconstruction and the cycle loss; None for what is switched off.
    """
    textual_weight = text.last.new_ones(text.last.shape[:2]) if text.padding_mask is None else text.padding_mask
    visual_weight = vision.last.new_ones(vision.last.shape[:2])
    sampled = vision.sampled
    textual = [
        reconstruction_target(states, config.normalize_targets) for states in at_sampled_stage(text.states, sampled)
    ]

    def loss(generated: Sequence[torch.Tensor], targets: list[torch.Tensor], weight: torch.Tensor) -> torch.Tensor:
        of_stages = [
            feature_distance(made, target, weight, config.reconstruction_distance)
            for made, target in zip(generated, targets, strict=True)
        ]
        return mean_over_batch(of_stages, aligned)

    reconstruction_loss = cycle_loss = None
    if config.reconstruction_weight > 0:
        parts = []
        if text.generated:
            parts.append(loss(text.generated, targets, visual_weight))
        if vision.generated:
            parts.append(loss(vision.generated, textual, textual_weight))
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


def total_loss(
    config: BgaMnerConfig, head_loss: torch.Tensor | None, outputs: BgaMnerModelOutput
) -> torch.Tensor | None:
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
    "reconstruction_target",
    "total_loss",
    "visual_targets",
]
