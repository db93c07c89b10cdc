"""Fuzzing target: any input of the pipeline, with a tiny tagger: texts, words, images, options."""

from __future__ import annotations

import random
from typing import Any

import pytest
from byte_reader import ByteReader, refusals
from PIL import Image
from small_parts import LENGTH, tagger


MAX_LENGTH = 500


def one_input(data: bytes) -> None:
    """Find entities; they have to point into their text, in order, with probabilities, alone as in a batch."""
    reader = ByteReader(data)
    pipe = tagger()
    options: dict[str, Any] = {"batch_size": reader.pick((1, 2, 16, 0)), "visual_source": "generated"}
    options["visual_source"] = reader.pick(("generated", "generated", "real", "none", "other"))
    options["max_length"] = reader.pick((None, None, LENGTH, 5, 3, 2, -1, 10**9))
    options["stride"] = reader.pick((None, None, None, 0, 1, 100, -1))
    options = {name: value for name, value in options.items() if value is not None}
    inputs = [_input(reader) for _ in range(reader.integer(1, 3))]
    with refusals(TypeError) if "real" in options.values() else refusals():
        found = pipe(inputs, **options)
        assert len(found) == len(inputs)
        for given, entities in zip(inputs, found, strict=True):
            _check(given, entities)
        for given, entities in zip(inputs, found, strict=True):
            (alone,) = pipe([given], **options)
            assert len(alone) == len(entities)
            for one, other in zip(alone, entities, strict=True):
                assert one == {**other, "score": pytest.approx(other["score"], abs=1e-4)}
    assert not pipe.model.training


def seeds() -> list[bytes]:
    """Return inputs to begin with."""
    rng = random.Random(2)
    return [b"", bytes(60), *(rng.randbytes(size) for size in (20, 40, 80, 160, 320))]


def _input(reader: ByteReader) -> Any:
    kind = reader.integer(0, 7)
    if kind < 3:
        return reader.text()
    words = [reader.text(2) for _ in range(reader.integer(0, 5))]
    if kind == 3:
        return words
    if kind == 4:
        return {"words": words}
    if kind == 5:
        return {reader.pick(("text", "words", "image", "other")): reader.value()}
    if kind == 6:
        return reader.value()
    strange = reader.pick((None, b"", b"\x89PNG", "none.jpg", "https://localhost/a.jpg", "a\0b", 3, {}, {"path": None}))
    return {"text": reader.text(), "image": Image.new("L", (3, 2), 9) if reader.chance() else strange}


def _check(given: Any, entities: list[dict[str, Any]]) -> None:
    content = given if isinstance(given, str | list | tuple) else given.get("text", given.get("words"))
    text = content if isinstance(content, str) else " ".join(content)
    end = 0
    for entity in entities:
        assert entity["entity_group"] in ("LOC", "PER")
        assert end <= entity["start"] < entity["end"] <= len(text) or entity["word"] == ""
        assert text[entity["start"] : entity["end"]] == entity["word"]
        assert 0 <= entity["score"] <= 1
        end = entity["end"]
        if not isinstance(content, str):
            assert " ".join(content[entity["start_word"] : entity["end_word"]]) == entity["word"]
