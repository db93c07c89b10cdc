"""Spans of characters to tags of words, against a loop over all characters."""

import random
import warnings

import numpy as np
import pytest

from bga_mner import spans_from_tags, split_words, tags_from_spans
from bga_mner.processing.data.formats.spans import choose_unit, read_span, utf16_offsets


PIECES = [
    "Kawhi",
    "wins",
    "#NBA",
    "5th",
    "don't",
    "東\u200b京\u200b",
    "😂",
    "👨🏻\u200d🚒",
    "🇩🇪",
    "e\u0301",
    "Seattle!",
    "\u00a0",
    "a_b",
    "@x",
]


def random_text(rng):
    return "".join(rng.choice(PIECES) + rng.choice(["", " ", "  ", "\n"]) for _ in range(rng.randrange(1, 9)))


def in_utf16(text, offset):
    return len(text[:offset].encode("utf-16-le")) // 2


@pytest.mark.parametrize("unit", ["characters", "utf-16"])
def test_words_of_spans_are_those_with_a_character_in_it(unit):
    rng = random.Random(unit)
    seen = 0
    for _ in range(400):
        text = random_text(rng)
        words = split_words(text)
        start, end = sorted(rng.choices(range(len(text) + 1), k=2))
        offsets = (start, end) if unit == "characters" else (in_utf16(text, start), in_utf16(text, end))
        touched = [
            number for number, (_, first, end_word) in enumerate(words) if max(first, start) < min(end_word, end)
        ]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found, tags = tags_from_spans(text, [(*offsets, "X")], offset_unit=unit)
        assert found == [word for word, _, _ in words]
        expected = [("X", touched[0], touched[-1] + 1)] if touched else []
        assert spans_from_tags(tags) == expected
        whole = touched and (words[touched[0]][1] >= start and words[touched[-1]][2] <= end)
        message = " ".join(str(warning.message) for warning in caught)
        assert ("widened" in message) == (bool(touched) and not whole)
        assert ("empty or outside" in message) == (not touched)
        seen += bool(touched)
    assert 100 < seen < 400


def test_spans_of_whole_words_come_back():
    rng = random.Random(0)
    for _ in range(200):
        text = random_text(rng)
        words = split_words(text)
        tags = ["O"] * len(words)
        offset = 0
        while offset < len(words):
            end = min(len(words), offset + rng.randint(1, 3))
            if rng.random() < 0.5:
                tags[offset:end] = ["B-X"] + ["I-X"] * (end - offset - 1)
            offset = end
        spans = [(words[first][1], words[end_word - 1][2], label) for label, first, end_word in spans_from_tags(tags)]
        rng.shuffle(spans)
        assert tags_from_spans(text, spans) == ([word for word, _, _ in words], tags)


@pytest.mark.parametrize(
    ("spans", "tags", "message"),
    [
        ([(0, 3, "X"), (0, 8, "Y")], "B-Y I-Y O", "1 spans overlapped a longer or earlier one.*X 0-3 'ann'"),
        ([(0, 8, "X"), (4, 12, "Y")], "B-X I-X O", "1 spans overlapped.*Y 4-12 'saw oslo'"),
        ([(0, 3, "X"), (0, 3, "X")], "B-X O O", "1 spans were given twice"),
        ([(0, 3, "X"), (0, 3, "Y")], "B-X O O", "1 spans overlapped"),
        ([(1, 2, "X"), (2, 3, "Y")], "B-X O O", "2 spans ended inside a word.*1 spans overlapped"),
        ([(0, 99, "X")], "O O O", "1 spans were empty or outside.*X 0-99"),
        ([(-1, 3, "X")], "O O O", "1 spans were empty or outside"),
        ([(3, 0, "X"), (3, 4, "Y"), (5, 5, "Z")], "O O O", "3 spans were empty or outside"),
        (
            [{"start": 0, "end": 3, "label": "X", "text": "bob"}],
            "O O O",
            "another text.*X 0-3 'ann', whose own is 'bob'",
        ),
    ],
)
def test_troubles_are_told(spans, tags, message):
    with pytest.warns(UserWarning, match=message):
        assert tags_from_spans("ann saw oslo", spans)[1] == tags.split()


@pytest.mark.parametrize(
    "span",
    [
        (0, 3, "X"),
        ["0", "3", " X "],
        (0.0, 3.0, "X", "kb"),
        {"start": 0, "end": 3, "label": "X"},
        {"start_offset": 0, "end_offset": 3, "label": "X"},
        {"start": 0, "end": 3, "labels": ["X", "Y"]},
        {"start": 0, "end": 3, "type": "X", "text": "ann "},
        {"start": 0, "end": 3, "entity_group": "X", "word": "ann", "score": 0.5},
        (0, 4, "X"),  # white space belongs to no word
        (np.int64(0), np.int32(3), "X"),
        (np.float32(0), np.float64(3), "X"),
    ],
)
def test_spans_of_every_form(span):
    assert tags_from_spans("ann saw", [span]) == (["ann", "saw"], ["B-X", "O"])


@pytest.mark.parametrize(
    "span",
    [
        *((0, 3), (0, 3, None), (0, 3, ""), (0, 3, 4), (0.5, 3, "X"), (True, 3, "X"), (float("nan"), 3, "X")),
        *((0, 1e999, "X"), (0, 10**400, "X"), ("a", 3, "X"), "abc", None, 7, (0, 3, "X\tY"), (0, 3, [])),
        *({"start": 0, "label": "X"}, {"start": 0, "end": 3}),
    ],
)
def test_what_is_no_span_is_refused(span):
    assert read_span(span) is None
    with pytest.raises(ValueError, match=r"Expected spans as \(start, end, label\)"):
        tags_from_spans("ann saw", [span])


@pytest.mark.parametrize(
    ("text", "spans", "options", "message"),
    [
        (["ann"], [], {}, "Expected a text, got list"),
        (None, [], {}, "Expected a text, got NoneType"),
        ("ann", 3, {}, "Expected a list of spans, got int"),
        ("ann", {"start": 0}, {}, "Expected a list of spans, got dict"),
        ("ann", [], {"offset_unit": "bytes"}, "'characters' or 'utf-16', got 'bytes'"),
    ],
)
def test_wrong_arguments_are_refused(text, spans, options, message):
    with pytest.raises(ValueError, match=message):
        tags_from_spans(text, spans, **options)


def test_own_text_tells_the_unit_of_a_span():
    text = "👨🏻\u200d🚒 firemen drive firetrucks"
    for start, end in ((19, 29), (22, 32)):
        span = {"start": start, "end": end, "label": "X", "text": "firetrucks"}
        for unit in ("characters", "utf-16"):
            assert tags_from_spans(text, [span], offset_unit=unit)[1] == ["O", "O", "O", "B-X"]


@pytest.mark.parametrize("unit", ["characters", "utf-16"])
@pytest.mark.parametrize("own_text", [False, True])
def test_the_unit_of_many_spans_is_told(unit, own_text):
    rng = random.Random(unit)
    rows = []
    for _ in range(60):
        text = random_text(rng)
        words = split_words(text)
        if words:
            word, start, end = rng.choice(words)
            if unit == "utf-16":
                start, end = in_utf16(text, start), in_utf16(text, end)
            rows.append((text, [read_span({"start": start, "end": end, "label": "X", "text": own_text and word})]))
    for default in ("characters", "utf-16"):
        found, matter, told = choose_unit(rows, default)
        assert (found, told) == (unit, True)
        assert 5 < matter < 60
        assert choose_unit([("plain text", [read_span((0, 5, "X"))])], default) == (default, 0, False)
    assert utf16_offsets("a😂b") == [0, 1, 3, 4]
