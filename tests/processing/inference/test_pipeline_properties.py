"""Whatever a text holds: entities point into it, and what else is in a batch or how it is cut changes nothing."""

import pytest
from byte_reader import PIECES
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_parts import tagger

from bga_mner import split_words
from bga_mner.processing.text.word_reader import WordReader


PIECE = st.one_of(st.sampled_from(PIECES), st.text(st.characters(exclude_categories=()), max_size=4))
TEXT = st.lists(PIECE, max_size=10).map("".join)


def close(entities):
    return [entity | {"score": pytest.approx(entity["score"], abs=1e-4)} for entity in entities]


@settings(max_examples=40)
@given(st.lists(TEXT, min_size=1, max_size=3), st.sampled_from([1, 2, 16]))
def test_entities_point_into_their_text(texts, batch_size):
    found = tagger()(texts, batch_size=batch_size)
    for text, entities in zip(texts, found, strict=True):
        ends = [0, *(entity["end"] for entity in entities)]
        assert all(end <= entity["start"] for end, entity in zip(ends, entities, strict=False))
        assert all(text[entity["start"] : entity["end"]] == entity["word"] for entity in entities)
        assert all(0 <= entity["score"] <= 1 for entity in entities)
        assert close(tagger()(text)) == entities


@settings(max_examples=25)
@given(TEXT)
def test_a_text_and_its_words_have_the_same_entities(text):
    words = [word for word, _, _ in split_words(text)]
    # among characters of Chinese "N B" is read as if it were given by characters, too
    assume(len(WordReader().group_words(words)) == len(words))
    of_text, of_words = tagger()(text), tagger()({"words": words})
    assert [entity["entity_group"] for entity in of_text] == [entity["entity_group"] for entity in of_words]
    assert [words[entity["start_word"] : entity["end_word"]] for entity in of_words] == [
        [word for word, start, _ in split_words(text) if entity["start"] <= start < entity["end"]] for entity in of_text
    ]


def test_100_000_characters_are_read_to_the_end():
    text = f"kawhi # wins . {'x' * 985} " * 100  # of a word longer than a window its beginning is read
    entities = tagger()(text, stride=0)
    assert len(text) > 100_000
    # the same windows find the same again and again, up to the end
    assert max(entity["end"] for entity in entities) >= len(text) - 1001
    assert all(text[entity["start"] : entity["end"]] == entity["word"] for entity in entities)
