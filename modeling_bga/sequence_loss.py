"""The loss of a sequence classifier, for each of transformers' problem types, with labels that may be unknown."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ..configuration.configuration_bga_mner import BgaMnerConfig


UNKNOWN_LABEL = -100


def problem_type(config: BgaMnerConfig, labels: torch.Tensor) -> str:
    """Say what labels are, as transformers does: what the configuration says, or what their dtype tells.

    Parameters
    ----------
    config : BgaMnerConfig
        Its `problem_type` and `num_labels`.
    labels : torch.Tensor
        Labels of a batch.

    Returns
    -------
    str
        "regression" for one label, "single_label_classification" for numbers of labels, "multi_label_classification"
        for a float for each label.
    """
    if config.problem_type is not None:
        return str(config.problem_type)
    if config.num_labels == 1:
        return "regression"
    return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"


def sequence_loss(config: BgaMnerConfig, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean loss over the sentences of a batch, in float32; one without a label counts as 0.

    Parameters
    ----------
    config : BgaMnerConfig
        Its `problem_type`, which must be set, and `num_labels`.
    logits : torch.FloatTensor of shape (batch, labels)
        Scores of the labels.
    labels : torch.Tensor
        "single_label_classification": LongTensor of shape (batch,), -100 where unknown. "multi_label_classification":
        FloatTensor of shape (batch, labels) of 0 and 1. "regression": FloatTensor of shape (batch,) or (batch, labels).
        In the last two NaN is unknown.

    Returns
    -------
    torch.FloatTensor of shape ()
        Cross entropy, binary cross entropy (mean over labels) or squared error (likewise).

    Raises
    ------
    ValueError
        If labels don't fit the problem type, or are none that the model has.
    """
    logits = logits.float()
    batch, count = logits.shape
    if config.problem_type == "single_label_classification":
        if labels.shape != (batch,) or labels.is_floating_point():
            raise _misfit(config, f"integers of shape ({batch},)", labels)
        # elsewhere looking at the values would make the host wait
        if labels.device.type == "cpu" and not ((labels == UNKNOWN_LABEL) | ((labels >= 0) & (labels < count))).all():
            raise ValueError(
                f"Expected labels 0 to {count - 1}, or {UNKNOWN_LABEL} for unknown, got {labels.tolist()}. Give "
                "config.id2label an entry for each label."
            )
        return F.cross_entropy(logits, labels, ignore_index=UNKNOWN_LABEL, reduction="sum") / batch
    if labels.shape != (batch, count) and not (count == 1 and labels.shape == (batch,)):
        raise _misfit(config, f"floats of shape ({batch}, {count})", labels)
    labels = labels.to(logits.dtype).view(batch, count)
    known = ~labels.isnan()
    # not a product, as NaN times 0 is NaN
    target = torch.where(known, labels, 0.0)
    if config.problem_type == "regression":
        losses = F.mse_loss(logits, target, reduction="none")
    else:
        losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return losses.masked_fill(~known, 0.0).mean()


def _misfit(config: BgaMnerConfig, expected: str, labels: torch.Tensor) -> ValueError:
    return ValueError(
        f"With problem_type={config.problem_type!r} labels must be {expected}, but are {labels.dtype} of shape "
        f"{tuple(labels.shape)}. Set config.problem_type to what they are, or give one label a sentence."
    )


__all__ = ["UNKNOWN_LABEL", "problem_type", "sequence_loss"]
