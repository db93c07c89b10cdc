"""Context hiding: let a name make its image without the words around it.

The words of a caption tell most of its image together. A name among them that never stands alone learns nothing from
the image: whatever the image shows, the other words have said before.
"""

from __future__ import annotations

import torch
from torch import Tensor


def hide_context(attended: Tensor, sampled: Tensor, entity: Tensor, word_start_mask: Tensor | None) -> Tensor:
    """Choose the words that are hidden around the entities of sampled texts: True at their tokens (batch, length).

    All words around are hidden in half of the texts, and a random share in the others. Of a text without an entity a
    random share of all words is hidden. The first token, and what stands before the first word, never are.

    Parameters
    ----------
    attended : torch.BoolTensor of shape (batch, length)
        False at padding.
    sampled : torch.BoolTensor of shape (batch,)
        Texts of which words are to be hidden.
    entity : torch.BoolTensor of shape (batch, length)
        True at tokens of entities; a word is of an entity if its first token is.
    word_start_mask : torch.BoolTensor of shape (batch, length), optional
        True at the first token of each word; without it each token is a word.
    """
    batch, length = attended.shape
    starts = attended if word_start_mask is None else word_start_mask.to(torch.bool)
    # (batch, length), the number of the word that a token belongs to; 0 before the first
    words = starts.long().cumsum(dim=1)
    first = attended.long().cumsum(dim=1) == 1
    # (batch, length + 1), which words are of an entity
    kept = torch.zeros(batch, length + 1, device=attended.device)
    kept = kept.scatter_add(1, words, (entity & starts & attended & ~first).float()) > 0
    share = torch.rand(batch, 1, device=attended.device)
    share = torch.where(kept.any(dim=1, keepdim=True), (2 * share).clamp(max=1), share)
    hidden = (torch.rand(batch, length + 1, device=attended.device) < share) & ~kept
    return hidden.gather(1, words) & (words > 0) & attended & ~first & sampled[:, None]


__all__ = ["hide_context"]
