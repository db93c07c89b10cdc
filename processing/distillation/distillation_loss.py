"""The loss of a student: the cross-entropy to its teacher's probabilities."""

from typing import Any

import torch
from torch import Tensor

from ..tags.label_alignment import UNKNOWN


def distillation_loss(
    outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None, *, temperature: float = 1.0
) -> Tensor:
    r"""Compute the cross-entropy to a teacher's probabilities, for `Trainer(compute_loss_func=distillation_loss)`.

    :math:`-T^2 \sum_t p_t \log q_t`, averaged over tokens (or texts) that have a target, where both distributions are
    those of scores divided by `T`: the Kullback-Leibler divergence of Hinton et al. (2015, "Distilling the Knowledge in
    a Neural Network"), up to a constant. At a temperature of 1 the student learns the teacher's probabilities; at a
    higher one also how improbable tags compare, of which a teacher that is sure of its texts otherwise says little.

    Parameters
    ----------
    outputs : ModelOutput or tuple
        The student's, with `logits` of shape (batch, length, tags), or (batch, labels) of a classifier. Of a tuple the
        first item.
    labels : torch.FloatTensor of the same shape
        Probabilities; -100 in all tags of a token without a target.
    num_items_in_batch : int or torch.LongTensor of shape (), optional
        How many numbers other than -100 are in the labels of all batches that make an optimizer step, as the Trainer
        counts them. With it the gradient of accumulated batches is that of one large batch.
    temperature : float, default 1.0
        `T`, above 0.

    Returns
    -------
    torch.FloatTensor of shape ()
        In nats.
    """
    logits = (outputs["logits"] if hasattr(outputs, "keys") else outputs[0]).float() / temperature
    labels = labels.to(logits)
    known = labels[..., 0] != UNKNOWN
    if temperature != 1:
        labels = torch.where(known[..., None], labels, 1.0).log().div(temperature).softmax(dim=-1)
    # (batch, length, tags) -> (batch, length)
    crossed = -(labels * logits.log_softmax(dim=-1)).sum(dim=-1)
    total = temperature**2 * torch.where(known, crossed, 0.0).sum()
    if num_items_in_batch is None:
        return total / known.sum().clamp(min=1)
    items = torch.as_tensor(num_items_in_batch, device=total.device) / labels.shape[-1]
    return total / items.clamp(min=1)


__all__ = ["distillation_loss"]
