"""Tell weights apart: what is computed with some of them is kept for these alone."""

from typing import Protocol

import torch
from torch import nn


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...


def add_weights(key: _Hash, module: nn.Module) -> None:
    """Add the names and the bytes of all weights and buffers of a module to a hash."""
    for name, weight in sorted(module.state_dict().items()):
        key.update(name.encode())
        # any dtype as bytes: numpy has no bfloat16
        key.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())


__all__ = ["add_weights"]
