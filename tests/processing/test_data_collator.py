import copy

import numpy as np
import pytest
import torch

from bga_mner.processing.data_collator import DataCollatorForMner
from bga_mner.processing.processing_bga_mner import BgaMnerProcessor


def test_batch_equals_the_processors_own(processor, photo):
    sentences = [["Kawhi", "wins"], [], ["#", "NBA", "Seattle", "\u200d"]]
    labels = [["B-PER", "O"], None, ["O", "B-ORG", "B-LOC", None]]
    encoded = processor.encode_examples({"tokens": sentences, "ner_tags": labels, "image": [None, photo, None]})
    rows = [{name: column[row] for name, column in encoded.items()} for row in range(3)]
    batch = DataCollatorForMner(processor)(rows)
    expected = processor(
        sentences, [None, photo, None], labels, return_tensors="pt", return_word_start_mask=True, padding=True
    )
    assert set(batch) == set(expected)
    for name, values in expected.items():
        assert batch[name].dtype == values.dtype, name
        assert torch.equal(batch[name], values), name


def test_only_what_is_there_is_returned(bert_processor):
    batch = DataCollatorForMner(bert_processor)([{"input_ids": [2, 3], "pixel_values": None, "id": "x"}])
    assert sorted(batch) == ["attention_mask", "input_ids"]
    assert batch["attention_mask"].tolist() == [[1, 1]]


def test_missing_labels_are_unknown_and_missing_starts_leave_the_mask_out(bert_processor):
    rows = [
        {"input_ids": [2, 7, 3], "labels": [0, 1, 0], "word_start_mask": [False, True, False], "tokens": ["a"]},
        {"input_ids": np.array([2, 3]), "word_ids": [None, None]},
    ]
    batch = DataCollatorForMner(bert_processor, pad_to_multiple_of=4)(rows)
    assert batch["labels"].tolist() == [[0, 1, 0, -100], [-100] * 4]
    assert "word_start_mask" not in batch
    assert "tokens" not in batch


def test_padding_side(processor):
    batch = DataCollatorForMner(processor)([{"input_ids": [2, 7, 3]}, {"input_ids": [2, 3]}])
    left = processor.tokenizer.padding_side == "left"
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 1, 1] if left else [1, 1, 0]]


def test_fixed_length(bert_processor):
    assert DataCollatorForMner(bert_processor, max_length=9)([{"input_ids": [2, 3]}])["input_ids"].shape == (1, 9)
    with pytest.raises(ValueError, match="at most max_length=1 tokens, got 2"):
        DataCollatorForMner(bert_processor, max_length=1)([{"input_ids": [2, 3]}])


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, lambda array: array.tolist()])
def test_images_may_be_arrays_tensors_or_lists(bert_processor, kind):
    images = [kind(np.ones((3, 4, 4), np.float32)), None]
    rows = [{"input_ids": [2, 3], "pixel_values": image} for image in images]
    batch = DataCollatorForMner(bert_processor)(rows)
    assert batch["pixel_values"].shape == (2, 3, 4, 4)
    assert batch["image_mask"].tolist() == [True, False]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one example"),
        ([{"labels": [1]}], r"remove_unused_columns=False"),
        ([{"input_ids": [1, 2], "labels": [0]}], "Expected 2 items in 'labels' of example 0"),
        (
            [
                {"input_ids": [1], "pixel_values": np.ones((3, 4, 4))},
                {"input_ids": [1], "pixel_values": np.ones((3, 4, 5))},
            ],
            "images of one shape",
        ),
        ([{"input_ids": [1], "pixel_values": np.ones((4, 4))}], "images of one shape"),
        # whatever a file may hold in place of numbers
        ([{"input_ids": 3}], "Expected a list of numbers in 'input_ids', got int"),
        ([{"input_ids": "abc"}], "one whole number per token in 'input_ids'"),
        ([{"input_ids": [1], "labels": ["O"]}], "one whole number per token in 'labels'"),
        ([{"input_ids": [1], "labels": [[0]]}], "one whole number per token in 'labels'"),
        ([{"input_ids": [1], "labels": [0.5]}], "one whole number per token in 'labels'"),
        ([{"input_ids": [1, 2], "labels": [0, None]}], "one whole number per token in 'labels'"),
        ([{"input_ids": [2**64]}], "one whole number per token in 'input_ids'"),
        ([{"input_ids": [1], "pixel_values": {"a": 1}}], "Expected 'pixel_values' as arrays of numbers"),
        ([{"input_ids": [1], "pixel_values": [["a"]]}], "Expected 'pixel_values' as arrays of numbers"),
        ([{"input_ids": [1], "label": {"a": 1}}], "Expected a 'label' that is a number"),
    ],
)
def test_wrong_rows_are_refused(bert_processor, rows, message):
    with pytest.raises(ValueError, match=message):
        DataCollatorForMner(bert_processor)(rows)


def test_tokenizer_without_padding_is_refused(tokenizers):
    tokenizer = copy.deepcopy(tokenizers["wordpiece"])
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match=r"Set tokenizer\.pad_token"):
        DataCollatorForMner(BgaMnerProcessor(None, tokenizer))([{"input_ids": [1]}])


def test_every_batch_has_the_same_keys_where_processes_share_a_model(bert_processor):
    collate = DataCollatorForMner(bert_processor, image_shape=(3, 4, 4))
    batch = collate([{"input_ids": [2, 5, 3], "pixel_values": None}, {"input_ids": [2, 3], "pixel_values": None}])
    assert batch["pixel_values"].shape == (2, 3, 4, 4)
    assert not batch["pixel_values"].any()
    assert batch["image_mask"].tolist() == [False, False]
    assert batch["labels"].tolist() == [[-100] * 3] * 2
    # without a column of images there are none, and those that are there stay
    assert "pixel_values" not in collate([{"input_ids": [2, 3]}])
    one = collate([{"input_ids": [2, 3], "pixel_values": np.ones((3, 4, 4)), "labels": [0, -100]}])
    assert one["pixel_values"].all()
    assert one["labels"].tolist() == [[0, -100]]
    assert "pixel_values" not in DataCollatorForMner(bert_processor)([{"input_ids": [2], "pixel_values": None}])


@pytest.mark.parametrize("image_shape", [None, (3, 4, 4)])
def test_texts_without_a_known_label_get_an_unknown_one_each(bert_processor, image_shape):
    rows = [{"input_ids": [2, 5, 3], "label": None}, {"input_ids": [2, 3]}]
    collate = DataCollatorForMner(bert_processor, image_shape=image_shape)
    labels = collate(rows)["labels"]
    assert labels.dtype == torch.int64
    assert labels.tolist() == [-100, -100]
    assert collate([rows[0] | {"label": 2}, rows[1]])["labels"].tolist() == [2, -100]
    assert collate([{"input_ids": [], "label": None}])["labels"].tolist() == [-100]
    assert collate([rows[0] | {"labels": [0, 1, 0]}])["labels"].tolist() == [[0, 1, 0]]
