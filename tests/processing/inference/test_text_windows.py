import itertools
import random

import numpy as np
import pytest

from bga_mner.modeling_bga.crf.span_probabilities import CrfScores, Span, span_log_probabilities
from bga_mner.processing.inference.text_windows import (
    Window,
    WindowScores,
    _ranges,
    check_finite,
    join_windows,
    tag_windows,
)
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
    tagged = []
    for row in range(len(windows)):  # a batch each
        batch = slice(row, row + 1)
        scores = WindowScores(padded[batch], best[batch], mask[batch])
        tagged += tag_windows(windows[batch], scores, LABELS, probabilities)
    found = join_windows(tagged, len(tags), probabilities)
    assert found.tags == tags
    return found.scores


def make_window(start, end, pieces=1):
    count = (end - start) * pieces
    return Window(0, start, end, 6, [0] * (count + 2), list(range(1, count + 1, pieces)))


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
    assert [(entity.label, entity.score) for entity in text.entities(TAGS, found)] == list(
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
