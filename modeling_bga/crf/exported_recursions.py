"""The CRF's marginals and best paths without a look at any value, for `torch.export` and `torch.jit.trace`.

A recorded program can't choose its way by the scores, as `ConditionalRandomField` does: here every sentence goes
through log space, one position after the other. It is slower, and the same up to rounding (and up to which of two
equally good paths is chosen).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def recorded_log_marginals(emissions: Tensor, mask: Tensor, scores: Tensor) -> Tensor:
    """Log posterior probabilities (B, L, T) of tags, in the dtype of the scores; anything where the mask is False.

    From emissions (B, L, T), a mask (B, L) of the kept positions, and scores (T + 1, T + 1) of `[previous, next]`
    with the boundary as the last tag.
    """
    start, steps = _start_and_steps(emissions, mask, scores)

    def forward(state: Tensor, step: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        emission, kept = step
        # (B, T + 1, 1) + (T + 1, T + 1) -> (B, T + 1)
        state = torch.where(kept, torch.logsumexp(state.unsqueeze(2) + scores, 1) + emission, state)
        return state, state.clone()

    def backward(rest: Tensor, step: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        emission, kept = step
        before = torch.logsumexp((emission + rest).unsqueeze(1) + scores, 2)
        return torch.where(kept, before, rest), rest.clone()

    ends = scores[:, -1].expand_as(start).clone()
    until = _scan(forward, start, steps)
    after = _scan(backward, ends, tuple(step.flip(0) for step in steps)).flip(0)
    # (L, B, T + 1) -> (B, L, T)
    return torch.log_softmax((until + after)[:, :, :-1], 2).transpose(0, 1)


def recorded_best_path(emissions: Tensor, mask: Tensor, scores: Tensor) -> Tensor:
    """Labelling of the highest score: int64 (B, L), any tag where the mask is False; from the same arguments."""
    start, steps = _start_and_steps(emissions, mask, scores)
    same = torch.arange(len(scores), device=emissions.device)

    def forward(best: Tensor, step: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        emission, kept = step
        # (B, T + 1, 1) + (T + 1, T + 1) -> (B, T + 1), twice
        reached, origin = (best.unsqueeze(2) + scores).max(1)
        return torch.where(kept, reached + emission, best), torch.where(kept, origin, same)

    def backward(tag: Tensor, origins: tuple[Tensor]) -> tuple[Tensor, Tensor]:
        return origins[0].gather(1, tag), tag.clone()

    best, origins = _scan(forward, start, steps, with_last=True)
    last = (best + scores[:, -1]).argmax(1, keepdim=True)  # (B, 1)
    # (L, B, 1) -> (B, L); where scores aren't finite the boundary may have won, which is no tag
    return _scan(backward, last, (origins.flip(0),)).flip(0).squeeze(2).T.clamp(max=len(scores) - 2)


def _start_and_steps(emissions: Tensor, mask: Tensor, scores: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Log probabilities (B, T + 1) of the boundary alone; emissions (L, B, T + 1) and what is kept (L, B, 1)."""
    # the boundary is no tag of a position
    steps = nn.functional.pad(emissions.to(scores.dtype), (0, 1), value=-torch.inf)
    start = nn.functional.pad(torch.zeros_like(steps[:, 0, :1]), (steps.shape[2] - 1, 0), value=-torch.inf)
    return start, (steps.transpose(0, 1), mask.T.unsqueeze(2))


def _scan(step: Callable[..., Any], state: Tensor, inputs: tuple[Tensor, ...], with_last: bool = False) -> Any:
    """Take a step after the other along the first dimension; stack what they give, and also return the last state."""
    if torch.jit.is_tracing():
        given = []
        for values in zip(*(each.unbind(0) for each in inputs), strict=True):
            state, value = step(state, values)
            given.append(value)
        stacked = torch.stack(given)
    else:
        from torch._higher_order_ops.scan import scan  # one loop in the program, for any length

        state, stacked = scan(step, state, inputs)
    return (state, stacked) if with_last else stacked


__all__ = ["recorded_best_path", "recorded_log_marginals"]
