r"""Linear-chain conditional random field: exact likelihood, posterior marginals and Viterbi paths.

A sentence with emissions :math:`e_t(y)` at its kept positions :math:`t = 1 \dots n` scores a labelling ``y`` with

.. math:: s(y) = b(y_1) + \sum_{t=1}^{n} e_t(y_t) + \sum_{t=2}^{n} A(y_{t-1}, y_t) + f(y_n)

where ``b``, ``A`` and ``f`` are the start, transition and end scores, and :math:`p(y) = \exp(s(y)) / Z`
(Lafferty, McCallum and Pereira, 2001, "Conditional random fields"). Labels may be known at some positions only; the
loss is then ``log Z - log Z'``, ``Z'`` being the sum over the labellings that agree with what is known
(Tsuboi et al., 2008, "Training conditional random fields using incomplete annotations").

How it is computed: inside, there is one tag more, the *boundary*, which stands before the first and behind the last
position and nowhere else, so that one matrix holds all three kinds of scores. The forward recursion, and the same
recursion on the reversed sentence, run stacked in one loop of small matrix products on probabilities that are rescaled
every few steps (Rabiner, 1989, "A tutorial on hidden Markov models", section V.A), in float64; masked positions pass on
what stood before them. Both directions give the posterior marginals, which are the gradient of ``log Z``, so autograd
keeps no graph through the loop. Where rescaled probabilities underflow, the sentence is done again in log space.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .bio_constraints import bio_constraints, misfit
from .crf_scan import is_recorded, recorded_best_path, recorded_log_marginals
from .offloaded_weights import fetched
from .span_probabilities import CrfScores


__all__ = ["FORBIDDEN_SCORE", "LOG_PROBABILITY_FLOOR", "UNKNOWN_TAG", "ConditionalRandomField", "bio_constraints"]

UNKNOWN_TAG = -100  # of a position whose label is not known, and in the paths of masked positions
FORBIDDEN_SCORE = -1.0e4  # of a forbidden transition or start; finite, so that no loss or gradient is ever infinite
LOG_PROBABILITY_FLOOR = -200.0  # nats; the least that `log_marginals` reports
_SUMS_AT_ONCE = 32768  # numbers for one operation of `_viterbi`; PyTorch spreads more than these over threads
_RESCALE_EVERY = 4  # steps; fewer cost time, more send more sentences through log space


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

    allowed: Tensor

    def __init__(
        self, num_tags: int, allowed_transitions: Tensor | None = None, allowed_starts: Tensor | None = None
    ) -> None:
        super().__init__()
        self.num_tags = num_tags
        if num_tags < 1:
            raise misfit("num_tags", "at least 1", num_tags, "Give the number of labels.")
        # The dtype is explicit because models are also built under a half-precision default dtype.
        self.transitions = nn.Parameter(torch.empty(num_tags, num_tags, dtype=torch.float32))
        self.start_transitions = nn.Parameter(torch.empty(num_tags, dtype=torch.float32))
        self.end_transitions = nn.Parameter(torch.empty(num_tags, dtype=torch.float32))
        # Plain lists outlive a "meta" device, on which the buffers lose their values.
        self._transition_rows = _plain_constraint("allowed_transitions", allowed_transitions, (num_tags, num_tags))
        self._start_row = _plain_constraint("allowed_starts", allowed_starts, (num_tags,))
        # What may follow each tag, the boundary T, and a tag T + 1 that is not known: (T + 2, T + 1).
        self.register_buffer("allowed", torch.empty(num_tags + 2, num_tags + 1, dtype=torch.bool), persistent=False)
        self.reset_parameters()
        self.reset_constraints()

    def reset_parameters(self) -> None:
        """Draw every score uniformly from -0.1 to 0.1."""
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)

    @property
    def allowed_transitions(self) -> Tensor:
        """Which tags may follow each other, ``[previous, next]``: bool (T, T), a view."""
        return self.allowed[:-2, :-1]

    @property
    def allowed_starts(self) -> Tensor:
        """Which tags may come first: bool (T,), a view."""
        return self.allowed[-2, :-1]

    @property
    def constraints(self) -> tuple[Any, Any]:
        """The constraints as lists of booleans: transitions and starts."""
        return self._transition_rows, self._start_row

    @torch.no_grad()
    def reset_constraints(self) -> None:
        """Write the constraints into their buffer again, as after a load by way of the "meta" device."""
        self.allowed.fill_(True)
        self.allowed_transitions.copy_(torch.tensor(self._transition_rows, dtype=torch.bool, device="cpu"))
        self.allowed_starts.copy_(torch.tensor(self._start_row, dtype=torch.bool, device="cpu"))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ConditionalRandomField":
        """Move the scores with the model they belong to, but never below float32: `model.half()` leaves them whole."""

        def at_least_single(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            is_rounded = moved.dtype in (torch.float16, torch.bfloat16) and tensor.dtype == torch.float32
            return tensor.to(moved.device) if is_rounded else moved

        return super()._apply(at_least_single, recurse)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        if not self.allowed.is_meta:
            self.reset_constraints()  # `to_empty` may have gone before

    @torch.compiler.disable  # which way it goes depends on the scores
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
        return self._log_likelihood(emissions, mask, self._labels(tags, mask))

    @torch.compiler.disable  # which way it goes depends on the scores
    def log_partition(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """``log Z``, the log of the summed exponential scores of all labellings; arguments and errors as in `forward`.

        Shape (B,), in nats, of the dtype that `forward` returns; 0 where nothing is kept. Can be differentiated once.
        """
        return self._log_likelihood(emissions, self._check(emissions, mask), None)

    @torch.no_grad()
    @torch.compiler.disable  # which way it goes depends on the scores
    def log_marginals(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Log posterior probabilities ``log p(y_t)``; arguments and errors as in `forward`.

        Shape (B, L, T), of the dtype that `forward` returns, computed under ``no_grad``. Always finite: no value is
        below `LOG_PROBABILITY_FLOOR`, and a masked position holds the uniform ``-log T``.
        """
        if is_recorded():
            return self.recorded(emissions, mask)[0]
        mask = self._check(emissions, mask)
        return self._reported(_posterior(emissions, mask, self._scores(), False)[1].log_(), emissions, mask)

    @torch.no_grad()
    @torch.compiler.disable  # which way it goes depends on the scores
    def decode(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Labelling of the highest score (Viterbi, 1967); arguments and errors as in `forward`.

        Tensor of int64, shape (B, L): tags, `UNKNOWN_TAG` where the mask is False. Some tag or other in sentences whose
        scores are not finite.
        """
        if is_recorded():
            return self.recorded(emissions, mask)[1]
        return _viterbi(emissions, self._check(emissions, mask), self._scores())

    @torch.no_grad()
    def recorded(self, emissions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """`log_marginals` and `decode` for a program that is recorded: which way it goes depends on no value."""
        mask, scores = self._check(emissions, mask), self._scores().detach()
        emissions = emissions.detach()  # the program runs without this method's no_grad
        log_unary = self._reported(recorded_log_marginals(emissions, mask, scores), emissions, mask)
        return log_unary, recorded_best_path(emissions, mask, scores).masked_fill(~mask, UNKNOWN_TAG)

    def _reported(self, log_unary: Tensor, emissions: Tensor, mask: Tensor) -> Tensor:
        masked = ~mask.unsqueeze(2)  # (B, L) -> (B, L, 1)
        log_unary = log_unary.clamp_min_(LOG_PROBABILITY_FLOOR).masked_fill_(masked, -math.log(self.num_tags))
        return log_unary.to(torch.promote_types(emissions.dtype, torch.float32)).contiguous()

    @torch.no_grad()
    def numpy_scores(self) -> CrfScores:
        """Copy the scores, those of what is forbidden included, for what computes without torch."""
        bordered = self._scores().double().cpu().numpy()  # (T + 1, T + 1)
        return CrfScores(bordered[:-1, :-1].copy(), bordered[-1, :-1].copy(), bordered[:-1, -1].copy())

    @torch.no_grad()
    def contradictory(self, tags: Tensor, mask: Tensor) -> Tensor:
        """Known tags that the constraints forbid after their known left neighbour, or at the start: bool (B, L).

        The neighbour is the previous kept position. These tags count as unknown in the loss; count them to report
        errors in the data. Arguments and errors are as in `forward`.
        """
        mask = self._check(None, mask, tags)
        labels = self._labels(tags, mask)
        return mask & (labels.tags == tags) & ~labels.known

    def _log_likelihood(self, emissions: Tensor, mask: Tensor, labels: "_Labels | None") -> Tensor:
        parameters = self.transitions, self.start_transitions, self.end_transitions
        return _LogLikelihood.apply(emissions, *parameters, self.allowed[:-1], mask, labels)

    def _scores(self) -> Tensor:
        with fetched(self):
            parameters = self.transitions, self.start_transitions, self.end_transitions
            return _bordered_scores(*parameters, self.allowed[:-1])

    def _labels(self, tags: Tensor, mask: Tensor) -> "_Labels":
        """Find out which tags are known, and which transitions they make; raise where there is no such tag."""
        inside = tags.clamp(0, self.num_tags - 1)
        named = inside == tags
        known = mask & named
        if not (_is_cheap_to_read(tags) and torch.equal(known, mask)):
            self._refuse_other_tags(tags, mask & ~named)
            tags = torch.where(named, tags, self.num_tags + 1)
        boundary = tags.new_full((len(tags), 1), self.num_tags)
        # The tag before each position and before the end: (B, L) and (B, 1) -> (B, L + 1).
        before = torch.cat([boundary, tags], 1)
        if not _keeps_all(mask):
            numbers = torch.arange(1, tags.shape[1] + 1, device=tags.device)
            nearest = nn.functional.pad(torch.where(mask, numbers, 0), (1, 0)).cummax(1).values
            before = before.gather(1, nearest)
        moves = before.mul_(self.num_tags + 1).add_(torch.cat([inside, boundary], 1))
        return _Labels(inside, known & self.allowed.flatten()[moves[:, :-1]], moves)

    def _refuse_other_tags(self, tags: Tensor, unnamed: Tensor) -> None:
        """Raise if a tag where unnamed (B, L) is True is not `UNKNOWN_TAG`, on devices where looking costs little."""
        if not _is_cheap_to_read(tags) or not (wrong := unnamed & (tags != UNKNOWN_TAG)).any():
            return
        row, column = wrong.nonzero()[0].tolist()
        expected = f"0 to {self.num_tags - 1}, or {UNKNOWN_TAG} for unknown, at the kept positions"
        got = f"{int(tags[row, column])} at [{row}, {column}]"
        raise misfit("tags", expected, got, "Use the label2id of this model, or clear the mask there.")

    def _check(self, emissions: Tensor | None, mask: Tensor, tags: Tensor | None = None) -> Tensor:
        """Raise on shapes and dtypes that do not fit; return the mask as bool."""
        shape = tuple(mask.shape)
        if emissions is not None:
            shape = tuple(emissions.shape[:2])
            if emissions.ndim != 3 or emissions.shape[2] != self.num_tags or not emissions.is_floating_point():
                expected = f"floating-point scores of shape (batch, length, {self.num_tags})"
                raise misfit("emissions", expected, emissions, "Give one score per tag, or build with other num_tags.")
        if mask.ndim != 2 or tuple(mask.shape) != shape or not mask.shape[1] or mask.is_floating_point():
            expected = f"booleans or integers of shape {shape if len(shape) == 2 else '(batch, length)'}, length > 0"
            raise misfit("mask", expected, mask, "Give the two-dimensional attention mask of the same sentences.")
        mask = mask.to(torch.bool)
        if tags is None:
            return mask
        if tuple(tags.shape) != shape or tags.dtype != torch.int64:
            mend = f"Give one tag per position, {UNKNOWN_TAG} where unknown, converted with .long()."
            raise misfit("tags", f"torch.int64 of shape {shape}", tags, mend)
        return mask


class _Labels(NamedTuple):
    """What is known about the tags of sentences."""

    tags: Tensor  # (B, L), in 0 ... T - 1, arbitrary where not known
    known: Tensor  # (B, L), bool; False where masked
    # (B, L + 1): previous * (T + 1) + next; the tag T is the boundary, and T + 1 as the previous one is not known
    moves: Tensor


class _LogLikelihood(torch.autograd.Function):
    """``log Z - log Z'`` (``log Z`` where labels is None), with the difference of the marginals as its gradient."""

    @staticmethod
    def forward(ctx: Any, emissions: Tensor, *inputs: Any) -> Tensor:
        """Take emissions, transitions, starts, ends, what is allowed, mask, labels or None; return (B,)."""
        allowed, mask, labels = inputs[3:]
        scores = _bordered_scores(*inputs[:4])
        batch, complete, uninformed = len(emissions), None, None
        some: Any = ()  # sentences of which a part is known
        if labels is not None and not (_is_cheap_to_read(mask) and torch.equal(labels.known, mask)):
            tags, known, _ = labels
            count = known.sum(1)
            uninformed, complete = count == 0, count == mask.sum(1)
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
        results = _posterior(stacked, masks, scores, any(ctx.needs_input_grad))
        if len(some):
            results = tuple(x[:batch].index_add_(0, some, x[batch:], alpha=-1) for x in results)
        value, unary, pairwise = results
        if labels is not None:
            _subtract_path(results, emissions, labels, complete, scores)
            value.clamp_(min=0)
        if uninformed is not None:
            value.masked_fill_(uninformed, 0)
            unary.masked_fill_(uninformed[:, None, None], 0)
            pairwise.masked_fill_(uninformed[:, None, None], 0)
        ctx.save_for_backward(unary, pairwise, allowed)
        ctx.dtypes = emissions.dtype, inputs[0].dtype
        return value.to(torch.promote_types(emissions.dtype, torch.float32))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Weight the (differences of) marginals with the gradient (B,) of the result."""
        if torch.is_grad_enabled():  # `once_differentiable` would take the gradient for a constant where grad is one
            raise RuntimeError("The loss of the CRF can be differentiated once only: leave out create_graph=True.")
        unary, pairwise, allowed = ctx.saved_tensors
        emission_dtype, dtype = ctx.dtypes
        grad = grad.to(unary.dtype)
        # (B,) @ (B, (T + 1) * (T + 1)) -> (T + 1, T + 1)
        moves = (grad @ pairwise.flatten(1)).view(pairwise.shape[1:]).masked_fill_(~allowed, 0).to(dtype)
        emissions = torch.empty(unary.shape, dtype=emission_dtype, device=unary.device)
        torch.mul(unary, grad[:, None, None], out=emissions)
        return emissions, moves[:-1, :-1], moves[-1, :-1], moves[:-1, -1], None, None, None


def _plain_constraint(name: str, constraint: Tensor | None, shape: tuple[int, ...]) -> list[Any]:
    """Nested lists of booleans from a constraint, all True where it is None."""
    if constraint is None:
        return torch.ones(shape, dtype=torch.bool, device="cpu").tolist()
    if tuple(constraint.shape) != shape or constraint.dtype != torch.bool or constraint.is_meta:
        raise misfit(name, f"torch.bool of shape {shape} with values", constraint, "Create it on the CPU.")
    return constraint.tolist()


def _is_cheap_to_read(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"  # elsewhere the host would wait for the device


def _keeps_all(mask: Tensor) -> bool:
    return _is_cheap_to_read(mask) and bool(mask.all())


def _bordered_scores(transitions: Tensor, starts: Tensor, ends: Tensor, allowed: Tensor) -> Tensor:
    """Scores of [previous, next] with the constraints (T + 1, T + 1) applied, in the dtype to work in.

    The boundary is the tag T, from which the starts go and to which the ends; between them, from T to T, is nothing.
    """
    # Apple's "mps" has no float64; more sentences then take the way through log space.
    dtype = torch.float32 if transitions.device.type == "mps" else torch.float64
    scores = transitions.new_zeros(allowed.shape, dtype=dtype)
    scores[:-1, :-1], scores[-1, :-1], scores[:-1, -1] = transitions, starts, ends
    return scores.masked_fill_(~allowed, FORBIDDEN_SCORE)


def _gaps(mask: Tensor) -> list[Tensor | None]:
    """Which sentences each step from both ends keeps, (2, N, 1), for steps to carry states over what lies between.

    None where there is nothing to carry: where all are kept, and everywhere if no mask has a hole. Masked positions
    before the first and behind the last kept one hold the boundary, and that may follow itself.
    """
    # A mask changes twice around each stretch of kept positions.
    if _is_cheap_to_read(mask) and not (nn.functional.pad(mask, (1, 1)).diff(dim=1).sum(1) > 2).any():
        return [None] * mask.shape[1]
    # (L, N) and (L, N) -> (L, 2, N, 1)
    kept = torch.stack([mask.T, mask.T.flip(0)], 1).unsqueeze(3)
    whole = kept.flatten(1).all(1).tolist() if _is_cheap_to_read(mask) else [False] * len(kept)
    return [None if is_whole else step for is_whole, step in zip(whole, kept, strict=True)]


def _posterior(emissions: Tensor, mask: Tensor, scores: Tensor, pairs: bool) -> tuple[Tensor, Tensor, Tensor]:
    """``log Z`` (N,), marginals (N, L, T), 0 where masked, and pairwise marginals summed over time (N, T + 1, T + 1).

    Emissions (N, L, T) may hold -inf for some tags of a position. Without ``pairs`` the last result holds zeros.

    With ``a_t`` the forward probabilities and ``r_t`` those of the reversed sentence, both with the emission of ``t``
    and both up to a scale, and ``M = exp(A)``,

        p(y_t) = (a_{t-1} M)(y_t) r_t(y_t) / c_t,    c_t = the sum of the numerator over y_t
        p(y_{t-1}, y_t) = a_{t-1}(y_{t-1}) M(y_{t-1}, y_t) r_t(y_t) / c_t

    As all factors are at most 1, what an underflow loses is at most about ``tiny / (c_t * scale)`` of all probability,
    so the result is sound while that product stays far above ``tiny``; `_log_space_posterior` does the other sentences.
    """
    batch, length, tags = emissions.shape
    masked = ~mask
    factors = emissions.to(scores.dtype)
    shift = factors.amax(2, keepdim=True)
    factors = torch.sub(factors, shift).exp_()
    whole = _keeps_all(mask)
    gaps = [None] * length if whole else _gaps(mask)
    if not whole:
        factors.masked_fill_(masked.unsqueeze(2), 0)  # whatever masked positions hold, NaN included
    # The boundary, and all positions from their emission alone into what follows them: (L + 1, 2, N, T + 1).
    state = factors.new_zeros(length + 1, 2, batch, tags + 1)
    state[0, :, :, tags] = 1
    # (N, L, T) -> (L, N, T)
    state[1:, 0, :, :tags], state[1:, 1, :, :tags] = factors.transpose(0, 1), factors.flip(1).transpose(0, 1)
    if not whole:
        state[1:, 0, :, tags], state[1:, 1, :, tags] = masked.T, masked.T.flip(0)
    prior = torch.empty_like(state)  # of the step behind each
    top = scores.max()
    matrix = torch.exp(scores - top)
    matrix[-1, -1] = 1  # from boundary to boundary, without a scale to count
    both = torch.stack([matrix, matrix.T])
    scale = state.new_empty(length // _RESCALE_EVERY, 2, batch, 1)
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
    if any(gap is not None for gap in gaps):
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
        part = _log_space_posterior(emissions[again], mask[again], scores)
        log_partition[again], unary[again], pairwise[again] = part
    return log_partition, unary, pairwise


def _log_space_posterior(emissions: Tensor, mask: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`_posterior` by logarithms and autograd: many times slower, and safe at any finite scores."""
    # Also under inference_mode, whose tensors autograd takes only as copies.
    with torch.inference_mode(False), torch.enable_grad():
        kept = mask.clone()
        steps = emissions.detach().to(scores.dtype, copy=True).masked_fill_(~kept.unsqueeze(2), 0).requires_grad_()
        # A copy for each sentence, whose gradients are apart: (T + 1, T + 1) -> (N, T + 1, T + 1).
        moves = scores.detach().repeat(len(mask), 1, 1).requires_grad_()
        # The boundary alone, and never again: (N, T + 1).
        state = nn.functional.pad(torch.full_like(steps[:, 0], -torch.inf), (0, 1))
        for t, step in enumerate(nn.functional.pad(steps, (0, 1), value=-torch.inf).unbind(1)):
            # (N, T + 1) -> (N, T + 1, 1), + (N, T + 1, T + 1) [previous, next] -> (N, T + 1)
            after = torch.logsumexp(state.unsqueeze(2) + moves, 1) + step
            state = torch.where(kept[:, t : t + 1], after, state)
        log_partition = torch.logsumexp(state + moves[:, :, -1], 1)
        unary, pairwise = torch.autograd.grad(log_partition.sum(), (steps, moves))
    return log_partition.detach(), unary, pairwise


def _subtract_path(
    results: tuple[Tensor, ...], emissions: Tensor, labels: _Labels, complete: Tensor | None, scores: Tensor
) -> None:
    """Take scores and counts of the complete paths (B,), of all where it is None, off results of `_posterior`."""
    (value, unary, pairwise), (tags, known, moves) = results, labels
    # With a move to the end: (B, L) -> (B, L + 1).
    counted = nn.functional.pad(known, (0, 1), value=True)
    if complete is not None:
        counted &= complete.unsqueeze(1)
    moves = moves.clamp_max(scores.numel() - 1)  # where the tag before is not known
    # (B, L) -> (B, L, 1); then (B, L + 1)
    places = tags.unsqueeze(2)
    gained = scores.flatten()[moves]
    gained[:, :-1].add_(emissions.gather(2, places).squeeze(2))
    # Not a product, as a position that is not kept may hold NaN.
    value -= gained.masked_fill_(~counted, 0).sum(1)
    ones = counted.to(unary.dtype).neg_()
    unary.scatter_add_(2, places, ones[:, :-1].unsqueeze(2))
    # (N, T + 1, T + 1) -> (N, (T + 1) * (T + 1)), a view
    pairwise.flatten(1).scatter_add_(1, moves, ones)


def _viterbi(emissions: Tensor, mask: Tensor, scores: Tensor) -> Tensor:
    """Best tags, `UNKNOWN_TAG` where masked: int64 (N, L).

    The first half of the positions is searched from the start and the second one from the end, both stacked, as in
    `_posterior`; they meet in the best pair of tags. The loop keeps the best scores only; which tag gave them is looked
    up along the one path that is wanted.
    """
    batch, length, tags = emissions.shape
    half, rest = (length + 1) // 2, length // 2
    best = scores.new_full((half + 1, 2, batch, tags + 1), -torch.inf)
    best[0, :, :, tags] = 0
    whole = _keeps_all(mask)
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
    return torch.cat([found[:, 0].flip(0), found[half - rest :, 1]]).T.masked_fill(~mask, UNKNOWN_TAG)
