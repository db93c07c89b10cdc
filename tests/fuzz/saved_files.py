"""Fuzzing target: a saved model of which one file is broken, or written by a stranger."""

from __future__ import annotations

import json
import random
import shutil
import struct
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from byte_reader import ByteReader, refusals
from small_parts import make_model, processor
from transformers.utils import logging

from bga_mner import BgaMnerConfig, BgaMnerForTokenClassification, BgaMnerPipeline, BgaMnerProcessor


MAX_LENGTH = 200
TEXTS = ["kawhi wins in seattle", "#nba"]
JSON_FILES = ("config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json")


@cache
def _saved() -> Path:
    logging.set_verbosity(transformers.logging.CRITICAL)
    logging.disable_progress_bar()
    folder = Path(tempfile.mkdtemp(prefix="fuzz_saved_"))
    make_model().float().save_pretrained(folder / "whole")
    processor().save_pretrained(folder / "whole")
    shutil.copytree(folder / "whole", folder / "broken")
    return folder


def one_input(data: bytes) -> None:
    """Load; it is refused, or what it finds are entities with probabilities. Nothing in a file is ever run."""
    reader = ByteReader(data)
    whole, broken = _saved() / "whole", _saved() / "broken"
    kind = reader.integer(0, 7)
    name = "model.safetensors" if kind >= 6 else "config.json" if kind < 4 else reader.pick(JSON_FILES)
    content = (whole / name).read_bytes()
    changed = _mutate(content, reader) if kind == 7 or reader.integer(0, 5) == 0 else None
    if changed is None:
        changed = _weights(content, reader) if name == "model.safetensors" else _value(content, reader)
    try:
        (broken / name).write_bytes(changed)
        with refusals(OSError):  # of a file that is missing, or no JSON
            if name in ("config.json", "model.safetensors"):
                BgaMnerConfig.from_pretrained(broken)
                model = BgaMnerForTokenClassification.from_pretrained(broken)
                pipe = BgaMnerPipeline(model=model, processor=processor(), device="cpu")
            else:
                pipe = BgaMnerPipeline(
                    model=make_model(), processor=BgaMnerProcessor.from_pretrained(broken), device="cpu"
                )
            for entities in pipe(TEXTS):
                assert all(0 <= entity["score"] <= 1 for entity in entities)
    finally:
        (broken / name).write_bytes(content)


def seeds() -> list[bytes]:
    """Return inputs to begin with."""
    rng = random.Random(4)
    return [b"", *(bytes([kind]) + rng.randbytes(40) for kind in range(8) for _ in range(4))]


def _mutate(content: bytes, reader: ByteReader) -> bytes:
    """Cut, or replace some bytes."""
    if reader.chance():
        return content[: reader.integer(0, len(content))]
    made = bytearray(content)
    for _ in range(reader.integer(1, 4)):
        place = reader.integer(0, len(made) - 1) if reader.chance() else reader.integer(0, min(600, len(made) - 1))
        made[place : place + 1] = reader.bytes(reader.integer(0, 3))
    return bytes(made)


def _value(content: bytes, reader: ByteReader) -> bytes:
    """Replace, add or take away a value somewhere in a JSON file."""
    values = json.loads(content)
    place: Any = values
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        key = reader.pick(keys)
        if isinstance(place[key], dict | list) and reader.integer(0, 2):
            place = place[key]
            continue
        kind = reader.integer(0, 7)
        if kind == 0 and isinstance(place, dict):
            del place[key]
        elif kind == 1 and isinstance(place, dict):
            place[reader.pick((reader.text(2), "auto_map", "attn_implementation", "hidden_size", "dtype"))] = (
                reader.value()
            )
        else:
            place[key] = reader.value()
        break
    return json.dumps(values).encode("utf-8", "replace")


def _weights(content: bytes, reader: ByteReader) -> bytes:
    """Put other numbers, another shape or another type to a tensor."""
    size = struct.unpack("<Q", content[:8])[0]
    header, numbers = json.loads(content[8 : 8 + size]), bytearray(content[8 + size :])
    name = reader.pick(sorted(set(header) - {"__metadata__"}))
    start, end = header[name]["data_offsets"]
    kind = reader.integer(0, 4)
    if kind == 0:
        header[name]["shape"] = [reader.integer(0, 20) for _ in range(reader.integer(0, 3))]
    elif kind == 1:
        header[name]["dtype"] = reader.pick(("F64", "F16", "BF16", "I32", "BOOL", "F8_E5M2", "X"))
    elif kind == 2:
        header[reader.pick(("other", "crf.transitions"))] = header.pop(name)
    else:
        count = (end - start) // 4
        filled = torch.full((count,), reader.number()) if count else torch.zeros(0)
        numbers[start:end] = struct.pack(f"<{count}f", *filled.tolist())
    packed = json.dumps(header).encode()
    return struct.pack("<Q", len(packed)) + packed + bytes(numbers)
