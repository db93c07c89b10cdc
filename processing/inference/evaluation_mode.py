"""Run a model without training it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run a model in evaluation mode without gradients; afterwards every part is back in the mode it was in.

    Examples
    --------
    >>> model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    >>> with evaluating(model):
    ...     print(model.training, model(torch.ones(2)).tolist())
    False [1.0, 1.0]
    >>> model.training, model[0].training, model[1].training
    (True, True, False)
    """
    training = [module for module in model.modules() if module.training]
    if training:  # going through all parts of a model that is in the mode already takes as long as a small layer
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


__all__ = ["evaluating"]
