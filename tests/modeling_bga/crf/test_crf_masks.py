"""Masks, broken scores and constraints of the CRF."""

import itertools
import math

import pytest
import torch
from crf_oracle import MASKS, close, make_batch, make_crf, oracle_loss, paths
from torch import nn

from bga_mner.modeling_bga.crf import crf as crf_module
from bga_mner.modeling_bga.crf import recursions as crf_recursions
from bga_mner.modeling_bga.crf.crf import LOG_PROBABILITY_FLOOR, UNKNOWN_TAG, bio_constraints


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
        for module in (crf_module, crf_recursions):
            monkeypatch.setattr(module, "is_cheap_to_read", lambda _: False)
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
