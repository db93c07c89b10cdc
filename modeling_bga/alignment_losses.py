"""Reconstruction and cycle losses: generated features against the real ones of the other modality; and their sum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from ..configuration.configuration_bga_mner import BgaMnerConfig
from ..configuration.messages import shown
from .branch import BranchTrace, at_drawn_stage
from .cross_modal_generator import CrossModalGenerator
from .keep_mask import padding_bias
from .outputs import BgaMnerModelOutput


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
    generated : torch.FloatTensor of shape (batch, length, width)
        Generated features.
    target : torch.FloatTensor of shape (batch, length, width)
        Real features of the same positions.
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
        raise ValueError(f"The distance must be 'mse', 'smooth_l1' or 'cosine', but is {shown(distance)}.")
    # (batch, length) -> (batch,)
    return (distances * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


def reconstruction_target(states: torch.Tensor, normalize: bool) -> torch.Tensor:
    """Return what is to be generated of real states (batch, length, width), in float32 and without a gradient.

    Parameters
    ----------
    states : torch.FloatTensor of shape (batch, length, width)
        Real features.
    normalize : bool
        Whether to layer-normalise each vector.

    Returns
    -------
    torch.FloatTensor of shape (batch, length, width)
        The target.
    """
    target = states.detach().float()
    return F.layer_norm(target, target.shape[-1:]) if normalize else target


def visual_targets(config: BgaMnerConfig, vision: BranchTrace) -> list[torch.Tensor]:
    """Return what the text generates at each stage, as losses and pair matches compare it.

    Parameters
    ----------
    config : BgaMnerConfig
        Its `visual_target` and `normalize_targets`.
    vision : BranchTrace
        Of the pictures.

    Returns
    -------
    list of torch.FloatTensor of shape (batch, vision tokens, width)
        One entry per stage; with `visual_target="last"` the same tensor every time.
    """
    if config.visual_target == "last":
        return [reconstruction_target(vision.last, config.normalize_targets)] * len(vision.states)
    return [reconstruction_target(states, config.normalize_targets) for states in vision.states]


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


def keep_budget_loss(keep_mask: torch.Tensor, budget: float) -> torch.Tensor:
    r"""Price what the vision sampler keeps beyond its budget, one number per picture.

    .. math:: \max(0,\; \tfrac1n\textstyle\sum_i keep_i - budget)^2

    The reading losses alone hardly make a sampler drop anything, since attention can look away from what doesn't
    matter. A budget makes positions compete, and the reading losses decide which ones stay.

    Parameters
    ----------
    keep_mask : torch.FloatTensor of shape (batch, length)
        Of the last stage, with its straight-through gradient.
    budget : float
        Share of positions that is free.

    Returns
    -------
    torch.FloatTensor of shape (batch,)
        In float32.

    Examples
    --------
    >>> keep_budget_loss(torch.tensor([[1.0, 1, 0, 0], [1, 0, 0, 0]]), 0.25)
    tensor([0.0625, 0.0000])
    """
    return (keep_mask.float().mean(dim=1) - budget).clamp(min=0).square()


def alignment_losses(
    config: BgaMnerConfig,
    text: BranchTrace,
    vision: BranchTrace,
    to_generate: list[torch.Tensor],
    to_vision: CrossModalGenerator | None,
    to_text: CrossModalGenerator | None,
    aligned: torch.Tensor,
    padding_mask: torch.Tensor | None,
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Compute L_rec and L_cyc, each averaged over stages and the batch and summed over directions.

    Everything that exists is to be generated, kept or not: keep masks say what the generators read. (The paper weights
    targets by their keep mask. Then fewer positions teach, and those dropped are generated untaught but read all the
    same.) Where stages were drawn for the pictures, reconstruction of the texts and both cycles are those of a pair's
    drawn stage.

    Parameters
    ----------
    config : BgaMnerConfig
        Its weights, distance and targets.
    text, vision : BranchTrace
        What the branches left behind.
    to_generate : list of torch.FloatTensor of shape (batch, vision tokens, width)
        The [`visual_targets`] of `vision`.
    to_vision, to_text : CrossModalGenerator or None
        The generators; None where a direction is switched off.
    aligned : torch.BoolTensor of shape (batch,)
        Pairs that take part.
    padding_mask : torch.BoolTensor of shape (batch, length) or None
        False at the texts' padding.

    Returns
    -------
    tuple of torch.FloatTensor of shape () or None
        Reconstruction and cycle loss; None for what is switched off.
    """
    textual_weight = text.last.new_ones(text.last.shape[:2]) if padding_mask is None else padding_mask
    visual_weight = vision.last.new_ones(vision.last.shape[:2])
    drawn = vision.drawn
    textual = [reconstruction_target(states, config.normalize_targets) for states in at_drawn_stage(text.states, drawn)]

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
            parts.append(loss(text.generated, to_generate, visual_weight))
        if vision.generated:
            parts.append(loss(vision.generated, textual, textual_weight))
        reconstruction_loss = torch.stack(parts).sum() if parts else None
    if config.cycle_weight > 0 and to_vision is not None and to_text is not None:
        from_text, from_vision = at_drawn_stage(text.generated, drawn), vision.generated
        text_bias = padding_bias(padding_mask, text.states[0].dtype)
        back_to_text = [to_text(made, None, vision.queries) for made in from_text]
        back_to_vision = [to_vision(made, text_bias, text.queries) for made in from_vision]
        cycle_loss = loss(back_to_text, textual, textual_weight) + loss(
            back_to_vision, at_drawn_stage(to_generate, drawn), visual_weight
        )
    return reconstruction_loss, cycle_loss


def total_loss(
    config: BgaMnerConfig, head_loss: torch.Tensor | None, outputs: BgaMnerModelOutput
) -> torch.Tensor | None:
    """Add up a head's loss and the weighted alignment losses: L_head + alpha L_rec + beta L_cyc.

    Parameters
    ----------
    config : BgaMnerConfig
        Its weights.
    head_loss : torch.FloatTensor of shape () or None
        Loss of what is labelled.
    outputs : BgaMnerModelOutput
        Of the base model.

    Returns
    -------
    torch.FloatTensor of shape () or None
        Sum of what there is; None where there is neither labels nor pictures.
    """
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
    "alignment_losses",
    "feature_distance",
    "keep_budget_loss",
    "mean_over_batch",
    "reconstruction_target",
    "total_loss",
    "visual_targets",
]
