import random

import numpy as np
import pytest
from seqeval.scheme import IOB2, Entities

from bga_mner.processing.evaluation.bootstrap import bootstrap_interval, count_entities, paired_bootstrap
from bga_mner.processing.evaluation.mner_metric import pair_sentences, score_tags


# Tags are sampled at random, so that entities of the references begin with "I-", too.
pytestmark = pytest.mark.filterwarnings("ignore:.*entities of the references begin with 'I-'")

TAGS = ["O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG"]


def random_tags(rng, lengths, unknown=0.0):
    """Any tags, also ill-formed ones."""
    return [[None if rng.random() < unknown else rng.choice(TAGS) for _ in range(length)] for length in lengths]


def noisy(rng, sentences, noise):
    return [[rng.choice(TAGS) if tag is None or rng.random() < noise else tag for tag in tags] for tags in sentences]


@pytest.mark.parametrize("seed", range(40))
def test_f1_is_that_of_score_tags(seed):
    rng = random.Random(seed)
    # what has no "B-" at all is refused as IOB1
    references = [["B-LOC"], *random_tags(rng, [rng.randrange(7) for _ in range(rng.randrange(1, 6))], unknown=0.1)]
    predictions = [["B-PER"], *noisy(rng, references[1:], rng.choice([0.2, 0.6, 1.0]))]
    scores = score_tags(predictions, references)
    found = bootstrap_interval(predictions, references, samples=3)
    assert found["f1"] == scores["overall_f1"]
    assert set(found["types"]) == {name for name in scores if not name.startswith("overall_")}
    for kind, values in found["types"].items():
        assert (values["f1"], values["number"]) == (scores[kind]["f1"], scores[kind]["number"])
    other = [["B-LOC"], *noisy(rng, references[1:], 0.5)]
    difference = paired_bootstrap(predictions, other, references, samples=3)["difference"]
    assert difference == scores["overall_f1"] - score_tags(other, references)["overall_f1"]


def test_counts_are_those_of_seqeval():
    rng = random.Random(0)
    lengths = [rng.randrange(12) for _ in range(200)]
    predictions, references = random_tags(rng, lengths), random_tags(rng, lengths)
    types, counts = count_entities(predictions, references)
    assert types == ["LOC", "ORG", "PER"]
    predicted, expected = (Entities(tags, IOB2).entities for tags in (predictions, references))
    for row in range(len(lengths)):
        for column, kind in enumerate(types):
            ours, theirs = (
                {span.to_tuple() for span in part[row] if span.tag == kind} for part in (predicted, expected)
            )
            assert counts[row, column].tolist() == [len(ours & theirs), len(ours), len(theirs)]


def test_every_sample_is_the_score_of_its_sentences():
    rng = random.Random(1)
    references = random_tags(rng, [5] * 8)
    predictions = noisy(rng, references, 0.4)
    generator = np.random.default_rng(7)
    sampled = [generator.integers(8, size=8) for _ in range(50)]
    scores = [
        score_tags([predictions[i] for i in rows], [references[i] for i in rows])["overall_f1"] for rows in sampled
    ]
    found = bootstrap_interval(predictions, references, samples=50, confidence=0.8, seed=7)
    assert [found["low"], found["high"]] == pytest.approx(np.quantile(scores, [0.1, 0.9]))


def test_the_interval_covers_the_true_score_about_as_often_as_it_says():
    rng = random.Random(2)
    covered = 0
    for seed in range(200):
        references = [["B-PER"]] * 100
        # precision 1, recall 0.5: F1 is 2/3
        predictions = [["B-PER"] if rng.random() < 0.5 else ["O"] for _ in references]
        found = bootstrap_interval(predictions, references, samples=200, confidence=0.9, seed=seed)
        covered += found["low"] <= 2 / 3 <= found["high"]
    assert 0.84 <= covered / 200 <= 0.96


def test_intervals_shrink_with_sentences_and_grow_with_confidence():
    rng = random.Random(3)
    references = random_tags(rng, [6] * 50)
    predictions = noisy(rng, references, 0.3)

    def width(times=1, confidence=0.95):
        found = bootstrap_interval(predictions * times, references * times, confidence=confidence)
        return found["high"] - found["low"]

    assert width(9) == pytest.approx(width() / 3, rel=0.15)
    assert width(confidence=0.5) < width(confidence=0.9) < width(confidence=0.99)


def test_pairing_sees_small_differences_that_single_intervals_hide():
    rng = random.Random(4)
    references = random_tags(rng, [6] * 300)
    worse = noisy(rng, references, 0.3)
    better = [list(tags) for tags in worse]
    for row in range(0, 300, 12):
        better[row] = references[row]
    one, other = bootstrap_interval(better, references), bootstrap_interval(worse, references)
    assert one["low"] < other["high"]
    found = paired_bootstrap(better, worse, references, samples=999)
    assert found["p"] == 0.001
    assert 0 < found["low"] < found["difference"] < found["high"]
    turned = paired_bootstrap(worse, better, references, samples=999)
    assert turned["p"] == 0.001
    assert (turned["low"], turned["high"]) == pytest.approx((-found["high"], -found["low"]))


def test_p_is_the_share_of_samples_that_flip():
    rng = random.Random(5)
    references = random_tags(rng, [4] * 12)
    a, b = noisy(rng, references, 0.3), noisy(rng, references, 0.35)
    generator = np.random.default_rng(0)
    flips = 0
    sign = np.sign(score_tags(a, references)["overall_f1"] - score_tags(b, references)["overall_f1"])
    assert sign
    for _ in range(200):
        rows = generator.integers(12, size=12)
        ours, theirs = (
            score_tags([tags[i] for i in rows], [references[i] for i in rows])["overall_f1"] for tags in (a, b)
        )
        flips += sign * (ours - theirs) <= 0
    assert 0 < flips < 200
    assert paired_bootstrap(a, b, references, samples=200)["p"] == (flips + 1) / 201
    assert paired_bootstrap(a, a, references, samples=200) == {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}


def test_the_seed_decides():
    rng = random.Random(6)
    references = random_tags(rng, [5] * 30)
    predictions = noisy(rng, references, 0.4)
    first = bootstrap_interval(predictions, references, seed=1)
    assert first == bootstrap_interval(iter(predictions), iter(references), seed=1)
    assert first != bootstrap_interval(predictions, references, seed=2)


@pytest.mark.parametrize(
    ("predictions", "references"), [([["O"]], []), ([["O"], ["O"]], [["O"], ["O", None]]), ([["O"]], [[]])]
)
def test_what_cannot_be_compared_is_refused_everywhere_in_the_same_words(predictions, references):
    messages = set()
    for function in (pair_sentences, count_entities, score_tags):
        with pytest.raises(ValueError, match=r"Expected .*, got .*") as error:
            function(iter(predictions), iter(references))
        messages.add(str(error.value))
    assert len(messages) == 1


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="1 and 2 sentences"):
        bootstrap_interval([["O"]], [["O"], ["O"]])
    with pytest.raises(ValueError, match="got 2 for 1 words in sentence 0"):
        paired_bootstrap([["O"]], [["O", "O"]], [["O"]])
    with pytest.raises(ValueError, match="at least one sentence"):
        bootstrap_interval([], [])
    with pytest.raises(ValueError, match="at least one sample, got 0"):
        bootstrap_interval([["O"]], [["O"]], samples=0)
    for confidence in (0, 1, 95):
        with pytest.raises(ValueError, match="confidence between 0 and 1"):
            paired_bootstrap([["O"]], [["O"]], [["O"]], confidence=confidence)
