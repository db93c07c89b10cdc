"""What holds of a CRF for any scores, labels and masks, beyond what test_crf.py computes by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from bga_mner import ConditionalRandomField
from bga_mner.modeling_bga.crf.crf import UNKNOWN_TAG, bio_constraints


LABELS = ["O", "B-X", "I-X", "B-Y", "I-Y"]
TAGS = len(LABELS)


@st.composite
def sentences(draw):
    """Emissions (B, L, T), labels and mask (B, L): any."""
    shape = draw(array_shapes(min_dims=2, max_dims=2, max_side=6))
    scores = st.one_of(st.floats(-9, 9), st.sampled_from([0.0, 1e4, -1e4, 700.0]))
    emissions = torch.from_numpy(draw(arrays("float64", (*shape, TAGS), elements=scores)))
    labels = torch.from_numpy(draw(arrays("int64", shape, elements=st.sampled_from([UNKNOWN_TAG, *range(TAGS)]))))
    return emissions, labels, torch.from_numpy(draw(arrays("bool", shape)))


def make_crf(constrained):
    torch.manual_seed(3)
    crf = ConditionalRandomField(TAGS, *(bio_constraints(dict(enumerate(LABELS))) if constrained else ()))
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter)
    return crf


def path_score(crf, emissions, path):
    moves, starts, ends = (torch.from_numpy(part) for part in crf.numpy_scores())
    if not len(path):
        return torch.tensor(0.0)
    inside = emissions[torch.arange(len(path)), path].sum() + moves[path[:-1], path[1:]].sum()
    return inside + starts[path[0]] + ends[path[-1]]


@given(sentences(), st.booleans(), st.randoms(use_true_random=False))
def test_the_best_path_is_better_than_others_and_no_likelihood_is_above_one(batch, constrained, rng):
    emissions, labels, mask = batch
    crf = make_crf(constrained)
    loss, log_partition = crf(emissions, labels, mask), crf.log_partition(emissions, mask)
    assert (loss >= 0).all()
    paths = crf.decode(emissions, mask)
    for row, kept in enumerate(mask):
        best = path_score(crf, emissions[row, kept], paths[row, kept])
        assert best <= log_partition[row] + 1e-9 * max(1.0, abs(best))
        for _ in range(5):
            other = torch.tensor([rng.randrange(TAGS) for _ in range(int(kept.sum()))], dtype=torch.long)
            assert best >= path_score(crf, emissions[row, kept], other) - 1e-9 * max(1.0, abs(best))


@given(sentences(), st.floats(-50, 50))
def test_a_constant_added_to_a_position_changes_nothing_but_the_partition(batch, constant):
    emissions, labels, mask = batch
    crf = make_crf(True)
    shifted = emissions + constant
    torch.testing.assert_close(crf(shifted, labels, mask), crf(emissions, labels, mask), rtol=1e-6, atol=1e-6)
    moved = crf.log_partition(emissions, mask) + constant * mask.double().sum(1)
    torch.testing.assert_close(crf.log_partition(shifted, mask), moved, rtol=1e-9, atol=1e-6)


@given(sentences(), st.integers(0, 3), st.sampled_from([0.0, 1e30, float("nan"), float("inf")]))
def test_padding_on_either_side_changes_nothing(batch, count, junk):
    emissions, labels, mask = batch
    crf = make_crf(True)
    padded = torch.nn.functional.pad(emissions, (0, 0, count, 2), value=junk)
    more = torch.nn.functional.pad(labels, (count, 2), value=7), torch.nn.functional.pad(mask, (count, 2))
    torch.testing.assert_close(crf(padded, *more), crf(emissions, labels, mask), rtol=1e-9, atol=1e-9)
    own = slice(count, count + mask.shape[1])
    marginals = crf.log_marginals(padded, more[1])[:, own]
    torch.testing.assert_close(marginals, crf.log_marginals(emissions, mask), rtol=1e-6, atol=1e-6)


@given(sentences())
def test_what_is_known_of_more_positions_is_less_likely(batch):
    emissions, labels, mask = batch
    crf = make_crf(False)
    fewer = labels.clone()
    fewer[:, ::2] = UNKNOWN_TAG
    assert (crf(emissions, fewer, mask) <= crf(emissions, labels, mask) * (1 + 1e-9) + 1e-6).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e38])
@pytest.mark.parametrize("where", ["emissions", "transitions", "start_transitions"])
def test_whatever_the_scores_a_tag_is_a_tag(value, where):
    crf = make_crf(True)
    emissions, mask = torch.randn(2, 5, TAGS), torch.ones(2, 5, dtype=torch.bool)
    mask[1, 3:] = False
    if where == "emissions":
        emissions[0, 2] = value
    else:
        with torch.no_grad():
            getattr(crf, where).fill_(value)
    paths = crf.decode(emissions, mask)
    assert ((paths >= 0) & (paths < TAGS)).equal(mask)
