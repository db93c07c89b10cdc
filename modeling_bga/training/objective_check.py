"""Refuse trainings on a loss of `logits` alone, which is something else than the model's objective."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.utils import logging


logger = logging.get_logger(__name__)


@torch.compiler.disable  # hooks stand between graphs
def watch_objective(
    logits: Tensor,
    needed: Sequence[Tensor | None],
    refusal: str,
    unlabelled_loss: Tensor | None = None,
) -> Tensor:
    """Return logits that can be trained on beside the model's own loss, but not in its place.

    At the end of a backward pass a gradient must have reached one of `needed`, if one reached the logits.
    """
    if unlabelled_loss is not None:
        logger.warning_once(
            "A batch came without labels, and is trained on for its images alone. If yours have labels, something took "
            "them out: Trainer with label_smoothing_factor or compute_loss_func, or a compute_loss that pops them."
        )
    if not logits.requires_grad:
        return logits
    logits = logits.view_as(logits)  # what is computed from the scores within the model doesn't count
    reached = False

    def at_needed(gradient: Tensor | None) -> None:
        nonlocal reached
        reached = reached or gradient is not None

    def at_logits(gradient: Tensor | None) -> None:
        if gradient is not None and not reached:
            # in which order gradients come is the engine's affair: asked when all have
            torch.autograd.Variable._execution_engine.queue_callback(at_end)

    def at_end() -> None:
        if not reached:
            raise ValueError(refusal)

    for part in needed:
        if part is not None and part.requires_grad:
            part.register_hook(at_needed)
    logits.register_hook(at_logits)
    return logits


__all__ = ["watch_objective"]
