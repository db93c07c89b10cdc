import random

import pytest

from bga_mner.processing.tags.tag_conversion import to_bio
from bga_mner.processing.tags.tag_lists import check_label2id, labels_from_tags
from bga_mner.processing.tags.tag_scheme import repair_bio, spans_from_tags, split_tag


TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


@pytest.mark.parametrize(
    ("tags", "mended", "repairs"),
    [
        ([], [], 0),
        (["I-PER"], ["B-PER"], 1),
        (["O", "I-PER", "I-PER"], ["O", "B-PER", "I-PER"], 1),
        (["B-PER", "I-LOC"], ["B-PER", "B-LOC"], 1),
        (["B-PER", "I-PER"], ["B-PER", "I-PER"], 0),
        ([None, "I-PER"], [None, "I-PER"], 0),
        (["O", None, None], ["O", None, None], 0),
    ],
)
def test_repair(tags, mended, repairs):
    assert repair_bio(tags) == (mended, repairs)


def test_repair_is_idempotent_and_keeps_spans():
    rng = random.Random(0)
    for _ in range(300):
        tags = [rng.choice([*TAGS, None]) for _ in range(rng.randrange(12))]
        mended, repairs = repair_bio(tags)
        assert repair_bio(mended) == (mended, 0)
        assert spans_from_tags(mended) == spans_from_tags(tags)
        assert repairs == sum(a != b for a, b in zip(tags, mended, strict=True))


def test_spans_can_be_written_back():
    rng = random.Random(1)
    for _ in range(300):
        tags, _ = repair_bio([rng.choice(TAGS) for _ in range(rng.randrange(12))])
        again = ["O"] * len(tags)
        for label, start, end in spans_from_tags(tags):
            again[start:end] = [f"B-{label}"] + [f"I-{label}"] * (end - start - 1)
        assert again == tags


def test_unknown_tags_end_a_span():
    assert spans_from_tags(["B-PER", None, "I-PER"]) == [("PER", 0, 1), ("PER", 2, 3)]


@pytest.mark.parametrize("tag", ["PER", "B-", "X-PER", "", "b-PER", "I", 3])
def test_other_tags_are_refused(tag):
    with pytest.raises(ValueError, match="Expected a BIO tag"):
        split_tag(tag)


def test_labels_have_both_prefixes():
    assert labels_from_tags([["B-PER", None], ["O"], []]) == ["O", "B-PER", "I-PER"]
    assert labels_from_tags([]) == ["O"]


@pytest.mark.parametrize("tag", ["S-PER", "E-PER", "U-PER", "L-PER"])
def test_bioes_is_refused_with_the_fix(tag):
    with pytest.raises(ValueError, match="belongs to the BIOES scheme"):
        labels_from_tags([["O", tag]])


def test_iob1_is_refused_with_a_fix_that_works():
    tags = [["I-PER", "I-PER", "B-PER", "O"], ["O", "I-LOC"]]
    with pytest.raises(ValueError, match=r"seem to be IOB1. Convert first: tags = bga_mner.to_bio\(tags\)"):
        labels_from_tags(tags)
    assert labels_from_tags(to_bio(tags)) == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def test_a_few_broken_tags_are_not_iob1():
    assert labels_from_tags([["B-PER", "O", "I-PER"]]) == ["O", "B-PER", "I-PER"]


def test_flat_list_is_refused():
    with pytest.raises(ValueError, match=r"wrapped in a list: \[tags\]"):
        labels_from_tags(["B-PER", "O"])


@pytest.mark.parametrize(
    ("label2id", "message"),
    [
        (None, "since labels are given"),
        ({}, "since labels are given"),
        ({"O": 0, "B-PER": 1}, "'I-PER' beside 'B-PER'"),
        ({"B-PER": 0, "I-PER": 1}, "to hold 'O'"),
        ({"O": 0, "B-PER": 1, "I-PER": 3}, "0, 1, 2"),
        ({"LABEL_0": 0, "LABEL_1": 1}, "BIO tag"),
        (["O"], "as a dict of labels and whole numbers"),
        ("O", "as a dict of labels and whole numbers"),
        ({"O": 0.5}, "as a dict of labels and whole numbers"),
        ({"O": "0"}, "as a dict of labels and whole numbers"),
    ],
)
def test_label_mappings_are_checked(label2id, message):
    with pytest.raises(ValueError, match=message):
        check_label2id(label2id)
