r"""Linear-chain conditional random field: exact likelihood, posterior marginals and Viterbi paths.

A sentence with emissions :math:`e_t(y)` at its kept positions :math:`t = 1 \dots n` scores a labelling `y` with

.. math:: s(y) = b(y_1) + \sum_{t=1}^{n} e_t(y_t) + \sum_{t=2}^{n} A(y_{t-1}, y_t) + f(y_n)

where `b`, `A` and `f` are the start, transition and end scores, and :math:`p(y) = \exp(s(y)) / Z`
(Lafferty, McCallum and Pereira, 2001, "Conditional random fields"). Labels may be known at some positions only; the
loss is then `log Z - log Z'`, `Z'` being the sum over the labellings that agree with what is known
(Tsuboi et al., 2008, "Training conditional random fields using incomplete annotations").

How it is computed (`recursions.py`): forward and backward recursion run stacked in one loop, in float64, on
probabilities that are rescaled every few steps (Rabiner, 1989, "A tutorial on hidden Markov models", section V.A), or,
on other devices than the CPU, by blocks of positions (`block_recursions.py`).
Together they give the posterior marginals, which are the gradient of `log Z`: autograd keeps no graph of the loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...configuration.errors import mismatch
from ..saving.offloaded_weights import fetched
from .recursions import best_path, is_cheap_to_read, keeps_all, posterior
from .span_probabilities import CrfScores


try:
    from .tensor_checks import checked_mask, refuse_other_tags
except ImportError:  # a saved model's code leaves wrong shapes to torch; a tag that is none of the model's is unknown

    def checked_mask(num_tags: int, emissions: Tensor | None, mask: Tensor, tags: Tensor | None = None) -> Tensor:
        """Return the mask as bool."""
        return mask.to(torch.bool)

    def refuse_other_tags(tags: Tensor, wrong: Tensor, num_tags: int) -> None:
        """Take any tag."""


UNKNOWN_TAG = -100  # of a position whose label is not known, and in the paths of masked positions
FORBIDDEN_SCORE = -1.0e4  # of a forbidden transition or start; finite, so that no loss or gradient is ever infinite
LOG_PROBABILITY_FLOOR = -200.0  # nats; the least that `log_marginals` reports


def bio_constraints(id2label: dict[int, str]) -> tuple[Tensor, Tensor]:
    """Which tags may follow each other, (T, T) `[previous, next]`, and which may come first, (T,), in the BIO scheme.

    `I-X` may come only after `B-X` or `I-X` of the same type. Other labels are free, and so is `I-X` where the label
    set has no `B-X` (the IO scheme), as it could never be reached.

    Examples
    --------
    >>> transitions, starts = bio_constraints({0: "O", 1: "B-PER", 2: "I-PER"})
    >>> transitions.int().tolist()
    [[1, 1, 0], [1, 1, 1], [1, 1, 1]]
    >>> starts.tolist()
    [True, True, False]
    """
    if set(id2label) != set(range(len(id2label))):
        expected = f"id2label to be a dict with the integer keys 0 to {len(id2label) - 1}"
        raise mismatch(expected, list(id2label), "Number the labels so.")
    names = [id2label[tag] for tag in range(len(id2label))]
    # the tags of which one must have gone before; None where anything may
    needed = [{f"B-{x[2:]}", x} if x.startswith("I-") and f"B-{x[2:]}" in names else None for x in names]
    transitions = [[before is None or previous in before for before in needed] for previous in names]
    # models are often built under a default device of "meta", whose tensors hold no values
    return torch.tensor(transitions, device="cpu"), torch.tensor([x is None for x in needed], device="cpu")


_is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", bool)  # torch 2.6 doesn't say


def is_recorded() -> bool:
    """Say whether what runs is being recorded, by `torch.export` or `torch.jit.trace`, to be run on other values."""
    return _is_exporting() or torch.jit.is_tracing()


class ConditionalRandomField(nn.Module):
    """Linear-chain conditional random field over any pattern of kept positions.

    Kept positions on both sides of masked ones are neighbours. Scores are added up in float64 (float32 on devices
    without it).

    Parameters
    ----------
    num_tags : int
        Number of tags `T`.
    allowed_transitions, allowed_starts : Tensor of bool, shapes (T, T) and (T,), optional
        `[previous, next]` and first tags, as by `bio_constraints`; what isn't allowed scores `FORBIDDEN_SCORE` whatever
        its parameter holds. None allows all. Not in the state dict.

    Attributes
    ----------
    transitions, start_transitions, end_transitions : nn.Parameter of float32, shapes (T, T), (T,), (T,)
        Scores of `[previous, next]`, of the first and of the last tag, in nats.

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
            raise mismatch("num_tags to be at least 1", num_tags, "Give the number of labels.")
        # models are also built under a half-precision default dtype
        self.transitions = nn.Parameter(torch.empty(num_tags, num_tags, dtype=torch.float32))
        self.start_transitions = nn.Parameter(torch.empty(num_tags, dtype=torch.float32))
        self.end_transitions = nn.Parameter(torch.empty(num_tags, dtype=torch.float32))
        # plain lists outlive a "meta" device, on which the buffers lose their values
        self._transition_rows = _plain_constraint("allowed_transitions", allowed_transitions, (num_tags, num_tags))
        self._start_row = _plain_constraint("allowed_starts", allowed_starts, (num_tags,))
        # what may follow each tag, the boundary T, and a tag T + 1 that is not known: (T + 2, T + 1)
        self.register_buffer("allowed", torch.empty(num_tags + 2, num_tags + 1, dtype=torch.bool), persistent=False)
        self.reset_parameters()
        self.reset_constraints()

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
            `log Z - log Z'` in nats, float64 for float64 emissions, else float32; exactly 0, with a gradient of 0, for
            a sentence with no known tag. Can be differentiated once. A known tag that the constraints forbid after its
            known left neighbour counts as unknown (see `contradictory`), and so does one that is none of the model's on
            other devices than the CPU, where such a tag is a ValueError.
        """
        mask = checked_mask(self.num_tags, emissions, mask, tags)
        return self._log_likelihood(emissions, mask, self._labels(tags, mask))

    @torch.compiler.disable  # which way it goes depends on the scores
    def log_partition(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """`log Z` (B,), in nats; 0 where nothing is kept. Arguments, dtype and errors as in `forward`."""
        return self._log_likelihood(emissions, checked_mask(self.num_tags, emissions, mask), None)

    @torch.no_grad()
    @torch.compiler.disable  # which way it goes depends on the scores
    def decode(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Labelling (B, L) of the highest score (Viterbi, 1967), `UNKNOWN_TAG` where masked; arguments as in `forward`.

        In sentences whose scores are not finite the tags are arbitrary.
        """
        if is_recorded():
            return self.recorded(emissions, mask)[1]
        mask = checked_mask(self.num_tags, emissions, mask)
        return best_path(emissions, mask, self._scores()).masked_fill(~mask, UNKNOWN_TAG)

    @torch.no_grad()
    @torch.compiler.disable  # which way it goes depends on the scores
    def log_marginals(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Log posterior probabilities `log p(y_t)` (B, L, T), without gradient; arguments and dtype as in `forward`.

        No value is below `LOG_PROBABILITY_FLOOR`, and a masked position holds the uniform `-log T`.
        """
        if is_recorded():
            return self.recorded(emissions, mask)[0]
        mask = checked_mask(self.num_tags, emissions, mask)
        return self._reported(posterior(emissions, mask, self._scores(), False)[1].log_(), emissions, mask)

    @torch.no_grad()
    def recorded(self, emissions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """`log_marginals` and `decode` for a program that is recorded: which way it goes depends on no value."""
        try:  # a saved model's code doesn't carry this
            from .exported_recursions import recorded_best_path, recorded_log_marginals
        except ImportError as error:
            raise ImportError(
                "Expected the package bga-mner, by which a model can be recorded, got a saved model's code alone. Run: "
                "pip install bga-mner."
            ) from error
        mask, scores = checked_mask(self.num_tags, emissions, mask), self._scores().detach()
        emissions = emissions.detach()  # the program runs without this method's no_grad
        log_unary = self._reported(recorded_log_marginals(emissions, mask, scores), emissions, mask)
        return log_unary, recorded_best_path(emissions, mask, scores).masked_fill(~mask, UNKNOWN_TAG)

    @torch.no_grad()
    def contradictory(self, tags: Tensor, mask: Tensor) -> Tensor:
        """Known tags (B, L) that the constraints forbid after their known left neighbour: unknown to the loss."""
        mask = checked_mask(self.num_tags, None, mask, tags)
        labels = self._labels(tags, mask)
        return mask & (labels.tags == tags) & ~labels.known

    @torch.no_grad()
    def numpy_scores(self) -> CrfScores:
        """Copy the scores for what computes without torch."""
        bordered = self._scores().cpu().double().numpy()  # (T + 1, T + 1)
        return CrfScores(bordered[:-1, :-1].copy(), bordered[-1, :-1].copy(), bordered[:-1, -1].copy())

    def reset_parameters(self) -> None:
        """Draw every score uniformly from -0.1 to 0.1."""
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)

    @property
    def allowed_transitions(self) -> Tensor:
        """Which tags may follow each other: bool (T, T), a view."""
        return self.allowed[:-2, :-1]

    @property
    def allowed_starts(self) -> Tensor:
        """Which tags may come first: bool (T,), a view."""
        return self.allowed[-2, :-1]

    @property
    def constraints(self) -> tuple[list[list[bool]], list[bool]]:
        """The constraints as lists: transitions and starts."""
        return self._transition_rows, self._start_row

    @torch.no_grad()
    def reset_constraints(self) -> None:
        """Write the constraints into their buffer again, as after a load by way of "meta"."""
        self.allowed.fill_(True)
        self.allowed_transitions.copy_(torch.tensor(self._transition_rows, dtype=torch.bool, device="cpu"))
        self.allowed_starts.copy_(torch.tensor(self._start_row, dtype=torch.bool, device="cpu"))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ConditionalRandomField:
        """Move the scores with the model, but never below float32."""

        def at_least_single(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            is_rounded = moved.dtype in (torch.float16, torch.bfloat16) and tensor.dtype == torch.float32
            return tensor.to(moved.device) if is_rounded else moved

        return super()._apply(at_least_single, recurse)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        if not self.allowed.is_meta:
            self.reset_constraints()  # `to_empty` may have gone before

    def _log_likelihood(self, emissions: Tensor, mask: Tensor, labels: _Labels | None) -> Tensor:
        parameters = self.transitions, self.start_transitions, self.end_transitions
        return _LogLikelihood.apply(emissions, *parameters, self.allowed[:-1], mask, labels)

    def _scores(self) -> Tensor:
        with fetched(self):
            parameters = self.transitions, self.start_transitions, self.end_transitions
            return _joined_scores(*parameters, self.allowed[:-1])

    def _reported(self, log_unary: Tensor, emissions: Tensor, mask: Tensor) -> Tensor:
        masked = ~mask.unsqueeze(2)  # (B, L) -> (B, L, 1)
        log_unary = log_unary.clamp_min_(LOG_PROBABILITY_FLOOR).masked_fill_(masked, -math.log(self.num_tags))
        return log_unary.to(torch.promote_types(emissions.dtype, torch.float32)).contiguous()

    def _labels(self, tags: Tensor, mask: Tensor) -> _Labels:
        """Find out which tags are known, and which transitions they make."""
        inside = tags.clamp(0, self.num_tags - 1)
        named = inside == tags
        known = mask & named
        if not (is_cheap_to_read(tags) and torch.equal(known, mask)):
            if is_cheap_to_read(tags):
                refuse_other_tags(tags, mask & ~named & (tags != UNKNOWN_TAG), self.num_tags)
            tags = torch.where(named, tags, self.num_tags + 1)
        boundary = tags.new_full((len(tags), 1), self.num_tags)
        # the tag before each position and before the end: (B, L) and (B, 1) -> (B, L + 1)
        before = torch.cat([boundary, tags], 1)
        if not keeps_all(mask):
            numbers = torch.arange(1, tags.shape[1] + 1, device=tags.device)
            nearest = nn.functional.pad(torch.where(mask, numbers, 0), (1, 0)).cummax(1).values
            before = before.gather(1, nearest)
        moves = before.mul_(self.num_tags + 1).add_(torch.cat([inside, boundary], 1))
        return _Labels(inside, known & self.allowed.flatten()[moves[:, :-1]], moves)


class _Labels(NamedTuple):
    """What is known about the tags of sentences."""

    tags: Tensor  # (B, L), in 0 ... T - 1, arbitrary where not known
    known: Tensor  # (B, L), bool; False where masked
    # (B, L + 1): previous * (T + 1) + next; the tag T is the boundary, and T + 1 as the previous one is not known
    moves: Tensor


class _LogLikelihood(torch.autograd.Function):
    """`log Z - log Z'`, or `log Z` without labels, with the difference of the marginals as its gradient."""

    @staticmethod
    def forward(ctx: Any, emissions: Tensor, *inputs: Any) -> Tensor:
        """Take emissions, transitions, starts, ends, what is allowed, mask, labels or None; return (B,)."""
        allowed, mask, labels = inputs[3:]
        scores = _joined_scores(*inputs[:4])
        batch, complete, uninformed = len(emissions), None, None
        some: Any = ()  # sentences of which a part is known
        if labels is not None and not (is_cheap_to_read(mask) and torch.equal(labels.known, mask)):
            tags, known, _ = labels
            count = known.sum(1)
            uninformed, complete = count == 0, count == mask.sum(1)
            if is_cheap_to_read(mask):
                some = (complete | uninformed).logical_not_().nonzero().squeeze(1)
            else:
                # choosing by values would make the host wait
                some, complete = torch.arange(batch, device=mask.device), torch.zeros_like(complete)
        stacked, masks = emissions, mask
        if len(some):
            # without what disagrees with a known tag: both partition functions come from one loop
            disagree = known[some].unsqueeze(2).repeat(1, 1, emissions.shape[2])
            disagree.scatter_(2, tags[some].unsqueeze(2), False)
            # (B, L, T) and (S, L, T) -> (B + S, L, T)
            stacked = torch.cat([emissions, emissions[some].masked_fill(disagree, -torch.inf)])
            masks = torch.cat([mask, mask[some]])
        results = posterior(stacked, masks, scores, any(ctx.needs_input_grad))
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
        if torch.is_grad_enabled():  # `once_differentiable` could take the gradient for a constant
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
    if constraint is None:
        return torch.ones(shape, dtype=torch.bool, device="cpu").tolist()
    if tuple(constraint.shape) != shape or constraint.dtype != torch.bool or constraint.is_meta:
        found = f"{constraint.dtype} of shape {tuple(constraint.shape)} on {constraint.device}"
        raise ValueError(f"Expected {name} to be torch.bool of shape {shape} with values, got {found}. Use the CPU.")
    return constraint.tolist()


def _joined_scores(transitions: Tensor, starts: Tensor, ends: Tensor, allowed: Tensor) -> Tensor:
    """Scores (T + 1, T + 1) of [previous, next], those of the boundary T included, with the constraints applied."""
    # Apple's "mps" has no float64
    dtype = torch.float32 if transitions.device.type == "mps" else torch.float64
    scores = transitions.new_zeros(allowed.shape, dtype=dtype)
    scores[:-1, :-1], scores[-1, :-1], scores[:-1, -1] = transitions, starts, ends
    return scores.masked_fill_(~allowed, FORBIDDEN_SCORE)


def _subtract_path(
    results: tuple[Tensor, ...], emissions: Tensor, labels: _Labels, complete: Tensor | None, scores: Tensor
) -> None:
    """Take scores and counts of complete paths (B,), None for all, off results of `posterior`."""
    (value, unary, pairwise), (tags, known, moves) = results, labels
    # with a move to the end: (B, L) -> (B, L + 1)
    counted = nn.functional.pad(known, (0, 1), value=True)
    if complete is not None:
        counted &= complete.unsqueeze(1)
    moves = moves.clamp_max(scores.numel() - 1)  # where the tag before is not known
    # (B, L) -> (B, L, 1); then (B, L + 1)
    columns = tags.unsqueeze(2)
    gained = scores.flatten()[moves]
    gained[:, :-1].add_(emissions.gather(2, columns).squeeze(2))
    # not a product: a position that is not kept may hold NaN
    value -= gained.masked_fill_(~counted, 0).sum(1)
    ones = counted.to(unary.dtype).neg_()
    unary.scatter_add_(2, columns, ones[:, :-1].unsqueeze(2))
    # (N, T + 1, T + 1) -> (N, (T + 1) * (T + 1)), a view
    pairwise.flatten(1).scatter_add_(1, moves, ones)


__all__ = [
    "FORBIDDEN_SCORE",
    "LOG_PROBABILITY_FLOOR",
    "UNKNOWN_TAG",
    "ConditionalRandomField",
    "bio_constraints",
    "is_recorded",
]
