import random
import unicodedata

import pytest

from bga_mner.processing.data.conll import read_conll
from bga_mner.processing.text import word_splitting
from bga_mner.processing.text.text_input import as_sentences
from bga_mner.processing.text.word_splitting import split_words


def words(text):
    return [word for word, _, _ in split_words(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \t\n\u00a0", []),
        ("#NBA: it's", ["#", "NBA", ":", "it", "'", "s"]),
        ("@Bundesliga_EN title", ["@", "Bundesliga_EN", "title"]),
        ("see https://t.co/aB3?x=1. Now", ["see", "https://t.co/aB3?x=1", ".", "Now"]),
        ("(www.x.org)", ["(", "www.x.org", ")"]),
        ("mail a.b@c.org!", ["mail", "a.b@c.org", "!"]),
        ("10,000 and 19.99 on 5/19", ["10,000", "and", "19.99", "on", "5", "/", "19"]),
        ("the 5th, WNBA20", ["the", "5", "th", ",", "WNBA20"]),
        ("ok :) :-(", ["ok", ":)", ":-("]),
        ("U.S.", ["U", ".", "S", "."]),
        (
            "👩\u200d👩\u200d👧😂🇩🇪🇫🇷✊🏽1\ufe0f\u20e3⚾\ufe0f",
            ["👩\u200d👩\u200d👧", "😂", "🇩🇪", "🇫🇷", "✊🏽", "1\ufe0f\u20e3", "⚾\ufe0f"],
        ),
        ("हिन्दी می‌خواهم cafe\u0301", ["हिन्दी", "می‌خواهم", "cafe\u0301"]),
        ("东京 is", ["东", "京", "is"]),
    ],
)
def test_examples(text, expected):
    assert words(text) == expected


def test_places_are_exact_and_nothing_is_lost():
    rng = random.Random(0)
    alphabet = "aB9_ .,:)(#@'-/\n\u00a0\u200d\u200c\ufe0f\u0301é东😂👩🏽🇩🇪\u20e3\x00\u2028www.http://"
    for _ in range(2000):
        text = "".join(rng.choice(alphabet) for _ in range(rng.randrange(25)))
        split = split_words(text)
        assert all(text[start:end] == word and word for word, start, end in split)
        covered = [place for _, start, end in split for place in range(start, end)]
        assert covered == [place for place, character in enumerate(text) if not character.isspace()]


def test_long_nonsense_is_fast():
    assert len(words("a." * 20_000)) == 40_000
    assert words("http://" + "." * 5000)[0] == "http"


def test_real_tweets_split_into_the_words_of_the_corpus(twitter2017):
    tokens = read_conll(twitter2017 / "valid.txt")["tokens"]
    same = sum(words(" ".join(sentence)) == sentence for sentence in tokens)
    assert same / len(tokens) > 0.95
    assert unicodedata.category("\ufe0f") == "Mn"


def test_forms_of_text():
    assert as_sentences("Go", None) == ([["Go"]], True, False)
    assert as_sentences(["Go"], None) == ([["Go"]], False, False)
    assert as_sentences(["Go", "on"], True) == ([["Go", "on"]], True, True)
    assert as_sentences([["Go"], []], None) == ([["Go"], []], False, True)
    assert as_sentences((("Go",),), None) == ([["Go"]], False, True)
    assert as_sentences([], True) == ([[]], True, True)


@pytest.mark.parametrize(
    ("text", "split", "message"),
    [
        (3, None, "as a string"),
        ([], None, "at least one text"),
        (["a", ["b"]], None, "all as lists of words, got str as text 0"),
        ([["a"], "b"], None, "got str as text 1"),
        ([["a", 3]], None, "got int 3 as word 1 of text 0"),
        ([["a", None]], None, r"got NoneType None as word 1 of text 0. Leave it out, or give ''"),
        (None, None, r"got NoneType None\. Leave it out"),
        (["a", None], None, r"got nothing \(None or NaN\) as text 1"),
        ([None, ["a"]], None, r"got nothing \(None or NaN\) as text 0"),
        (b"a" * 5000, None, r"got bytes b'aaa.*\(5000 bytes\)\. Decode bytes first: value\.decode"),
        ([b"a", "b"], None, "got bytes as text 0. Decode bytes first"),
        ([["a", b"b"]], None, "got bytes b'b' as word 1 of text 0. Decode bytes first"),
        ([["a", ("b", "c")]], None, r"got tuple \('b', 'c'\) as word 1 of text 0. Give each text as one flat list"),
        (([["a"]],), None, r"got list \['a'\] as word 0 of text 0. Give each text as one flat list"),
        ([1.5, 2], None, r"got float as text 0. Write numbers as strings: str\(value\)"),
        ([["a", 7]], True, r"got int 7 as word 1 of text 0. Write numbers as strings"),
        ({"text": "a"}, None, r"got dict \{'text': 'a'\}. Give strings"),
        ({"a"}, None, r"got set \{'a'\}"),
        ("a" * 5000, True, r"Expected words.*\(5000 characters\). Give a list of words"),
        ("a", True, "got the string 'a'"),
        ([["a"]], False, "got list as text 0"),
    ],
)
def test_other_text_is_refused(text, split, message):
    with pytest.raises(ValueError, match=message) as error:
        as_sentences(text, split)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a", "got bytes b'a'. Decode bytes first"),
        (None, "got NoneType None. Leave it out"),
        (3, "got int 3. Write numbers as strings"),
        (["a"] * 9999, r"got list \['a', 'a'.*\(9999 items\)\. Give one text\."),
    ],
)
def test_running_text_is_a_string(text, message):
    with pytest.raises(ValueError, match=f"Expected a text as a string, {message}") as error:
        split_words(text)
    assert len(str(error.value)) < 1000


def test_the_short_cut_for_ascii_changes_nothing():
    """Whatever is ASCII alone is split by one search, and otherwise character by character."""
    rng = random.Random(0)
    pieces = [*"ab_Z09 .,:;@#!?'\"()-+/\n\r\t\x1c=pD", "http://", "www.", "a@b.co", ":D", "5th", "10,000", " word "]
    for _ in range(20_000):
        text = "".join(rng.choices(pieces, k=rng.randint(0, 12)))
        slow, position = [], 0
        while position < len(text):
            end = position + 1
            if not text[position].isspace():
                end = word_splitting._end_of_word(text, position)
                slow.append((text[position:end], position, end))
            position = end
        assert split_words(text) == slow
        # a word beside that isn't ASCII changes nothing either
        assert split_words(f"{text} \u00e9")[: len(slow)] == slow
