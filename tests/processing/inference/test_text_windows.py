import itertools
import random

import numpy as np
import pytest

from bga_mner.modeling_bga.crf.span_probabilities import CrfScores, Span, span_log_probabilities
from bga_mner.processing.inference import text_windows
from bga_mner.processing.inference.text_windows import (
    EntityScorer,
    TaggedWindow,
    Window,
    WindowScores,
    _ranges,
    check_finite,
    join_tags,
    make_batches,
    part_with_most_context,
    spans_from_tag_ids,
    tag_windows,
    tokens_at_once,
)
from bga_mner.processing.tags.tag_scheme import spans_from_tags
from bga_mner.processing.text.text_input import SplitText
from bga_mner.processing.text.word_reader import WordReader


LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
TAGS = ["O", "B-PER", "I-PER", "O", "B-LOC", "O"]


def probabilities(emissions, mask, read, spans):
    return np.exp(span_log_probabilities(emissions, mask, read, spans, LABELS, CrfScores.independent(5)))


def emissions_of(length, seed):
    return 2 * np.random.default_rng(seed).standard_normal((length, len(LABELS)))


def score(windows, emissions, tags, side="right"):
    """Score one text; windows have a special token at either end, and are padded to one length."""
    length = max(map(len, emissions)) + 3
    padded, mask = np.full((len(windows), length, len(LABELS)), np.nan), np.zeros((len(windows), length), dtype=bool)
    best = np.full((len(windows), length), -100)
    for row, (window, part) in enumerate(zip(windows, emissions, strict=True)):
        place = slice(len(part)) if side == "right" else slice(length - len(part), None)
        padded[row, place], mask[row, place], best[row, place] = part, True, 0
        best[row, place][window.first_tokens] = [LABELS.index(tag) for tag in tags[window.start : window.end]]
    tagged = [part for part, _ in tag_windows(windows, WindowScores(padded, best, mask), LABELS)]
    assert join_tags(tagged) == tags
    scores = []
    scorer = EntityScorer(probabilities)
    for span in spans_from_tags(tags):
        scorer.add(*part_with_most_context(tagged, span), scores)
    scorer.finish()
    return scores


def make_window(start, end, pieces=1):
    count = (end - start) * pieces
    return Window(0, start, end, 6, np.zeros(count + 2, int), np.arange(1, count + 1, pieces))


def test_ranges_cover_every_word_and_always_move_on():
    rng = random.Random(0)
    for _ in range(300):
        room = rng.randrange(1, 12)
        lengths = [rng.randrange(1, room + 1) for _ in range(rng.randrange(30))]
        ranges = list(_ranges(lengths, room, rng.randrange(room)))
        assert {word for start, end in ranges for word in range(start, end)} == set(range(len(lengths)))
        assert all(sum(lengths[start:end]) <= room for start, end in ranges)
        assert all(one[0] < two[0] and one[1] < two[1] for one, two in itertools.pairwise(ranges))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pieces", [1, 2])
def test_a_text_in_one_window(side, pieces):
    emissions = emissions_of(6 * pieces + 2, 0)
    found = score([make_window(0, 6, pieces)], [emissions], TAGS, side)
    read = np.zeros((1, len(emissions)), dtype=bool)
    read[0, 1:-1:pieces] = True
    spans = [Span(0, "PER", 1 + pieces, 1 + 3 * pieces), Span(0, "LOC", 1 + 4 * pieces, 1 + 5 * pieces)]
    assert found == pytest.approx(probabilities(emissions[None], np.ones_like(read), read, spans).tolist())
    text = SplitText.from_words(["w"] * 6, WordReader())
    assert [(entity.label, entity.score) for entity in text.entities(spans_from_tags(TAGS), found)] == list(
        zip(("PER", "LOC"), found, strict=True)
    )


def in_window(emissions, span):
    """Probability in one window of words with one piece each; places are those of its words."""
    label, first, behind = span
    read = np.ones((1, len(emissions)), dtype=bool)
    read[0, [0, -1]] = False
    return probabilities(emissions[None], np.ones_like(read), read, [Span(0, label, 1 + first, 1 + behind)])[0]


def test_an_entity_is_scored_where_it_has_most_context():
    first, second = emissions_of(6, 1), emissions_of(5, 2)
    windows = [make_window(0, 4), make_window(3, 6)]
    # PER at words 1 and 2 is whole in the first only; LOC at word 4 in the second only
    assert score(windows, [first, second], TAGS) == pytest.approx(
        [in_window(first, ("PER", 1, 3)), in_window(second, ("LOC", 1, 2))]
    )
    # both hold words 2 and 4, one of them at its edge
    wide = [emissions_of(7, 3), emissions_of(6, 4)]
    windows = [make_window(0, 5), make_window(2, 6)]
    (found,) = score(windows, wide, ["O", "O", "B-PER", "O", "O", "O"])
    assert found == pytest.approx(in_window(wide[0], ("PER", 2, 3)))
    (found,) = score(windows, wide, ["O", "O", "O", "O", "B-PER", "O"])
    assert found == pytest.approx(in_window(wide[1], ("PER", 2, 3)))


def test_an_entity_that_no_window_holds_is_scored_by_its_larger_part():
    parts = [emissions_of(5, 5), emissions_of(6, 6)]
    windows = [make_window(0, 3), make_window(2, 6)]
    (found,) = score(windows, parts, ["O", "B-PER", "I-PER", "I-PER", "I-PER", "O"])
    assert found == pytest.approx(in_window(parts[1], ("PER", 0, 3)))


@pytest.mark.parametrize(
    ("limits", "expected_shapes"),
    [
        ({}, [(7, 8)]),
        ({"_WINDOWS_AT_ONCE": 3}, [(3, 8), (3, 8), (1, 8)]),
        ({"_TOKENS_AT_ONCE": 23}, [(2, 8), (2, 8), (2, 5), (1, 8)]),
        ({"_TOKENS_AT_ONCE": 1}, [(1, 8), (1, 6), (1, 7), (1, 8), (1, 4), (1, 5), (1, 8)]),  # longer than is allowed
    ],
    ids=str,
)
def test_entities_are_scored_at_once_and_as_if_alone(monkeypatch, limits, expected_shapes):
    """Windows of different lengths, more of them than are scored at once."""
    for name, value in limits.items():
        monkeypatch.setattr(text_windows, name, value)
    shapes = []

    def noted(emissions, *inputs):
        shapes.append(emissions.shape[:2])
        return probabilities(emissions, *inputs)

    lengths, found, expected = [6, 4, 5, 6, 2, 3, 6], [], []
    scorer = EntityScorer(noted)
    for number, length in enumerate(lengths):
        window = Window(number, 0, length, length, np.zeros(length + 2, int), np.arange(1, length + 1))
        spans = [("PER", 0, 2)] + [("LOC", 3, 4)] * (length > 3)
        emissions = emissions_of(length + 2, number)
        scores = []
        scorer.add(TaggedWindow(window, [], emissions), spans, scores)
        scorer.add(TaggedWindow(window, [], None), [], scores)  # a window without entities
        found.append(scores)
        expected.append([in_window(emissions, span) for span in spans])
    assert found[6] == []  # the last one waits
    scorer.finish()
    assert shapes == expected_shapes
    assert found == [pytest.approx(scores) for scores in expected]


def test_spans_of_many_texts_are_those_of_each():
    rng = random.Random(0)
    labels = ["I-LOC", "O", "B-PER", "I-PER", "B-LOC", "B-A"]  # in any order, and without some
    for _ in range(500):
        texts = [[rng.randrange(len(labels)) for _ in range(rng.randrange(6))] for _ in range(rng.randrange(5))]
        expected, first = [], 0
        for tags in texts:
            spans = spans_from_tags([labels[tag] for tag in tags])
            expected += [(label, first + start, first + end) for label, start, end in spans]
            first += len(tags)
        owners = np.repeat(np.arange(len(texts)), [len(tags) for tags in texts])
        flat = np.array([tag for tags in texts for tag in tags], dtype=np.int64)
        assert spans_from_tag_ids(flat, owners, labels) == expected


def test_batches_have_as_many_windows_as_asked_for_or_as_many_tokens():
    lengths = [3, 9, 1, 7, 7, 2, 40, 3]
    windows = [Window(n, 0, 1, 1, np.zeros(length, int), np.zeros(1, int)) for n, length in enumerate(lengths)]

    def sizes(*options):
        batches = make_batches(windows, *options)
        found = [[len(window.ids) for window in batch] for batch in batches]
        assert [one for batch in found for one in batch] == sorted(lengths, reverse=True)
        return [len(batch) for batch in found]

    assert sizes(3, 1) == [3, 3, 2]
    assert sizes(None, 20) == [1, 2, 2, 3]  # 40 alone, then 9, 7, 7 and 3 as the longest
    assert make_batches([], None, 20) == []
    with pytest.raises(ValueError, match="batch_size of at least 1"):
        make_batches(windows, 0, 20)


def test_narrow_encoders_and_accelerators_get_larger_batches():
    assert [tokens_at_once(width) for width in (32, 384, 768, 1024, 10**6)] == [2048, 682, 341, 256, 64]
    assert tokens_at_once(768, "cuda") == 16 * tokens_at_once(768)


def test_scores_of_a_broken_model_are_refused():
    scores = emissions_of(4, 7)
    check_finite(scores)
    scores[2, 1:] = -np.inf  # tags that can't be
    check_finite(scores)
    for broken in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite numbers"):
            check_finite(np.where(scores == scores[2, 0], broken, scores))
    scores[2] = -np.inf
    with pytest.raises(ValueError, match="finite numbers"):
        check_finite(scores)
