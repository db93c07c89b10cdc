r"""Linear-chain conditional random field: exact likelihood, posterior marginals and Viterbi paths.

A sentence with emissions :math:`e_t(y)` at its kept positions :math:`t = 1 \dots n` scores a labelling ``y`` with

.. math:: s(y) = b(y_1) + \sum_{t=1}^{n} e_t(y_t) + \sum_{t=2}^{n} A(y_{t-1}, y_t) + f(y_n)

where ``b``, ``A`` and ``f`` are the start, transition and end scores, and :math:`p(y) = \exp(s(y)) / Z`
(Lafferty, McCallum and Pereira, 2001, "Conditional random fields"). Labels may be known at some positions only; the
loss is then ``log Z - log Z'``, ``Z'`` being the sum over the labellings that agree with what is known
(Tsuboi et al., 2008, "Training conditional random fields using incomplete annotations").

How it is computed: the forward recursion, and the same recursion on the reversed sentence, run stacked in one loop of
small matrix products on probabilities that are rescaled every few steps (Rabiner, 1989, "A tutorial on hidden Markov
models", section V.A), in float64. Both give the posterior marginals, which are the gradient of ``log Z``, so autograd
keeps no graph through the loop. Where rescaled probabilities underflow, the sentence is done again in log space.
"""

import math
from collections.abc import Callable
from itertools import pairwise as neighbours
from typing import Any

import torch
from torch import Tensor, nn


__all__ = ["FORBIDDEN_SCORE", "LOG_PROBABILITY_FLOOR", "UNKNOWN_TAG", "ConditionalRandomField", "bio_constraints"]

UNKNOWN_TAG = -100  # of a position whose label is not known, and in the paths of masked positions
FORBIDDEN_SCORE = -1.0e4  # of a forbidden transition or start; finite, so that no loss or gradient is ever infinite
LOG_PROBABILITY_FLOOR = -200.0  # nats; the least that `log_marginals` reports
_RESCALE_EVERY = 4  # steps; fewer cost time, more send more sentences through log space
_Scores = tuple[Tensor, Tensor, Tensor]  # transitions (T, T), starts (T,), ends (T,), finite, in the working dtype


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
    allowed_transitions, allowed_starts : Tensor of bool, shapes (T, T) and (T,)
        ``[previous, next]`` and first tags, on the CPU whatever the default device.

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
    if set(id2label) != set(range(len(id2label))):
        expected = f"the integer keys 0 to {len(id2label) - 1}"
        raise _misfit("id2label", expected, list(id2label), "Number the labels so.")
    names = [id2label[tag] for tag in range(len(id2label))]
    # The tags of which one must have gone before; None where anything may.
    needed = [{f"B-{x[2:]}", x} if x.startswith("I-") and f"B-{x[2:]}" in names else None for x in names]
    transitions = [[before is None or previous in before for before in needed] for previous in names]
    # An explicit device, as models are often built under a default device of "meta", whose tensors hold no values.
    return torch.tensor(transitions, device="cpu"), torch.tensor([x is None for x in needed], device="cpu")


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
        None allows all. See `bio_constraints`. Kept in a buffer that is not in the state dict.
    allowed_starts : Tensor of bool, shape (T,), optional
        The same for the tag of the first kept position.

    Attributes
    ----------
    transitions, start_transitions, end_transitions : nn.Parameter of float32, shapes (T, T), (T,), (T,)
        Scores of ``[previous, next]``, of the first and of the last tag, in nats (natural logarithms).

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
    """

    allowed_transitions: Tensor
    allowed_starts: Tensor

    def __init__(
        self, num_tags: int, allowed_transitions: Tensor | None = None, allowed_starts: Tensor | None = None
    ) -> None:
        super().__init__()
        self.num_tags = num_tags
        if num_tags < 1:
            raise _misfit("num_tags", "at least 1", num_tags, "Give the number of labels.")
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
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)

    @torch.no_grad()
    def reset_constraints(self) -> None:
        """Write the constraints into their buffers again, as after a load by way of the "meta" device."""
        self.allowed_transitions.copy_(torch.tensor(self._transition_rows, dtype=torch.bool, device="cpu"))
        self.allowed_starts.copy_(torch.tensor(self._start_row, dtype=torch.bool, device="cpu"))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ConditionalRandomField":
        """Move the scores with the model they belong to, but never below float32: `model.half()` leaves them whole."""

        def at_least_single(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            is_rounded = moved.dtype in (torch.float16, torch.bfloat16) and tensor.dtype == torch.float32
            return tensor.to(moved.device) if is_rounded else moved

        return super()._apply(at_least_single, recurse)

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
            exactly 0, for a sentence with no known tag. Can be differentiated once. A known tag that the constraints
            forbid after its known left neighbour counts as unknown; `contradictory` says which these are.

        Raises
        ------
        ValueError
            If shapes or dtypes do not fit, there are no positions, or a tag at a kept position is neither
            `UNKNOWN_TAG` nor in ``0 ... T - 1``. On other devices than the CPU, where looking at the tags would make
            the host wait, such a tag counts as unknown instead.
        """
        mask = self._check(emissions, mask, tags)
        return _LogLikelihood.apply(emissions, *self._scores(emissions), mask, tags, self._known(tags, mask))

    def log_partition(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """``log Z``, the log of the summed exponential scores of all labellings; arguments and errors as in `forward`.

        Shape (B,), in nats, of the dtype that `forward` returns; 0 where nothing is kept. Can be differentiated once.
        """
        return _LogLikelihood.apply(emissions, *self._scores(emissions), self._check(emissions, mask), None, None)

    @torch.no_grad()
    def log_marginals(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Log posterior probabilities ``log p(y_t)``; arguments and errors as in `forward`.

        Shape (B, L, T), of the dtype that `forward` returns, computed under ``no_grad``. Always finite: no value is
        below `LOG_PROBABILITY_FLOOR`, and a masked position holds the uniform ``-log T``.
        """
        mask = self._check(emissions, mask)
        unary = _posterior(emissions, mask, self._scores(emissions), False)[1]
        masked = ~mask.unsqueeze(2)  # (B, L) -> (B, L, 1)
        log_unary = unary.log_().clamp_min_(LOG_PROBABILITY_FLOOR).masked_fill_(masked, -math.log(self.num_tags))
        return log_unary.to(torch.promote_types(emissions.dtype, torch.float32))

    @torch.no_grad()
    def decode(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Labelling of the highest score (Viterbi, 1967); arguments and errors as in `forward`.

        Tensor of int64, shape (B, L): tags, `UNKNOWN_TAG` where the mask is False.
        """
        return _viterbi(emissions, self._check(emissions, mask), self._scores(emissions))

    @torch.no_grad()
    def contradictory(self, tags: Tensor, mask: Tensor) -> Tensor:
        """Known tags that the constraints forbid after their known left neighbour, or at the start: bool (B, L).

        The neighbour is the previous kept position. These tags count as unknown in the loss; count them to report
        errors in the data. Arguments and errors are as in `forward`.
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

    def _scores(self, emissions: Tensor) -> _Scores:
        """Scores with the constraints applied, in the dtype to work in."""
        # Apple's "mps" has no float64; more sentences then take the way through log space.
        dtype = torch.float32 if emissions.device.type == "mps" else torch.float64
        transitions = self.transitions.to(dtype).masked_fill(~self.allowed_transitions, FORBIDDEN_SCORE)
        starts = self.start_transitions.to(dtype).masked_fill(~self.allowed_starts, FORBIDDEN_SCORE)
        return transitions, starts, self.end_transitions.to(dtype)

    def _check(self, emissions: Tensor | None, mask: Tensor, tags: Tensor | None = None) -> Tensor:
        """Raise on shapes, dtypes and tags that do not fit; return the mask as bool."""
        shape = tuple(mask.shape)
        if emissions is not None:
            shape = tuple(emissions.shape[:2])
            if emissions.ndim != 3 or emissions.shape[2] != self.num_tags or not emissions.is_floating_point():
                expected = f"floating-point scores of shape (batch, length, {self.num_tags})"
                raise _misfit("emissions", expected, emissions, "Give one score per tag, or build with other num_tags.")
        if mask.ndim != 2 or tuple(mask.shape) != shape or not mask.shape[1] or mask.is_floating_point():
            expected = f"booleans or integers of shape {shape if len(shape) == 2 else '(batch, length)'}, length > 0"
            raise _misfit("mask", expected, mask, "Give the two-dimensional attention mask of the same sentences.")
        mask = mask.to(torch.bool)
        if tags is None:
            return mask
        if tuple(tags.shape) != shape or tags.dtype != torch.int64:
            mend = f"Give one tag per position, {UNKNOWN_TAG} where unknown, converted with .long()."
            raise _misfit("tags", f"torch.int64 of shape {shape}", tags, mend)
        if _is_cheap_to_read(tags):
            wrong = mask & ((tags < 0) & (tags != UNKNOWN_TAG) | (tags >= self.num_tags))
            if wrong.any():
                row, column = wrong.nonzero()[0].tolist()
                expected = f"0 to {self.num_tags - 1}, or {UNKNOWN_TAG} for unknown, at the kept positions"
                got = f"{int(tags[row, column])} at [{row}, {column}]"
                raise _misfit("tags", expected, got, "Use the label2id of this model, or clear the mask there.")
        return mask


class _LogLikelihood(torch.autograd.Function):
    """``log Z - log Z'`` (``log Z`` where tags is None), with the difference of the marginals as its gradient."""

    @staticmethod
    def forward(ctx: Any, emissions: Tensor, *inputs: Any) -> Tensor:
        """Take emissions, transitions, starts, ends, mask, tags or None, known or None; return (B,)."""
        scores: _Scores = inputs[:3]
        mask, tags, known = inputs[3:]
        batch, rows, lengths = len(emissions), *_layout(mask)[:2]
        stacked, masks, some = emissions, mask, lengths[:0]
        if known is not None:
            tags = tags.masked_fill(~known, 0)
            informed, complete = known.any(1), known.sum(1) == lengths
            some = torch.arange(batch, device=mask.device)
            if _is_cheap_to_read(mask):
                some = some[informed & ~complete]
            else:
                # To choose sentences by their values would make the host wait, and a larger batch costs little.
                complete = torch.zeros_like(complete)
        if len(some):
            # Rule out what disagrees with a known tag, and get both partition functions from one loop.
            disagree = known[some].unsqueeze(2).repeat(1, 1, emissions.shape[2])
            disagree.scatter_(2, tags[some].unsqueeze(2), False)
            # (B, L, T) and (S, L, T) -> (B + S, L, T)
            stacked = torch.cat([emissions, emissions[some].masked_fill(disagree, -torch.inf)])
            masks = torch.cat([mask, mask[some]])
        results = _posterior(stacked, masks, scores, any(ctx.needs_input_grad))
        value, unary, pairwise = results
        if len(some):
            value, unary, pairwise = (x[:batch].index_add_(0, some, x[batch:], alpha=-1) for x in results)
        if known is not None:
            _subtract_path((value, unary, pairwise), emissions, tags, known & complete.unsqueeze(1), rows, scores)
            value.clamp_(min=0).masked_fill_(~informed, 0)
            unary.masked_fill_(~informed[:, None, None], 0)
            pairwise.masked_fill_(~informed[:, None, None], 0)
        # Rows of the first and of the last kept position of each sentence: (1, B) and (1, B) -> (2, B).
        edges = torch.cat([rows[:1], rows.gather(0, (lengths - 1).clamp_min(0).unsqueeze(0))])
        ctx.save_for_backward(edges, unary, pairwise)
        ctx.emission_dtype = emissions.dtype
        return value.to(torch.promote_types(emissions.dtype, torch.float32))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Weight the (differences of) marginals with the gradient (B,) of the result."""
        if torch.is_grad_enabled():  # `once_differentiable` would take the gradient for a constant where grad is one
            raise RuntimeError("The loss of the CRF can be differentiated once only: leave out create_graph=True.")
        edges, unary, pairwise = ctx.saved_tensors
        grad = grad.to(unary.dtype)
        # (B, L, T) -> (B * L, T) -> (2, B, T) -> (2, T)
        starts, ends = (grad @ unary.flatten(0, 1)[edges]).unbind(0)
        # (B,) @ (B, T * T) -> (T * T,) -> (T, T)
        transitions = (grad @ pairwise.flatten(1)).view(pairwise.shape[1:])
        emissions = torch.mul(unary, grad[:, None, None]).to(ctx.emission_dtype)
        return emissions, transitions, starts, ends, None, None, None


def _plain_constraint(name: str, constraint: Tensor | None, shape: tuple[int, ...]) -> list[Any]:
    """Nested lists of booleans from a constraint, all True where it is None."""
    if constraint is None:
        return torch.ones(shape, dtype=torch.bool, device="cpu").tolist()
    if tuple(constraint.shape) != shape or constraint.dtype != torch.bool or constraint.is_meta:
        raise _misfit(name, f"torch.bool of shape {shape} with values", constraint, "Create it on the CPU.")
    return constraint.tolist()


def _misfit(name: str, expected: str, got: object, mend: str) -> ValueError:
    """Build the error for an argument that does not fit."""
    if isinstance(got, Tensor):
        got = f"{got.dtype} of shape {tuple(got.shape)} on {got.device}"
    return ValueError(f"{name}: expected {expected}; got {got}. {mend}")


def _is_cheap_to_read(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"  # elsewhere the host would wait for the device


def _layout(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lay the kept positions out in time-first order.

    Returns rows (L, B) among the B * L positions, kept ones first; their counts (B,); bool (L, B), True behind these.
    """
    batch, length = mask.shape
    order = mask.logical_not().to(torch.uint8).argsort(dim=1, stable=True)
    # (B, L) -> (L, B)
    rows = (order.T + torch.arange(0, batch * length, length, device=mask.device)).contiguous()
    lengths = mask.sum(1)
    return rows, lengths, torch.arange(length, device=mask.device).unsqueeze(1) >= lengths


def _take(emissions: Tensor, rows: Tensor, outside: Tensor, dtype: torch.dtype) -> Tensor:
    """Bring emissions (B, L, T) into time-first order and the dtype, zeros outside: (L, B, T)."""
    # (B, L, T) -> (B * L, T) -> (L * B, T) -> (L, B, T); index_select is far faster here than indexing
    taken = emissions.flatten(0, 1).index_select(0, rows.flatten()).to(dtype)
    # Whatever masked positions hold, NaN included, ends here.
    return taken.view(*rows.shape, emissions.shape[2]).masked_fill_(outside.unsqueeze(2), 0)


def _put(steps: Tensor, rows: Tensor) -> Tensor:
    """Undo the order of `_take`: (L, B, T) -> (B, L, T)."""
    flat = rows.flatten()
    places = torch.empty_like(flat).scatter_(0, flat, torch.arange(len(flat), device=flat.device))
    # (L, B) -> (L * B,) above; (L, B, T) -> (L * B, T) -> (B * L, T) -> (B, L, T)
    return steps.flatten(0, 1).index_select(0, places).view(*rows.T.shape, steps.shape[2])


def _posterior(emissions: Tensor, mask: Tensor, scores: _Scores, pairs: bool) -> tuple[Tensor, Tensor, Tensor]:
    """``log Z`` (N,), marginals (N, L, T), 0 where masked, and pairwise marginals summed over time (N, T, T).

    Emissions (N, L, T) may hold -inf for some tags of a position. Without ``pairs`` the last result holds zeros.

    With ``a_t`` the forward probabilities and ``r_t`` those of the reversed sentence, both with the emission of ``t``
    and both up to a scale, and ``M = exp(A)``,

        p(y_t) = (a_{t-1} M)(y_t) r_t(y_t) / c_t,    c_t = the sum of the numerator over y_t
        p(y_{t-1}, y_t) = a_{t-1}(y_{t-1}) M(y_{t-1}, y_t) r_t(y_t) / c_t

    As all factors are at most 1, what an underflow loses is at most about ``tiny / (c_t * scale)`` of all probability,
    so the result is sound while that product stays far above ``tiny``; `_log_space_posterior` does the other sentences.
    """
    (batch, length), tags, (transitions, starts, ends) = mask.shape, emissions.shape[2], scores
    rows, lengths, outside = _layout(mask)
    time, sentences = torch.arange(length, device=mask.device).unsqueeze(1), torch.arange(batch, device=mask.device)
    # The step that mirrors each step within its sentence, as a row of (L * N): (L, N) -> (L * N,).
    mirror = (torch.where(outside, time, lengths - 1 - time) * batch + sentences).flatten()
    factors = _take(emissions, rows, outside, starts.dtype)
    shift = factors.amax(2)
    factors.sub_(shift.unsqueeze(2)).exp_()
    state = factors.new_empty(length, 2, batch, tags)
    # (L, N, T) -> (L * N, T) -> (L, N, T)
    state[:, 0], state[:, 1] = factors, factors.flatten(0, 1).index_select(0, mirror).view_as(factors)
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

    # Reversed states in the order of the sentence: (L, 2, N, T) -> (L * N, T) -> (L, N, T); `factors` is free again.
    backward = factors.copy_(state[:, 1]).flatten(0, 1).index_select(0, mirror).view_as(factors)
    joint = torch.mul(prior[:, 0], backward, out=factors)
    mass = joint.sum(2)
    weight = mass.reciprocal().masked_fill_(outside, 0).unsqueeze(2)
    unary = _put(joint.mul_(weight), rows)
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
    log_partition += shift.sum(0) + top * final + first + last
    log_partition.masked_fill_(lengths == 0, 0)
    # (L - 1, N, T) -> (N, T, L - 1) and (N, L - 1, T) -> (N, T, T)
    left, right = state[:-1, 0].permute(1, 2, 0), backward.mul_(weight)[1:].transpose(0, 1)
    pairwise = torch.bmm(left, right).mul_(matrix) if pairs else state.new_zeros(batch, tags, tags)
    if not sound.all():  # the one place where the host waits for the device
        again = sound.logical_not().nonzero().squeeze(1)
        part = _log_space_posterior(emissions[again], mask[again], scores)
        log_partition[again], unary[again], pairwise[again] = part
    return log_partition, unary, pairwise


def _log_space_posterior(emissions: Tensor, mask: Tensor, scores: _Scores) -> tuple[Tensor, Tensor, Tensor]:
    """`_posterior` by logarithms and autograd: many times slower, and safe at any finite scores."""
    # Also under inference_mode, whose tensors autograd takes only as copies.
    with torch.inference_mode(False), torch.enable_grad():
        transitions, starts, ends = (score.detach().clone() for score in scores)
        rows, lengths, outside = _layout(mask.clone())
        steps = _take(emissions.detach().clone(), rows, outside, starts.dtype).requires_grad_()
        # A copy for each sentence, whose gradients are apart: (T, T) -> (N, T, T).
        moves = transitions.repeat(len(mask), 1, 1).requires_grad_()
        state = starts + steps[0]
        for t in range(1, len(steps)):
            # (N, T) -> (N, T, 1), + (N, T, T) [previous, next] -> (N, T, T) -> (N, T)
            after = torch.logsumexp(state.unsqueeze(2) + moves, 1) + steps[t]
            state = torch.where(outside[t].unsqueeze(1), state, after)
        log_partition = torch.logsumexp(state + ends, 1).masked_fill(lengths == 0, 0)
        unary, pairwise = torch.autograd.grad(log_partition.sum(), (steps, moves), materialize_grads=True)
    return log_partition.detach(), _put(unary, rows), pairwise


def _subtract_path(
    results: tuple[Tensor, ...], emissions: Tensor, tags: Tensor, counted: Tensor, rows: Tensor, scores: _Scores
) -> None:
    """Take scores and counts of fully known paths, which are where counted (B, L), off results of `_posterior`."""
    (value, unary, pairwise), (transitions, starts, ends) = results, scores
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


def _viterbi(emissions: Tensor, mask: Tensor, scores: _Scores) -> Tensor:
    """Best tags, `UNKNOWN_TAG` where masked: int64 (N, L).

    The loop keeps the best scores only; which previous tag gave them is looked up along the one path that is wanted.
    """
    (batch, _, tags), (transitions, starts, ends) = emissions.shape, scores
    rows, lengths, outside = _layout(mask)
    # One row for each next tag, and a last one for the end of the sentence: (T + 1, T).
    into = torch.cat([transitions.T, ends.unsqueeze(0)])
    best = _take(emissions, rows, outside, starts.dtype)
    best[0] += starts
    sums, most = best.new_empty(batch, tags, tags), best.new_empty(batch, tags)
    sofar = best.unbind(0)
    for before, now in neighbours(sofar):
        # (N, T) -> (N, 1, T), + (T, T) [next, previous] -> (N, T, T) -> (N, T)
        torch.add(before.unsqueeze(1), into[:-1], out=sums)
        now += torch.amax(sums, 2, out=most)
    # The tag number T stands for "behind the end".
    path = [torch.full_like(lengths, tags)]
    for score, gone in zip(reversed(sofar), reversed(outside.unbind(0)), strict=True):
        path.append(torch.argmax(score + into[path[-1]], 1).masked_fill_(gone, tags))
    # L tensors (N,), last first -> (L, N)
    found = torch.stack(path[:0:-1]).masked_fill_(outside, UNKNOWN_TAG)
    # (L, N) -> (L, N, 1) -> (N, L, 1) -> (N, L)
    return _put(found.unsqueeze(2), rows).squeeze(2)
