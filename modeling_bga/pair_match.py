"""How well a picture fits what its text generates."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def pair_match(generated: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Compare generated and real features of a pair, averaged over positions.

    Parameters
    ----------
    generated : torch.FloatTensor of shape (batch, positions, width)
        Features that the text generates.
    target : torch.FloatTensor of shape (batch, positions, width)
        Features of the picture, as the reconstruction loss compares them.

    Returns
    -------
    torch.FloatTensor of shape (batch,)
        Cosine between -1 and 1, in float32 and detached: a sampler that reads it must not change what is generated.

    Examples
    --------
    >>> pictures = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    >>> pair_match(pictures, pictures.flip(0))
    tensor([0., 0.])
    """
    generated, target = generated.detach().float(), target.detach().float()
    # (batch, positions, width) -> (batch, width)
    return F.cosine_similarity(generated.mean(dim=1), target.mean(dim=1), dim=-1)


__all__ = ["pair_match"]
