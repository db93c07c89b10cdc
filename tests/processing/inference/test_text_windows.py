"""The parts of tagging that need no model; `test_prediction.py` and `test_pipeline_bga_mner.py` test the rest."""

import itertools
import random

import pytest

from bga_mner.processing.inference.text_windows import _ranges
from bga_mner.processing.text.text_input import SplitText, as_sentences, split_texts
from bga_mner.processing.text.word_reader import WordReader


def test_ranges_cover_every_word_and_always_move_on():
    rng = random.Random(0)
    for _ in range(300):
        room = rng.randrange(1, 12)
        lengths = [rng.randrange(1, room + 1) for _ in range(rng.randrange(30))]
        ranges = list(_ranges(lengths, room, rng.randrange(room)))
        assert {word for start, end in ranges for word in range(start, end)} == set(range(len(lengths)))
        assert all(sum(lengths[start:end]) <= room for start, end in ranges)
        assert all(one[0] < two[0] and one[1] < two[1] for one, two in itertools.pairwise(ranges))


def test_entities_of_text_and_of_words():
    tags, scores = ["B-PER", "I-PER", "O", "B-LOC"], [0.6, 0.9]
    text = SplitText.from_text("Kawhi  Leonard: LA", WordReader())
    words = SplitText.from_words(["Kawhi", "Leonard", ":", "LA"], WordReader())
    assert [entity[2:] for entity in text.entities(tags, scores)] == [
        ("Kawhi  Leonard", 0, 14, 0, 2),
        ("LA", 16, 18, 3, 4),
    ]
    assert [entity[2:] for entity in words.entities(tags, scores)] == [
        ("Kawhi Leonard", 0, 13, 0, 2),
        ("LA", 16, 18, 3, 4),
    ]
    assert [(entity.label, entity.score) for entity in words.entities(tags, scores)] == [("PER", 0.6), ("LOC", 0.9)]


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("Go #NBA", None),
        ("", False),
        (["Go #NBA", ""], None),
        (("Go #NBA",), False),
        (["Go", "#NBA"], True),
        ([], True),
        ([["Go", "#NBA"], []], None),
        ([["Go", "#NBA"]], True),
    ],
)
def test_every_form_of_text_is_read_as_sentences_are(text, split):
    sentences, single, are_words = as_sentences(text, split)
    texts, is_single = split_texts(text, split, WordReader())
    assert [item.words for item in texts] == sentences
    assert is_single == single
    assert all((item.groups is not None) == are_words for item in texts)
    for item in texts:
        assert [item.content[start:end] for start, end in item.offsets] == item.words


@pytest.mark.parametrize(
    ("text", "split"), [(3, None), (b"Go", None), ([], None), ("Go", True), (["Go", 3], None), ([["Go"], "on"], None)]
)
def test_other_forms_are_refused_as_everywhere(text, split):
    with pytest.raises(ValueError, match="Expected"):
        split_texts(text, split, WordReader())
