"""The loss of a sequence classifier, for each of transformers' problem types, with labels that may be unknown."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..configuration.configuration_bga_mner import BgaMnerConfig
from ..configuration.errors import shown


UNKNOWN_LABEL = -100


def problem_type(config: BgaMnerConfig, labels: Tensor) -> str:
    """Return what labels are: what the configuration says, or else, as in transformers, what their dtype says."""
    if config.problem_type is not None:
        return config.problem_type
    if config.num_labels == 1:
        return "regression"
    return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"


def known_labels(labels: Tensor) -> Tensor:
    """Return which labels, of any shape, are known: not NaN, and not -100 among integers."""
    return ~labels.isnan() if labels.is_floating_point() else labels != UNKNOWN_LABEL


def sequence_loss(config: BgaMnerConfig, logits: Tensor, labels: Tensor) -> Tensor:
    """Mean loss over the sentences of a batch, in float32; one without a label counts as 0.

    Labels of "single_label_classification" are integers (batch,); of "multi_label_classification" 0 and 1, and of
    "regression" values, (batch, labels), or (batch,) for one label. See `known_labels` for what is unknown.
    """
    logits = logits.float()
    batch, count = logits.shape
    problem = problem_type(config, labels)
    if problem == "single_label_classification":
        if labels.shape != (batch,) or labels.is_floating_point():
            raise _misfit(problem, f"integers of shape ({batch},)", labels)
        # elsewhere looking at the values would make the host wait
        if labels.device.type == "cpu" and not ((labels == UNKNOWN_LABEL) | ((labels >= 0) & (labels < count))).all():
            raise ValueError(
                f"Expected labels 0 to {count - 1}, or {UNKNOWN_LABEL} for unknown, got {shown(labels.tolist())}. Give "
                "config.id2label an entry for each label."
            )
        return F.cross_entropy(logits, labels, ignore_index=UNKNOWN_LABEL, reduction="sum") / batch
    known = known_labels(labels)
    if labels.shape != (batch, count) and not (count == 1 and labels.shape == (batch,)):
        # the collator's -100 for texts of which no label is known, nor then the shape of one
        if labels.shape != (batch,) or labels.is_floating_point() or known.any():
            raise _misfit(problem, f"floats of shape ({batch}, {count})", labels)
        labels, known = (tensor[:, None].expand(batch, count) for tensor in (labels, known))
    known = known.view(batch, count)
    # not a product, as NaN times 0 is NaN
    target = torch.where(known, labels.to(logits.dtype).view(batch, count), 0.0)
    if problem == "regression":
        losses = F.mse_loss(logits, target, reduction="none")
    else:
        losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return losses.masked_fill(~known, 0.0).mean()


def _misfit(problem: str, expected: str, labels: Tensor) -> ValueError:
    return ValueError(
        f"Expected labels as {expected} with problem_type={shown(problem)}, got {labels.dtype} of shape "
        f"{tuple(labels.shape)}. Set config.problem_type to what they are, or give one label per sentence."
    )


__all__ = ["UNKNOWN_LABEL", "known_labels", "problem_type", "sequence_loss"]
