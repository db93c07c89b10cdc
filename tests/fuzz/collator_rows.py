"""Fuzzing target: any rows for the collator."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from byte_reader import ByteReader, refusals
from small_parts import SIDE, processor

from bga_mner import DataCollatorForMner


COLUMNS = ("attention_mask", "token_type_ids", "labels", "word_start_mask", "target_mask")
DTYPES = {"word_start_mask": torch.bool, "target_mask": torch.bool, "pixel_values": torch.float32}


def one_input(data: bytes) -> None:
    """Make a batch; all columns have to be of its size, and rows to be in it as they were."""
    reader = ByteReader(data)
    encode = processor(reader.pick(("wordpiece", "byte-level")))
    collate = DataCollatorForMner(
        encode,
        pad_to_multiple_of=reader.pick((None, None, 8)),
        max_length=reader.pick((None, None, 30, 2)),
        image_shape=reader.pick((None, None, (3, SIDE, SIDE))),
    )
    rows = [_row(reader) for _ in range(reader.integer(0, 3))]
    with refusals():
        batch = collate(rows)
        shape = batch["input_ids"].shape
        assert len(shape) == 2
        assert shape[0] == len(rows)
        for name, tensor in batch.items():
            assert isinstance(tensor, torch.Tensor)
            assert len(tensor) == len(rows)
            if name in ("input_ids", *COLUMNS) and not (name == "labels" and any("label" in row for row in rows)):
                assert tensor.shape == shape, name
                assert tensor.dtype == DTYPES.get(name, torch.int64)
        left = encode.tokenizer.padding_side == "left"
        for number, row in enumerate(rows):
            ids = [int(token) for token in row["input_ids"]]
            kept = batch["input_ids"][number].tolist()
            assert (kept[len(kept) - len(ids) :] if left else kept[: len(ids)]) == ids
        if "image_mask" in batch:
            assert not batch[next(name for name in ("pixel_values", "vision_states") if name in batch)][
                ~batch["image_mask"]
            ].any()


def seeds() -> list[bytes]:
    """Return inputs to begin with."""
    rng = random.Random(1)
    return [b"", bytes(80), *(rng.randbytes(size) for size in (20, 60, 120, 240))]


def _row(reader: ByteReader) -> dict[str, Any]:
    count = reader.integer(0, 5)
    row: dict[str, Any] = {"input_ids": [reader.integer(0, 60) for _ in range(count)]}
    for name in COLUMNS:
        if reader.chance():
            row[name] = [reader.integer(0, 1) for _ in range(count)]
    if reader.integer(0, 2) == 0:
        row["pixel_values"] = np.full((3, SIDE, SIDE), reader.number(), dtype=np.float32)
    for _ in range(reader.integer(0, 2)):  # what isn't as it should be
        name = reader.pick(("input_ids", *COLUMNS, "pixel_values", "vision_states", "label", "other"))
        kind = reader.integer(0, 5)
        if kind == 0:
            row.pop(name, None)
        elif kind == 1:
            row[name] = reader.value()
        elif kind == 2:
            row[name] = [reader.value(1) for _ in range(count)]
        elif kind == 3:
            row[name] = np.array([reader.number() for _ in range(count)])
        elif kind == 4:
            row[name] = torch.zeros([reader.integer(0, 3) for _ in range(reader.integer(0, 3))])
        else:
            row[name] = None
    return row
