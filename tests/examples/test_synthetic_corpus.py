import collections
import hashlib
import io
import math
import subprocess
import sys

import pytest
from PIL import Image

from bga_mner.examples.synthetic.corpus import LABELS, GeneratedCorpus, generate_corpus
from bga_mner.examples.synthetic.drawings import ENTITY_TYPES


SMALL = {
    "names_per_type": 4,
    "train_labelled": 40,
    "train_unlabelled": 40,
    "test_sentences": 16,
    "validation_sentences": 8,
    "image_size": 32,
}
SPLITS = ("train", "validation", "test_unseen_labels", "test_labelled")


@pytest.fixture(scope="module")
def corpus() -> GeneratedCorpus:
    return generate_corpus(image_size=16)


@pytest.fixture(scope="module")
def small() -> GeneratedCorpus:
    return generate_corpus(**SMALL)


def rows_of(corpus: GeneratedCorpus) -> list:
    return [row for split in SPLITS for row in getattr(corpus, split)]


def texts_of(corpus: GeneratedCorpus) -> list:
    return [(row["id"], row["tokens"], row["ner_tags"]) for row in rows_of(corpus)]


def type_of(row: dict) -> str:
    """Read the type from the tags."""
    return next(tag[2:] for tag in row["ner_tags"] if tag != "O")


def named(row: dict, names: dict[str, str]) -> list[str]:
    """Find the names that occur in a sentence, as runs of whole words."""
    text = f" {' '.join(row['tokens'])} "
    return [name for name in names if f" {name} " in text]


def test_same_seed_is_bit_identical_here_and_in_another_process(small):
    def digest(corpus):
        return hashlib.sha256(repr(rows_of(corpus)).encode()).hexdigest()

    again = generate_corpus(**SMALL)
    assert digest(again) == digest(small)
    code = (
        "import hashlib\n"
        "from bga_mner.examples.synthetic.corpus import generate_corpus\n"
        f"corpus = generate_corpus(**{SMALL!r})\n"
        f"rows = [row for split in {SPLITS!r} for row in getattr(corpus, split)]\n"
        "print(hashlib.sha256(repr(rows).encode()).hexdigest())\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == digest(small)


def test_texts_are_those_that_published_scores_were_measured_on(small):
    expected = "b626acce2b4f88eecd47981a3bd36a1898b16d3385ab5e3afb3702e7ff0f222b"
    assert hashlib.sha256(repr(texts_of(small)).encode()).hexdigest() == expected


def test_seeds_change_what_they_should(small):
    other = generate_corpus(seed=1, **SMALL)
    assert not set(other.labelled_names) & set(small.labelled_names)
    images = generate_corpus(image_seed=7, **SMALL)
    assert texts_of(images) == texts_of(small)
    assert images.train["image"] != small.train["image"]
    assert images.train["concept"] != small.train["concept"]


def test_texts_do_not_depend_on_images_nor_tests_on_training_sizes(small):
    changed = generate_corpus(**SMALL | {"image_size": 16, "clutter": 1.0, "mismatch_rate": 0.5})
    assert texts_of(changed) == texts_of(small)
    longer = generate_corpus(**SMALL | {"train_labelled": 60, "validation_sentences": 20})
    assert longer.test_unseen_labels.to_list() == small.test_unseen_labels.to_list()
    assert longer.labelled_names == small.labelled_names


def test_sizes_and_columns(corpus):
    assert [len(getattr(corpus, split)) for split in SPLITS] == [2400, 200, 400, 400]
    for split in SPLITS:
        names = set(getattr(corpus, split).column_names)
        assert names == {"id", "tokens", "ner_tags", "image", "concept", "object_box"}
    assert corpus.labels == LABELS == ("O", *(f"{p}-{kind}" for kind in ("LOC", "MISC", "ORG", "PER") for p in "BI"))
    ids = [row["id"] for row in rows_of(corpus)]
    assert len(set(ids)) == len(ids)
    sentences = [tuple(tokens) for tokens in corpus.sentences()]
    assert len(set(sentences)) == len(sentences) == 3400


def test_names_are_unique_balanced_and_no_ordinary_words(corpus):
    for names in (corpus.labelled_names, corpus.unlabelled_names):
        assert collections.Counter(names.values()) == dict.fromkeys(ENTITY_TYPES, 15)
    names = [*corpus.labelled_names, *corpus.unlabelled_names]
    words = [word.lower() for name in names for word in name.split()]
    assert len(set(names)) == 120
    assert len(set(words)) == len(words)
    ordinary = {
        word.lower()
        for row in rows_of(corpus)
        if row["ner_tags"]
        for word, tag in zip(row["tokens"], row["ner_tags"], strict=True)
        if tag == "O"
    }
    assert not ordinary & set(words)


def test_form_of_names_is_the_same_for_all_types(corpus):
    def form(name):
        return " ".join("U" if w.isupper() else "l" if w.islower() else "T" for w in name.split())

    for names in (corpus.labelled_names, corpus.unlabelled_names):
        forms = {kind: collections.Counter(form(n) for n, k in names.items() if k == kind) for kind in ENTITY_TYPES}
        assert len(forms["PER"]) > 4
        assert all(counts == forms["PER"] for counts in forms.values())


def test_never_labelled_names_are_never_labelled(corpus):
    hidden = [row for row in corpus.train if row["ner_tags"] is None]
    shown = [row for row in corpus.train if row["ner_tags"] is not None]
    assert len(hidden) == len(shown) == 1200
    assert all(len(named(row, corpus.unlabelled_names)) == 1 for row in hidden)
    assert not any(named(row, corpus.labelled_names) for row in hidden)
    for row in [*shown, *corpus.validation, *corpus.test_labelled]:
        assert not named(row, corpus.unlabelled_names)
    assert all(len(named(row, corpus.unlabelled_names)) == 1 for row in corpus.test_unseen_labels)
    counts = collections.Counter(named(row, corpus.unlabelled_names)[0] for row in hidden)
    assert set(counts.values()) == {20}


def test_tags_mark_exactly_the_name(corpus):
    names = corpus.labelled_names | corpus.unlabelled_names
    for row in rows_of(corpus):
        if row["ner_tags"] is None:
            continue
        assert len(row["ner_tags"]) == len(row["tokens"])
        assert set(row["ner_tags"]) <= set(LABELS)
        at = [i for i, tag in enumerate(row["ner_tags"]) if tag != "O"]
        assert at == list(range(at[0], at[-1] + 1))
        assert [row["ner_tags"][i][0] for i in at] == ["B"] + ["I"] * (len(at) - 1)
        assert names[" ".join(row["tokens"][i] for i in at)] == type_of(row)


def test_images_and_mismatch_rate(corpus):
    names = corpus.labelled_names | corpus.unlabelled_names

    def mismatch(rows):
        return sum(names[named(row, names)[0]] != row["concept"] for row in rows) / len(rows)

    hidden = [row for row in corpus.train if row["ner_tags"] is None]
    shown = [row for row in corpus.train if row["ner_tags"] is not None]
    for rows in (hidden, shown, list(corpus.validation)):
        assert mismatch(rows) == pytest.approx(0.15, abs=0.005)
    for row in [*corpus.test_unseen_labels, *corpus.test_labelled]:
        assert row["image"] is row["concept"] is row["object_box"] is None


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 0), (1.0, 40)])
def test_mismatch_rate_limits(rate, expected):
    corpus = generate_corpus(**SMALL | {"mismatch_rate": rate})
    rows = [row for row in corpus.train if row["ner_tags"] is not None]
    assert sum(type_of(row) != row["concept"] for row in rows) == expected


@pytest.mark.parametrize("size", [16, 50, 64])
def test_images_have_the_size_asked_for(size):
    corpus = generate_corpus(**SMALL | {"image_size": size})
    for row in [*corpus.train, *corpus.validation]:
        image = Image.open(io.BytesIO(row["image"]["bytes"]))
        image.load()
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (size, size))
        x0, y0, x1, y1 = row["object_box"]
        assert 0 <= x0 < x1 <= size
        assert 0 <= y0 < y1 <= size


@pytest.mark.parametrize("clauses", [False, True])
def test_types_cannot_be_told_from_the_words(clauses):
    corpus = generate_corpus(image_size=16, train_unlabelled=0, train_labelled=2400, clauses=clauses)

    def features(row):
        outside = [word for word, tag in zip(row["tokens"], row["ner_tags"], strict=True) if tag == "O"]
        at = next(i for i, tag in enumerate(row["ner_tags"]) if tag != "O")
        around = [f"{d}:{row['tokens'][at + d]}" for d in (-2, -1) if at + d >= 0]
        return [*outside, *around, f"length:{len(outside)}", f"at:{at}"]

    counts = {kind: collections.Counter() for kind in ENTITY_TYPES}
    for row in corpus.train:
        counts[type_of(row)].update(features(row))
    totals = {kind: sum(count.values()) for kind, count in counts.items()}
    vocabulary = len(set().union(*counts.values()))

    def guess(row):
        return max(
            ENTITY_TYPES,
            key=lambda kind: sum(
                math.log((counts[kind][word] + 1) / (totals[kind] + vocabulary)) for word in features(row)
            ),
        )

    test = [*corpus.validation, *corpus.test_unseen_labels, *corpus.test_labelled]
    accuracy = sum(guess(row) == type_of(row) for row in test) / len(test)
    assert abs(accuracy - 0.25) < 0.055  # four standard deviations of a guess over 1000 sentences


def test_spans_are_not_found_by_position_or_case(corpus):
    rows = [row for row in corpus.train if row["ner_tags"]]
    starts = collections.Counter(next(i for i, tag in enumerate(row["ner_tags"]) if tag != "O") for row in rows)
    assert max(starts.values()) / len(rows) < 0.25
    assert len(starts) > 8
    capital = collections.Counter(
        (word[0].isupper(), tag != "O")
        for row in rows
        for word, tag in zip(row["tokens"], row["ner_tags"], strict=True)
        if word[0].isalpha()
    )
    assert capital[True, False] > 0.5 * capital[True, True]  # capitalised ordinary words
    assert capital[False, True] > 0.1 * capital[True, True]  # names in lower case


def test_clauses_lengthen_sentences_and_keep_one_name():
    corpus = generate_corpus(**SMALL, clauses=True)
    plain = generate_corpus(**SMALL)
    mean = [sum(map(len, c.sentences())) / len(c.sentences()) for c in (corpus, plain)]
    assert mean[0] > mean[1] + 5
    names = corpus.labelled_names | corpus.unlabelled_names
    assert all(len(named(row, names)) == 1 for row in rows_of(corpus))


def test_parts_can_be_left_out():
    sizes = dict.fromkeys(("train_labelled", "train_unlabelled", "test_sentences", "validation_sentences"), 0)
    corpus = generate_corpus(**SMALL | sizes)
    assert [len(getattr(corpus, split)) for split in SPLITS] == [0, 0, 0, 0]
    assert "object_box" in corpus.train.column_names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names_per_type": 1}, "names_per_type >= 2"),
        ({"test_sentences": -1}, "sentences >= 0"),
        ({"mismatch_rate": 1.5}, "mismatch_rate between 0 and 1"),
        ({"image_size": 8}, "at least 16 pixels"),
        ({"clutter": -0.1}, "clutter between 0 and 1"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        generate_corpus(**SMALL | arguments)


def test_test_sentences_get_images_only_if_asked_for():
    corpus = generate_corpus(**SMALL)
    beside_image = generate_corpus(test_images=True, **SMALL)
    assert corpus.test_unseen_labels["image"] == [None] * len(corpus.test_unseen_labels)
    for ours, plain in (
        (beside_image.test_unseen_labels, corpus.test_unseen_labels),
        (beside_image.test_labelled, corpus.test_labelled),
    ):
        assert ours["tokens"] == plain["tokens"]
        kinds = [next(tag[2:] for tag in tags if tag != "O") for tags in ours["ner_tags"]]
        assert ours["concept"] == kinds  # none is mismatched
        assert all(image["bytes"] for image in ours["image"])
    assert beside_image.train["image"] == corpus.train["image"]


def test_given_images_take_the_place_of_drawings():
    corpus = generate_corpus(**SMALL)
    images = {kind: [f"{kind}{i}".encode() for i in range(3)] for kind in ENTITY_TYPES}
    given = generate_corpus(images=images, **SMALL)
    assert given.train["tokens"] == corpus.train["tokens"]
    used = {image["bytes"].decode() for image in given.train["image"]}
    assert used == {f"{kind}{i}" for kind in ENTITY_TYPES for i in range(3)}
    assert all(
        image["bytes"].decode().startswith(concept)
        for image, concept in zip(given.train["image"], given.train["concept"], strict=True)
    )
    assert given.train["object_box"] == [None] * len(given.train)
    with pytest.raises(ValueError, match=r"got them for \['LOC'\]\. Add the others"):
        generate_corpus(images={"LOC": [b"x"]}, **SMALL)
