"""The CRF's recursions by blocks, for devices that wait longer for each operation than for its arithmetic.

The loops of `recursions.py` take several operations a position. Here a sentence of `L` positions is cut into about
`sqrt(L)` blocks of as many positions. A step of a recursion is a product of matrices (T + 1, T + 1), of sums and
products or, for the best path, of maxima and sums; products are associative. So the positions of all blocks are
multiplied at once, one after the other within each block (`sqrt(L)` operations), then a vector goes from block to block
(as many again), and one more operation brings it to all positions.
"""

from __future__ import annotations

import math
from itertools import accumulate

import torch
from torch import Tensor, nn


def run_by_blocks(state: Tensor, both: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
    """Run the forward and the backward recursion of `posterior`.

    From states (L + 1, 2, N, T + 1), which hold the boundary and then the factors of emissions in either direction,
    matrices `both` (2, T + 1, T + 1), and a mask (N, L), True where a position passes on what stood before it. Returns
    the states and the scales (blocks - 1, 2, N, 1) that they were divided by, each from the block after it on.
    """
    length, tags = len(state) - 1, state.shape[3] - 1
    # (N, L) -> (L, 2, N, 1)
    passes_on = torch.stack([masked.T, masked.T.flip(0)], 1).unsqueeze(3)
    factors, passes_on = _in_blocks(state[1:], 0.0), _in_blocks(passes_on, True)
    # (2, 1, T + 1, T + 1) and (S, K, 2, N, 1, T + 1) -> (S, K, 2, N, T + 1, T + 1)
    steps = both.unsqueeze(1) * factors.unsqueeze(4)
    steps = torch.where(passes_on.unsqueeze(5), torch.eye(tags + 1, dtype=both.dtype, device=both.device), steps)
    products = list(accumulate(steps.unbind(0), torch.matmul))
    starts, scales = [state[0].unsqueeze(2)], []  # (2, N, 1, T + 1) each
    for whole in products[-1][:-1].unbind(0):
        vector = starts[-1] @ whole
        scales.append(vector.sum(3, keepdim=True))
        starts.append(vector / scales[-1])
    # (K, 2, N, 1, T + 1) and (S, K, 2, N, T + 1, T + 1) -> (S, K, 2, N, T + 1) -> (K * S, 2, N, T + 1)
    states = (torch.stack(starts) @ torch.stack(products)).squeeze(4).transpose(0, 1).flatten(0, 1)
    none = state.new_empty(0, *state.shape[1:3], 1)
    return torch.cat([state[:1], states[:length]]), torch.stack(scales).squeeze(4) if scales else none


def best_path_by_blocks(emissions: Tensor, mask: Tensor, scores: Tensor) -> Tensor:
    """Do what `best_path` does, up to which of two equally good paths is chosen."""
    length, tags = emissions.shape[1:]
    # (N, L, T) -> (L, N, T + 1)
    factors = nn.functional.pad(emissions.to(scores.dtype), (0, 1), value=-torch.inf).transpose(0, 1)
    masked = ~mask.T.unsqueeze(2)  # (L, N, 1)
    stays = torch.full_like(scores, -torch.inf).fill_diagonal_(0)
    # (S, K, N, 1, T + 1) -> (S, K, N, T + 1, T + 1)
    steps = scores + _in_blocks(factors, 0.0).unsqueeze(3)
    steps = torch.where(_in_blocks(masked, True).unsqueeze(4), stays, steps)
    # (K, N, T + 1, T + 1, 1) + (K, N, 1, T + 1, T + 1) -> (K, N, T + 1, T + 1)
    best_sums = list(
        accumulate(steps.unbind(0), lambda so_far, step: (so_far.unsqueeze(4) + step.unsqueeze(2)).amax(3))
    )
    starts = [stays[-1].expand_as(factors[0])]  # the boundary alone: (N, T + 1)
    for whole in best_sums[-1][:-1].unbind(0):
        starts.append((starts[-1].unsqueeze(2) + whole).amax(1))
    # the best scores of all beginnings: (S, K, N, T + 1) -> (L, N, T + 1)
    best = (torch.stack(starts).unsqueeze(3) + torch.stack(best_sums)).amax(3).transpose(0, 1).flatten(0, 1)[:length]
    before = torch.cat([starts[0][None], best[:-1]])
    same = torch.arange(tags + 1, device=mask.device)
    origins = torch.where(masked, same, (before.unsqueeze(3) + scores).argmax(2))
    last = (best[-1] + scores[:, -1]).argmax(1)
    # from the last tag to that of each position: compositions of twice as many steps each time
    path = torch.cat([origins[1:], same.expand_as(origins[:1])])
    reach = 1
    while reach < length:
        path = torch.cat([path[:-reach].gather(2, path[reach:]), path[-reach:]])
        reach *= 2
    # (L, N, T + 1) -> (N, L); where scores aren't finite the boundary may have won, which is no tag
    return path.gather(2, last.expand(length, -1).unsqueeze(2)).squeeze(2).T.clamp(max=tags - 1)


def _in_blocks(values: Tensor, filling: float | bool) -> Tensor:
    """Bring values of positions (L, ...) to (S, K, ...), block by block, filled up at the end of the last one."""
    length = len(values)
    size = math.isqrt(length - 1) + 1  # the root, rounded up
    blocks = -(-length // size)
    missing = values.new_full((blocks * size - length, *values.shape[1:]), filling)
    return torch.cat([values, missing]).unflatten(0, (blocks, size)).transpose(0, 1)


__all__ = ["best_path_by_blocks", "run_by_blocks"]
