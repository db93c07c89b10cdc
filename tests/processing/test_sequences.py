"""Texts, labels, targets and images in whatever people keep them: the same as in lists."""

from __future__ import annotations

import warnings
from collections import deque
from types import MappingProxyType

import datasets
import numpy as np
import pandas
import pyarrow
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from bga_mner import BgaMnerPipeline, predict
from bga_mner.processing.images.image_loading import as_image_list
from bga_mner.processing.sequences import as_list, is_table


WORDS = [["Kawhi", "wins"], ["Seattle"]]
TEXTS = ["Kawhi wins", "Seattle"]
TAGS = [["B-PER", "O"], ["B-LOC"]]


def objects(values):
    """Make an array of objects, each as it is; numpy would make one of more axes of lists of the same length."""
    made = np.empty(len(values), dtype=object)
    made[:] = values
    return made


KINDS = {
    "tuple": tuple,
    "deque": deque,
    "generator": lambda values: (value for value in values),
    "iterator": iter,
    "dict values": lambda values: dict(enumerate(values)).values(),
    "Series": pandas.Series,
    "Series of objects": lambda values: pandas.Series(values, dtype=object),
    "Series with another index": lambda values: pandas.Series(values, index=range(7, 7 + len(values))),
    "Index": lambda values: pandas.Index(values, dtype=object),
    "object array": objects,
    "pyarrow.Array": pyarrow.array,
    "pyarrow.ChunkedArray": lambda values: pyarrow.chunked_array([values[:1], values[1:]]),
    "Column": lambda values: datasets.Dataset.from_dict({"x": values})["x"],
    "arrays in a Series": lambda values: pandas.Series(
        [np.array(value, object) if isinstance(value, list) else value for value in values]
    ),
}
STRINGS = {
    "array of str": np.array,
    "Series of str": lambda values: pandas.Series(values, dtype="string"),
    "Categorical": pandas.Categorical,
}


def equal(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert all(np.array_equal(a, b) for a, b in zip(first[name], second[name], strict=True)), name


@pytest.mark.parametrize("kind", KINDS)
def test_words_labels_and_images(bert_processor, photo, tmp_path, kind):
    photo.save(tmp_path / "a.png")
    paths = [str(tmp_path / "a.png"), None]
    made = KINDS[kind]
    expected = bert_processor(WORDS, images=paths, word_labels=TAGS)
    equal(bert_processor(made(WORDS), images=made(paths), word_labels=made(TAGS)), expected)
    equal(bert_processor.encode_examples({"tokens": made(WORDS), "image": made(paths), "ner_tags": made(TAGS)}),
          bert_processor.encode_examples({"tokens": WORDS, "image": paths, "ner_tags": TAGS}))  # fmt: skip
    # what is missing
    equal(bert_processor(WORDS, word_labels=made([TAGS[0], None])), bert_processor(WORDS, word_labels=[TAGS[0], None]))


@pytest.mark.parametrize("kind", KINDS | STRINGS)
def test_texts_and_one_text_as_words(bert_processor, kind):
    made = (KINDS | STRINGS)[kind]
    equal(bert_processor(made(TEXTS)), bert_processor(TEXTS))
    expected = bert_processor(["Kawhi", "wins"], is_split_into_words=True, word_labels=["B-PER", "O"])
    words = made(["Kawhi", "wins"])
    equal(bert_processor(words, is_split_into_words=True, word_labels=made(["B-PER", "O"])), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_targets(bert_processor, kind):
    targets = [[0, 5], None]
    equal(bert_processor(KINDS[kind](TEXTS), targets=KINDS[kind](targets)), bert_processor(TEXTS, targets=targets))


@pytest.fixture
def tagger(make_model, bert_processor):
    text = {"vocab_size": len(bert_processor.tokenizer), "max_position_embeddings": 80}
    names = {number: label for label, number in bert_processor.label2id.items()}
    return make_model(text_options=text, id2label=names, image_size=32, visual_source="real")


@pytest.mark.parametrize("kind", KINDS | STRINGS)
def test_predictions(tagger, bert_processor, photo, kind):
    made = (KINDS | STRINGS)[kind]
    assert predict(tagger, bert_processor, made(TEXTS)) == predict(tagger, bert_processor, TEXTS)
    assert predict(tagger, bert_processor, made([])[:0] if kind == "pyarrow.ChunkedArray" else made(TEXTS[:0])) == []
    pipe = BgaMnerPipeline(tagger, bert_processor)
    streamed = kind in ("generator", "iterator")  # what has no length
    found = pipe(made(TEXTS), batch_size=2)
    assert isinstance(found, list) != streamed
    assert list(found) == pipe(TEXTS, batch_size=2)
    if kind in KINDS:
        assert predict(tagger, bert_processor, made(WORDS)) == predict(tagger, bert_processor, WORDS)
        assert list(pipe(made(WORDS), batch_size=2)) == pipe(WORDS, batch_size=2)
        paths = [{"bytes": None, "path": "gone.png"}, None]
        with pytest.warns(UserWarning, match="1 missing"):
            predict(tagger, bert_processor, TEXTS, images=made(paths))


def test_missing_values_of_pandas(bert_processor):
    """What `frame["image"].tolist()` gives, too: NaN or NA in the place of None."""
    for column in (
        *(pandas.Series(["a.jpg", None]), pandas.Series(["a.jpg", None], dtype=object)),
        *(pandas.Series(["a.jpg", None], dtype="string"), pandas.Series(["a.jpg", np.nan])),
    ):
        for images in (column, column.to_numpy(), column.tolist(), column.array):
            assert as_image_list(images) == ["a.jpg", None]
    nothing = pandas.DataFrame({"image": [None, np.nan]})["image"]
    assert list(bert_processor(TEXTS, images=nothing)["image_mask"]) == [False, False]
    labels = pandas.Series([1.0, None, pandas.NA], dtype=object)
    expected = bert_processor([["a", "b", "c"]], word_labels=[[1, None, None]])
    equal(bert_processor([["a", "b", "c"]], word_labels=[labels]), expected)
    with pytest.raises(ValueError, match=r"got nothing \(None or NaN\) as text 1"):
        bert_processor(pandas.Series(["a", None]))


def test_an_array_of_numbers_is_one_image(bert_processor, photo):
    array = np.asarray(photo)
    assert len(as_image_list(array)) == len(as_image_list(torch.tensor(array))) == 1
    assert len(as_image_list(np.stack([array, array]))) == 2
    assert as_image_list(photo) == [photo]
    for images in (array, [array], np.stack([array]), torch.tensor(array)):
        with pytest.raises(TypeError, match=r"PIL\.Image\.fromarray"):
            bert_processor(["a"], images=images)
    # an array of images isn't one
    assert as_image_list(objects([photo, None])) == [photo, None]


@pytest.mark.parametrize(
    "value",
    ["a", b"a", bytearray(b"a"), memoryview(b"a"), None, 3, 2.5, {"a": 1}, MappingProxyType({}), {"a"}, np.array("a")],
)
def test_what_is_no_sequence(value):
    assert as_list(value) is None
    assert not is_table(value)


@pytest.mark.parametrize(
    "table",
    [
        pandas.DataFrame({"text": TEXTS}),
        datasets.Dataset.from_dict({"text": TEXTS}),
        pyarrow.table({"text": TEXTS}),
    ],
    ids=lambda table: type(table).__name__,
)
def test_of_a_table_a_column_is_asked_for(bert_processor, tagger, table):
    assert is_table(table)
    assert as_list(table) is None
    for call in (bert_processor, lambda text: predict(tagger, bert_processor, text)):
        with pytest.raises(ValueError, match=r"Give one of its columns, such as table\['text'\]"):
            call(table)
    with pytest.raises(TypeError, match=r"give one of its columns, such as table\['image'\]"):
        bert_processor(["a"], images=table)
    pipe = BgaMnerPipeline(tagger, bert_processor)
    if isinstance(table, datasets.Dataset):  # whose rows are inputs of the pipeline
        assert list(pipe(table)) == pipe(TEXTS)
    else:
        with pytest.raises(ValueError, match="Give one of its columns"):
            pipe(table)


def test_files_are_no_sequences(bert_processor, tmp_path):
    (tmp_path / "texts.txt").write_text("a\nb\n")
    with (tmp_path / "texts.txt").open() as file, pytest.raises(ValueError, match="got TextIOWrapper"):
        bert_processor(file)
    with (tmp_path / "texts.txt").open("rb") as file, pytest.raises(TypeError, match=r"file\.read\(\)"):
        bert_processor(["a"], images=file)


def test_torch_data_sets_of_a_pipeline_stay_what_they_are(tagger, bert_processor):
    class Texts(Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, number):
            return TEXTS[number]

    pipe = BgaMnerPipeline(tagger, bert_processor)
    found = pipe(Texts())
    assert not isinstance(found, list)
    assert list(found) == pipe(TEXTS)


def test_several_images_of_a_text(bert_processor, tagger, photo):
    red = Image.new("RGB", (9, 9), "red")
    for images in ([[red, photo], None], [[b"", red], []], [(None, red), [None]], objects([[red, photo], None])):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            batch = bert_processor(TEXTS, images=images)
        kinds = [str(warning.message).split(",")[0] for warning in caught]
        assert ("Some texts have several images" in kinds) == (images[0] != (None, red))
        assert list(batch["image_mask"]) == [True, False]
        np.testing.assert_array_equal(batch["pixel_values"][0], bert_processor(["a"], images=red)["pixel_values"][0])
    with pytest.raises(ValueError, match="A text has one image: choose one, or repeat the text"):
        bert_processor("a", images=[red, photo])
    with pytest.raises(ValueError, match="A text has one image: choose one, or repeat the text"):
        predict(tagger, bert_processor, "a", images=[red, photo])
    with pytest.raises(ValueError, match="Image 0: Expected an image, got an empty file: 0 bytes"):
        bert_processor(["a"], images=[[b"", red]], on_bad_image="raise")
    pipe = BgaMnerPipeline(tagger, bert_processor)
    with pytest.warns(UserWarning, match="one image per text"):
        found = pipe({"text": "Kawhi wins", "image": [red, photo]})
    assert found == pipe({"text": "Kawhi wins", "image": red})
    with pytest.raises(ValueError, match="allow_urls"):
        pipe({"text": "a", "image": [red, "https://example.org/a.jpg"]})
