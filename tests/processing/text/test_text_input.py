import pytest

from bga_mner.processing.text.given_words import split_texts
from bga_mner.processing.text.text_input import SplitText, as_sentences
from bga_mner.processing.text.word_reader import WordReader


def test_entities_of_text_and_of_words():
    spans, scores = [("PER", 0, 2), ("LOC", 3, 4)], [0.6, 0.9]
    text = SplitText.from_text("Kawhi  Leonard: LA", WordReader())
    words = SplitText.from_words(["Kawhi", "Leonard", ":", "LA"], WordReader())
    assert [entity[2:] for entity in text.entities(spans, scores)] == [
        ("Kawhi  Leonard", 0, 14, 0, 2),
        ("LA", 16, 18, 3, 4),
    ]
    assert [entity[2:] for entity in words.entities(spans, scores)] == [
        ("Kawhi Leonard", 0, 13, 0, 2),
        ("LA", 16, 18, 3, 4),
    ]
    assert [(entity.label, entity.score) for entity in words.entities(spans, scores)] == [("PER", 0.6), ("LOC", 0.9)]


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
