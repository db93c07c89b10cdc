"""The loss of a sequence classifier, for each of transformers' problem types, with labels that may be unknown."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ..configuration.configuration_bga_mner import BgaMnerConfig


UNKNOWN_LABEL = -100


def problem_type(config: BgaMnerConfig, labels: torch.Tensor) -> str | None:
    """Say what labels are where the configuration doesn't, as transformers does: by their dtype.

    Parameters
    ----------
    config : BgaMnerConfig
        Its `num_labels`.
    labels : torch.Tensor
        Labels of a batch.

    Returns
    -------
    str or None
        "regression" for one label, "single_label_classification" for numbers of labels, "multi_label_classification"
        for a float for each label. None for whole numbers that are all unknown: they stand for labels of any kind.
    """
    if config.num_labels == 1:
        return "regression"
    if labels.is_floating_point():
        return "multi_label_classification"
    return "single_label_classification" if known_labels(labels).any() else None


def known_labels(labels: torch.Tensor) -> torch.Tensor:
    """Tell which labels are known.

    Parameters
    ----------
    labels : torch.Tensor
        As they were given, of any shape: once -100 is made a float, it is a value like any other.

    Returns
    -------
    torch.BoolTensor
        Of the same shape. False at NaN, and at -100 among whole numbers.
    """
    return ~labels.isnan() if labels.is_floating_point() else labels != UNKNOWN_LABEL


def sequence_loss(config: BgaMnerConfig, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean loss over the sentences of a batch, in float32; one without a label counts as 0.

    Parameters
    ----------
    config : BgaMnerConfig
        Its `problem_type`, which must be set where any label is known.
    logits : torch.FloatTensor of shape (batch, labels)
        Scores of the labels.
    labels : torch.Tensor
        "single_label_classification": LongTensor of shape (batch,), -100 where unknown. "multi_label_classification":
        FloatTensor of shape (batch, labels) of 0 and 1. "regression": FloatTensor of shape (batch, labels), or (batch,)
        for one label. In the last two NaN is unknown; whole numbers do as well, and -100 is unknown among them. Where
        no label is known, -100 of shape (batch,) fits any problem type.

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
    known = known_labels(labels)
    if labels.shape != (batch, count) and not (count == 1 and labels.shape == (batch,)):
        # the collator's -100 for texts of which no label is known, nor then the shape of one
        if labels.shape != (batch,) or labels.is_floating_point() or known.any():
            raise _misfit(config, f"floats of shape ({batch}, {count})", labels)
        labels, known = (tensor[:, None].expand(batch, count) for tensor in (labels, known))
    known = known.view(batch, count)
    # not a product, as NaN times 0 is NaN
    target = torch.where(known, labels.to(logits.dtype).view(batch, count), 0.0)
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


__all__ = ["UNKNOWN_LABEL", "known_labels", "problem_type", "sequence_loss"]
