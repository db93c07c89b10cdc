"""Fuzzing target: any scores, masks and labels for the CRF, against all paths written out."""

from __future__ import annotations

import itertools
import math
import random

import torch
from byte_reader import ByteReader, refusals

from bga_mner import ConditionalRandomField
from bga_mner.modeling_bga.crf.crf import FORBIDDEN_SCORE, UNKNOWN_TAG, bio_constraints
from bga_mner.modeling_bga.crf.span_probabilities import Span, span_log_probabilities


LABELS = ["O", "B-X", "I-X", "B-Y"]
MAX_LENGTH = 400


def one_input(data: bytes) -> None:
    """Compute all that a CRF tells; it has to agree with the sum over all paths, sentences not to see each other."""
    reader = ByteReader(data)
    tags = reader.integer(1, 4)
    constraints = bio_constraints(dict(enumerate(LABELS[:tags]))) if reader.chance() else (None, None)
    crf = ConditionalRandomField(tags, *constraints)
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.copy_(torch.tensor([_score(reader) for _ in range(parameter.numel())]).view_as(parameter))
    batch, length = reader.integer(1, 3), reader.integer(1, 5)
    emissions = torch.tensor([_score(reader) for _ in range(batch * length * tags)]).view(batch, length, tags)
    if reader.integer(0, 9) == 0:
        emissions[0, 0, 0] = reader.number()
    mask = torch.tensor([reader.integer(0, 4) > 0 for _ in range(batch * length)]).view(batch, length)
    labels = torch.tensor([_label(reader, tags) for _ in range(batch * length)]).view(batch, length)
    emissions = emissions.to(reader.pick((torch.float32, torch.float32, torch.float64, torch.float16)))
    emissions.requires_grad_()
    with refusals():
        loss = crf(emissions, labels, mask)
        (gradient,) = torch.autograd.grad(loss.sum(), emissions)
        marginals, paths = crf.log_marginals(emissions, mask), crf.decode(emissions, mask)
        assert ((paths >= 0) == mask).all()
        assert (paths < tags).all()
        assert (paths[~mask] == UNKNOWN_TAG).all()
        for row in range(batch):
            kept = mask[row]
            values = emissions[row, kept].detach().double()
            if values.isfinite().all() and values.abs().le(1e30).all():
                assert loss[row] >= 0
                assert gradient[row].isfinite().all()
                assert marginals[row].isfinite().all()
                close(marginals[row].double().exp().sum(-1), torch.ones(length))
                _check_paths(crf, values, paths[row, kept], labels[row, kept], loss[row], mask[row])
            alone = emissions[row : row + 1].detach()
            one = [value[row : row + 1] for value in (labels, mask)]
            close(crf(alone, *one), loss[row : row + 1].detach())
            assert torch.equal(crf.decode(alone, one[1]), paths[row : row + 1]) or not values.isfinite().all()
        _check_spans(crf, emissions.detach().double(), mask)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Assert that two tensors agree to rounding."""
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-4, atol=1e-4, equal_nan=True)


def seeds() -> list[bytes]:
    """Return inputs to begin with."""
    rng = random.Random(3)
    return [b"", bytes(200), *(rng.randbytes(size) for size in (30, 90, 180, 360))]


def _score(reader: ByteReader) -> float:
    kind = reader.integer(0, 15)
    return (1e4, -1e4, 700.0, 1e30)[kind] if kind < 3 else reader.integer(-3000, 3000) / 500


def _label(reader: ByteReader, tags: int) -> int:
    kind = reader.integer(0, 40)
    return UNKNOWN_TAG if kind < 10 else reader.pick((-1, tags, -99, 2**40)) if kind == 40 else kind % tags


def _check_paths(crf, values, found, labels, loss, mask) -> None:
    """Add up the scores of all paths of one sentence: values (L, T), found and labels (L,)."""
    count, tags = values.shape
    if not count:
        assert loss == 0
        return
    scores = crf.numpy_scores()
    moves, starts, ends = (torch.from_numpy(part) for part in scores)
    every = torch.tensor(list(itertools.product(range(tags), repeat=count)))  # (paths, L)

    def score(path: torch.Tensor) -> torch.Tensor:
        inside = values[torch.arange(count), path].sum(-1) + moves[path[..., :-1], path[..., 1:]].sum(-1)
        return inside + starts[path[..., 0]] + ends[path[..., -1]]

    totals = score(every)
    best = totals.max()
    size = max(1.0, float(values.abs().max()))
    assert score(found) >= best - 1e-6 * size
    known = (labels != UNKNOWN_TAG) & ~crf.contradictory(labels[None], torch.ones(1, count, dtype=torch.bool))[0]
    agree = ((every == labels) | ~known).all(-1)
    expected = torch.logsumexp(totals, 0) - torch.logsumexp(totals[agree], 0)
    assert math.isclose(float(loss), max(0.0, float(expected)), rel_tol=1e-4, abs_tol=1e-4 * size), (loss, expected)
    assert FORBIDDEN_SCORE < 0


def _check_spans(crf, emissions, mask) -> None:
    """Probabilities of spans that exclude each other add up to 1 at most."""
    usable = emissions.masked_fill(~mask.unsqueeze(-1), 0).flatten(1)
    if crf.num_tags < 2 or not (usable.isfinite().all() and usable.abs().le(1e5).all()):
        return
    names = LABELS[: crf.num_tags]
    kinds = sorted({name[2:] for name in names if name != "O"})
    for row, column in mask.nonzero().tolist():
        ends = [place + 1 for place in range(column, mask.shape[1]) if mask[row, place]]
        spans = [Span(row, kind, column, end) for kind in kinds for end in ends]
        found = span_log_probabilities(emissions.numpy(), mask.numpy(), mask.numpy(), spans, names, crf.numpy_scores())
        assert (found <= 0).all()
        assert math.fsum(math.exp(value) for value in found) <= 1 + 1e-6
