"""The CRF against the enumeration of all labellings, and against log-space recursions where scores are large."""

import math

import pytest
import torch
from crf_oracle import close, log_space, make_batch, make_crf, oracle_loss, paths
from torch import Tensor, nn

from bga_mner.modeling_bga.crf import crf as crf_module
from bga_mner.modeling_bga.crf import recursions as crf_recursions
from bga_mner.modeling_bga.crf.crf import LOG_PROBABILITY_FLOOR, UNKNOWN_TAG, ConditionalRandomField


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

    monkeypatch.setattr(crf_recursions, "log_space_posterior", refuse)
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
            crf_module, "posterior", lambda *arguments: crf_recursions.log_space_posterior(*arguments[:3])
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
