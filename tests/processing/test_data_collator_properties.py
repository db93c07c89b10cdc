"""Whatever rows hold: in a batch they are as they were, behind or before padding."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from small_parts import processor

from bga_mner import DataCollatorForMner


@st.composite
def rows(draw):
    count = draw(st.integers(0, 9))
    numbers = st.lists(st.integers(0, 60), min_size=count, max_size=count)
    row = {"input_ids": draw(numbers)}
    row |= draw(
        st.fixed_dictionaries({}, optional={"labels": numbers, "token_type_ids": numbers, "word_start_mask": numbers})
    )
    if draw(st.booleans()):
        row["pixel_values"] = np.full((3, 2, 2), draw(st.floats(width=32, allow_nan=False)), dtype=np.float32)
    return row


@given(
    st.sampled_from(["wordpiece", "byte-level"]),
    st.lists(rows(), min_size=1, max_size=4),
    st.sampled_from([None, 4]),
    st.sampled_from([None, 12]),
)
def test_rows_are_in_the_batch_as_they_were(kind, examples, multiple, max_length):
    collate = DataCollatorForMner(processor(kind), pad_to_multiple_of=multiple, max_length=max_length)
    batch = collate(examples)
    length = batch["input_ids"].shape[1]
    assert length >= max(len(example["input_ids"]) for example in examples)
    assert not multiple or length % multiple == 0
    assert not max_length or length == max_length
    left = kind == "byte-level"
    for row, example in enumerate(examples):
        count = len(example["input_ids"])
        own = slice(length - count, length) if left else slice(0, count)
        assert batch["attention_mask"][row].sum() == count
        assert batch["attention_mask"][row, own].all()
        for name in ("input_ids", "labels", "token_type_ids"):
            if name in batch:
                expected = example.get(name, [-100 if name == "labels" else 0] * count)
                assert batch[name][row, own].tolist() == expected
        if "labels" in batch:
            assert (batch["labels"][row] != -100).sum() == len(example.get("labels", []))
        if "image_mask" in batch:
            assert bool(batch["image_mask"][row]) == ("pixel_values" in example)
            expected = example.get("pixel_values", np.zeros((3, 2, 2), dtype=np.float32))
            assert np.array_equal(batch["pixel_values"][row].numpy(), expected)
