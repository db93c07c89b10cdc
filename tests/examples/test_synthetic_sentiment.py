import collections
import io
import random

import pytest
from PIL import Image

from bga_mner.examples.synthetic.drawings import SENTIMENTS, concept_images, draw_concept
from bga_mner.examples.synthetic.sentiment import generate_sentiment_corpus


@pytest.fixture(scope="module")
def corpus():
    return generate_sentiment_corpus(
        names_per_sentiment=4, train_labelled=60, train_unlabelled=60, test_sentences=30, image_size=16
    )


def target_of(row):
    return " ".join(row["tokens"][slice(*row["target"])])


def test_the_target_is_the_name_and_the_label_its_sentiment(corpus):
    assert corpus.labels == SENTIMENTS
    names = corpus.labelled_names | corpus.unlabelled_names
    assert len(names) == 12
    for dataset in (corpus.train, corpus.test_unseen_labels, corpus.test_labelled):
        for row in dataset:
            sentiment = names[target_of(row)]
            assert row["label"] is None or SENTIMENTS[row["label"]] == sentiment


def test_half_of_the_names_are_never_labelled(corpus):
    for row in corpus.train:
        assert (row["label"] is None) == (target_of(row) in corpus.unlabelled_names)
    assert {target_of(row) for row in corpus.test_unseen_labels} == set(corpus.unlabelled_names)
    assert {target_of(row) for row in corpus.test_labelled} == set(corpus.labelled_names)
    assert sum(label is None for label in corpus.train["label"]) == 60
    assert set(collections.Counter(corpus.test_unseen_labels["label"]).values()) == {10}


def test_images_show_the_sentiment_but_for_the_mismatches(corpus):
    names = corpus.labelled_names | corpus.unlabelled_names
    mismatched = [row["concept"] != names[target_of(row)] for row in corpus.train]
    assert sum(mismatched) == round(0.15 * 60) * 2
    assert Image.open(io.BytesIO(corpus.train[0]["image"]["bytes"])).size == (16, 16)
    assert corpus.test_unseen_labels["image"] == [None] * 30


def test_no_sentence_twice_and_the_same_again(corpus):
    sentences = [" ".join(words) for words in corpus.sentences()]
    assert len(set(sentences)) == len(sentences) == 180
    again = generate_sentiment_corpus(
        names_per_sentiment=4, train_labelled=60, train_unlabelled=60, test_sentences=30, image_size=16
    )
    assert again.train[:] == corpus.train[:]


def test_drawings_differ_by_sentiment():
    images, kinds = concept_images(6, image_size=16, kinds=SENTIMENTS)
    assert kinds == [0, 1, 2] * 2
    assert len({image.tobytes() for image in images}) == 6
    shapes = {draw_concept(kind, random.Random(1), 16)[0].tobytes() for kind in SENTIMENTS}
    assert len(shapes) == 3  # of the same colours and positions


def test_sizes_out_of_range_are_refused():
    with pytest.raises(ValueError, match="names_per_sentiment >= 2"):
        generate_sentiment_corpus(names_per_sentiment=1)
    with pytest.raises(ValueError, match="numbers of sentences >= 0"):
        generate_sentiment_corpus(test_sentences=-1)
    with pytest.raises(ValueError, match="mismatch_rate between 0 and 1"):
        generate_sentiment_corpus(mismatch_rate=2.0, train_labelled=2, train_unlabelled=2)
