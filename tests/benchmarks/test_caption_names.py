"""Names in captions: which captions are used, and what is kept apart."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest


FLICKR = os.environ.get("BGA_MNER_FLICKR8K", "")
SIZES = {"names_per_type": 4, "pairs_per_name": 5, "tests_per_name": 3}
TELLING = {"book", "tail"}


def images_of(dataset):
    return {Path(path).stem for path in dataset["image"]}


def check(corpus, names_per_type, pairs_per_name, tests_per_name):
    """Check what is promised of any corpus with images at test."""
    labelled, unlabelled = corpus.labelled_names, corpus.unlabelled_names
    assert not labelled.keys() & unlabelled.keys()
    tested = corpus.test_unseen_labels["name"]
    new = {name: unlabelled[known] for name, known in zip(corpus.test_new_names["name"], tested, strict=True)}
    for names in (labelled, unlabelled, new):
        assert Counter(names.values()) == dict.fromkeys(("person", "animal"), names_per_type // 2)
    each = {
        "train": (labelled | unlabelled, pairs_per_name),
        "validation": (labelled, 2),
        "test_unseen_labels": (unlabelled, tests_per_name),
        "test_labelled": (labelled, tests_per_name),
        "test_new_names": (new, tests_per_name),
    }
    for part, (names, number) in each.items():
        rows = getattr(corpus, part)
        assert Counter(rows["name"]) == dict.fromkeys(names, number)
        assert len(set(rows["id"])) == len(rows)
        for row in rows:
            name = row["name"].split()
            assert row["tokens"][: len(name)] == name
            if part == "train" and row["name"] in unlabelled:
                assert row["ner_tags"] is None
                continue
            kind = names[row["name"]]
            rest = len(row["tokens"]) - len(name)
            assert row["ner_tags"] == [f"B-{kind}", *[f"I-{kind}"] * (len(name) - 1), *["O"] * rest]
    # new names have the captions of those that are never labelled, and share no word with any other
    for row, known in zip(corpus.test_new_names, corpus.test_unseen_labels, strict=True):
        assert row["tokens"][len(row["name"].split()) :] == known["tokens"][len(known["name"].split()) :]
    words_of_names = {word.lower() for name in labelled | unlabelled for word in name.split()}
    assert not words_of_names & {word.lower() for name in new for word in name.split()}
    known = corpus.train.filter(lambda tags: tags is not None, input_columns="ner_tags")
    hidden = corpus.train.filter(lambda tags: tags is None, input_columns="ner_tags")
    tests = images_of(corpus.test_unseen_labels) | images_of(corpus.test_labelled)
    assert set(known["name"]) == set(labelled)
    assert not images_of(known) & images_of(hidden)
    assert not tests & images_of(corpus.train)


@pytest.mark.parametrize(
    ("caption", "subject"),
    [
        ("A brown dog runs on grass .", ("animal", 3)),
        ("The little girl in red", ("person", 3)),
        ("One man", ("person", 2)),
        ("Two dogs play .", None),
        ("Dogs play .", None),
        ("A house near a dog .", None),
        ("A very very old big brown dog .", None),  # too long for a subject
        ("A man 's dog runs .", None),
        ("A soccer player boy runs .", None),  # the last noun is the subject
        ("A boxer jumps .", None),  # either
        ("", None),
    ],
)
def test_finds_subjects(benchmark, caption, subject):
    assert benchmark.subject_of(caption.split()) == subject


def test_reads_captions_that_agree(benchmark, tmp_path):
    (tmp_path / "pictures").mkdir()
    agreeing = ["A dog runs .", "The dog jumps !", "Two dogs", "A puppy sits .", "It is brown ."]
    texts = {
        "agreeing": agreeing,
        "few": [*agreeing[:3], "Brown .", "Grass ."],
        "both": [*agreeing[:4], "A man with it ."],
    }
    lines = [f"{image}\t{caption}" for image, captions in texts.items() for caption in captions]
    # newlines alone end a caption
    lines[0] += "\u2028"
    (tmp_path / "captions.tsv").write_text("\n".join([*lines, "", ""]), encoding="utf-8-sig")
    (tmp_path / "pictures" / "agreeing.jpg").touch()
    found = benchmark.read_captions(tmp_path)
    assert {(caption.image, caption.kind) for caption in found} == {("agreeing", "animal")}
    assert {caption.rest for caption in found} == {("runs", "."), ("jumps",), ("sits", ".")}


def test_sets_share_neither_images_nor_labels(benchmark, caption_folder):
    corpus = benchmark.build_corpus(caption_folder, 0, **SIZES, test_images=True)
    check(corpus, **SIZES)
    of_type = corpus.labelled_names | corpus.unlabelled_names
    for row in corpus.train:
        assert Path(row["image"]).stem.startswith(of_type[row["name"]])
        assert Path(row["image"]).is_file()
    said = {
        word for rows in (corpus.test_unseen_labels, corpus.test_labelled) for row in rows for word in row["tokens"]
    }
    assert not said & TELLING
    assert all(abs(odds) < 2 for rows in (corpus.test_unseen_labels, corpus.test_labelled) for odds in rows["odds"])
    for row in corpus.train:
        if TELLING & {*row["tokens"]}:
            assert (row["odds"] > 0) == (of_type[row["name"]] == "person")
    assert {word for row in corpus.train for word in row["tokens"]} >= TELLING


def test_tests_have_no_images_unless_asked(benchmark, caption_folder):
    corpus = benchmark.build_corpus(caption_folder, 0, **SIZES)
    for rows in (corpus.validation, corpus.test_unseen_labels, corpus.test_labelled):
        assert set(rows["image"]) == {None}


def test_seeds_differ_and_repeat(benchmark, caption_folder):
    first, again, other = (benchmark.build_corpus(caption_folder, seed, **SIZES) for seed in (1, 1, 2))
    assert first.train[:] == again.train[:]
    assert not first.labelled_names.keys() & other.labelled_names.keys()
    assert images_of(first.train) != images_of(other.train)


def test_odds_are_of_the_words_beside_the_name(benchmark, caption_folder):
    captions = benchmark.read_captions(caption_folder)
    odds = benchmark._log_odds(captions)
    for kind, sign in (("person", 1), ("animal", -1)):
        telling = np.array([caption.kind == kind and bool(TELLING & set(caption.rest)) for caption in captions])
        assert (sign * odds[telling] > 2).all()
    places = np.array([not TELLING & set(caption.rest) for caption in captions])
    assert (np.abs(odds[places]) < 2).mean() > 0.9


def test_says_what_to_mend(benchmark, caption_folder, tmp_path):
    with pytest.raises(ValueError, match=r"Expected captions\.tsv in --data_dir .*Name another folder"):
        benchmark.build_corpus(tmp_path, 0)
    shutil.copy(caption_folder / "captions.tsv", tmp_path)
    with pytest.raises(ValueError, match=r"Expected an image of each caption .* for \d+ ids\. Add .*pictures"):
        benchmark.build_corpus(tmp_path, 0)
    for line in ("1 A dog runs .", "../1\tA dog runs ."):
        (tmp_path / "captions.tsv").write_text(f"1\tA man .\n{line}\n", encoding="utf-8")
        with pytest.raises(ValueError, match=r"Expected <id><TAB><caption> in line 2 of .*dog"):
            benchmark.build_corpus(tmp_path, 0)
    (tmp_path / "captions.tsv").write_text("1\tA man .\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"at least 20 images of each type .*'person': 0, 'animal': 0"):
        benchmark.build_corpus(tmp_path, 0)
    (tmp_path / "captions.tsv").write_text("1\tA man .\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"Expected UTF-8 in .*captions\.tsv"):
        benchmark.build_corpus(tmp_path, 0)
    with pytest.raises(ValueError, match=r"at least 99 test captions of each type that hardly tell it, got .*Add"):
        benchmark.build_corpus(caption_folder, 0, tests_per_name=99)


@pytest.mark.skipif(not FLICKR, reason="BGA_MNER_FLICKR8K names no folder with captions.tsv and pictures/")
def test_real_captions(benchmark):
    corpus = benchmark.build_corpus(Path(FLICKR), 0, test_images=True)
    check(corpus, names_per_type=40, pairs_per_name=25, tests_per_name=9)
    sentences = Counter(" ".join(row["tokens"][len(row["name"].split()) :]) for row in corpus.train)
    assert len(sentences) > 1800  # hardly any caption is dealt twice
