"""Span probabilities against all paths of tags, read as `spans_from_tags` reads them."""

import itertools

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from bga_mner import spans_from_tags
from bga_mner.modeling_bga.crf import span_probabilities
from bga_mner.modeling_bga.crf.crf import ConditionalRandomField, bio_constraints
from bga_mner.modeling_bga.crf.span_probabilities import CrfScores, Span, span_log_probabilities


SCHEMES = {
    "BIO": ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
    "IO": ["O", "I-PER", "I-LOC"],
    "a type of single words": ["O", "B-PER", "I-PER", "B-LOC"],
}
# which positions the CRF runs over, and which of them begin words
LAYOUTS = {
    "words": ([1, 1, 1, 1, 1], [1, 1, 1, 1, 1]),
    "special tokens and pieces": ([1, 1, 1, 1, 1], [0, 1, 0, 1, 0]),
    "right padding": ([1, 1, 1, 1, 0], [0, 1, 1, 1, 1]),
    "left padding": ([0, 1, 1, 1, 1], [0, 0, 1, 0, 1]),
    "holes": ([1, 1, 0, 1, 1], [1, 1, 0, 0, 1]),
    "holes that are read": ([1, 0, 1, 0, 1], [1, 1, 1, 1, 1]),
    "one word": ([0, 1, 1, 1, 0], [0, 0, 1, 0, 0]),
}
MASK = np.array([mask for mask, _ in LAYOUTS.values()], dtype=bool)
READ = np.array([read for _, read in LAYOUTS.values()], dtype=bool)


def make_crf(labels, constrained, spread=1.5):
    torch.manual_seed(0)
    crf = ConditionalRandomField(len(labels), *(bio_constraints(dict(enumerate(labels))) if constrained else ()))
    for parameter in crf.double().parameters():
        torch.nn.init.normal_(parameter, std=spread)
    return crf


def all_spans():
    """Every span of every sentence: positions (first, behind) that hold each run of its words."""
    for row, read in enumerate(READ & MASK):
        places = read.nonzero()[0].tolist()
        for one, two in itertools.combinations_with_replacement(places, 2):
            yield row, one, two + 1


def by_enumeration(emissions, mask, read, labels, scores):
    """Probability of each (type, first, behind) of one sentence, one path after the other."""
    kept = mask.nonzero()[0].tolist()
    words = [place for place in kept if read[place]]
    read_as, path_scores = [], []
    for path in itertools.product(range(len(labels)), repeat=len(kept)):
        score = scores.starts[path[0]] + scores.ends[path[-1]]
        score += sum(emissions[place, tag] for place, tag in zip(kept, path, strict=True))
        score += sum(scores.transitions[pair] for pair in itertools.pairwise(path))
        path_scores.append(score)
        tags = dict(zip(kept, path, strict=True))
        spans = spans_from_tags(labels[tags[place]] for place in words)
        read_as.append([(label, words[first], words[behind - 1] + 1) for label, first, behind in spans])
    found = {}
    for spans, weight in zip(read_as, np.exp(path_scores - logsumexp(path_scores)), strict=True):
        for span in spans:
            found[span] = found.get(span, 0.0) + weight
    return found


def check_all_spans(emissions, labels, scores):
    """Compare every span of every sentence and type with the enumeration; return the spans and what was found."""
    spans = [Span(row, label, first, behind) for row, first, behind in all_spans() for label in ("PER", "LOC")]
    found = np.exp(span_log_probabilities(emissions, MASK, READ, spans, labels, scores))
    expected = [by_enumeration(emissions[row], MASK[row], READ[row], labels, scores) for row in range(len(MASK))]
    for span, probability in zip(spans, found, strict=True):
        assert probability == pytest.approx(expected[span.sentence].get(span[1:], 0.0), abs=1e-9)
    return spans, found


@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_equals_the_sum_over_all_paths(scheme, constrained):
    labels = SCHEMES[scheme]
    scores = make_crf(labels, constrained).numpy_scores()
    emissions = 2 * np.random.default_rng(0).standard_normal((*MASK.shape, len(labels)))
    emissions[~MASK] = np.nan
    spans, found = check_all_spans(emissions, labels, scores)
    assert len(spans) == 80
    # alone as in a batch
    number = next(number for number, span in enumerate(spans) if span.sentence == 3)
    alone = [part[3:4] for part in (emissions, MASK, READ)]
    of_one = span_log_probabilities(*alone, [Span(0, *spans[number][1:])], labels, scores)
    assert np.exp(of_one) == pytest.approx(found[number], abs=1e-12)


def test_where_a_span_ends_inside_its_last_word_says_nothing():
    labels = SCHEMES["BIO"]
    scores = make_crf(labels, True).numpy_scores()
    emissions = np.random.default_rng(0).standard_normal((1, 5, 5))
    mask, read = np.ones((1, 5), dtype=bool), np.array([[0, 1, 0, 0, 1]], dtype=bool)
    spans = [Span(0, "PER", 1, behind) for behind in (2, 3, 4, 5)]
    found = span_log_probabilities(emissions, mask, read, spans, labels, scores)
    assert found[0] == found[1] == found[2]
    assert found[3] != found[2]


def test_what_excludes_each_other_adds_up_to_at_most_one():
    labels = SCHEMES["BIO"]
    for seed in range(5):
        scores = make_crf(labels, True).numpy_scores()
        emissions = 3 * np.random.default_rng(seed).standard_normal((*MASK.shape, 5))
        for row, place in zip(*(READ & MASK).nonzero(), strict=True):
            holding = [
                Span(row, label, first, behind)
                for sentence, first, behind in all_spans()
                for label in ("PER", "LOC")
                if sentence == row and first <= place < behind
            ]
            found = np.exp(span_log_probabilities(emissions, MASK, READ, holding, labels, scores))
            assert found.sum() <= 1 + 1e-12
            # and to all that isn't "O"
            if row == 0:
                crf = make_crf(labels, True)
                outside = crf.log_marginals(torch.from_numpy(emissions[:1]), torch.from_numpy(MASK[:1]))[0, place, 0]
                assert found.sum() == pytest.approx(1 - outside.exp().item(), abs=1e-9)


def test_grows_with_the_emissions_of_its_tags():
    labels = SCHEMES["BIO"]
    scores = make_crf(labels, True).numpy_scores()
    emissions = np.random.default_rng(0).standard_normal((1, 5, 5))
    mask = np.ones((1, 5), dtype=bool)
    span = [Span(0, "PER", 1, 4)]
    before = span_log_probabilities(emissions, mask, mask, span, labels, scores)
    for place, tag in ((1, 1), (2, 2), (3, 2)):
        raised = emissions.copy()
        raised[0, place, tag] += 0.5
        assert span_log_probabilities(raised, mask, mask, span, labels, scores) > before
    # what would make it longer lowers it
    raised = emissions.copy()
    raised[0, 4, 2] += 0.5
    assert span_log_probabilities(raised, mask, mask, span, labels, scores) < before


@pytest.mark.parametrize("size", [1e4, 1e8])
def test_extreme_scores(size):
    labels = SCHEMES["BIO"]
    scores = make_crf(labels, True, spread=size).numpy_scores()
    emissions = size * np.random.default_rng(0).standard_normal((*MASK.shape, 5))
    spans = [Span(row, label, first, behind) for row, first, behind in all_spans() for label in ("PER", "LOC")]
    found = span_log_probabilities(emissions, MASK, READ, spans, labels, scores)
    assert np.isfinite(found).all()
    assert (found <= 0).all()
    crf = make_crf(labels, True, spread=size)
    path = crf.decode(torch.from_numpy(emissions), torch.from_numpy(MASK))[0]
    best = spans_from_tags(labels[tag] for tag in path)
    assert best
    sure = span_log_probabilities(emissions, MASK, READ, [Span(0, *span) for span in best], labels, scores)
    assert np.exp(sure) == pytest.approx(1)


def test_without_a_crf_tags_are_independent():
    labels = SCHEMES["BIO"]
    probabilities = np.random.default_rng(0).dirichlet(np.ones(5), size=(1, 3))
    mask = np.ones((1, 3), dtype=bool)
    (found,) = np.exp(
        span_log_probabilities(
            np.log(probabilities), mask, mask, [Span(0, "PER", 1, 2)], labels, CrfScores.independent(5)
        )
    )
    p = probabilities[0]
    assert found == pytest.approx((p[1, 1] + (1 - p[0, 1] - p[0, 2]) * p[1, 2]) * (1 - p[2, 2]))


def test_says_what_to_mend():
    labels = SCHEMES["BIO"]
    inputs = np.zeros((1, 3, 5)), np.array([[1, 1, 0]], dtype=bool), np.array([[0, 1, 1]], dtype=bool)
    scores = CrfScores.independent(5)
    assert span_log_probabilities(*inputs, [], labels, scores).shape == (0,)
    with pytest.raises(ValueError, match="'B-PER' with the tags"):
        span_log_probabilities(*inputs, [Span(0, "B-PER", 1, 2)], labels, scores)
    for span in (Span(0, "PER", 0, 2), Span(0, "PER", 2, 3), Span(1, "PER", 1, 2), Span(0, "PER", 1, 4)):
        with pytest.raises(ValueError, match="begin at a position that is read"):
            span_log_probabilities(*inputs, [span], labels, scores)


@pytest.mark.parametrize("lowest", [-np.inf, -30_000.0])
@pytest.mark.parametrize("only", ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", None])
def test_emissions_that_leave_what_constraints_forbid_alone(only, lowest):
    """In every other row positions may have one tag, whatever stands beside them; or all but one."""
    labels = SCHEMES["BIO"]
    scores = make_crf(labels, True).numpy_scores()
    emissions = np.random.default_rng(0).standard_normal((*MASK.shape, 5))
    left = [labels.index(only)] if only else [0, 1, 2, 3]
    emissions[::2, 1:4, [tag for tag in range(5) if tag not in left]] = lowest
    check_all_spans(emissions, labels, scores)


@pytest.mark.parametrize("part", ["transitions", "starts", "ends"])
def test_scores_that_are_all_as_of_what_is_forbidden(part):
    labels = SCHEMES["BIO"]
    scores = make_crf(labels, False).numpy_scores()
    scores = scores._replace(**{part: getattr(scores, part) - 6000})
    emissions = np.random.default_rng(0).standard_normal((*MASK.shape, 5))
    check_all_spans(emissions, labels, scores)


@pytest.mark.parametrize("spread", [1, 30, 200, 1000])
@pytest.mark.parametrize("constrained", [False, True])
def test_products_of_exponentials_change_nothing(monkeypatch, spread, constrained):
    """Against sums of logarithms throughout, for scores around the limits of either way."""
    labels = SCHEMES["BIO"]
    scores = make_crf(labels, constrained, spread=spread / 5).numpy_scores()
    emissions = spread * np.random.default_rng(0).standard_normal((*MASK.shape, 5))
    spans = [Span(row, label, first, behind) for row, first, behind in all_spans() for label in ("PER", "LOC")]
    found = span_log_probabilities(emissions, MASK, READ, spans, labels, scores)
    monkeypatch.setattr(span_probabilities, "_are_tame", lambda _, mask, __: np.zeros(len(mask), dtype=bool))
    slow = span_log_probabilities(emissions, MASK, READ, spans, labels, scores)
    assert np.isfinite(slow).any()
    np.testing.assert_allclose(found, slow, rtol=1e-12, atol=1e-9 * spread)
