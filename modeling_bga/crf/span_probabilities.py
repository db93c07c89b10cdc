r"""The probability, under a CRF, that exactly one span is an entity of one type.

A path of tags is read at some positions only, such as the first tokens of words, and there as `spans_from_tags` does:
an entity begins with `B-X`, or with `I-X` after anything but its own type, and goes on as long as `I-X` follows.
The probability of a span is that of all paths in which it is read as exactly this entity:
it begins at its first position, holds all of its positions and ends with them. All other tags, those of the positions
that aren't read included, are summed over. Hence the probabilities of spans of which any two exclude each other (the
same words under several types, overlapping spans) add up to at most 1.

How it is computed: one forward and one backward recursion for the sentences, and between them a recursion over the
positions of the span and the ones beside, in which only the tags that make the entity are let through. Everything is
done in log space and float64, with NumPy alone: the tagger that runs on ONNX Runtime takes a copy of this file along.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ...configuration.errors import shown


class CrfScores(NamedTuple):
    """Scores of a CRF over `T` tags, in nats: (T, T) `[previous, next]`, (T,) and (T,)."""

    transitions: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    @classmethod
    def independent(cls, num_tags: int) -> "CrfScores":
        """Return the scores of a tagger without a CRF: each position has its tag for itself."""
        return cls(np.zeros((num_tags, num_tags)), np.zeros(num_tags), np.zeros(num_tags))


class Span(NamedTuple):
    """An entity: its row in a batch, its type such as "PER", its first position, and the one after its last."""

    sentence: int
    label: str
    first: int
    end: int


# From states and scores of transitions to states, as `_moved` does.
Move = Callable[[np.ndarray, np.ndarray], np.ndarray]


def span_log_probabilities(
    emissions: np.ndarray,
    mask: np.ndarray,
    read: np.ndarray,
    spans: Sequence[Span],
    labels: Sequence[str],
    scores: CrfScores,
) -> np.ndarray:
    """Log probabilities (spans,) of spans, at most 0; -inf for what the tags can't say.

    Examples
    --------
    >>> certain = np.log([[[0.9, 0.05, 0.05], [0.25, 0.5, 0.25]]])
    >>> mask = np.array([[True, True]])
    >>> spans = [Span(0, "PER", 1, 2)]
    >>> found = span_log_probabilities(certain, mask, mask, spans, ["O", "B-PER", "I-PER"], CrfScores.independent(3))
    >>> np.exp(found).round(3).tolist()  # 0.5 + 0.9 * 0.25
    [0.725]
    """
    if not len(spans):
        return np.zeros(0)
    mask = np.asarray(mask, dtype=bool)
    read = np.asarray(read, dtype=bool) & mask
    places = np.array([(span.sentence, span.first, span.end) for span in spans]).T
    _check(spans, places, read)
    types = [span.label for span in spans]
    tables = {label: _tag_tables(label, labels) for label in sorted(set(types))}
    of_spans = np.stack([tables[label] for label in types])  # (spans, roles, 2, tags + 1)
    # (batch, length, tags) -> (batch, length, tags + 1): the boundary stands before the first and after the last one
    steps = np.where(mask[:, :, None], emissions, 0.0).astype(np.float64)
    steps = np.pad(steps, ((0, 0), (0, 0), (0, 1)), constant_values=-np.inf)
    matrix = _bordered(scores)
    tame = _are_tame(steps, mask, matrix)
    found = np.empty(len(spans))
    for kind, moved in ((tame, _moved), (~tame, _moved_in_log_space)):
        numbers = np.flatnonzero(kind[places[0]])  # of spans
        if len(numbers):
            rows = np.cumsum(kind)[places[0, numbers]] - 1  # among sentences of this kind
            of_kind = rows, *places[1:, numbers]
            batch = steps[kind], mask[kind], read[kind]
            found[numbers] = _log_probabilities(*batch, of_kind, of_spans[numbers], matrix, moved)
    return found


def _log_probabilities(
    steps: np.ndarray,
    mask: np.ndarray,
    read: np.ndarray,
    places: tuple[np.ndarray, ...],
    of_spans: np.ndarray,
    matrix: np.ndarray,
    moved: Move,
) -> np.ndarray:
    """Compute `span_log_probabilities` (spans,) of sentences that are all `moved` in the same way.

    `places` are rows, first positions and ends, (spans,) each; `of_spans` is which tags may stand where, bool (spans,
    roles, 2, T + 1).
    """
    rows, firsts, ends = places
    states = _recursions(steps, mask, matrix, moved)
    log_partition = _log_sum_exp(states[-1, 0] + matrix[:, -1], 1)  # (batch,)
    start, last = _deciding_positions(rows, firsts, ends, read)
    # Two ways to begin, with "B-" and with "I-", which exclude each other: (2, spans, tags + 1).
    state = np.stack([states[start, 0, rows]] * 2)
    for offset in range(int((last - start).max()) + 1):
        positions = np.minimum(start + offset, mask.shape[1] - 1)
        conditions = [~read[rows, positions], positions < firsts, positions == firsts, positions < ends]
        roles = np.select(conditions, [_FREE, _BEFORE, _FIRST, _INSIDE], _AFTER)
        lets_through = of_spans[np.arange(len(rows)), roles].transpose(1, 0, 2)  # (2, spans, tags + 1)
        following = moved(state, matrix) + steps[rows, positions]
        runs = mask[rows, positions] & (start + offset <= last)
        state = np.where(runs[:, None], np.where(lets_through, following, -np.inf), state)
    # (spans, tags + 1)
    rest = moved(states[mask.shape[1] - 1 - last, 1, rows], matrix.T)
    # (2, spans, tags + 1) -> (spans, 2, tags + 1) -> (spans,)
    joint = (state + rest).transpose(1, 0, 2).reshape(len(rows), -1)
    return np.minimum(_log_sum_exp(joint, 1) - log_partition[rows], 0.0)


# In nats: with states and transitions no further below their maxima, float64 holds products of their exponentials. What
# constraints forbid has a score far below the last of these, and is 0 beside what is allowed.
_DEEPEST, _STEEPEST, _FORBIDDEN = 600.0, 100.0, 5000.0


# What a position is to a span: not read, the last one read before it, its first, a later one of it, the next one read.
_FREE, _BEFORE, _FIRST, _INSIDE, _AFTER = range(5)


def _check(spans: Sequence[Span], places: np.ndarray, read: np.ndarray) -> None:
    """Refuse spans that no position of the batch begins."""
    rows, firsts, ends = places
    inside = (rows >= 0) & (rows < len(read)) & (firsts >= 0) & (firsts < ends) & (ends <= read.shape[1])
    begins = np.zeros_like(inside)
    begins[inside] = read[rows[inside], firsts[inside]]
    if not begins.all():
        raise ValueError(
            f"Expected spans that begin at a position that is read, in a batch of shape {read.shape}, got "
            f"{spans[int(begins.argmin())]}. Give positions of tokens: the first token of the first word, and the one "
            "after the last word's."
        )


def _check_type(label: str, labels: Sequence[str]) -> None:
    if not {f"B-{label}", f"I-{label}"} & set(labels):
        raise ValueError(
            f"Expected a type that has a tag, got {shown(label)} with the tags {shown(list(labels))}. Give the type "
            "alone, such as 'PER'."
        )


def _bordered(scores: CrfScores) -> np.ndarray:
    """Scores of [previous, next] with a tag more, from which the starts go and to which the ends: (T + 1, T + 1)."""
    tags = len(scores.starts)
    matrix = np.zeros((tags + 1, tags + 1))
    matrix[:tags, :tags], matrix[tags, :tags], matrix[:tags, tags] = scores
    return matrix


def _recursions(steps: np.ndarray, mask: np.ndarray, matrix: np.ndarray, moved: Move) -> np.ndarray:
    """Log of the summed scores of all beginnings by their last tag, and of all endings by their first, in one loop.

    Steps (batch, length, T + 1) to states (length + 1, 2, batch, T + 1), after so many positions from either end.
    """
    # (batch, length, T + 1) -> (length, 2, batch, T + 1)
    both_steps = np.stack([steps, steps[:, ::-1]]).transpose(2, 0, 1, 3)
    kept = np.stack([mask, mask[:, ::-1]]).transpose(2, 0, 1)[..., None]
    moves = np.stack([matrix, matrix.T])  # (2, T + 1, T + 1)
    states = np.full((len(both_steps) + 1, *both_steps.shape[1:]), -np.inf)
    states[0, ..., -1] = 0
    for t, step in enumerate(both_steps):
        states[t + 1] = np.where(kept[t], moved(states[t], moves) + step, states[t])
    return states


def _deciding_positions(
    rows: np.ndarray, firsts: np.ndarray, ends: np.ndarray, read: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """First and last position that decide on each span: those that are read before and after it, or its own."""
    batch, length = read.shape
    places = np.where(read, np.arange(length), -1)
    # (batch, length + 1): the last position that is read in front of each, -1 for none, and the next from there on
    before = np.hstack([np.full((batch, 1), -1), np.maximum.accumulate(places, axis=1)])
    places = np.where(read, np.arange(length), length)
    after = np.hstack([np.minimum.accumulate(places[:, ::-1], axis=1)[:, ::-1], np.full((batch, 1), length)])
    start, last = before[rows, firsts], after[rows, ends]
    return np.where(start < 0, firsts, start), np.where(last == length, before[rows, ends], last)


def _tag_tables(label: str, labels: Sequence[str]) -> np.ndarray:
    """Which tags a position may have, by its role, if "B-" and if "I-" begins the entity: bool (roles, 2, T + 1)."""
    _check_type(label, labels)
    begins = np.array([*(name == f"B-{label}" for name in labels), False])
    inside = np.array([*(name == f"I-{label}" for name in labels), False])
    any_tag = np.ones(len(labels) + 1, dtype=bool)
    by_role = {
        _FREE: (any_tag, any_tag),
        # after its own type "I-" would only go on with an entity
        _BEFORE: (any_tag, ~(begins | inside)),
        _FIRST: (begins, inside),
        _INSIDE: (inside, inside),
        _AFTER: (~inside, ~inside),
    }
    return np.array([by_role[role] for role in range(len(by_role))])


def _are_tame(steps: np.ndarray, mask: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Tell in which sentences (batch,) exponentials of (batch, L, T + 1) and (T + 1, T + 1) lose nothing that counts.

    There is always an allowed path, of a tag that may begin, follow itself and end. Scores of -inf, or far below the
    others of their position, may leave none.
    """
    forbidden, top = matrix < -_FORBIDDEN, matrix.max()
    always = ~(forbidden[-1] | forbidden[:, -1] | forbidden.diagonal())[:-1]
    ordinary = always.any() and top < _STEEPEST and (forbidden | (matrix - top > -_STEEPEST)).all()
    # (batch, L, T) -> (batch, L)
    depth = steps[..., :-1].max(axis=-1) - np.where(mask, steps[..., :-1].min(axis=-1), np.inf)
    return ordinary & (depth < _DEEPEST).all(axis=1)


def _moved(states: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Log of the summed scores after one more transition: (..., N, T) and (..., T, T) [previous, next] to (..., N, T).

    There are as many exponentials as states, in place of one for each pair of tags, unless states are far apart. The
    sums don't depend on what else is in the batch, as those of a product of matrices would.
    """
    most, top = _finite_maximum(states, -1), matrix.max()
    depth = states - most
    if (depth[np.isfinite(depth)] < -_DEEPEST).any():
        return _moved_in_log_space(states, matrix)
    with np.errstate(divide="ignore"):  # the log of 0, where all are -inf
        return np.log(np.einsum("...nt,...tu->...nu", np.exp(depth), np.exp(matrix - top))) + most + top


def _moved_in_log_space(states: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Do the same whatever the scores."""
    # (..., N, T, 1) + (..., 1, T, T) -> (..., N, T)
    return _log_sum_exp(states[..., None] + matrix[..., None, :, :], -2)


def _finite_maximum(values: np.ndarray, axis: int) -> np.ndarray:
    most = values.max(axis=axis, keepdims=True)
    return np.where(np.isfinite(most), most, 0.0)


def _log_sum_exp(values: np.ndarray, axis: int) -> np.ndarray:
    most = _finite_maximum(values, axis)
    with np.errstate(divide="ignore"):  # the log of 0, where all are -inf
        return np.log(np.exp(values - most).sum(axis=axis)) + most.squeeze(axis)


__all__ = ["CrfScores", "Span", "span_log_probabilities"]
