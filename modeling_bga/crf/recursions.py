"""The recursions of the CRF: partition function and marginals, in probabilities or in logarithms, and Viterbi paths.

`N` sentences of `L` positions have scores for `T` tags. One tag more, the *boundary* `T`, stands before the first and
after the last position, so that one matrix (T + 1, T + 1) holds the scores of transitions, starts and ends. Masked
positions pass on what stood before them. Each loop works from both ends of a sentence at once: the second direction is
the same recursion on the reversed sentence.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .block_recursions import best_path_by_blocks, run_by_blocks


_SUMS_AT_ONCE = 32768  # numbers for one operation of `best_path`; PyTorch spreads more than these over threads
_MOST_IN_BLOCKS = 2**26  # numbers in the largest tensor of the recursions by blocks: 512 MB
_RESCALE_EVERY = 4  # steps; fewer cost time, more send more sentences through log space


def is_cheap_to_read(tensor: Tensor) -> bool:
    """Whether the host can look at values without waiting for the device."""
    return tensor.device.type == "cpu"


def _pays_by_blocks(mask: Tensor, scores: Tensor) -> bool:
    """Whether to compute by blocks: not where memory would not do, nor in float32, which needs rescaling more often."""
    blocks = math.isqrt(mask.shape[1]) + 1
    numbers = len(mask) * blocks * len(scores) ** 3
    return not is_cheap_to_read(mask) and scores.dtype == torch.float64 and numbers <= _MOST_IN_BLOCKS


def keeps_all(mask: Tensor) -> bool:
    """Whether all positions are kept, where looking costs little; else False."""
    return is_cheap_to_read(mask) and bool(mask.all())


def _gaps(mask: Tensor) -> list[Tensor | None]:
    """Which sentences each step from both ends keeps, (2, N, 1), where states are carried over holes in a mask.

    None where there is nothing to carry: masked positions at either end hold the boundary, which may follow itself.
    """
    # a mask changes twice around each stretch of kept positions
    if is_cheap_to_read(mask) and not (nn.functional.pad(mask, (1, 1)).diff(dim=1).sum(1) > 2).any():
        return [None] * mask.shape[1]
    # (L, N) and (L, N) -> (L, 2, N, 1)
    kept = torch.stack([mask.T, mask.T.flip(0)], 1).unsqueeze(3)
    whole = kept.flatten(1).all(1).tolist() if is_cheap_to_read(mask) else [False] * len(kept)
    return [None if is_whole else step for is_whole, step in zip(whole, kept, strict=True)]


def posterior(emissions: Tensor, mask: Tensor, scores: Tensor, pairs: bool) -> tuple[Tensor, Tensor, Tensor]:
    """`log Z` (N,), marginals (N, L, T), 0 where masked, and pairwise marginals summed over time (N, T + 1, T + 1).

    Emissions (N, L, T) may hold -inf for some tags of a position. Without `pairs` the last result holds zeros.

    With `a_t` the forward probabilities and `r_t` those of the reversed sentence, both with the emission of `t`
    and both up to a scale, and `M = exp(A)`,

        p(y_t) = (a_{t-1} M)(y_t) r_t(y_t) / c_t,    c_t = the sum of the numerator over y_t
        p(y_{t-1}, y_t) = a_{t-1}(y_{t-1}) M(y_{t-1}, y_t) r_t(y_t) / c_t

    An underflow loses at most about `tiny / (c_t * scale)` of all probability: where that product isn't far above
    `tiny`, `log_space_posterior` does the sentence.
    """
    batch, length, tags = emissions.shape
    masked = ~mask
    factors = emissions.to(scores.dtype)
    shift = factors.amax(2, keepdim=True)
    factors = torch.sub(factors, shift).exp_()
    whole = keeps_all(mask)
    if not whole:
        factors.masked_fill_(masked.unsqueeze(2), 0)  # whatever masked positions hold, NaN included
    # the boundary, and all positions from their emission alone into what follows them: (L + 1, 2, N, T + 1)
    state = factors.new_zeros(length + 1, 2, batch, tags + 1)
    state[0, :, :, tags] = 1
    # (N, L, T) -> (L, N, T)
    state[1:, 0, :, :tags], state[1:, 1, :, :tags] = factors.transpose(0, 1), factors.flip(1).transpose(0, 1)
    if not whole:
        state[1:, 0, :, tags], state[1:, 1, :, tags] = masked.T, masked.T.flip(0)
    top = scores.max()
    matrix = torch.exp(scores - top)
    matrix[-1, -1] = 1  # from boundary to boundary, without a scale to count
    both = torch.stack([matrix, matrix.T])
    if not _pays_by_blocks(mask, scores):
        gaps = [None] * length if whole else _gaps(mask)
        scale, prior = _run(state, both, gaps)
        carries = any(gap is not None for gap in gaps)
    else:
        state, scale = run_by_blocks(state, both, masked)
        prior, carries = state @ both, True

    backward = state[:, 1].flip(0)
    joint = prior[:, 0].mul_(backward)
    mass = joint.sum(2)  # (L + 1, N)
    # (N,): log c at the end, the scales that its prior was divided by, and what was taken off the scores.
    log_partition = mass[-1].log() + scale[:, 0].log().sum(0).squeeze(1)
    log_partition += shift.squeeze(2).add_(top).masked_fill_(masked, 0).sum(1) + top
    log_partition.masked_fill_(masked.all(1), 0)  # exactly
    sound = mass.amin(0)
    if len(scale):
        sound *= scale.amin((0, 1)).squeeze(1)
    sound = sound > torch.finfo(state.dtype).tiny ** 0.65  # 1e-200 in float64
    weight = mass.reciprocal_()
    if carries:
        weight[:-1].masked_fill_(masked.T, 0)  # what is carried there has its weight elsewhere
    weight.unsqueeze_(2)
    # (L, N, T) -> (N, L, T)
    unary = joint.mul_(weight)[:-1, :, :tags].transpose(0, 1)
    if pairs:
        # (L + 1, N, T + 1) -> (N, T + 1, L + 1) and (N, L + 1, T + 1) -> (N, T + 1, T + 1)
        left, right = state[:, 0].permute(1, 2, 0), backward.mul_(weight).transpose(0, 1)
        pairwise = torch.bmm(left, right).mul_(matrix)
    else:
        pairwise = state.new_zeros(batch, tags + 1, tags + 1)
    if not sound.all():  # the one place where the host waits for the device
        again = sound.logical_not().nonzero().squeeze(1)
        part = log_space_posterior(emissions[again], mask[again], scores)
        log_partition[again], unary[again], pairwise[again] = part
    return log_partition, unary, pairwise


def _run(state: Tensor, both: Tensor, gaps: list[Tensor | None]) -> tuple[Tensor, Tensor]:
    """Run both recursions over the states (L + 1, 2, N, T + 1), in place; return scales, and priors of the next step.

    States are divided by the scales (L // _RESCALE_EVERY, 2, N, 1), each from its step on.
    """
    prior = torch.empty_like(state)
    scale = state.new_empty(len(gaps) // _RESCALE_EVERY, *state.shape[1:3], 1)
    states, priors, scales = state.unbind(0), prior.unbind(0), scale.unbind(0)
    for t, kept in enumerate(gaps, 1):
        now, before = states[t], states[t - 1]
        now.mul_(torch.bmm(before, both, out=priors[t - 1]))
        if kept is not None:
            torch.where(kept, now, before, out=now)
        if not t % _RESCALE_EVERY:
            torch.sum(now, 2, keepdim=True, out=scales[t // _RESCALE_EVERY - 1])
            now.div_(scales[t // _RESCALE_EVERY - 1])
    torch.bmm(states[-1], both, out=priors[-1])
    return scale, prior


def log_space_posterior(emissions: Tensor, mask: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`posterior` by logarithms and autograd: many times slower, and safe at any finite scores."""
    # autograd takes tensors of inference_mode only as copies
    with torch.inference_mode(False), torch.enable_grad():
        kept = mask.clone()
        steps = emissions.detach().to(scores.dtype, copy=True).masked_fill_(~kept.unsqueeze(2), 0).requires_grad_()
        # a copy for each sentence, whose gradients are apart: (T + 1, T + 1) -> (N, T + 1, T + 1)
        moves = scores.detach().repeat(len(mask), 1, 1).requires_grad_()
        # the boundary alone, and never again: (N, T + 1)
        state = nn.functional.pad(torch.full_like(steps[:, 0], -torch.inf), (0, 1))
        for t, step in enumerate(nn.functional.pad(steps, (0, 1), value=-torch.inf).unbind(1)):
            # (N, T + 1) -> (N, T + 1, 1), + (N, T + 1, T + 1) [previous, next] -> (N, T + 1)
            after = torch.logsumexp(state.unsqueeze(2) + moves, 1) + step
            state = torch.where(kept[:, t : t + 1], after, state)
        log_partition = torch.logsumexp(state + moves[:, :, -1], 1)
        unary, pairwise = torch.autograd.grad(log_partition.sum(), (steps, moves))
    return log_partition.detach(), unary, pairwise


def best_path(emissions: Tensor, mask: Tensor, scores: Tensor) -> Tensor:
    """Best tags (N, L), int64, of emissions (N, L, T); any tag where masked.

    Both halves of the positions are searched from their ends, stacked as in `posterior`, and meet in the best pair of
    tags. The loop keeps the best scores only; which tag gave them is looked up along the one path that is wanted.
    """
    if _pays_by_blocks(mask, scores):
        return best_path_by_blocks(emissions, mask, scores)
    batch, length, tags = emissions.shape
    half, rest = (length + 1) // 2, length // 2
    best = scores.new_full((half + 1, 2, batch, tags + 1), -torch.inf)
    best[0, :, :, tags] = 0
    whole = keeps_all(mask)
    if not whole:
        emissions = emissions.masked_fill(~mask.unsqueeze(2), -torch.inf)
    # (N, H, T) -> (H, N, T)
    best[1:, 0, :, :tags] = emissions[:, :half].transpose(0, 1)
    best[1 : rest + 1, 1, :, :tags] = emissions[:, half:].flip(1).transpose(0, 1)
    if not whole:
        best[1:, 0, :, tags].masked_fill_(~mask[:, :half].T, 0)
        best[1 : rest + 1, 1, :, tags].masked_fill_(~mask[:, half:].flip(1).T, 0)
    gaps = [None] * half if whole else _gaps(mask)[:half]
    if half > rest:  # The position in the middle belongs to the first half.
        is_first = torch.arange(2, device=mask.device).view(2, 1, 1).expand(2, batch, 1) == 0
        gaps[-1] = is_first if gaps[-1] is None else is_first & gaps[-1]
    # Maxima over the first of four dimensions are far faster than over the last: (T + 1, 2, 1, T + 1) [from, , , into].
    moves = torch.stack([scores, scores.T], 1).unsqueeze(2)
    # The sums of S sentences at a time are too few to be spread over threads, which may cost more than it saves:
    # (T + 1, 2, S, T + 1) and (2, S, T + 1).
    size = max(1, _SUMS_AT_ONCE // moves.numel())
    sums, most = best.new_empty(tags + 1, 2, min(size, batch), tags + 1), torch.empty_like(best[0])
    blocks = [(sums[:, :, : block.shape[1]], block) for block in most.split(size, 1)]
    # (H + 1, 2, N, T + 1) -> H + 1 lists of tensors (T + 1, 2, S, 1)
    columns = zip(*(x.unbind(0) for x in best.permute(0, 3, 1, 2).unsqueeze(4).split(size, 3)), strict=True)
    steps = best.unbind(0)
    for t, (kept, column) in enumerate(zip(gaps, columns, strict=False), 1):
        for before, (block, into) in zip(column, blocks, strict=True):
            torch.amax(torch.add(before, moves, out=block), 0, out=into)
        steps[t].add_(most)
        if kept is not None:
            torch.where(kept, steps[t], steps[t - 1], out=steps[t])
    # (N, T + 1) -> (N, T + 1, T + 1) -> (N,)
    chosen = (steps[-1][0].unsqueeze(2) + scores + steps[-1][1].unsqueeze(1)).flatten(1).argmax(1)
    # One row for each tag of the step nearer to the middle, of both directions: (2 * (T + 1), T + 1).
    into = torch.cat([scores.T, scores])
    offsets = torch.arange(2, device=mask.device).repeat_interleave(batch) * (tags + 1)
    path = [torch.cat([chosen // (tags + 1), chosen % (tags + 1)])]  # of (2 * N,)
    for score, kept in zip(best[1:-1].flatten(1, 2).unbind(0)[::-1], gaps[:0:-1], strict=True):
        tag = torch.argmax(into.index_select(0, path[-1] + offsets).add_(score), 1)
        path.append(tag if kept is None else torch.where(kept.flatten(), tag, path[-1]))
    # H tensors (2 * N,), the middle first -> (H, 2, N)
    found = torch.stack(path).view(half, 2, batch)
    # Where scores aren't finite the boundary may have won, which is no tag.
    found.clamp_(max=tags - 1)
    return torch.cat([found[:, 0].flip(0), found[half - rest :, 1]]).T


__all__ = ["best_path", "is_cheap_to_read", "keeps_all", "log_space_posterior", "posterior"]
