"""Whatever takes tags: perfect predictions score 1, or it says what came. Never 0 without a word."""

import datasets
import numpy as np
import pyarrow as pa
import pytest
from transformers import EvalPrediction

from bga_mner import (
    MnerMetric,
    bootstrap_interval,
    build_compute_metrics,
    labels_from_tags,
    map_labels,
    name_tags,
    paired_bootstrap,
    score_tags,
    score_with_interval,
    write_conll,
)
from bga_mner.processing.tags.label_map import entity_types


SCORES = {
    "score_tags": lambda ours, theirs: score_tags(ours, theirs)["overall_f1"],
    "score_tags, lenient": lambda ours, theirs: score_tags(ours, theirs, "default")["overall_f1"],
    "MnerMetric": lambda ours, theirs: MnerMetric().compute(predictions=ours, references=theirs)["overall_f1"],
    "score_with_interval": lambda ours, theirs: score_with_interval(ours, theirs, samples=3)["f1"],
    "bootstrap_interval": lambda ours, theirs: bootstrap_interval(ours, theirs, samples=3)["f1"],
    "paired_bootstrap": lambda ours, theirs: 1 + paired_bootstrap(ours, ours, theirs, samples=3)["difference"],
}
LISTS = {
    "labels_from_tags": labels_from_tags,
    "entity_types": entity_types,
    "map_labels": lambda tags: map_labels(tags, {}),
}
WRONG = {
    "BIOES": [["S-PER", "O"]],
    "BILOU": [["B-PER", "L-PER"]],
    "BMES": [["B-PER", "M-PER"]],
    "BMEWO": [["W-PER", "O"]],
    "no prefix": [["PER", "O"]],
    "lower case": [["b-per", "o"]],
    "other sign": [["B_PER", "O"]],
    "suffix": [["PER-B", "O"]],
    "no type": [["B", "I", "O"]],
    "labels without names": [["LABEL_1", "LABEL_0"]],
    "very long": [["x" * 5000, "O"]],
    "very many": [[1] * 5000] * 20,
    "flat": ["B-PER", "O"],
    "flat, NumPy": np.array(["B-PER", "O"]),
    "one string": "B-PER",
    "ids": [[3, 0]],
    "ids, NumPy": np.array([[3, 0]]),
    "ids as strings": [["3", "0"]],
    "one level too deep": [[["B-PER"], ["O"]]],
    "floats": [[float("nan"), 0.5]],
    "bytes": [[b"B-PER"]],
    "a number": 3,
    "a mapping": [{"ner_tags": ["B-PER"]}],
}
RIGHT = {
    "lists": [["B-PER", "O"]],
    "tuples": (("B-PER", "O"),),
    "NumPy, 2-d": np.array([["B-PER", "O"]]),
    "NumPy rows": [np.array(["B-PER", "O"], dtype=object)],
    "column of a dataset": datasets.Dataset.from_dict({"ner_tags": [["B-PER", "O"]]})["ner_tags"],
}


@pytest.mark.parametrize("tags", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_other_tags_are_never_scored(score, tags):
    for ours, theirs in ((tags, tags), ([["B-PER", "O"]], tags), (tags, [["B-PER", "O"]])):
        with pytest.raises(ValueError, match="Expected") as error:
            score(ours, theirs)
        assert len(str(error.value)) < 1000


@pytest.mark.parametrize("tags", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("function", LISTS.values(), ids=LISTS)
def test_other_tags_are_never_listed(function, tags):
    with pytest.raises(ValueError, match="Expected") as error:
        function(tags)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("tag", "fix"),
    [
        *[(tag, "Write the prefix first, then '-'") for tag in ("B_PER", "I:PER", "S/LOC", "PER-B", "GEO-LOC-E")],
        *[("B", "'B-ENT'"), ("I", "'I-ENT'"), ("LABEL_3", "id2label"), ("PER", "scheme='IO'")],
    ],
)
def test_what_a_tag_lacks_is_said(tag, fix):
    with pytest.raises(ValueError, match=fix):
        labels_from_tags([[tag, "O"]])


@pytest.mark.parametrize("tags", RIGHT.values(), ids=RIGHT)
@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_right_tags_in_any_container_score_one(score, tags):
    assert score(tags, tags) == 1


@pytest.mark.parametrize("library", ["pyarrow", "pandas"])
def test_columns_of_tables_are_tags(library):
    tags = [["B-PER", None], None]
    table = pa.table({"ner_tags": tags})
    column = table["ner_tags"] if library == "pyarrow" else table.to_pandas()["ner_tags"].fillna(float("nan"))
    assert labels_from_tags(column) == ["O", "B-PER", "I-PER"]
    assert map_labels(column, {"PER": "LOC"}) == [["B-LOC", None], None]


@pytest.mark.parametrize("score", [SCORES[name] for name in SCORES if "lenient" not in name])
def test_strict_scores_refuse_iob1(score):
    tags = [["I-PER", "O"], ["I-LOC"]]
    with pytest.raises(ValueError, match=r"seem to be IOB1\. Convert first: references"):
        score([["B-PER", "O"], ["B-LOC"]], tags)
    with pytest.warns(UserWarning, match="count nothing of what is predicted"):
        assert score(tags, [["B-PER", "O"], ["B-LOC"]]) in (0, 1)  # a difference of 0 to itself
    mixed = [["I-PER", "O"], ["B-LOC"]]
    with pytest.warns(UserWarning, match="1 entities of the references begin with 'I-'"):
        score([["B-PER", "O"], ["B-LOC"]], mixed)
    # after an unknown tag the beginning is unknown, not wrong
    assert score([["B-PER", "I-PER"], ["B-LOC"]], [[None, "I-PER"], ["B-LOC"]]) == 1


def test_lengths_and_gaps():
    assert score_tags([["B-PER"], ["O", "B-LOC"]], [["B-PER"], None])["overall_f1"] == 1
    for ours, theirs, message in (
        ([["O"], ["O"]], [["O"]], "2 and 1 sentences"),
        ([["O"]], [["O", "O"]], "got 1 for 2 words in sentence 0"),
        ([["O", None]], [["O", "B-PER"]], "got None in sentence 0"),
        ([None], [["O"]], "predicted tags for sentence 0, got None"),
    ):
        with pytest.raises(ValueError, match=message):
            score_tags(ours, theirs)


@pytest.mark.parametrize(
    ("id2label", "message"),
    [
        ({0: "O", 1: "S-PER"}, "BIOES"),
        ({0: "LABEL_0"}, "got 'LABEL_0'"),
        ({0: "O", 1: "PER"}, "got 'PER'"),
        ({}, "a dict of ids and labels"),
        (["O"], "a dict of ids and labels"),
    ],
)
def test_labels_of_a_metric_are_checked_when_it_is_made(id2label, message):
    with pytest.raises(ValueError, match=message):
        build_compute_metrics(id2label)


def test_ids_of_another_model_are_refused():
    compute = build_compute_metrics({0: "O", 1: "B-PER", 2: "I-PER"})
    right, strange = np.array([[1, 0]]), np.array([[7, 0]])
    for predictions, labels, what in ((strange, right, "predictions"), (right, strange, "labels")):
        with pytest.raises(ValueError, match=rf"\(0 to 2\) or -100 as {what}, got \[7\]"):
            compute(EvalPrediction(predictions=predictions, label_ids=labels))
    wide = np.zeros((1, 2, 9)) + np.eye(9)[8]
    with pytest.raises(ValueError, match=r"as predictions, got \[8\]"):
        compute(EvalPrediction(predictions=wide, label_ids=right))


NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def class_labels(tags, names=NAMES, **others):
    features = {"ner_tags": datasets.List(datasets.ClassLabel(names=names))}
    features |= {name: datasets.Value("string") for name in others}
    return datasets.Dataset.from_dict({"ner_tags": tags, **others}, features=datasets.Features(features))


def test_ids_get_the_names_of_their_data_set():
    data = class_labels([[1, 2, 0], None, [], [3, None]], word=["a", "b", "c", "d"])
    named = name_tags(data.with_transform(lambda batch: 1 / 0))
    expected = [["B-PER", "I-PER", "O"], None, [], ["B-LOC", None]]
    assert named["ner_tags"][:] == expected
    assert named.column_names == data.column_names
    assert named.features["ner_tags"] == datasets.List(datasets.Value("string"))
    assert name_tags(named)["ner_tags"][:] == expected
    assert name_tags(class_labels([[3, -1], [-1]]))["ner_tags"][:] == [["B-LOC", None], [None]]
    assert name_tags(class_labels([[3]]).select([0]))["ner_tags"][:] == [["B-LOC"]]  # the only column
    assert map_labels(data, {"PER": "PERSON"})["ner_tags"][0] == ["B-PERSON", "I-PERSON", "O"]
    assert map_labels(data, {"PER": None, "LOC": "GPE"})["ner_tags"][3] == ["B-GPE", None]


def test_ids_without_names_are_refused():
    data = datasets.Dataset.from_dict({"ner_tags": [[1, 0]]})
    for function in (name_tags, lambda given: map_labels(given, {})):
        with pytest.raises(ValueError, match=r"Give ids names: dataset.cast_column"):
            function(data)
    with pytest.raises(ValueError, match="Expected a column 'tags'"):
        name_tags(data, "tags")
    with pytest.raises(ValueError, match=r"name one: data\['test'\]"):
        name_tags(datasets.DatasetDict(test=data))
    with pytest.raises(ValueError, match="lists of strings, or of ids"):
        name_tags(datasets.Dataset.from_dict({"ner_tags": ["B-PER O"]}))


@pytest.mark.parametrize("name", ["O", "B-MISC", "I-MISC", "", 3])
def test_new_names_are_names_of_types(name):
    with pytest.raises(ValueError, match="names of types without a prefix, or None"):
        map_labels([["B-OTHER", "I-OTHER"]], {"OTHER": name})
    with pytest.raises(ValueError, match="dict of types"):
        map_labels([["B-OTHER"]], [("OTHER", name)])


def test_files_are_not_written_with_other_tags(tmp_path):
    for tag in (3, "S-PER", "PER", "b-per"):
        with pytest.raises(ValueError, match="Expected"):
            write_conll(tmp_path / "a.txt", [["a"]], [[tag]])
    assert not (tmp_path / "a.txt").exists()


def test_the_processor_says_how_it_reads_ids(bert_processor, label2id):
    columns = {"tokens": [["Kawhi", "wins"], ["in"]], "ner_tags": [[1, 0], None]}
    name = {number: label for label, number in label2id.items()}[1]
    with pytest.warns(UserWarning, match=rf"read as the model's own: .*1: '{name}'.*name_tags\(dataset\)"):
        encoded = bert_processor.encode_examples(columns)
    assert encoded == bert_processor.encode_examples(columns | {"ner_tags": [[name, "O"], None]})
    bert_processor.encode_examples(columns | {"ner_tags": [[-100, None], None]})  # nothing that could be misread
    with pytest.raises(ValueError, match="In text 0: Expected BIO tags, got 'S-PER'"):
        bert_processor([["a"]], word_labels=[["S-PER"]])


def test_ids_with_names_teach_what_they_say(bert_processor, label2id):
    names = sorted(label2id, reverse=True)
    tags = ["B-PER", "I-PER", "O", "B-LOC"]
    data = class_labels([[names.index(tag) for tag in tags]], names=names)
    data = data.add_column("tokens", [["a", "b", "c", "d"]])
    taught = name_tags(data).with_transform(bert_processor.encode_examples)[0]
    expected = bert_processor.encode_examples({"tokens": [["a", "b", "c", "d"]], "ner_tags": [tags]})
    assert taught["labels"] == expected["labels"][0]


LOST = {
    "entities": ("text", [[{"start": 0, "end": 5, "label": "PER"}]], "tags_from_spans"),
    "spans": ("text", [[]], "tags_from_spans"),
    "label": ("text", [[[0, 5, "PER"]]], "tags_from_spans"),
    "labels": ("tokens", [["B-PER", "O"]], "rename_column"),
    "tags": ("tokens", [[1, 0]], "rename_column"),
    "ner": ("tokens", [[[0, 0, "PER"]]], "tags_from_spans"),
    "ner_tag": ("tokens", [[1, 0]], "rename_column"),
    "NER_Tags": ("tokens", [["B-PER", "O"]], "rename_column"),
    "bio": ("tokens", [[1, 0]], "rename_column"),
    "fine_ner_labels": ("tokens", [[1, 0]], "rename_column"),
    "target": ("tokens", [["S-PER", "O"]], "rename_column"),
}


@pytest.mark.parametrize("column", LOST)
def test_annotations_in_other_columns_are_not_lost(bert_processor, column):
    content, values, fix = LOST[column]
    rows = {content: ["Kawhi wins"] if content == "text" else [["Kawhi", "wins"]], column: values}
    with pytest.raises(ValueError, match=rf"a column '{column}' with .*{fix}.*remove_columns\('{column}'\)"):
        bert_processor.encode_examples(rows)
    if content == "tokens":  # beside tags it is something else
        bert_processor.encode_examples(rows | {"ner_tags": [["B-PER", "O"]]})
    bert_processor.encode_examples(rows | {column: [None]})


@pytest.mark.parametrize("column", ["images", "picture", "pictures"])
def test_images_in_other_columns_are_told(bert_processor, photo, column):
    rows = {"text": ["Kawhi wins"], column: [photo]}
    with pytest.warns(UserWarning, match=rf"rename_column\('{column}', 'image'\)"):
        bert_processor.encode_examples(rows)
    bert_processor.encode_examples(rows | {"image": [None]})
