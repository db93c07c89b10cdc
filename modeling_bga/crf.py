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
from typing import Any, NamedTuple

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
        layout = _layout(mask)
        return _LogLikelihood.apply(emissions, *self._scores(emissions), mask, layout, self._labels(tags, mask, layout))

    def log_partition(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """``log Z``, the log of the summed exponential scores of all labellings; arguments and errors as in `forward`.

        Shape (B,), in nats, of the dtype that `forward` returns; 0 where nothing is kept. Can be differentiated once.
        """
        mask = self._check(emissions, mask)
        return _LogLikelihood.apply(emissions, *self._scores(emissions), mask, _layout(mask), None)

    @torch.no_grad()
    def log_marginals(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Log posterior probabilities ``log p(y_t)``; arguments and errors as in `forward`.

        Shape (B, L, T), of the dtype that `forward` returns, computed under ``no_grad``. Always finite: no value is
        below `LOG_PROBABILITY_FLOOR`, and a masked position holds the uniform ``-log T``.
        """
        mask = self._check(emissions, mask)
        unary = _posterior(emissions, mask, self._scores(emissions), _layout(mask), False)[1]
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
        labels = self._labels(tags, mask, _layout(mask))
        return mask & (labels.tags == tags) & ~labels.known

    def _labels(self, tags: Tensor, mask: Tensor, layout: "_Layout") -> "_Labels":
        """Find out which tags are known, and which transition leads to each."""
        count, (places, sources, *_) = self.num_tags, layout
        inside = tags.clamp(0, count - 1)
        named = inside == tags
        # The tag of the left neighbour, T where there is none, T + 1 where it is not known.
        codes = torch.cat([torch.where(named, tags, count + 1).flatten(), tags.new_full((1,), count)])
        moves = codes[sources[places[0] - 2 * len(mask)]].view_as(tags).mul_(count).add_(inside)
        free = torch.ones_like(self.allowed_starts)
        allowed = torch.cat([self.allowed_transitions.flatten(), self.allowed_starts, free])
        return _Labels(inside, mask & named & allowed[moves], moves)

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
            wrong = mask & (tags != UNKNOWN_TAG) & (tags != tags.clamp(0, self.num_tags - 1))
            if wrong.any():
                row, column = wrong.nonzero()[0].tolist()
                expected = f"0 to {self.num_tags - 1}, or {UNKNOWN_TAG} for unknown, at the kept positions"
                got = f"{int(tags[row, column])} at [{row}, {column}]"
                raise _misfit("tags", expected, got, "Use the label2id of this model, or clear the mask there.")
        return mask


class _Layout(NamedTuple):
    """Where each position stands when the kept ones of each sentence are lined up, from its first and from its last.

    Both line-ups are stacked as ``(L + 2, 2, N)``: step, direction, sentence. Kept positions stand at the steps 1 to L;
    nothing stands at step 0, and the masked positions are sent to step L + 1.
    """

    places: Tensor  # (2, N * L): row of each position among the (L + 2) * 2 * N of the stack
    sources: Tensor  # ((L + 2) * 2 * N,): row of `_padded_rows` that belongs there, the padding row where none does
    lengths: Tensor  # (N,): numbers of kept positions
    # (2, N): rows, among N * L, of the first and of the last kept position; of the last one where nothing is kept
    edges: Tensor


class _Labels(NamedTuple):
    """What is known about the tags of sentences; all of shape (B, L)."""

    tags: Tensor  # in 0 ... T - 1, arbitrary where not known
    known: Tensor  # bool; False where masked
    # previous * T + next; T * T + next where there is no previous, more where it is not known or anything is masked
    moves: Tensor


class _LogLikelihood(torch.autograd.Function):
    """``log Z - log Z'`` (``log Z`` where tags is None), with the difference of the marginals as its gradient."""

    @staticmethod
    def forward(ctx: Any, emissions: Tensor, *inputs: Any) -> Tensor:
        """Take emissions, transitions, starts, ends, mask, layout, labels or None; return (B,)."""
        scores: _Scores = inputs[:3]
        mask, layout, labels = inputs[3:]
        batch = len(emissions)
        edges, some = layout.edges, layout.lengths[:0]
        if labels is not None:
            tags, known, moves = labels
            count = known.sum(1)
            uninformed, complete = count == 0, count == layout.lengths
            if _is_cheap_to_read(mask):
                some = (complete | uninformed).logical_not_().nonzero().squeeze(1)
            else:
                # To choose sentences by their values would make the host wait, and a larger batch costs little.
                some, complete = torch.arange(batch, device=mask.device), torch.zeros_like(complete)
        stacked, masks = emissions, mask
        if len(some):
            # Rule out what disagrees with a known tag, and get both partition functions from one loop.
            disagree = known[some].unsqueeze(2).repeat(1, 1, emissions.shape[2])
            disagree.scatter_(2, tags[some].unsqueeze(2), False)
            # (B, L, T) and (S, L, T) -> (B + S, L, T)
            stacked = torch.cat([emissions, emissions[some].masked_fill(disagree, -torch.inf)])
            masks = torch.cat([mask, mask[some]])
            layout = _layout(masks)
        results = _posterior(stacked, masks, scores, layout, any(ctx.needs_input_grad))
        value, unary, pairwise = results
        if len(some):
            value, unary, pairwise = (x[:batch].index_add_(0, some, x[batch:], alpha=-1) for x in results)
        if labels is not None:
            labels = labels._replace(known=known & complete.unsqueeze(1))
            _subtract_path((value, unary, pairwise), emissions, labels, edges[1], scores)
            value.clamp_(min=0).masked_fill_(uninformed, 0)
            unary.masked_fill_(uninformed[:, None, None], 0)
            pairwise.masked_fill_(uninformed[:, None, None], 0)
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


def _layout(mask: Tensor) -> _Layout:
    (batch, length), device = mask.shape, mask.device
    masked, count = ~mask, mask.cumsum(1)
    lengths = count[:, -1]
    # (N, L) and (N, L) -> (2, N, L), in steps, then in rows
    places = torch.stack([count, lengths.unsqueeze(1) + 1 - count]).masked_fill_(masked, length + 1)
    places = places.mul_(2 * batch).add_(torch.arange(2 * batch, device=device).view(2, batch, 1)).flatten(1)
    padding = batch * length
    rows = torch.arange(padding, device=device)
    own_last = rows.view(batch, length)[:, -1]
    rows = rows.masked_fill(masked.flatten(), padding)
    sources = rows.new_full(((length + 2) * 2 * batch,), padding)
    sources.scatter_(0, places.flatten(), rows.repeat(2))
    edges = torch.minimum(sources[2 * batch : 4 * batch].view(2, batch), own_last)
    return _Layout(places, sources, lengths, edges)


def _padded_rows(emissions: Tensor, dtype: torch.dtype) -> Tensor:
    """Copy emissions (N, L, T) into (N * L + 1, T) of the dtype, zeros in the last row.

    Whatever masked positions hold, NaN included, stays in rows that `_layout` does not ask for.
    """
    rows = emissions.new_empty(emissions.shape[:2].numel() + 1, emissions.shape[2], dtype=dtype)
    rows[:-1].copy_(emissions.flatten(0, 1))
    rows[-1] = 0
    return rows


def _posterior(
    emissions: Tensor, mask: Tensor, scores: _Scores, layout: _Layout, pairs: bool
) -> tuple[Tensor, Tensor, Tensor]:
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
    places, sources, lengths, ends_of = layout
    factors = _padded_rows(emissions, starts.dtype)
    shift = factors.amax(1, keepdim=True)
    factors.sub_(shift).exp_()
    # Each step from its emission alone into what follows it: (N * L + 1, T) -> ((L + 2) * 2 * N, T), and a view of it.
    flat = factors.index_select(0, sources)
    state = flat.view(length + 2, 2, batch, tags)
    state[0] = 0
    moves, edges = torch.stack([transitions, transitions.T]), torch.stack([starts, ends])
    top, tops = transitions.max(), edges.amax(1, keepdim=True)
    both, edges = moves.sub_(top).exp_(), edges.sub_(tops).exp_()
    scale = state.new_empty(length // _RESCALE_EVERY, 2, batch, 1)
    states, scales = state.unbind(0), scale.unbind(0)
    tiny = torch.finfo(state.dtype).tiny
    prior = torch.empty_like(states[0])
    states[1].mul_(edges.unsqueeze(1))
    for t in range(1, length + 1):
        if t > 1:
            torch.bmm(states[t - 1], both, out=prior)
            states[t].mul_(prior)
        if not t % _RESCALE_EVERY:
            total = scales[t // _RESCALE_EVERY - 1]
            torch.sum(states[t], 2, keepdim=True, out=total)
            # No NaN behind the end of a sentence, which products with 0 would not remove.
            states[t].div_(total.clamp_min_(tiny))

    masked = ~mask
    backward = flat.index_select(0, places[1])
    left = flat.index_select(0, places[0] - 2 * batch)
    joint = torch.mm(left, both[0])
    joint[ends_of[0]] = edges[0]
    joint.mul_(backward)
    mass = joint.sum(1).view(batch, length)
    weight = mass.reciprocal().masked_fill_(masked, 0)
    unary = joint.mul_(weight.view(-1, 1)).view(batch, length, tags)
    # Steps that were rescaled, within the sentence: (S, 1), against (N,).
    at = torch.arange(1, length + 1, device=mask.device).unsqueeze(1)[_RESCALE_EVERY - 1 :: _RESCALE_EVERY]
    used = scale.squeeze(3).masked_fill_((at > lengths).unsqueeze(1), 1)
    mass.masked_fill_(masked, 1)
    least = mass.amin(1)
    if len(used):
        least *= used.amin((0, 1))
    sound = least > tiny**0.65  # 1e-200 in float64
    # log c at the last step, and the scales that its prior was divided by.
    is_last = places[1].view(batch, length) < 4 * batch
    log_partition = mass.masked_fill(~is_last, 1).log_().sum(1)
    log_partition += used[:, 0].log().masked_fill_(at >= lengths, 0).sum(0)
    log_partition += shift[:-1].view(batch, length).masked_fill(masked, 0).sum(1)
    log_partition += top * (lengths - 1) + tops.sum()
    log_partition.masked_fill_(lengths == 0, 0)
    if pairs:
        # (N * L, T) -> (N, T, L) and (N, L, T) -> (N, T, T); there is nothing left of the first position.
        backward.mul_(weight.view(-1, 1))
        pairwise = torch.bmm(left.view_as(unary).transpose(1, 2), backward.view_as(unary)).mul_(both[0])
    else:
        pairwise = state.new_zeros(batch, tags, tags)
    if not sound.all():  # the one place where the host waits for the device
        again = sound.logical_not().nonzero().squeeze(1)
        part = _log_space_posterior(emissions[again], mask[again], scores)
        log_partition[again], unary[again], pairwise[again] = part
    return log_partition, unary, pairwise


def _log_space_posterior(emissions: Tensor, mask: Tensor, scores: _Scores) -> tuple[Tensor, Tensor, Tensor]:
    """`_posterior` by logarithms and autograd: many times slower, and safe at any finite scores."""
    batch, length, tags = emissions.shape
    # Also under inference_mode, whose tensors autograd takes only as copies.
    with torch.inference_mode(False), torch.enable_grad():
        transitions, starts, ends = (score.detach().clone() for score in scores)
        _, sources, lengths, _ = _layout(mask.clone())
        rows = _padded_rows(emissions.detach().clone(), starts.dtype).requires_grad_()
        # A copy for each sentence, whose gradients are apart: (T, T) -> (N, T, T).
        moves = transitions.repeat(batch, 1, 1).requires_grad_()
        # (N * L + 1, T) -> (L + 1, N, T)
        steps = rows[sources.view(length + 2, 2, batch)[1:, 0]]
        state = starts + steps[0]
        for t in range(1, length):
            # (N, T) -> (N, T, 1), + (N, T, T) [previous, next] -> (N, T, T) -> (N, T)
            after = torch.logsumexp(state.unsqueeze(2) + moves, 1) + steps[t]
            state = torch.where((t < lengths).unsqueeze(1), after, state)
        log_partition = torch.logsumexp(state + ends, 1).masked_fill(lengths == 0, 0)
        unary, pairwise = torch.autograd.grad(log_partition.sum(), (rows, moves), materialize_grads=True)
    return log_partition.detach(), unary[:-1].view(batch, length, tags), pairwise


def _subtract_path(
    results: tuple[Tensor, ...], emissions: Tensor, labels: _Labels, last: Tensor, scores: _Scores
) -> None:
    """Take scores and counts of paths, of which each position is known or none is, off results of `_posterior`.

    Last (B,) holds the row of the last kept position among B * L.
    """
    (value, unary, pairwise), (transitions, starts, ends), (tags, known, moves) = results, scores, labels
    ones, unit = known.to(unary.dtype), emissions.shape[2] ** 2
    # (B, L) -> (B, L, 1) -> (B, L)
    gained = emissions.gather(2, tags.unsqueeze(2)).squeeze(2).to(unary.dtype)
    gained += torch.cat([transitions.flatten(), starts, torch.zeros_like(starts)])[moves]
    # Not a product, as a position that is not kept may hold NaN.
    value -= gained.masked_fill_(~known, 0).sum(1)
    value -= ends[tags.flatten()[last]] * ones.flatten()[last]
    unary.scatter_add_(2, tags.unsqueeze(2), ones.neg_().unsqueeze(2))
    # (B, T, T) -> (B, T * T), a view
    pairwise.flatten(1).scatter_add_(1, moves.clamp_max(unit - 1), ones.masked_fill_(moves >= unit, 0))


def _viterbi(emissions: Tensor, mask: Tensor, scores: _Scores) -> Tensor:
    """Best tags, `UNKNOWN_TAG` where masked: int64 (N, L).

    The sentence and the reversed sentence are searched stacked, each up to the middle, where their best pair of tags is
    taken. The loop keeps the best scores only; which tag gave them is looked up along the one path that is wanted.
    """
    (batch, length, tags), (transitions, starts, ends) = emissions.shape, scores
    places, sources, lengths, _ = _layout(mask)
    half = (length + 1) // 2
    best = _padded_rows(emissions, starts.dtype).index_select(0, sources[2 * batch : (half + 1) * 2 * batch])
    best = best.view(half, 2, batch, tags)
    best[0, 0] += starts
    best[0, 1] += ends
    # Maxima over the first of four dimensions are far faster than over the last: (T, 2, 1, T) [from, , , into].
    moves = torch.stack([transitions, transitions.T], 1).unsqueeze(2)
    sums, most = best.new_empty(tags, 2, batch, tags), torch.empty_like(best[0])
    # (H, 2, N, T) -> H tensors (T, 2, N, 1)
    befores, nows = best.permute(0, 3, 1, 2).unsqueeze(4).unbind(0), best.unbind(0)
    for before, now in zip(befores[:-1], nows[1:], strict=True):
        torch.add(before, moves, out=sums)
        now += torch.amax(sums, 0, out=most)
    # How many steps each half takes, and the row of its last one among (H * 2 * N): (2, N).
    columns = torch.arange(2 * batch, device=mask.device).view(2, batch)
    taken = (torch.stack([lengths + 1, lengths]) // 2 - 1).clamp_min_(0)
    rows = taken * (2 * batch) + columns
    # (H * 2 * N, T) -> (2 * N, T) -> (N, T) and (N, T)
    left, right = best.flatten(0, 2).index_select(0, rows.flatten()).view(2, batch, tags).unbind(0)
    pairs = left.unsqueeze(2) + transitions + right.unsqueeze(1)
    # A single position has no second half: (N, T) -> (N, T, 1) against (N, T, T).
    pairs = torch.where((lengths < 2)[:, None, None], (left + ends).unsqueeze(2), pairs)
    chosen = pairs.flatten(1).argmax(1)
    # An infinite score holds the path there, whatever it did in the steps behind the middle.
    held = rows * tags + torch.stack([chosen // tags, chosen % tags])
    best.flatten().index_fill_(0, held.flatten(), torch.inf)
    # One row for each tag of the step nearer to the middle, of both directions: (2 * T, T).
    into = torch.cat([transitions.T, transitions])
    found = rows.new_empty(half, 2 * batch)
    scores_into, offsets = best.new_empty(2 * batch, tags), columns.flatten() // batch * tags
    path = offsets.clone()
    for score, tag in zip(best.flatten(1, 2).unbind(0)[::-1], found.unbind(0)[::-1], strict=True):
        torch.index_select(into, 0, path, out=scores_into)
        torch.argmax(scores_into.add_(score), 1, out=tag)
        torch.add(tag, offsets, out=path)
    # Each position from the half that reached it: (N * L,).
    reached = (places[0].view(batch, length) < (taken[0].unsqueeze(1) + 2) * (2 * batch)).flatten()
    place = torch.where(reached, places[0], places[1]).sub_(2 * batch).clamp_max_(found.numel() - 1)
    return found.flatten()[place].view(batch, length).masked_fill_(~mask, UNKNOWN_TAG)
