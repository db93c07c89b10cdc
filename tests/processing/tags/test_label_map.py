import random

import datasets
import pytest

from bga_mner.processing.tags.label_map import entity_types, map_labels
from bga_mner.processing.tags.tag_scheme import repair_bio, spans_from_tags


TAGS = [["B-OTHER", "I-OTHER", "B-PER", None, "O"], None, [], ["B-PER", "B-OTHER"]]


def test_types_are_renamed_merged_dropped_and_swapped():
    assert map_labels(TAGS, {"OTHER": "MISC"}) == [
        ["B-MISC", "I-MISC", "B-PER", None, "O"],
        None,
        [],
        ["B-PER", "B-MISC"],
    ]
    assert map_labels(TAGS, {"OTHER": "PER"})[0] == ["B-PER", "I-PER", "B-PER", None, "O"]
    assert map_labels(TAGS, {"OTHER": None})[0] == ["O", "O", "B-PER", None, "O"]
    assert map_labels(TAGS, {"OTHER": "PER", "PER": "OTHER"})[3] == ["B-OTHER", "B-PER"]
    assert map_labels(TAGS, {}) == TAGS
    assert entity_types(TAGS) == ["OTHER", "PER"]


def test_spans_are_those_of_before_under_new_names():
    rng = random.Random(0)
    choices = ["O", "B-A", "I-A", "B-B", "I-B", "B-C", "I-C", "B-C-D", "I-C-D"]
    mapping = {"A": "B", "C": None, "C-D": "C"}
    sentences = [repair_bio([rng.choice(choices) for _ in range(12)])[0] for _ in range(100)]
    for before, after in zip(sentences, map_labels(sentences, mapping), strict=True):
        names = [(mapping.get(kind, kind), start, end) for kind, start, end in spans_from_tags(before)]
        assert spans_from_tags(after) == [span for span in names if span[0] is not None]


def test_a_dataset_keeps_everything_else():
    features = datasets.Features(
        {
            "ner_tags": datasets.List(datasets.Value("string")),
            "image": datasets.Image(decode=False),
            "id": datasets.Value("int32"),
        }
    )
    images = [{"bytes": b"broken", "path": None}, None, {"bytes": None, "path": "a.jpg"}, None]
    rows = {"ner_tags": TAGS, "image": images, "id": [4, 3, 2, 1]}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    for view, order in ((dataset, [0, 1, 2, 3]), (dataset.select([3, 1]), [3, 1])):
        renamed = map_labels(view.with_transform(lambda batch: 1 / 0), {"OTHER": "MISC"})
        assert renamed.features == features
        assert renamed.column_names == dataset.column_names
        assert renamed["ner_tags"][:] == [map_labels(TAGS, {"OTHER": "MISC"})[row] for row in order]
        assert renamed["image"][:] == [images[row] for row in order]
    assert map_labels(dataset.select([1]), {}).features == features
    with pytest.raises(ValueError, match="'ner_tags'"):
        map_labels(dataset.remove_columns("ner_tags"), {})


def test_wrong_mappings_are_refused():
    with pytest.raises(ValueError, match=r"got 'Other'\. There are: 'OTHER', 'PER'"):
        map_labels(TAGS, {"Other": "MISC", "PER": "PERSON"})
    with pytest.raises(ValueError, match="There are: none"):
        map_labels([["O"], None], {"PER": None})
    with pytest.raises(ValueError, match="got ''"):
        map_labels(TAGS, {"PER": ""})
    with pytest.raises(ValueError, match="BIO tag"):
        map_labels([[3]], {})
