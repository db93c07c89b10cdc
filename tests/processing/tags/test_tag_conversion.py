"""Tags of every scheme, against seqeval's own classes of schemes."""

import random
import re

import pytest
from seqeval import scheme as schemes
from seqeval.scheme import Entities

from bga_mner import labels_from_tags, repair_bio, score_tags, spans_from_tags, to_bio
from bga_mner.processing.tags.tag_conversion import SCHEMES, convert_tags, scheme_name


TYPES = ["PER", "LOC", "GEO-LOC"]
# seqeval's name of each scheme, and how it writes an entity; the others are renamed letters
SEQEVAL = {"IOB1": schemes.IOB1, "IOB2": schemes.IOB2, "IOE1": schemes.IOE1, "IOE2": schemes.IOE2}
SEQEVAL |= {"BIOES": schemes.IOBES, "BILOU": schemes.BILOU}
AS_BIOES = {"BMES": str.maketrans("M", "I"), "BMEWO": str.maketrans("MW", "IS")}


def random_spans(rng, length):
    spans, place = [], 0
    while place < length:
        end = min(length, place + rng.randint(1, 4))
        if rng.random() < 0.6:
            spans.append((rng.choice(TYPES), place, end))
        place = end
    return spans


def written(spans, length, scheme):
    """Write spans in a scheme, word by word."""
    tags = ["O"] * length
    for number, (label, start, end) in enumerate(spans):
        follows = number > 0 and spans[number - 1][0] == label and spans[number - 1][2] == start
        followed = number + 1 < len(spans) and spans[number + 1][0] == label and spans[number + 1][1] == end
        letters = ["I"] * (end - start)
        if scheme in ("IOB2", "BIOES", "BILOU", "BMES", "BMEWO") or (scheme == "IOB1" and follows):
            letters[0] = "B"
        if scheme in ("IOE2", "BIOES", "BMES", "BMEWO") or (scheme == "IOE1" and followed):
            letters[-1] = "E"
        if scheme == "BILOU":
            letters[-1] = "L"
        if end - start == 1 and scheme not in ("IOB1", "IOB2", "IOE1", "IOE2"):
            letters = [{"BILOU": "U", "BMEWO": "W"}.get(scheme, "S")]
        if scheme in AS_BIOES:
            letters = ["M" if letter == "I" else letter for letter in letters]
        tags[start:end] = [f"{letter}-{label}" for letter in letters]
    return tags


def found_by_seqeval(tags, scheme):
    plain = [tag if tag == "O" else tag[0].translate(AS_BIOES.get(scheme, {})) + tag[1:] for tag in tags]
    reader = SEQEVAL["BIOES" if scheme in AS_BIOES else scheme]
    return sorted((span.tag, span.start, span.end) for span in Entities([plain], reader).entities[0])


def count(prefix, sentences):
    return sum(tag.startswith(f"{prefix}-") for tags in sentences for tag in tags)


@pytest.mark.parametrize("scheme", [name for name in SCHEMES if name != "IO"])
def test_well_formed_tags_give_the_entities_that_seqeval_reads(scheme):
    rng = random.Random(scheme)
    spans = [random_spans(rng, rng.randrange(1, 14)) for _ in range(200)]
    tags = [written(one, max([end for _, _, end in one], default=1) + 1, scheme) for one in spans]
    for one, sentence in zip(spans, tags, strict=True):
        # of this test's own writer; in IOE1, seqeval doesn't know entities of one word before another of their type
        read = found_by_seqeval(sentence, scheme)
        assert read == sorted(one) or (scheme == "IOE1" and set(read) < set(one))
    for named in (scheme, None, scheme.lower()):
        found = convert_tags(tags, named)
        assert found.scheme == scheme
        assert [spans_from_tags(sentence) for sentence in found.tags] == spans
        # in IOB1, what begins with "I-" is counted
        assert found.broken == (count("B", found.tags) - count("B", tags) if scheme == "IOB1" else 0)
    assert [repair_bio(sentence) for sentence in found.tags] == [(sentence, 0) for sentence in found.tags]
    assert score_tags(to_bio(tags), found.tags)["overall_f1"] == 1
    lower = [[tag[0].lower() + tag[1:] for tag in sentence] for sentence in tags]
    assert convert_tags(lower) == found


@pytest.mark.parametrize("scheme", [name for name in SCHEMES if name != "IO"])
def test_of_broken_tags_nothing_is_lost_that_seqeval_reads(scheme):
    rng = random.Random(scheme)
    tags = ["O", "O", *(f"{letter}-{label}" for letter in SCHEMES[scheme] for label in TYPES[:2])]
    broken = 0
    for _ in range(500):
        sentence = [rng.choice(tags) for _ in range(rng.randrange(10))]
        found = convert_tags([sentence], scheme)
        ours = spans_from_tags(found.tags[0])
        if scheme in ("IOB1", "IOE1"):
            # of which seqeval takes a mark where none is needed for an error
            assert {word for _, start, end in ours for word in range(start, end)} == {
                word for word, tag in enumerate(sentence) if tag != "O"
            }
        else:
            assert set(found_by_seqeval(sentence, scheme)) <= set(ours)
        assert [tag and tag[2:] for tag in found.tags[0]] == [tag[2:] for tag in sentence]
        broken += found.broken
    assert broken or scheme == "IOE1"


def test_io_is_read_with_and_without_a_prefix():
    assert to_bio([["PER", "PER", "O", "e-mail"], None, []], scheme="IO") == [
        ["B-PER", "I-PER", "O", "B-e-mail"], None, []
    ]  # fmt: skip
    assert to_bio([["I-PER", "I-LOC"]], scheme="IO") == [["B-PER", "B-LOC"]]
    assert to_bio([["I-PER", "O", "I-PER"]]) == [["B-PER", "O", "B-PER"]]


def test_unknown_tags_leave_open_where_an_entity_begins():
    assert to_bio([[None, "I-PER", "E-PER", None, "S-PER", "O"]]) == [[None, "I-PER", "I-PER", None, "B-PER", "O"]]
    assert to_bio([["B-PER", None, "I-PER"]], "BIO") == [["B-PER", None, "I-PER"]]


def test_broken_marks_are_told():
    with pytest.warns(UserWarning, match="3 ends of entities are not well-formed in the scheme BIOES"):
        assert to_bio([["B-PER", "O", "I-PER", "I-PER"]], "BIOES") == [["B-PER", "O", "B-PER", "I-PER"]]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("BIO", "iob2", "IOB2"), "IOB2"),
        (("IOB", "iob1"), "IOB1"),
        (("BIOES", "IOBES", "BIESO", "bioes"), "BIOES"),
        (("BILOU", "BILUO", "BIOUL"), "BILOU"),
        (("BMES", "BMESO"), "BMES"),
        (("BMEWO", "BMEOW", "BMEW"), "BMEWO"),
    ],
)
def test_schemes_have_several_names(names, expected):
    assert {scheme_name(name) for name in names} == {expected}


@pytest.mark.parametrize(
    ("tags", "scheme", "message"),
    [
        ([["PER", "O"]], None, r"sentence 0, word 0: .* got 'PER'.*scheme='IO'"),
        ([["O"], ["NOUN"]], None, "sentence 1, word 0"),
        ([["B-X", "L-X", "M-X"]], None, "got prefixes that none has together: 'B-X', 'L-X', 'M-X'"),
        ([["O", "S-X"], ["U-X"]], None, "got prefixes that none has together"),
        ([["B-X", "E-X"]], "BILOU", r"word 1: expected tags of the scheme BILOU \(B-, I-, L-, U- and O\), got 'E-X'"),
        ([["B-X"]], "IO", r"expected tags of the scheme IO \(I- and O\), got 'B-X'"),
        ([["B-X", "i-X"]], None, "all prefixes in capitals, or none, got 'i-X'"),
        ([["B_X"]], None, "got 'B_X'"),
        ([["X-B"]], None, "got 'X-B'"),
        ([[3, 0]], None, "got the int 3. Ids need their names.*feature.names"),
        ([["3", "0"]], None, "got '3'. Ids need their names"),
        ([[0.0]], "IO", "got the float 0.0"),
        (["B-X", "O"], None, r"got str 'B-X' as sentence 0. .* wrapped in a list: \[tags\]"),
        ("B-X", None, "got str 'B-X'"),
        ({"ner_tags": [["O"]]}, None, "got dict"),
        (7, None, "got int 7"),
        ([["O"]], "XYZ", "Expected a scheme of tags, got 'XYZ'. Name one of 'IOB2', "),
        ([["O"]], 3, "Expected a scheme of tags"),
        ([["B-" + "x" * 5000, "q" * 5000]], None, r"\(5000 characters\)"),
    ],
)
def test_what_is_of_no_scheme_is_refused(tags, scheme, message):
    with pytest.raises(ValueError, match=message) as error:
        to_bio(tags, scheme)
    assert len(str(error.value)) < 1000


def test_the_advice_of_other_messages_works():
    for tags in ([["S-PER", "O"]], [["b-per", "o"]], [["M-PER", "E-PER"]], [["I-PER", "O"]]):
        with pytest.raises(ValueError, match=r"bga_mner\.to_bio\(tags\)"):
            labels_from_tags(tags)
    with pytest.raises(ValueError, match=re.escape("to_bio(tags, scheme='IO')")):
        labels_from_tags([["PER", "O"]])
    assert labels_from_tags(to_bio([["S-PER", "O"]])) == ["O", "B-PER", "I-PER"]
