"""Linear-chain conditional random field: exact likelihood, posterior marginals and Viterbi paths.

A sentence with emissions :math:`e_t(y)` at its kept positions :math:`t = 1 \\dots n` scores a labelling ``y`` with

.. math:: s(y) = b(y_1) + \\sum_{t=1}^{n} e_t(y_t) + \\sum_{t=2}^{n} A(y_{t-1}, y_t) + f(y_n)

where ``b``, ``A`` and ``f`` are the start, transition and end scores, and :math:`p(y) = \\exp(s(y)) / Z`
(Lafferty, McCallum and Pereira, 2001, "Conditional random fields"). Labels may be known at some positions only; the
loss is then ``log Z - log Z'``, ``Z'`` being the sum over the labellings that agree with what is known
(Tsuboi et al., 2008, "Training conditional random fields using incomplete annotations").

How it is computed: the forward recursion, and the same recursion on the reversed sentence, run stacked in one loop of
small matrix products on probabilities that are rescaled every few steps (Rabiner, 1989, "A tutorial on hidden Markov
models", section V.A), in float64. Both give the posterior marginals, which are the gradient of ``log Z``, so autograd
keeps no graph through the loop. Where rescaled probabilities underflow, the sentence is done again in log space.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["FORBIDDEN_SCORE", "LOG_PROBABILITY_FLOOR", "UNKNOWN_TAG", "ConditionalRandomField", "bio_constraints"]

UNKNOWN_TAG = -100
"""The tag of a position whose label is not known (and of the positions that `decode` was not asked about)."""

FORBIDDEN_SCORE = -1.0e4
"""Score of a forbidden transition or start. Finite, so that no loss and no gradient is ever infinite."""

LOG_PROBABILITY_FLOOR = -200.0
"""Natural logarithm of the smallest probability that `ConditionalRandomField.log_marginals` reports."""

_RESCALE_EVERY = 4  # steps; fewer cost time, more send more sentences through log space


def bio_constraints(id2label: dict[int, str]) -> tuple[Tensor, Tensor]:
    """Which tags may follow each other, and which may come first, in the BIO scheme.

    ``I-X`` may come only after ``B-X`` or ``I-X`` of the same type. Labels of another form are free, and so is
    ``I-X`` where the label set has no ``B-X`` (the IO scheme), as it could never be reached.

    Parameters
    ----------
    id2label : dict of int to str
        Names of the tags ``0 ... T - 1``.

    Returns
    -------
    allowed_transitions : Tensor of bool, shape (T, T)
        ``[previous, next]``, on the CPU whatever the default device.
    allowed_starts : Tensor of bool, shape (T,)
        On the CPU whatever the default device.

    Raises
    ------
    ValueError
        If the keys are not ``0 ... T - 1``.

    Examples
    --------
    >>> transitions, starts = bio_constraints({0: "O", 1: "B-PER", 2: "I-PER"})
    >>> transitions.int().tolist()
    [[1, 1, 0], [1, 1, 1], [1, 1, 1]]
    >>> starts.tolist()
    [True, True, False]
    """
    if sorted(id2label) != list(range(len(id2label))):
        raise ValueError(
            f"id2label: expected the integer keys 0 to {len(id2label) - 1}, each once; got {sorted(id2label)}. "
            "Number the labels without gaps, and turn keys that were read from JSON into integers."
        )
    names = [id2label[tag] for tag in range(len(id2label))]
    known = set(names)
    # The tags that must have gone before each tag; None where anything may.
    needed = [{f"B-{name[2:]}", name} if name.startswith("I-") and f"B-{name[2:]}" in known else None for name in names]
    transitions = [[before is None or previous in before for before in needed] for previous in names]
    starts = [before is None for before in needed]
    # An explicit device: models are often built under a default device of "meta", whose tensors hold no values.
    return (
        torch.tensor(transitions, dtype=torch.bool, device="cpu"),
        torch.tensor(starts, dtype=torch.bool, device="cpu"),
    )


class ConditionalRandomField(nn.Module):
    """Linear-chain conditional random field over any pattern of kept positions.

    Positions where the mask is False do not exist for it: the kept ones to their left and right are neighbours.
    Scores are added up in float64 whatever the dtype of the emissions (float32 on devices without float64).

    Parameters
    ----------
    num_tags : int
        Number of tags ``T``.
    allowed_transitions : Tensor of bool, shape (T, T), optional
        ``[previous, next]``; a transition that is not allowed scores `FORBIDDEN_SCORE` whatever its parameter holds.
        None allows all. See `bio_constraints`.
    allowed_starts : Tensor of bool, shape (T,), optional
        The same for the tag of the first kept position.

    Attributes
    ----------
    transitions : nn.Parameter of float32, shape (T, T)
        Scores of ``[previous, next]`` (natural-log units, as all scores here).
    start_transitions, end_transitions : nn.Parameter of float32, shape (T,)
        Scores of the first and of the last tag.
    allowed_transitions, allowed_starts : Tensor of bool
        Buffers, not in the state dict; `reset_constraints` fills them.

    Raises
    ------
    ValueError
        If ``num_tags`` is below 1, or a constraint has the wrong shape or holds no values (device "meta").

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> crf = ConditionalRandomField(3, *bio_constraints({0: "O", 1: "B-PER", 2: "I-PER"}))
    >>> emissions = torch.tensor([[[0.0, 1.0, 0.0], [0.0, 0.0, 3.0], [2.0, 0.0, 0.0]]])
    >>> mask = torch.tensor([[True, True, False]])
    >>> crf.decode(emissions, mask).tolist()
    [[1, 2, -100]]
    >>> crf(emissions, torch.tensor([[1, -100, -100]]), mask).shape
    torch.Size([1])
    """

    allowed_transitions: Tensor
    allowed_starts: Tensor

    def __init__(
        self, num_tags: int, allowed_transitions: Tensor | None = None, allowed_starts: Tensor | None = None
    ) -> None:
        super().__init__()
        if num_tags < 1:
            raise ValueError(f"num_tags: expected at least 1, got {num_tags}. Give the number of labels.")
        self.num_tags = num_tags
        # The dtype is explicit because models are also built under a half-precision default dtype.
        self.transitions = nn.Parameter(torch.empty(num_tags, num_tags, dtype=torch.float32))
        self.start_transitions = nn.Parameter(torch.empty(num_tags, dtype=torch.float32))
        self.end_transitions = nn.Parameter(torch.empty(num_tags, dtype=torch.float32))
        # Plain lists outlive a "meta" device, on which the buffers lose their values.
        self._transition_rows = _plain_constraint("allowed_transitions", allowed_transitions, (num_tags, num_tags))
        self._start_row = _plain_constraint("allowed_starts", allowed_starts, (num_tags,))
        self.register_buffer("allowed_transitions", torch.empty(num_tags, num_tags, dtype=torch.bool), persistent=False)
        self.register_buffer("allowed_starts", torch.empty(num_tags, dtype=torch.bool), persistent=False)
        self.reset_parameters()
        self.reset_constraints()

    def reset_parameters(self) -> None:
        """Draw every score uniformly from -0.1 to 0.1."""
        for parameter in (self.transitions, self.start_transitions, self.end_transitions):
            nn.init.uniform_(parameter, -0.1, 0.1)

    @torch.no_grad()
    def reset_constraints(self) -> None:
        """Write the constraints into their buffers again, as after a load by way of the "meta" device."""
        self.allowed_transitions.copy_(torch.tensor(self._transition_rows, dtype=torch.bool, device="cpu"))
        self.allowed_starts.copy_(torch.tensor(self._start_row, dtype=torch.bool, device="cpu"))

    def extra_repr(self) -> str:
        """Return the number of tags and of forbidden transitions, for ``print``."""
        return f"num_tags={self.num_tags}, forbidden={sum(row.count(False) for row in self._transition_rows)}"

    def forward(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """Negative log-likelihood of what is known about the tags of each sentence.

        Parameters
        ----------
        emissions : Tensor of float, shape (B, L, T)
            Scores of each tag at each position.
        tags : Tensor of int64, shape (B, L)
            Tags; `UNKNOWN_TAG` where not known. Ignored where the mask is False.
        mask : Tensor of bool (or of integers), shape (B, L)
            True at the kept positions, in any pattern.

        Returns
        -------
        Tensor of shape (B,)
            ``log Z - log Z'`` in nats, float64 for float64 emissions, else float32. Exactly 0, with a gradient of
            exactly 0, for a sentence with no known tag. Can be differentiated once.

        Raises
        ------
        ValueError
            If shapes or dtypes do not fit, or a tag at a kept position is neither `UNKNOWN_TAG` nor in
            ``0 ... T - 1``. On other devices than the CPU such a tag counts as unknown instead, because looking at
            it would make the host wait for the device.

        Notes
        -----
        A known tag that the constraints forbid after its known left neighbour counts as unknown; `contradictory`
        says which these are.
        """
        mask = self._check(emissions, mask, tags)
        return self._log_likelihood(emissions, mask, tags, self._known(tags, mask))

    def log_partition(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """``log Z``, the log of the summed exponential scores of all labellings, and 0 where nothing is kept.

        Parameters
        ----------
        emissions, mask : Tensor
            As for `forward`, and so are the errors.

        Returns
        -------
        Tensor of shape (B,)
            In nats, float64 for float64 emissions, else float32. Can be differentiated once.
        """
        return self._log_likelihood(emissions, self._check(emissions, mask))

    @torch.no_grad()
    def log_marginals(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Log posterior probabilities of each tag at each position; computed under ``no_grad``.

        Parameters
        ----------
        emissions, mask : Tensor
            As for `forward`, and so are the errors.

        Returns
        -------
        Tensor of shape (B, L, T)
            ``log p(y_t)``, float64 for float64 emissions, else float32, always finite: no value is below
            `LOG_PROBABILITY_FLOOR`, and a masked position holds the uniform ``-log T``.
        """
        mask = self._check(emissions, mask)
        if not emissions.numel():
            return emissions.to(_result_dtype(emissions))
        scores = self._scores(_work_dtype(emissions))
        unary = _posterior(emissions, *_layout(mask), *scores, pairs=False)[1]
        # (B, L) -> (B, L, 1)
        log_unary = (
            unary.log_().clamp_min_(LOG_PROBABILITY_FLOOR).masked_fill_(~mask.unsqueeze(2), -math.log(self.num_tags))
        )
        return log_unary.to(_result_dtype(emissions))

    @torch.no_grad()
    def decode(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Labelling of the highest score (Viterbi, 1967).

        Parameters
        ----------
        emissions, mask : Tensor
            As for `forward`, and so are the errors.

        Returns
        -------
        Tensor of int64, shape (B, L)
            Tags, `UNKNOWN_TAG` where the mask is False.
        """
        mask = self._check(emissions, mask)
        if not emissions.numel():
            return torch.full_like(mask, UNKNOWN_TAG, dtype=torch.int64)
        return _viterbi(emissions, *_layout(mask), *self._scores(_work_dtype(emissions)))

    @torch.no_grad()
    def contradictory(self, tags: Tensor, mask: Tensor) -> Tensor:
        """Known tags that the constraints forbid after their known left neighbour, or at the start.

        The neighbour is the previous kept position. These tags count as unknown in the loss.

        Parameters
        ----------
        tags, mask : Tensor
            As for `forward`, and so are the errors.

        Returns
        -------
        Tensor of bool, shape (B, L)
            True at those tags; count them to report errors in the data.
        """
        mask = self._check(None, mask, tags)
        return mask & (tags >= 0) & (tags < self.num_tags) & ~self._known(tags, mask)

    def _known(self, tags: Tensor, mask: Tensor) -> Tensor:
        """Positions whose tag is known and not contradictory: bool (B, L)."""
        known = mask & (tags >= 0) & (tags < self.num_tags)
        # For each position the nearest kept one to its left, -1 where there is none: (B, L).
        kept = torch.where(mask, torch.arange(mask.shape[1], device=mask.device), -1)
        previous = nn.functional.pad(kept, (1, 0), value=-1)[:, :-1].cummax(1).values
        left = previous.clamp_min(0)
        safe = tags.masked_fill(~known, 0)
        allowed = self.allowed_transitions[safe.gather(1, left), safe] | ~known.gather(1, left)
        return known & torch.where(previous < 0, self.allowed_starts[safe], allowed)

    def _scores(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Transition, start and end scores with the constraints applied: (T, T), (T,), (T,)."""
        transitions = self.transitions.to(dtype).masked_fill(~self.allowed_transitions, FORBIDDEN_SCORE)
        starts = self.start_transitions.to(dtype).masked_fill(~self.allowed_starts, FORBIDDEN_SCORE)
        return transitions, starts, self.end_transitions.to(dtype)

    def _log_likelihood(
        self, emissions: Tensor, mask: Tensor, tags: Tensor | None = None, known: Tensor | None = None
    ) -> Tensor:
        """``log Z``, less ``log Z'`` where tags are given: (B,)."""
        if not emissions.numel():
            # (B, L, T) -> (B,), zeros that belong to the graph
            return emissions.to(_result_dtype(emissions)).sum((1, 2))
        scores = self._scores(_work_dtype(emissions))
        result: Tensor = _LogLikelihood.apply(emissions, *scores, *_layout(mask), tags, known)
        return result

    def _check(self, emissions: Tensor | None, mask: Tensor, tags: Tensor | None = None) -> Tensor:
        """Raise on shapes, dtypes and tags that do not fit; return the mask as bool."""
        if emissions is not None:
            if emissions.ndim != 3 or emissions.shape[2] != self.num_tags or not emissions.is_floating_point():
                raise ValueError(
                    f"emissions: expected floating-point scores of shape (batch, length, {self.num_tags}); got "
                    f"{emissions.dtype} of shape {tuple(emissions.shape)}. Give one score per tag, or build the "
                    "module with another num_tags."
                )
            expected = tuple(emissions.shape[:2])
        else:
            expected = tuple(mask.shape)
        if mask.ndim != 2 or tuple(mask.shape) != expected or mask.is_floating_point() or mask.is_complex():
            raise ValueError(
                f"mask: expected booleans or integers of shape {expected if len(expected) == 2 else '(batch, length)'}"
                f"; got {mask.dtype} of shape {tuple(mask.shape)}. Give the 2-d attention mask of the same sentences."
            )
        mask = mask.to(torch.bool)
        if tags is None:
            return mask
        if tuple(tags.shape) != expected or tags.dtype != torch.int64:
            raise ValueError(
                f"tags: expected torch.int64 of shape {expected}; got {tags.dtype} of shape {tuple(tags.shape)}. "
                f"Give one tag per position ({UNKNOWN_TAG} where unknown), converted with .long()."
            )
        # Only where reading a value costs no wait for the device.
        if tags.device.type == "cpu":
            wrong = mask & ((tags < 0) & (tags != UNKNOWN_TAG) | (tags >= self.num_tags))
            if wrong.any():
                row, column = wrong.nonzero()[0].tolist()
                raise ValueError(
                    f"tags: expected 0 to {self.num_tags - 1}, or {UNKNOWN_TAG} for unknown, at the kept positions; "
                    f"got {int(tags[row, column])} at [{row}, {column}]. Map the labels with the label2id of this "
                    "model, or clear the mask there."
                )
        return mask


class _LogLikelihood(torch.autograd.Function):
    """``log Z - log Z'`` (``log Z`` where tags is None), with the difference of the marginals as its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        emissions: Tensor,
        transitions: Tensor,
        starts: Tensor,
        ends: Tensor,
        rows: Tensor,
        lengths: Tensor,
        tags: Tensor | None,
        known: Tensor | None,
    ) -> Tensor:
        batch = len(emissions)
        pairs = any(ctx.needs_input_grad)
        chain = (transitions, starts, ends)
        if tags is None or known is None:
            value, unary, pairwise = _posterior(emissions, rows, lengths, *chain, pairs=pairs)
        else:
            tags = tags.masked_fill(~known, 0)
            informed, complete = known.any(1), known.sum(1) == lengths
            if emissions.device.type == "cpu":
                some = (informed & ~complete).nonzero().squeeze(1)
            else:
                # A choice of sentences by their values would make the host wait, and a larger batch costs little.
                some, complete = torch.arange(batch, device=emissions.device), torch.zeros_like(complete)
            if len(some):
                # Rule out what disagrees with a known tag, and get both partition functions from one loop.
                disagree = known[some].unsqueeze(2).repeat(1, 1, emissions.shape[2])
                disagree.scatter_(2, tags[some].unsqueeze(2), False)
                # (B, L, T) and (S, L, T) -> (B + S, L, T)
                emissions_too = torch.cat([emissions, emissions[some].masked_fill(disagree, -torch.inf)])
                # (L, B) and (L, S) -> (L, B + S), with the row numbers of the sentences' copies
                rows_too = rows[:, some] + (torch.arange(len(some), device=some.device) + batch - some) * len(rows)
                results = _posterior(
                    emissions_too,
                    torch.cat([rows, rows_too], 1),
                    torch.cat([lengths, lengths[some]]),
                    *chain,
                    pairs=pairs,
                )
                value, unary, pairwise = (x[:batch].index_add_(0, some, x[batch:], alpha=-1) for x in results)
            else:
                value, unary, pairwise = _posterior(emissions, rows, lengths, *chain, pairs=pairs)
            _subtract_path((value, unary, pairwise), emissions, tags, known & complete.unsqueeze(1), rows, *chain)
            value.clamp_(min=0).masked_fill_(~informed, 0)
            unary.masked_fill_(~informed[:, None, None], 0)
            pairwise.masked_fill_(~informed[:, None, None], 0)
        # Rows of the first and of the last kept position of each sentence: (1, B) and (1, B) -> (2, B).
        edges = torch.cat([rows[:1], rows.gather(0, (lengths - 1).clamp_min(0).unsqueeze(0))])
        ctx.save_for_backward(edges, unary, pairwise)
        ctx.emission_dtype = emissions.dtype
        return value.to(_result_dtype(emissions))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        edges, unary, pairwise = ctx.saved_tensors
        grad = grad.to(unary.dtype)
        # (B, L, T) -> (B * L, T) -> (2, B, T) -> (2, T)
        starts, ends = (grad @ unary.flatten(0, 1)[edges]).unbind(0)
        # (B,) @ (B, T * T) -> (T * T,) -> (T, T)
        transitions = (grad @ pairwise.flatten(1)).view(pairwise.shape[1:])
        emissions = torch.mul(unary, grad[:, None, None]).to(ctx.emission_dtype)
        return emissions, transitions, starts, ends, None, None, None, None


def _plain_constraint(name: str, constraint: Tensor | None, shape: tuple[int, ...]) -> list[Any]:
    """Nested lists of booleans from a constraint, all True where it is None."""
    if constraint is None:
        return torch.ones(shape, dtype=torch.bool, device="cpu").tolist()
    if tuple(constraint.shape) != shape or constraint.dtype != torch.bool or constraint.is_meta:
        raise ValueError(
            f"{name}: expected torch.bool of shape {shape} with values; got {constraint.dtype} of shape "
            f"{tuple(constraint.shape)} on {constraint.device}. Use bio_constraints, or create it on the CPU."
        )
    return constraint.tolist()


def _result_dtype(emissions: Tensor) -> torch.dtype:
    return torch.float64 if emissions.dtype == torch.float64 else torch.float32


def _work_dtype(emissions: Tensor) -> torch.dtype:
    # Apple's "mps" has no float64; more sentences then take the way through log space.
    return torch.float32 if emissions.device.type == "mps" else torch.float64


def _layout(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Time-first order of the kept positions: rows (L, B) among the B * L positions, kept ones first; counts (B,)."""
    batch, length = mask.shape
    order = mask.logical_not().to(torch.uint8).argsort(dim=1, stable=True)
    # (B, L) -> (L, B)
    rows = order.T + torch.arange(0, batch * length, length, device=mask.device)
    return rows.contiguous(), mask.sum(1)


def _outside(rows: Tensor, lengths: Tensor) -> Tensor:
    """Steps behind the length of each sentence: bool (L, B)."""
    return torch.arange(len(rows), device=rows.device).unsqueeze(1) >= lengths


def _take(emissions: Tensor, rows: Tensor, outside: Tensor) -> Tensor:
    """Emissions of the rows (...), zeros outside, in the working dtype: (..., T)."""
    # (B, L, T) -> (B * L, T) -> (..., T)
    taken = emissions.flatten(0, 1)[rows].to(_work_dtype(emissions))
    # Whatever masked positions hold, NaN included, ends here.
    return taken.masked_fill_(outside.unsqueeze(-1), 0)


def _posterior(
    emissions: Tensor,
    rows: Tensor,
    lengths: Tensor,
    transitions: Tensor,
    starts: Tensor,
    ends: Tensor,
    *,
    pairs: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """``log Z`` (N,), marginals (N, L, T), 0 where masked, and pairwise marginals summed over time (N, T, T).

    Emissions (N, L, T) may hold -inf for some tags of a position; rows and lengths are those of `_layout`; the scores
    (T, T), (T,), (T,) are finite, in the working dtype. Without ``pairs`` the last result holds zeros.
    """
    *results, sound = _scaled_posterior(emissions, rows, lengths, transitions, starts, ends, pairs)
    if not sound.all():
        again = sound.logical_not().nonzero().squeeze(1)
        some_rows = rows[:, again] + (torch.arange(len(again), device=again.device) - again) * len(rows)
        part = _log_space_posterior(emissions[again], some_rows, lengths[again], transitions, starts, ends, pairs)
        for whole, values in zip(results, part, strict=True):
            whole[again] = values
    log_partition, unary, pairwise = results
    return log_partition, unary, pairwise


def _scaled_posterior(
    emissions: Tensor,
    rows: Tensor,
    lengths: Tensor,
    transitions: Tensor,
    starts: Tensor,
    ends: Tensor,
    pairs: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`_posterior` from rescaled probabilities, and for each sentence whether the result is sound: bool (N,).

    With ``a_t`` the forward probabilities and ``r_t`` those of the reversed sentence, both with the emission of ``t``
    and both up to a scale, and ``M = exp(A)``,

        p(y_t) = (a_{t-1} M)(y_t) r_t(y_t) / c_t,    c_t = the sum of the numerator over y_t
        p(y_{t-1}, y_t) = a_{t-1}(y_{t-1}) M(y_{t-1}, y_t) r_t(y_t) / c_t

    As all factors are at most 1, what an underflow loses is at most about ``tiny / (c_t * scale)`` of all probability,
    so the result is sound while that product stays far above ``tiny``.
    """
    (length, batch), tags = rows.shape, emissions.shape[2]
    outside = _outside(rows, lengths)
    time = torch.arange(length, device=rows.device).unsqueeze(1)
    # The step that mirrors each step within its sentence: (L, N).
    mirror = torch.where(outside, time, lengths - 1 - time)
    # (L, N) and (L, N) -> (L, 2, N); emissions (N, L, T) -> (L, 2, N, T)
    state = _take(emissions, torch.stack([rows, rows.gather(0, mirror)], 1), outside.unsqueeze(1))
    shift = state.amax(3)
    state.sub_(shift.unsqueeze(3)).exp_()
    top, first, last = transitions.max(), starts.max(), ends.max()
    matrix = torch.exp(transitions - top)
    both = torch.stack([matrix, matrix.T])

    # Before the emission of each step; `state` turns from the emission alone into what follows it.
    prior = torch.empty_like(state)
    prior[0, 0], prior[0, 1] = torch.exp(starts - first), torch.exp(ends - last)
    scale = state.new_ones(length // _RESCALE_EVERY, 2, batch, 1)
    states, priors, scales = state.unbind(0), prior.unbind(0), scale.unbind(0)
    tiny = torch.finfo(state.dtype).tiny
    for t in range(length):
        if t:
            torch.bmm(states[t - 1], both, out=priors[t])
        states[t].mul_(priors[t])
        if t % _RESCALE_EVERY == _RESCALE_EVERY - 1:
            total = scales[t // _RESCALE_EVERY]
            torch.sum(states[t], 2, keepdim=True, out=total)
            # No NaN behind the end of a sentence, which products with 0 would not remove.
            states[t].div_(total.clamp_min_(tiny))

    # Reversed states in the order of the sentence: (L, 2, N, T) -> (L * 2 * N, T) -> (L, N, T).
    backward = state.flatten(0, 2)[(2 * mirror + 1) * batch + torch.arange(batch, device=rows.device)]
    joint = prior[:, 0] * backward
    mass = joint.sum(2)
    weight = mass.reciprocal().masked_fill_(outside, 0).unsqueeze(2)
    # (L, N, T) -> (N * L, T) -> (N, L, T)
    unary = torch.empty_like(joint).view(-1, tags).index_copy_(0, rows.flatten(), joint.mul_(weight).flatten(0, 1))
    unary = unary.view(emissions.shape)

    # Steps that were rescaled, within the sentence: (L // R, 1), against (N,).
    at = time[_RESCALE_EVERY - 1 :: _RESCALE_EVERY]
    used = scale.squeeze(3).masked_fill((at >= lengths).unsqueeze(1), 1)
    least = mass.masked_fill(outside, 1).amin(0)
    if len(used):
        least = least * used.amin((0, 1))
    sound = least > tiny**0.65  # 1e-200 in float64

    final = (lengths - 1).clamp_min(0)
    # (L, N) -> (1, N) -> (N,): log c at the last step, and the scales that its prior was divided by.
    log_partition = mass.gather(0, final.unsqueeze(0)).squeeze(0).log()
    log_partition += used[:, 0].log().masked_fill_(at >= final, 0).sum(0)
    log_partition += shift[:, 0].sum(0) + top * final + first + last
    log_partition.masked_fill_(lengths == 0, 0)

    if pairs:
        # (L - 1, N, T) -> (N, T, L - 1) and (N, L - 1, T) -> (N, T, T)
        left, right = state[:-1, 0].permute(1, 2, 0), backward.mul_(weight)[1:].transpose(0, 1)
        pairwise = torch.bmm(left, right).mul_(matrix)
    else:
        pairwise = state.new_zeros(batch, tags, tags)
    return log_partition, unary, pairwise, sound


def _log_space_posterior(
    emissions: Tensor,
    rows: Tensor,
    lengths: Tensor,
    transitions: Tensor,
    starts: Tensor,
    ends: Tensor,
    pairs: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """`_posterior` with logarithms throughout: about ten times slower, and safe at any finite scores."""
    length, batch = rows.shape
    outside = _outside(rows, lengths)
    steps = _take(emissions, rows, outside)
    # Lists over t of (N, T): forward with the emission of t, backward without it.
    forward = [starts + steps[0]]
    for t in range(1, length):
        # (N, T) -> (N, T, 1), + (T, T) [previous, next] -> (N, T, T) -> (N, T)
        forward.append(torch.logsumexp(forward[-1].unsqueeze(2) + transitions, 1) + steps[t])
    backward = [ends.expand(batch, -1)]
    for t in range(length - 1, 0, -1):
        # (N, T) -> (N, 1, T), + (T, T) [previous, next] -> (N, T, T) -> (N, T)
        step = torch.logsumexp((backward[-1] + steps[t]).unsqueeze(1) + transitions, 2)
        backward.append(torch.where(outside[t].unsqueeze(1), ends, step))
    backward.reverse()
    # Lists of L (N, T) -> (L, N, T)
    joint = torch.stack(forward) + torch.stack(backward)
    log_partition = torch.logsumexp(joint[0], 1)
    joint.sub_(log_partition.unsqueeze(1)).exp_().masked_fill_(outside.unsqueeze(2), 0)
    # (L, N, T) -> (N * L, T) -> (N, L, T)
    unary = torch.empty_like(joint).flatten(0, 1).index_copy_(0, rows.flatten(), joint.flatten(0, 1))
    pairwise = steps.new_zeros(batch, *transitions.shape)
    for t in range(1, length if pairs else 1):
        right = backward[t] + steps[t] - log_partition.unsqueeze(1)
        # (N, T, 1) + (T, T) + (N, 1, T) -> (N, T, T)
        pair = torch.exp(forward[t - 1].unsqueeze(2) + transitions + right.unsqueeze(1))
        pairwise += pair.masked_fill_(outside[t, :, None, None], 0)
    return log_partition.masked_fill_(lengths == 0, 0), unary.view(emissions.shape), pairwise


def _subtract_path(
    results: tuple[Tensor, Tensor, Tensor],
    emissions: Tensor,
    tags: Tensor,
    counted: Tensor,
    rows: Tensor,
    transitions: Tensor,
    starts: Tensor,
    ends: Tensor,
) -> None:
    """Take the score of a fully known path, and its counts, off the results of `_posterior`, in place.

    ``counted`` (B, L) is True at every kept position of such sentences; tags (B, L) are in range everywhere.
    """
    value, unary, pairwise = results
    ones = counted.to(unary.dtype)
    # (B, L) -> (B, L, 1) -> (B, L); `where`, as a position that is not kept may hold NaN
    at_tags = emissions.gather(2, tags.unsqueeze(2)).squeeze(2).to(unary.dtype)
    value -= torch.where(counted, at_tags, 0).sum(1)
    unary.scatter_add_(2, tags.unsqueeze(2), -ones.unsqueeze(2))
    # (B, L) -> (B * L,) -> (L, B)
    steps, ones = tags.flatten()[rows], ones.flatten()[rows]
    # Number of each (previous, next) among the T * T transitions: (L - 1, B).
    moves = steps[:-1] * emissions.shape[2] + steps[1:]
    value -= (transitions.flatten()[moves] * ones[1:]).sum(0)
    # (B, T, T) -> (B, T * T), a view
    pairwise.flatten(1).scatter_add_(1, moves.T, -ones[1:].T)
    final = steps.gather(0, (ones.sum(0).long() - 1).clamp_min(0).unsqueeze(0)).squeeze(0)
    value -= (starts[steps[0]] + ends[final]) * ones[0]


def _viterbi(
    emissions: Tensor, rows: Tensor, lengths: Tensor, transitions: Tensor, starts: Tensor, ends: Tensor
) -> Tensor:
    """Best tags, `UNKNOWN_TAG` where masked: int64 (N, L).

    The loop keeps the best scores only; which previous tag gave them is looked up along the one path that is wanted.
    """
    batch, _, tags = emissions.shape
    outside = _outside(rows, lengths)
    # One row for each next tag, and a last one for the end of the sentence: (T + 1, T).
    into = torch.cat([transitions.T, ends.unsqueeze(0)])
    best = _take(emissions, rows, outside)
    best[0] += starts
    sums, most = best.new_empty(batch, tags, tags), best.new_empty(batch, tags)
    scores = best.unbind(0)
    for before, now in zip(scores[:-1], scores[1:], strict=True):
        # (N, T) -> (N, 1, T), + (T, T) [next, previous] -> (N, T, T) -> (N, T)
        torch.add(before.unsqueeze(1), into[:-1], out=sums)
        now += torch.amax(sums, 2, out=most)
    # The tag number T stands for "behind the end".
    path = [torch.full_like(lengths, tags)]
    for score, gone in zip(reversed(scores), reversed(outside.unbind(0)), strict=True):
        path.append(torch.argmax(score + into[path[-1]], 1).masked_fill_(gone, tags))
    # L tensors (N,), last first -> (L, N)
    found = torch.stack(path[:0:-1]).masked_fill_(outside, UNKNOWN_TAG)
    # (L, N) -> (N * L,) -> (N, L)
    return torch.empty_like(found).flatten().index_copy_(0, rows.flatten(), found.flatten()).view(batch, -1)
