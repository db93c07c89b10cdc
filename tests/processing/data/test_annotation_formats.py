"""The same annotated texts in the format of every tool."""

import json
import random

import datasets
import pytest

from bga_mner import read_annotations, read_conll, spans_from_tags, split_words, to_bio, write_annotations, write_conll
from bga_mner.processing.data.formats.row_fields import image_name


TEXTS = ["Kawhi Leonard wins in Seattle!", "#NBA 😂 finals", "no one"]
SPANS = [[(0, 13, "PER"), (22, 29, "LOC")], [(1, 4, "ORG")], []]
IDS = ["7", "x8", "9"]
WORDS = [[word for word, _, _ in split_words(text)] for text in TEXTS]
TAGS = [["B-PER", "I-PER", "O", "O", "B-LOC", "O"], ["O", "B-ORG", "O", "O"], ["O", "O"]]
EXPECTED = [
    {"id": name, "tokens": words, "ner_tags": tags, "image": None}
    for name, words, tags in zip(IDS, WORDS, TAGS, strict=True)
]


def task(text, spans, name):
    results = [
        {"type": "labels", "from_name": "label", "to_name": "text", "id": "a",
         "value": {"start": start, "end": end, "text": text[start:end], "labels": [label]}}
        for start, end, label in spans
    ]  # fmt: skip
    return {
        "id": 1,
        "data": {"text": text, "id": name},
        "annotations": [{"id": 4, "result": results}],
        "predictions": [],
    }


def flat_task(text, spans, name):
    found = [{"start": s, "end": e, "text": text[s:e], "labels": [label]} for s, e, label in spans]
    return {"id": name, "tweet": text, "annotator": 1, "lead_time": 4.1} | ({"label": found} if found else {})


def dicts(spans, start="start", end="end", **others):
    return [{start: s, end: e, "label": label, **others} for s, e, label in spans]


def word_spans(tags):
    return [[first, end - 1, label] for label, first, end in spans_from_tags(tags)]


ROWS = {
    "doccano": lambda i: {"id": IDS[i], "text": TEXTS[i], "label": SPANS[i]},
    "doccano, labels": lambda i: {"id": IDS[i], "data": TEXTS[i], "labels": SPANS[i]},
    "doccano, relations": lambda i: {
        "id": IDS[i], "text": TEXTS[i], "entities": dicts(SPANS[i], "start_offset", "end_offset", id=3),
        "relations": [], "Comments": [],
    },
    "label-studio": lambda i: task(TEXTS[i], SPANS[i], IDS[i]),
    "label-studio, min": lambda i: flat_task(TEXTS[i], SPANS[i], IDS[i]),
    "prodigy": lambda i: {
        "text": TEXTS[i], "spans": dicts(SPANS[i], token_start=0), "answer": "accept", "meta": {"id": IDS[i]},
        "tokens": [{"text": TEXTS[i], "start": 0, "end": len(TEXTS[i]), "id": 0}],
    },
    "spacy": lambda i: [TEXTS[i], {"entities": SPANS[i], "id": IDS[i]}],
    "gliner": lambda i: {"tokenized_text": WORDS[i], "ner": word_spans(TAGS[i]), "id": IDS[i]},
    "entities": lambda i: {"id": IDS[i], "text": TEXTS[i], "entities": dicts(SPANS[i], score=0.5)},
    "entities, triples": lambda i: {"id": IDS[i], "text": TEXTS[i], "entities": SPANS[i]},
    "tokens": lambda i: {"id": IDS[i], "tokens": WORDS[i], "ner_tags": TAGS[i]},
    "tokens, words": lambda i: {"id": IDS[i], "words": WORDS[i], "labels": TAGS[i], "text": TEXTS[i]},
}  # fmt: skip


def write(path, rows, lines=True):
    texts = [json.dumps(row) for row in rows]
    path.write_text("".join(f"{text}\n" for text in texts) if lines else f"[{','.join(texts)}]", encoding="utf-8")
    return path


def read(tmp_path, rows, **options):
    path = write(tmp_path / "rows.jsonl", rows)
    return read_annotations(path, return_report=True, show_progress=False, **options)


@pytest.mark.parametrize("lines", [True, False], ids=["lines", "document"])
@pytest.mark.parametrize("kind", ROWS)
def test_every_format_gives_the_same_rows(tmp_path, kind, lines):
    file = write(tmp_path / "anything.json", map(ROWS[kind], range(3)), lines)
    name = kind.split(",")[0]
    for given in (None, name):
        dataset, report = read_annotations(file, format=given, return_report=True)
        assert dataset.to_list() == EXPECTED
        assert (report.format, report.entities) == (name, {"LOC": 1, "ORG": 1, "PER": 1})
        assert (report.troubles, report.without_id, report.repaired_tags) == ({}, 0, 0)
        assert report.sha256 in dataset.info.description
    write_conll(tmp_path / "same.txt", WORDS, TAGS, IDS)
    conll = read_annotations(tmp_path / "same.txt")
    assert conll.to_list() == EXPECTED
    assert conll.features == dataset.features


@pytest.mark.parametrize("name", ["doccano", "label-studio", "prodigy", "spacy", "gliner", "entities"])
@pytest.mark.parametrize("split", [False, True], ids=["texts", "words"])
def test_what_is_written_is_read_back(tmp_path, name, split):
    rng = random.Random(name)
    pieces = ["Kawhi", "wins", "😂", "👨🏻\u200d🚒", "NBA", "café", "日", "."]
    texts = [" ".join(rng.choices(pieces, k=rng.randrange(1, 9))) for _ in range(60)]
    words = [[word for word, _, _ in split_words(text)] for text in texts]
    joined = [" ".join(one) for one in words] if split else texts
    entities, tags = [], []
    for text in joined:
        found = split_words(text)
        chosen = sorted(rng.sample(range(len(found)), k=min(len(found), rng.randrange(3))))
        entities.append([
            {"start": found[at][1], "end": found[at][2], "label": "X Y", "score": 0.25, "word": found[at][0]}
            for at in chosen
        ])  # fmt: skip
        tags.append(["B-X Y" if at in chosen else "O" for at in range(len(found))])
    ids = [f"n{number}" for number in range(len(texts))]
    file = tmp_path / "out.json"
    write_annotations(file, words if split else texts, entities, name, ids=ids)
    if name == "label-studio":  # what a person does with predictions
        tasks = json.loads(file.read_text(encoding="utf-8"))
        for one in tasks:
            one["annotations"] = one.pop("predictions")
            assert one["annotations"][0]["model_version"] == "bga-mner"
        file.write_text(json.dumps(tasks))
    dataset, report = read_annotations(file, return_report=True)
    assert dataset["id"][:] == ids
    assert dataset["tokens"][:] == [[word for word, _, _ in split_words(text)] for text in joined]
    assert dataset["ner_tags"][:] == tags
    assert report.format == name
    assert [kind for kind in report.troubles if "their ends tell" not in kind and "own" not in kind] == []


def test_doccano_gets_the_offsets_that_its_page_counts(tmp_path):
    write_annotations(tmp_path / "a.jsonl", ["😂 NBA"], [[(2, 5, "ORG")]], "doccano", images=["1.jpg"])
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {
        "image": "1.jpg", "text": "😂 NBA", "label": [[3, 6, "ORG"]]
    }  # fmt: skip
    write_annotations(tmp_path / "a.jsonl", ["😂 NBA"], [[(2, 5, "ORG")]], "prodigy")
    assert json.loads((tmp_path / "a.jsonl").read_text())["spans"] == [{"start": 2, "end": 5, "label": "ORG"}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a"], [[]], "brat"), "Expected a format of doccano, .*got 'brat'"),
        (("a", [[]], "spacy"), "Expected a list of texts"),
        ((["a"], [], "spacy"), "got 1 texts, 0 lists"),
        ((["a"], [[(0, 2, "X")]], "spacy"), "inside of text 0, which has 1 characters"),
        ((["a"], [[{"start": 0}]], "spacy"), "with start, end and label"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        write_annotations(tmp_path / "a.json", *arguments)
    assert not (tmp_path / "a.json").exists()


def test_offsets_of_javascript_are_told_from_characters(tmp_path):
    rows = [{"text": f"😂 {word} wins", "label": [[3, 3 + len(word), "PER"]]} for word in ("Ann", "Bob", "Kawhi")]
    dataset, report = read(tmp_path, rows)
    assert {tuple(tags) for tags in dataset["ner_tags"]} == {("O", "B-PER", "O")}
    assert report.troubles == {"spans stand after emoji or the like and are read in utf-16, as their ends tell": 3}
    _, report = read(tmp_path, rows, offset_unit="characters")
    assert "spans ended inside a word and were widened to whole words" in report.troubles
    # neither tells: doccano's page counts UTF-16, others count characters
    row = {"text": "😂😂 a a a", "label": [[5, 6, "X"]]}
    dataset, report = read(tmp_path, [row])
    assert dataset[0]["ner_tags"] == ["O", "O", "B-X", "O", "O"]
    assert any("nothing tells" in kind for kind in report.troubles)
    dataset, _ = read(tmp_path, [{"text": row["text"], "spans": dicts(row["label"])}])
    assert dataset[0]["ner_tags"] == ["O", "O", "O", "B-X", "O"]


def test_what_annotators_did_not_accept_is_kept_without_tags(tmp_path):
    prodigy = [ROWS["prodigy"](0) | {"answer": answer} for answer in ("accept", "reject", "ignore")]
    dataset, report = read(tmp_path, prodigy)
    assert [set(tags) == {None} for tags in dataset["ner_tags"]] == [False, True, True]
    assert report.troubles == {"rows were not accepted by the annotator and are kept without tags": 2}
    first = ROWS["label-studio"](0)
    results = first["annotations"][0]["result"]
    cancelled = {"was_cancelled": True, "result": results}
    tasks = [
        first | {"annotations": [cancelled]},
        first | {"annotations": [cancelled, {"result": results[:1]}, {"result": results}]},
        first | {"annotations": [{"result": []}, {"result": results, "ground_truth": True}]},
        first | {"annotations": []},
        first | {"annotations": [{"result": [*results, {"type": "choices", "value": {"choices": ["a"]}}]}]},
    ]
    dataset, report = read(tmp_path, tasks)
    assert [len(spans_from_tags(tags)) for tags in dataset["ner_tags"]] == [0, 1, 2, 0, 2]
    assert [set(tags) == {None} for tags in dataset["ner_tags"]] == [True, False, False, True, False]
    assert sorted(report.troubles.values()) == [1, 1, 2]
    for part in ("not accepted", "further annotations", "label no part of the text"):
        assert part in str(report)


def test_texts_that_nobody_annotated_are_read(tmp_path):
    dataset, report = read(tmp_path, [{"text": "Kawhi wins", "id": 3}])
    assert dataset.to_list() == [{"id": "3", "tokens": ["Kawhi", "wins"], "ner_tags": [None, None], "image": None}]
    assert (report.format, report.unknown_tags) == ("entities", 2)


def test_bad_rows_and_spans_are_counted(tmp_path):
    rows = [
        *map(ROWS["entities"], range(3)),
        {"text": None, "entities": []},
        {"text": "Kawhi", "entities": [{"start": 0, "end": 5}, {"start": 0, "end": 99, "label": "X"}]},
        {"text": "Kawhi", "entities": "PER"},
        {"text": "\ud83c alone", "entities": [[0, 1, "X"]], "id": "\ud83c"},
        [1, 2],
    ]
    dataset, report = read(tmp_path, rows)
    with open(tmp_path / "rows.jsonl", "a") as file:
        file.write('{"text": "never closed\n\n')
    again, report = read_annotations(tmp_path / "rows.jsonl", return_report=True)
    assert again.to_list() == dataset.to_list()
    assert (len(again), report.sentences) == (5, 5)
    assert report.troubles == {
        "rows could not be read and were left out": 4,
        "spans were empty or outside of their text and were left out": 1,
        "spans without two offsets and the name of a type were left out": 1,
    }
    assert dataset[4] == {"id": "\ufffd", "tokens": ["\ufffd", "alone"], "ner_tags": ["B-X", "O"], "image": None}
    assert "9 (expected JSON" in str(report)


def test_types_that_were_not_asked_for_are_counted(tmp_path):
    for kind in ("doccano", "gliner"):
        _, report = read(tmp_path, map(ROWS[kind], range(3)), types=["PER", "LOC"])
        assert report.entities == {"LOC": 1, "PER": 1}
        assert report.troubles == {"spans had a type that was not asked for and were left out": 1}
    write_conll(tmp_path / "a.txt", WORDS, TAGS)
    with pytest.raises(ValueError, match="map_labels"):
        read_annotations(tmp_path / "a.txt", types=["PER"])
    with pytest.raises(ValueError, match="Wrap a single one"):
        read(tmp_path, [], types="PER")


def test_tags_in_other_schemes_are_converted(tmp_path):
    bioes = [["B-PER", "E-PER", "O", "O", "S-LOC", "O"], ["O", "S-ORG", "O", "O"], None]
    rows = [{"id": IDS[i], "tokens": WORDS[i], "ner_tags": bioes[i]} for i in range(3)]
    dataset, report = read(tmp_path, rows)
    assert dataset["ner_tags"][:] == [*TAGS[:2], [None, None]]
    assert report.scheme == "BIOES"
    assert "tags in the scheme BIOES were converted to BIO" in str(report)
    with pytest.raises(ValueError, match=r"In row 1, word 0: expected tags of the scheme IOB2"):
        read(tmp_path, [{"tokens": ["a"], "ner_tags": ["E-X"]}], scheme="BIO")
    with pytest.raises(ValueError, match="Ids need their names"):
        read(tmp_path, [{"tokens": ["a"], "ner_tags": [1]}])
    with pytest.raises(ValueError, match="expected one tag per word, got 2 tags for 1 words"):
        read(tmp_path, [{"tokens": ["a"], "ner_tags": ["O", "O"]}])


def test_images_are_found_by_name_or_id(tmp_path, photo):
    (tmp_path / "images").mkdir()
    for name in ("a.jpg", "7.png", "b.jpg"):
        photo.save(tmp_path / "images" / name)
    (tmp_path / "images" / "broken.jpg").write_bytes(b"")
    names = ["a.jpg", "https://example.com/x/b.jpg?size=1", "/data/upload/3/b.jpg", "C:\\data\\a.jpg", "broken.jpg"]
    names += ["none.jpg", ["a.jpg", "b.jpg"], {"path": "a.jpg", "bytes": None}, "data:image/png;base64,AAAA", None]
    rows = [{"text": "a", "entities": [], "id": str(i), "image": name} for i, name in enumerate(names)]
    rows += [{"text": "a", "entities": [], "id": "7"}, {"text": "a", "entities": [], "meta": {"image": "b.jpg"}}]
    dataset, report = read(tmp_path, rows, image_dir=tmp_path / "images")
    found = [image and image["path"].rpartition("/")[2] for image in dataset["image"]]
    assert found == ["a.jpg", "b.jpg", "b.jpg", "a.jpg", None, None, "a.jpg", "a.jpg", None, None, "7.png", "b.jpg"]
    assert (report.images_found, report.images_missing, report.images_broken) == (8, 3, {"empty": 1})
    assert report.troubles == {
        "images stand in the file as text, which is not read": 1,
        "rows have several images, of which the first is read": 1,
    }
    # beside the file, if rows name them
    here, _ = read(tmp_path, [{"text": "a", "entities": [], "image": "images/a.jpg"}])
    assert here[0]["image"]["path"] == str(tmp_path / "images" / "a.jpg")
    nowhere, report = read(tmp_path, [{"text": "a", "entities": [], "id": "7"}])
    assert (nowhere[0]["image"], report.images_missing) == (None, 0)
    with pytest.raises(ValueError, match=r"stays inside the folder of images"):
        read(tmp_path, [{"text": "a", "entities": [], "image": "../a.jpg"}])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("/data/local-files/?d=a/b.jpg", "a/b.jpg"),
        ("/data/local-files/?d=/home/x/b%20c.jpg", "b c.jpg"),
        ("s3://bucket/a/b.jpg", "b.jpg"),
        ("https://pbs.twimg.com/media/b%20c.jpg?name=small", "b c.jpg"),
        ("/home/x/b.jpg", "b.jpg"),
        ("17_06_1818", "17_06_1818"),
    ],
)
def test_names_of_images(given, expected):
    assert image_name(given) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "", "Expected annotations in"),
        ("a.jsonl", "{", "Expected annotations in"),
        ("a.json", "[]", "Expected annotations in"),
        ("a.jsonl", '{"a": 1}', r"got \['a'\].*name the format: conll, doccano"),
        ("a.jsonl", '{"text": "a", "label": "positive"}', "expected 'entities', got a label 'positive'"),
        ("a.jsonl", '{"text": "a", "label": ["positive"]}', "expected 'entities', got a label"),
        ("a.jsonl", '{"tokens": [1], "ner_tags": []}', "Expected annotations in"),
        ("a.parquet", "PAR1", "--dataset_name"),
        ("a.csv", "text,label", "--dataset_name"),
        ("a.txt", "running text of five words\n", r"5 columns; running text is for examples/annotate\.py"),
        ("a.jsonl", "[" * 100_000, "Expected annotations in"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        read_annotations(tmp_path / name)
    assert len(str(error.value)) < 1000


def test_wrong_arguments_are_refused(tmp_path):
    for options, message in (
        ({"format": "brat"}, "Expected a format of conll, doccano"),
        ({"offset_unit": "bytes"}, "Expected offset_unit"),
        ({"format": "gliner"}, "Expected rows of the format 'gliner'.*The first, 1: expected a list of words"),
    ):
        with pytest.raises(ValueError, match=message):
            read(tmp_path, [ROWS["doccano"](0)], **options)
    with pytest.raises(ValueError, match="is not a file"):
        read_annotations(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("content", "options", "words", "tags", "scheme"),
    [
        ("-DOCSTART- -X- -X- O\n\nOslo NNP B-NP B-LOC\n. . O O\n", {}, ["Oslo", "."], ["B-LOC", "O"], "IOB2"),
        ("EU NNP I-NP I-ORG\nand CC O O\n", {}, ["EU", "and"], ["B-ORG", "O"], "IOB1"),
        ("a\tX\tB-LOC\tO\n", {"tag_column": 2}, ["a"], ["B-LOC"], "IOB2"),
        ("1\tOslo\tB-LOC\tO\n", {"word_column": 1, "tag_column": -2}, ["Oslo"], ["B-LOC"], "IOB2"),
        ("ann B-PER\nlee E-PER\noslo S-LOC\n", {}, ["ann", "lee", "oslo"], ["B-PER", "I-PER", "B-LOC"], "BIOES"),
        ("a B-X\nb M-X\nc E-X\n", {}, ["a", "b", "c"], ["B-X", "I-X", "I-X"], "BMES"),
        ("a PER\nb O\n", {"scheme": "IO"}, ["a", "b"], ["B-PER", "O"], "IO"),
        ("# id 5239d808 domain=en\na _ _ B-X\n", {}, ["a"], ["B-X"], "IOB2"),
        (
            "# sent_id = 5239d808\n# text = a b\n1\ta\tB-X\t-\n",
            {"word_column": 1, "tag_column": 2},
            ["a"],
            ["B-X"],
            "IOB2",
        ),
    ],
)
def test_conll_files_of_other_kinds(tmp_path, content, options, words, tags, scheme):
    (tmp_path / "a.txt").write_text(content)
    dataset, report = read_conll(tmp_path / "a.txt", return_report=True, **options)
    assert (dataset[0]["tokens"], dataset[0]["ner_tags"], report.scheme) == (words, tags, scheme)
    assert (f"scheme {scheme}" in str(report)) == (scheme != "IOB2")
    assert dataset[0]["id"] in ("5239d808", "line-1", "line-3")
    assert to_bio(dataset["ner_tags"]) == dataset["ner_tags"][:]


@pytest.mark.parametrize(("options", "message"), [
    ({"tag_column": 2}, "tag_column as one of the 2 columns"),
    ({"word_column": -3}, "word_column as one of the 2 columns"),
    ({"tag_column": "tag"}, "got 'tag'"),
    ({"scheme": "XYZ"}, "Expected a scheme of tags"),
    ({"scheme": "BILOU"}, "line 2 .*scheme BILOU"),
])  # fmt: skip
def test_options_that_do_not_fit_a_conll_file(tmp_path, options, message):
    (tmp_path / "a.txt").write_text("a\tO\nb\tS-X\n")
    with pytest.raises(ValueError, match=message):
        read_conll(tmp_path / "a.txt", **options)


def test_real_tweets_keep_their_entities_through_spans(twitter2017, tmp_path):
    """Of texts that are split anew, nearly all words are those of the corpus, and with them all entities."""
    rows = read_conll(twitter2017 / "valid.txt")
    texts, entities = [" ".join(words) for words in rows["tokens"]], []
    for words, tags in zip(rows["tokens"], rows["ner_tags"], strict=True):
        starts = [len(" ".join([*words[:at], ""])) for at in range(len(words))]
        found = [(starts[a], starts[b - 1] + len(words[b - 1]), label) for label, a, b in spans_from_tags(tags)]
        entities.append(found)
    write_annotations(tmp_path / "a.jsonl", texts, entities, "prodigy", ids=rows["id"])
    again, report = read_annotations(tmp_path / "a.jsonl", return_report=True)
    assert again["id"][:] == rows["id"][:]
    assert sum(report.entities.values()) == sum(map(len, entities))
    same = sum(a == b for a, b in zip(again["tokens"], rows["tokens"], strict=True))
    assert same > 0.8 * len(rows)
    assert all(
        spans_from_tags(a) == spans_from_tags(b)
        for a, b, ours, theirs in zip(again["ner_tags"], rows["ner_tags"], again["tokens"], rows["tokens"], strict=True)
        if ours == theirs
    )
    assert isinstance(again, datasets.Dataset)


@pytest.mark.parametrize("spans", [[{"start": 0, "end": 3, "label": "PER"}], [[0, 3, "PER"]]])
@pytest.mark.parametrize(
    ("key", "is_read"), [("ents", True), ("annotations", True), ("ner", False), ("named_entities", False)]
)
def test_spans_under_other_keys_are_not_lost(key, is_read, spans, tmp_path):
    file = tmp_path / "a.jsonl"
    for rows in (1, 2):
        file.write_text((json.dumps({"text": "Ann wins", key: spans}) + "\n") * rows)
        if is_read:
            assert read_annotations(file)["ner_tags"][:] == [["B-PER", "O"]] * rows
        else:
            with pytest.raises(ValueError, match=f"got some in '{key}'; rename it"):
                read_annotations(file)
