"""Whatever a text holds: words, tokens and labels belong together, and a batch changes nothing."""

import warnings

import pytest
from byte_reader import PIECES
from hypothesis import given
from hypothesis import strategies as st
from small_parts import LABELS, LENGTH, processor

from bga_mner import repair_bio, split_words
from bga_mner.processing.text.text_input import as_sentences
from bga_mner.processing.text.word_reader import WordReader, group_tags


# any code point, lone surrogates included, and often what is known to be hard
PIECE = st.one_of(st.sampled_from(PIECES), st.text(st.characters(exclude_categories=()), max_size=5))
TEXT = st.lists(PIECE, max_size=15).map("".join)
KIND = st.sampled_from(["wordpiece", "byte-level"])
TAG = st.sampled_from([*LABELS, None])
SENTENCE = st.lists(st.tuples(PIECE, TAG), max_size=12)


@given(TEXT)
def test_every_character_that_is_not_white_space_is_in_one_word(text):
    words = split_words(text)
    assert all(text[start:end] == word and word.strip() for word, start, end in words)
    places = [place for _, start, end in words for place in range(start, end)]
    assert places == sorted(set(places))
    left_out = "".join(character for place, character in enumerate(text) if place not in set(places))
    # which parts words of Khmer and Thai, and is white space there
    assert not left_out.replace("\u200b", " ").strip()


@given(TEXT, TEXT)
def test_words_are_split_the_same_behind_a_space(before, text):
    whole = [word for word, _, _ in split_words(f"{before} {text}")]
    assert whole == [word for part in (before, text) for word, _, _ in split_words(part)]


# letters of scripts with and without spaces, digits, marks, symbols; no white space
WRITTEN = st.text(
    st.one_of(
        st.sampled_from("東京に行くNBA15.,:/@#กรุงเทพน้ำខ្មែរမြန်မာབོད་。」\u3099\u200b\u200d\ufe0f👩👧🇩🇪"),
        st.characters(exclude_categories=("Zs", "Zl", "Zp", "Cc", "Cs"), exclude_characters="\ufffd"),
    ),
    max_size=20,
)


@given(WRITTEN)
def test_a_text_by_characters_is_read_as_running_text(text):
    text = f"東{text}"
    reader = WordReader()
    units = reader.group_words(list(text))
    pieces, _ = reader.pieces([text[unit.start : unit.stop] for unit in units])
    assert pieces == [word for word, _, _ in split_words(text)]


@given(st.one_of(TEXT, WRITTEN))
def test_pieces_are_split_no_further(text):
    words = [word for word, _, _ in split_words(text)]
    assert WordReader().pieces(words) == (words, list(range(len(words))))


@given(KIND, st.lists(SENTENCE, min_size=1, max_size=3))
def test_labels_follow_words_of_any_kind(kind, sentences):
    encode = processor(kind)
    words, tags = ([[pair[place] for pair in sentence] for sentence in sentences] for place in (0, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tags that were mended
        batch = encode(words, word_labels=tags, truncation=False, return_word_ids=True, return_word_start_mask=True)
    ids = {label: number for number, label in enumerate(LABELS)}
    for row, (sentence, mended) in enumerate(zip(words, (repair_bio(sentence)[0] for sentence in tags), strict=True)):
        units, given_tags = group_tags(mended, encode.word_reader.group_words(sentence))
        starts = batch["word_start_mask"][row]
        owners = batch["word_ids"][row]
        assert [owner for owner, start in zip(owners, starts, strict=True) if start] == [unit.start for unit in units]
        expected = [-100 if tag is None else ids[tag] for tag in given_tags]
        assert [label for label, start in zip(batch["labels"][row], starts, strict=True) if start] == expected
        # of a word with an unknown tag no token has a label
        for owner, label in zip(owners, batch["labels"][row], strict=True):
            assert owner is None or (label == -100) == (mended[owner] is None)


@given(KIND, st.lists(TEXT, min_size=1, max_size=3), st.sampled_from([None, 3, 10, LENGTH]))
def test_a_text_is_encoded_the_same_alone_and_in_a_batch(kind, texts, max_length):
    encode = processor(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of texts that were cut
        together = encode(texts, max_length=max_length, return_tensors="np")
        for row, text in enumerate(texts):
            alone = encode([text], max_length=max_length)
            kept = together["attention_mask"][row].astype(bool)
            assert together["input_ids"][row][kept].tolist() == alone["input_ids"][0]
            assert len(alone["input_ids"][0]) <= (max_length or LENGTH)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wordpiece", "byte-level"])
@pytest.mark.parametrize(
    "piece", ["a", "\u0301", "\u200d", "\ud83d", "\x00", "\u202e", "a.", "@a", "http://", "\U0001f469\u200d"]
)
def test_100_000_characters_take_no_longer_than_they_have_to(kind, piece):
    text = piece * (100_000 // len(piece))
    (words,), _, _ = as_sentences(text)
    assert "".join(words) == text
    with pytest.warns(UserWarning, match="were cut"):
        batch = processor(kind)(["!" + " !" * LENGTH + text])
    assert len(batch["input_ids"][0]) == LENGTH
