"""Run a model without training it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run a model in evaluation mode without gradients; afterwards every part is back in the mode it was in."""
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
