"""The CRF against the enumeration of all labellings, and against log-space recursions where scores are large."""

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from bga_mner.modeling_bga import crf as crf_module
from bga_mner.modeling_bga.crf import (
    FORBIDDEN_SCORE,
    LOG_PROBABILITY_FLOOR,
    UNKNOWN_TAG,
    ConditionalRandomField,
    bio_constraints,
)


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


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


# ---------------------------------------------------------------- against all labellings


@pytest.mark.parametrize("constrained", [False, True])
def test_log_partition(constrained: bool) -> None:
    crf = make_crf(constrained)
    emissions, _, mask = make_batch()
    expected = torch.stack([torch.logsumexp(paths(crf, e, m)[2], 0) for e, m in zip(emissions, mask, strict=True)])
    close(crf.log_partition(emissions, mask), expected)
    assert crf.log_partition(emissions, mask)[-1] == 0


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("unknown", [0.0, 0.5, 1.0])
def test_loss(constrained: bool, unknown: float) -> None:
    crf = make_crf(constrained)
    for _ in range(3):
        emissions, tags, mask = make_batch()
        tags[torch.rand(tags.shape) < unknown] = UNKNOWN_TAG
        sentences = zip(emissions, tags, mask, strict=True)
        expected = torch.stack([oracle_loss(crf, *sentence) for sentence in sentences])
        close(crf(emissions, tags, mask), expected)


def test_loss_of_fully_partly_and_not_labelled_sentences_in_one_batch() -> None:
    crf = make_crf()
    emissions = torch.randn(4, 5, 4, dtype=torch.float64)
    mask = torch.ones(4, 5, dtype=torch.bool)
    tags = torch.tensor([[0, 1, 2, 3, 0], [-100] * 5, [-100, 1, -100, 3, -100], [1, 1, 1, 1, -100]])
    loss = crf(emissions, tags, mask)
    close(loss, torch.stack([oracle_loss(crf, *sentence) for sentence in zip(emissions, tags, mask, strict=True)]))
    assert loss[1] == 0
    assert (loss[[0, 2, 3]] > 0.1).all()


@pytest.mark.parametrize("constrained", [False, True])
def test_decode(constrained: bool) -> None:
    crf = make_crf(constrained)
    for _ in range(3):
        emissions, _, mask = make_batch()
        decoded = crf.decode(emissions, mask)
        assert decoded.dtype == torch.int64
        assert (decoded[~mask] == UNKNOWN_TAG).all()
        for row, (e, m) in enumerate(zip(emissions, mask, strict=True)):
            _, labellings, scores = paths(crf, e, m)
            best = (scores == scores.max()).nonzero().flatten()
            found = (labellings == decoded[row][m]).all(1).nonzero().item()
            close(scores[found], scores.max())
            if len(best) == 1:
                assert found == best.item()


def test_decode_of_more_sentences_than_are_added_up_at_once() -> None:
    # scores of 42 x 2 x 42 a sentence: the 20 sentences come in blocks of 9, 9 and 2
    crf = make_crf(num_tags=41)
    emissions, mask = torch.randn(20, 6, 41, dtype=torch.float64), torch.ones(20, 6, dtype=torch.bool)
    mask[::3, 4:] = False
    together = crf.decode(emissions, mask)
    for row in range(20):
        assert torch.equal(together[row : row + 1], crf.decode(emissions[row : row + 1], mask[row : row + 1]))


def test_decode_among_equal_scores_gives_one_of_the_best() -> None:
    crf = make_crf()
    for parameter in crf.parameters():
        nn.init.zeros_(parameter)
    mask = torch.ones(2, 6, dtype=torch.bool)
    assert ((crf.decode(torch.zeros(2, 6, 4), mask) >= 0) & (crf.decode(torch.zeros(2, 6, 4), mask) < 4)).all()
    # Two paths tie by integers: staying at 0 or staying at 1; a mixture of them is worse.
    with torch.no_grad():
        crf.transitions.fill_(-5).fill_diagonal_(0)
    emissions = torch.zeros(1, 6, 4)
    emissions[..., 2:] = -1
    assert crf.decode(emissions, torch.ones(1, 6).bool())[0].unique().numel() == 1


@pytest.mark.parametrize("constrained", [False, True])
def test_log_marginals(constrained: bool) -> None:
    crf = make_crf(constrained)
    emissions, _, mask = make_batch()
    actual = crf.log_marginals(emissions, mask)
    assert not actual.requires_grad
    assert torch.isfinite(actual).all()
    for row, (e, m) in enumerate(zip(emissions, mask, strict=True)):
        kept, labellings, scores = paths(crf, e, m)
        weights = torch.softmax(scores, 0)
        expected = torch.full((5, 4), 0.25, dtype=torch.float64)
        for column, position in enumerate(kept):
            for tag in range(4):
                expected[position, tag] = weights[labellings[:, column] == tag].sum()
        close(actual[row].exp(), expected)
        # Logs too, down to the floor.
        close(actual[row], expected.log().clamp_min(LOG_PROBABILITY_FLOOR), 1e-8)


def test_single_tag_and_single_position() -> None:
    crf = ConditionalRandomField(1).double()
    emissions, mask = torch.randn(2, 3, 1, dtype=torch.float64), torch.tensor([[1, 1, 1], [0, 1, 0]])
    assert (crf(emissions, torch.zeros(2, 3, dtype=torch.int64), mask) < 1e-12).all()
    close(crf.log_marginals(emissions, mask), torch.zeros(2, 3, 1, dtype=torch.float64))
    crf = make_crf()
    emissions = torch.randn(2, 1, 4, dtype=torch.float64)
    expected = torch.logsumexp(emissions[:, 0] + crf.start_transitions + crf.end_transitions, 1)
    close(crf.log_partition(emissions, torch.ones(2, 1).bool()), expected.detach())


@pytest.mark.parametrize("length", [3, 4, 5, 8, 9, 31])
def test_log_partition_at_lengths_around_the_rescaling(length: int) -> None:
    crf = make_crf(True)
    emissions, mask = torch.randn(6, length, 4, dtype=torch.float64) * 3, torch.rand(6, length) < 0.7
    mask[:, 0] = True
    expected = torch.stack([log_space(crf, e, m) for e, m in zip(emissions, mask, strict=True)])
    close(crf.log_partition(emissions, mask), expected)


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("unknown", [0.0, 0.5])
def test_gradient(constrained: bool, unknown: float) -> None:
    crf = make_crf(constrained)
    emissions, tags, mask = make_batch()
    tags[torch.rand(tags.shape) < unknown] = UNKNOWN_TAG
    emissions.requires_grad_()

    def loss(emissions: Tensor, transitions: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
        replaced = {"transitions": transitions, "start_transitions": starts, "end_transitions": ends}
        result: Tensor = torch.func.functional_call(crf, replaced, (emissions, tags, mask))
        return result

    assert torch.autograd.gradcheck(
        loss, (emissions, crf.transitions, crf.start_transitions, crf.end_transitions), atol=1e-7
    )


def test_gradient_of_log_partition() -> None:
    crf = make_crf()
    emissions, _, mask = make_batch()
    assert torch.autograd.gradcheck(lambda e: crf.log_partition(e, mask), (emissions.requires_grad_(),), atol=1e-7)


def test_no_known_tag_gives_exact_zeros() -> None:
    crf = make_crf()
    emissions, tags, mask = make_batch()
    tags[:] = UNKNOWN_TAG
    emissions.requires_grad_()
    loss = crf(emissions, tags, mask)
    loss.sum().backward()
    assert torch.equal(loss, torch.zeros_like(loss))
    for gradient in [emissions.grad, *(parameter.grad for parameter in crf.parameters())]:
        assert gradient is not None
        assert not gradient.any()


def test_sentence_without_known_tag_adds_nothing_to_a_batch() -> None:
    crf = make_crf()
    emissions = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    tags, mask = torch.tensor([[0, 1, 2, 3, 0], [-100] * 5]), torch.ones(2, 5, dtype=torch.bool)
    both = torch.autograd.grad(crf(emissions, tags, mask).sum(), [emissions, *crf.parameters()])
    first = torch.autograd.grad(crf(emissions[:1], tags[:1], mask[:1]).sum(), [emissions, *crf.parameters()])
    for gradient, expected in zip(both, first, strict=True):
        close(gradient, expected)
    assert not both[0][1].any()


def test_second_derivative_is_refused() -> None:
    crf = make_crf()
    emissions, tags, mask = make_batch()
    emissions.requires_grad_()
    with pytest.raises(RuntimeError, match="differentiated once"):
        torch.autograd.grad(crf(emissions, tags, mask).sum(), emissions, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once"):
        torch.autograd.gradgradcheck(lambda e: crf(e, tags, mask), (emissions,))


def test_forbidden_scores_get_no_gradient() -> None:
    crf = make_crf(True)
    emissions, tags, mask = make_batch()
    crf(emissions, tags, mask).sum().backward()
    assert crf.transitions.grad is not None
    assert crf.start_transitions.grad is not None
    assert not crf.transitions.grad[~crf.allowed_transitions].any()
    assert not crf.start_transitions.grad[~crf.allowed_starts].any()
    assert crf.transitions.grad[crf.allowed_transitions].any()


# ---------------------------------------------------------------- large scores


def large_score_case(name: str) -> tuple[ConditionalRandomField, Tensor, Tensor]:
    length, crf = 24, make_crf(name == "constrained")
    emissions, mask = torch.randn(3, length, 4, dtype=torch.float64), torch.ones(3, length, dtype=torch.bool)
    mask[1, 10:], mask[2, ::3] = False, False
    with torch.no_grad():
        if name in ("emissions", "constrained"):
            emissions = torch.where(torch.rand(emissions.shape) < 0.5, 180.0, -180.0).double()
        elif name == "transitions":
            crf.transitions[torch.rand(4, 4) < 0.5] = -1e4
        elif name == "one way through":
            # All but a cycle is penalised, and the emissions of the third sentence insist on leaving it.
            crf.transitions.fill_(-1e4)
            crf.transitions[[0, 1, 2, 3], [1, 2, 3, 0]] = 0.0
            emissions[2, :, 0] = 180.0
        elif name == "no way through":
            crf.transitions.fill_(-1e4)[0, 0] = 0.0
            crf.start_transitions.copy_(torch.tensor([-1e4, 0.0, 0.0, 0.0]))
            crf.end_transitions.copy_(torch.tensor([-1e4, 0.0, 0.0, 0.0]))
        else:
            emissions *= 1e4
    return crf, emissions, mask


@pytest.mark.parametrize(
    "name", ["emissions", "constrained", "transitions", "one way through", "no way through", "huge emissions"]
)
def test_large_scores(name: str) -> None:
    crf, emissions, mask = large_score_case(name)
    emissions.requires_grad_()
    parameters = [emissions, crf.transitions, crf.start_transitions, crf.end_transitions]
    expected = torch.stack([log_space(crf, e, m) for e, m in zip(emissions, mask, strict=True)])
    actual = crf.log_partition(emissions, mask)
    assert ((actual - expected).abs() < 1e-5).all()
    expected_gradients = torch.autograd.grad(expected.sum(), parameters)
    for gradient, right in zip(torch.autograd.grad(actual.sum(), parameters), expected_gradients, strict=True):
        assert ((gradient - right).abs() < 1e-5).all()
    marginals = crf.log_marginals(emissions, mask)
    assert torch.isfinite(marginals).all()
    assert ((marginals.exp() - expected_gradients[0]).abs()[mask] < 1e-5).all()
    # The loss of the best path, by the score of that path, and of a part of it.
    tags = crf.decode(emissions, mask)
    for known in (tags, torch.where(torch.rand(tags.shape) < 0.5, tags, UNKNOWN_TAG)):
        loss = crf(emissions, known, mask)
        assert torch.isfinite(loss).all()
        assert (loss >= 0).all()
        if not crf.contradictory(known, mask).any():
            disagree = (known >= 0).unsqueeze(2) & (torch.arange(4) != known.unsqueeze(2))
            ruled_out = emissions.detach().masked_fill(disagree, -math.inf)
            rest = torch.stack([log_space(crf, e, m) for e, m in zip(ruled_out, mask, strict=True)])
            assert ((loss - (expected - rest)).abs() < 1e-5).all()


def test_dead_end_behind_the_end_of_a_sentence() -> None:
    """A recursion that runs on into padding, from a tag that nothing may follow, must not spoil the gradients."""
    crf = make_crf()
    for parameter in crf.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        crf.transitions[3] = -1e4
    emissions, mask = torch.zeros(1, 12, 4, dtype=torch.float64), torch.arange(12).expand(1, 12) < 3
    emissions[0, 2, 3] = 800
    crf(emissions.requires_grad_(), torch.zeros(1, 12).long(), mask).sum().backward()
    for gradient in [emissions.grad, *(parameter.grad for parameter in crf.parameters())]:
        assert gradient is not None
        assert torch.isfinite(gradient).all()
        assert gradient.any()


def test_one_position_with_no_way_through() -> None:
    crf = make_crf(num_tags=2)
    with torch.no_grad():
        crf.start_transitions.copy_(torch.tensor([0.0, -1e4]))
        crf.end_transitions.copy_(torch.tensor([-1e4, 0.0]))
    emissions = torch.tensor([[[0.0, 0.0]]], dtype=torch.float64, requires_grad=True)
    loss = crf(emissions, torch.tensor([[1]]), torch.tensor([[True]]))
    close(loss.detach(), torch.tensor([math.log(2)], dtype=torch.float64))
    close(torch.autograd.grad(loss.sum(), emissions)[0], torch.tensor([[[0.5, -0.5]]], dtype=torch.float64))


def test_log_space_is_left_alone_at_ordinary_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("went through log space")

    monkeypatch.setattr(crf_module, "_log_space_posterior", refuse)
    crf = make_crf(True)
    emissions, tags, mask = make_batch()
    crf(emissions * 5, tags, mask)
    with pytest.raises(AssertionError, match="log space"):
        crf.log_partition(*large_score_case("constrained")[1:])


def test_log_space_alone_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    crf = make_crf(True)
    emissions, tags, mask = make_batch()
    emissions.requires_grad_()
    results = []
    for _ in range(2):
        loss = crf(emissions, tags, mask)
        gradients = torch.autograd.grad(loss.sum(), [emissions, *crf.parameters()])
        results.append([loss, *gradients, crf.log_marginals(emissions, mask)])
        monkeypatch.setattr(
            crf_module, "_posterior", lambda *arguments: crf_module._log_space_posterior(*arguments[:3])
        )
    for scaled, logarithmic in zip(*results, strict=True):
        close(scaled, logarithmic)


def test_inference_mode_at_large_scores() -> None:
    crf, emissions, mask = large_score_case("no way through")
    expected = crf.log_marginals(emissions, mask)
    with torch.inference_mode():
        close(crf.log_marginals(emissions.clone(), mask.clone()), expected)
        assert torch.isfinite(crf(emissions.clone(), torch.zeros(3, 24).long(), mask.clone())).all()
        crf.decode(emissions.clone(), mask)


# ---------------------------------------------------------------- dtypes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_narrow_emissions_are_computed_in_float64(dtype: torch.dtype) -> None:
    crf = ConditionalRandomField(4)
    emissions, tags, mask = make_batch()
    tags[:2, 1] = UNKNOWN_TAG
    narrow = emissions.to(dtype).requires_grad_()
    loss = crf(narrow, tags, mask)
    exact = crf(narrow.detach().double(), tags, mask)
    assert exact.dtype == torch.float64
    assert torch.equal(loss, exact.float())
    loss.sum().backward()
    assert narrow.grad is not None
    assert narrow.grad.dtype == dtype
    assert crf.transitions.grad is not None
    assert crf.transitions.grad.dtype == torch.float32
    assert crf.log_partition(narrow, mask).dtype == torch.float32
    assert crf.log_marginals(narrow, mask).dtype == torch.float32
    assert crf.log_marginals(narrow.double(), mask).dtype == torch.float64
    assert torch.equal(crf.decode(narrow, mask), crf.decode(narrow.double(), mask))


def test_autocast_changes_nothing() -> None:
    crf = ConditionalRandomField(4)
    emissions, tags, mask = make_batch()
    expected = crf(emissions.float(), tags, mask)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(crf(emissions.float(), tags, mask), expected)


# ---------------------------------------------------------------- masks


def test_batch_equals_single_and_cut_out_sentences() -> None:
    crf = make_crf(True)
    emissions, tags, mask = make_batch()
    tags[::2, 2] = UNKNOWN_TAG
    loss, decoded, marginals = (
        crf(emissions, tags, mask),
        crf.decode(emissions, mask),
        crf.log_marginals(emissions, mask),
    )
    for row in range(len(mask)):
        one = slice(row, row + 1)
        close(crf(emissions[one], tags[one], mask[one]), loss[one])
        close(crf.log_marginals(emissions[one], mask[one]), marginals[one])
        assert torch.equal(crf.decode(emissions[one], mask[one]), decoded[one])
        kept = mask[row]
        if kept.any():
            everything = torch.ones(1, int(kept.sum()), dtype=torch.bool)
            close(crf(emissions[one, kept], tags[one, kept], everything), loss[one])
            close(crf.log_marginals(emissions[one, kept], everything)[0], marginals[row, kept])
            assert torch.equal(crf.decode(emissions[one, kept], everything)[0], decoded[row, kept])


@pytest.mark.parametrize("names", [["full"], ["full", "left padding", "first kept", "right padding", "nothing kept"]])
def test_masks_without_holes(names: list[str]) -> None:
    """Batches in which no state has to be carried over a hole go another way."""
    crf = make_crf(True)
    mask = torch.tensor([MASKS[name] for name in names]).bool()
    emissions, tags = torch.randn(*mask.shape, 4, dtype=torch.float64) * 2, torch.randint(0, 4, mask.shape)
    emissions.masked_fill_(~mask.unsqueeze(2), math.nan)
    tags[:2, 1] = UNKNOWN_TAG
    loss, partition = crf(emissions, tags, mask), crf.log_partition(emissions, mask)
    close(loss, torch.stack([oracle_loss(crf, *sentence) for sentence in zip(emissions, tags, mask, strict=True)]))
    decoded, marginals = crf.decode(emissions, mask), crf.log_marginals(emissions, mask)
    assert (decoded[~mask] == UNKNOWN_TAG).all()
    for row, kept in enumerate(mask):
        _, labellings, scores = paths(crf, emissions[row], kept)
        close(partition[row], torch.logsumexp(scores, 0))
        assert torch.equal(decoded[row][kept], labellings[scores.argmax()])
        ones = nn.functional.one_hot(labellings, 4).double()
        expected = torch.einsum("p,pnt->nt", torch.softmax(scores, 0), ones)
        close(marginals[row][kept].exp(), expected)
    # The same sentences beside one with a hole, and so with all masked positions carried over.
    hole = torch.tensor([MASKS["holes"]]).bool()
    parameters = list(crf.parameters())
    beside = crf(torch.cat([emissions, emissions[:1]]), torch.cat([tags, tags[:1]]), torch.cat([mask, hole]))[:-1]
    gradients = torch.autograd.grad(loss.sum(), parameters), torch.autograd.grad(beside.sum(), parameters)
    for gradient, expected in zip(*gradients, strict=True):
        close(gradient, expected)


def test_nothing_kept_is_exactly_zero() -> None:
    crf = make_crf(spread=5)
    emissions, mask = torch.randn(3, 40, 4), torch.zeros(3, 40).bool()
    mask[1] = True
    assert crf.log_partition(emissions, mask)[[0, 2]].tolist() == [0, 0]
    mask[1, ::2] = False
    assert crf.log_partition(emissions, mask)[[0, 2]].tolist() == [0, 0]
    assert crf(emissions, torch.zeros(3, 40).long(), mask)[[0, 2]].tolist() == [0, 0]


@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf, 1e30])
def test_masked_positions_do_not_matter(junk: float) -> None:
    crf = make_crf(True)
    emissions, tags, mask = make_batch()
    tags[::2, 2] = UNKNOWN_TAG
    spoilt = emissions.masked_fill(~mask.unsqueeze(2), junk)
    other_tags = torch.where(mask, tags, torch.tensor([7, -1, -100, 10**12, -(10**12)]))
    gradients = []
    for e, t in ((emissions, tags), (spoilt, other_tags)):
        e.requires_grad_()
        crf.zero_grad()
        crf(e, t, mask).sum().backward()
        gradients.append([e.grad, *(parameter.grad.clone() for parameter in crf.parameters())])
    for clean, dirty in zip(*gradients, strict=True):
        assert torch.equal(clean, dirty)
    assert not gradients[1][0][~mask].any()
    assert torch.equal(crf(emissions, tags, mask), crf(spoilt, other_tags, mask))
    assert torch.equal(crf.log_partition(emissions, mask), crf.log_partition(spoilt, mask))
    assert torch.equal(crf.log_marginals(emissions, mask), crf.log_marginals(spoilt, mask))
    assert torch.equal(crf.decode(emissions, mask), crf.decode(spoilt, mask))
    assert torch.equal(crf.contradictory(tags, mask), crf.contradictory(other_tags, mask))


def test_one_broken_sentence_leaves_the_others_alone() -> None:
    crf = make_crf()
    emissions, tags, mask = make_batch()
    expected = crf(emissions, tags, mask)
    emissions[0, 2] = math.nan
    loss = crf(emissions, tags, mask)
    assert loss[0].isnan()
    close(loss[1:], expected[1:])


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_integer_masks(dtype: torch.dtype) -> None:
    crf = make_crf()
    emissions, tags, mask = make_batch()
    assert torch.equal(crf(emissions, tags, mask.to(dtype)), crf(emissions, tags, mask))
    assert torch.equal(crf.decode(emissions, mask.to(dtype)), crf.decode(emissions, mask))


def test_results_repeat_exactly() -> None:
    crf = make_crf(True)
    emissions, tags, mask = make_batch()
    emissions.requires_grad_()
    first, second = (
        [loss, *torch.autograd.grad(loss.sum(), [emissions, *crf.parameters()]), crf.log_marginals(emissions, mask)]
        for loss in (crf(emissions, tags, mask), crf(emissions, tags, mask))
    )
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


def test_inputs_are_not_changed() -> None:
    crf = make_crf(True)
    batch = make_batch()
    copies = [tensor.clone() for tensor in batch]
    emissions, tags, mask = batch
    crf(emissions, tags, mask)
    crf.log_marginals(emissions, mask)
    crf.decode(emissions, mask)
    for tensor, copy in zip(batch, copies, strict=True):
        assert torch.equal(tensor, copy)


def test_empty_batch() -> None:
    crf = make_crf()
    emissions, tags, mask = torch.zeros(0, 5, 4), torch.zeros(0, 5).long(), torch.zeros(0, 5).bool()
    assert crf(emissions, tags, mask).shape == (0,)
    assert crf.decode(emissions, mask).shape == (0, 5)
    assert crf.log_marginals(emissions, mask).shape == (0, 5, 4)


def test_way_without_reading_values_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices other than the CPU get both partition functions of all sentences, and no check of tags."""
    crf = make_crf(True)
    emissions, tags, mask = make_batch()
    tags[::2, 2] = UNKNOWN_TAG
    emissions.requires_grad_()
    results = []
    for _ in range(2):
        loss = crf(emissions, tags, mask)
        results.append([loss, *torch.autograd.grad(loss.sum(), [emissions, *crf.parameters()])])
        monkeypatch.setattr(crf_module, "_is_cheap_to_read", lambda _: False)
    for reading, blind in zip(*results, strict=True):
        close(reading, blind)
    out_of_range = tags.masked_fill(tags == 3, 4)
    assert torch.equal(crf(emissions, out_of_range, mask), crf(emissions, tags.masked_fill(tags == 3, -100), mask))


# ---------------------------------------------------------------- constraints


def test_bio_constraints() -> None:
    names = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC", 5: "I-MISC", 6: "X"}
    transitions, starts = bio_constraints(names)
    for previous, following in itertools.product(names, names):
        expected = following not in (2, 4) or names[previous] in (f"B-{names[following][2:]}", names[following])
        assert transitions[previous, following] == expected, (names[previous], names[following])
    assert starts.tolist() == [True, True, False, True, False, True, True]


def test_decoded_paths_are_legal_and_marginals_of_illegal_tags_vanish() -> None:
    crf = make_crf(True)
    emissions, mask = torch.randn(50, 9, 4) * 4, torch.rand(50, 9) < 0.8
    emissions[..., 2] += 6  # I-PER would win nearly everywhere
    decoded = crf.decode(emissions, mask)
    assert not crf.contradictory(decoded, mask).any()
    assert (decoded == 2).any()
    marginals = crf.log_marginals(emissions, mask)
    for row in range(50):
        kept = mask[row].nonzero().flatten()
        if len(kept):
            assert marginals[row, kept[0], 2] == LOG_PROBABILITY_FLOOR


@pytest.mark.parametrize(
    ("tags", "kept", "expected"),
    [
        ([0, 2, 2, 0], [1, 1, 1, 1], [0, 1, 0, 0]),  # after O; its right neighbour is judged by it as it stands
        ([2, 2, 0, 1], [1, 1, 1, 1], [1, 0, 0, 0]),  # at the start
        ([-100, 2, 0, 2], [1, 1, 1, 1], [0, 0, 0, 1]),  # after an unknown tag anything may be right
        ([1, 0, 2, 0], [1, 0, 1, 1], [0, 0, 0, 0]),  # the masked O does not part them
        ([0, 1, 2, 0], [1, 0, 1, 1], [0, 0, 1, 0]),  # the masked B-PER does not join them
        ([0, 1, 2, 2], [0, 0, 1, 1], [0, 0, 1, 0]),  # the first kept one is the start
        ([3, 2, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0]),  # another type
        ([2, 2, 2, 2], [0, 0, 0, 0], [0, 0, 0, 0]),
    ],
)
def test_contradictory(tags: list[int], kept: list[int], expected: list[int]) -> None:
    crf = make_crf(True)
    tag_row, mask = torch.tensor([tags]), torch.tensor([kept])
    assert crf.contradictory(tag_row, mask).int().tolist() == [expected]
    emissions = torch.randn(1, 4, 4, dtype=torch.float64)
    loss = crf(emissions, tag_row, mask)
    assert loss.item() < 100
    without = tag_row.masked_fill(torch.tensor([expected]).bool(), UNKNOWN_TAG)
    close(loss, crf(emissions, without, mask))
    close(loss[0], oracle_loss(crf, emissions[0], tag_row[0], mask[0].bool()))


def test_nothing_is_contradictory_without_constraints() -> None:
    _, tags, mask = make_batch()
    assert not make_crf().contradictory(tags, mask).any()
