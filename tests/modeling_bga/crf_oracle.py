"""CRFs, a batch of sentences with all kinds of masks, and what is right for them: enumerated, or in plain loops."""

import itertools

import torch
from torch import Tensor, nn

from bga_mner.modeling_bga.crf.crf import FORBIDDEN_SCORE, UNKNOWN_TAG, ConditionalRandomField, bio_constraints


BIO = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC"}
MASKS = {
    "full": [1, 1, 1, 1, 1],
    "right padding": [1, 1, 1, 0, 0],
    "left padding": [0, 0, 1, 1, 1],
    "holes": [1, 0, 1, 0, 1],
    "hole at both ends": [0, 1, 0, 1, 0],
    "one kept": [0, 0, 0, 1, 0],
    "first kept": [1, 0, 0, 0, 0],
    "nothing kept": [0, 0, 0, 0, 0],
}


def make_crf(constrained: bool = False, num_tags: int = 4, spread: float = 1.5) -> ConditionalRandomField:
    constraints = bio_constraints(BIO) if constrained else ()
    crf = ConditionalRandomField(num_tags, *constraints).double()
    for parameter in crf.parameters():
        nn.init.normal_(parameter, std=spread)
    return crf


def make_batch(num_tags: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Emissions, legal-in-range tags and a mask with one row for each pattern of MASKS."""
    mask = torch.tensor(list(MASKS.values())).bool()
    return torch.randn(*mask.shape, num_tags, dtype=torch.float64) * 2, torch.randint(0, num_tags, mask.shape), mask


def paths(crf: ConditionalRandomField, emissions: Tensor, mask: Tensor) -> tuple[list[int], Tensor, Tensor]:
    """Kept positions of one sentence, all its labellings (P, n) and their scores (P,), one addition at a time."""
    kept = mask.nonzero().flatten().tolist()
    labellings = list(itertools.product(range(crf.num_tags), repeat=len(kept)))
    transitions = torch.where(crf.allowed_transitions, crf.transitions.double(), FORBIDDEN_SCORE).tolist()
    starts = torch.where(crf.allowed_starts, crf.start_transitions.double(), FORBIDDEN_SCORE).tolist()
    ends, values = crf.end_transitions.tolist(), emissions.tolist()
    scores = []
    for labelling in labellings:
        score = 0.0
        if kept:
            score = starts[labelling[0]] + ends[labelling[-1]]
            score += sum(values[position][tag] for position, tag in zip(kept, labelling, strict=True))
            score += sum(transitions[a][b] for a, b in itertools.pairwise(labelling))
        scores.append(score)
    # (P, n); with no kept position there is one labelling, the empty one
    return (
        kept,
        torch.tensor(labellings, dtype=torch.int64).view(len(labellings), len(kept)),
        torch.tensor(scores, dtype=torch.float64),
    )


def oracle_loss(crf: ConditionalRandomField, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
    """Negative log-likelihood of one sentence; tags that the constraints forbid count as unknown."""
    kept, labellings, scores = paths(crf, emissions, mask)
    agree = torch.ones(len(labellings), dtype=torch.bool)
    for column, position in enumerate(kept):
        tag = int(tags[position])
        before = int(tags[kept[column - 1]]) if column else None
        if tag == UNKNOWN_TAG:
            continue
        if before is None and not crf.allowed_starts[tag]:
            continue
        if before is not None and before != UNKNOWN_TAG and not crf.allowed_transitions[before, tag]:
            continue
        agree &= labellings[:, column] == tag
    return torch.logsumexp(scores, 0) - torch.logsumexp(scores[agree], 0)


def log_space(crf: ConditionalRandomField, emissions: Tensor, mask: Tensor) -> Tensor:
    """Differentiable log Z of one sentence by a plain log-space recursion in float64."""
    transitions = torch.where(crf.allowed_transitions, crf.transitions.double(), FORBIDDEN_SCORE)
    starts = torch.where(crf.allowed_starts, crf.start_transitions.double(), FORBIDDEN_SCORE)
    kept = emissions.double()[mask]
    state = starts + kept[0]
    for step in kept[1:]:
        state = torch.logsumexp(state.unsqueeze(1) + transitions, 0) + step
    return torch.logsumexp(state + crf.end_transitions.double(), 0)


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
