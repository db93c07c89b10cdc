"""Bulk annotation: the entities of many texts, written in parts; a run that was cut off goes on where it stopped."""

import gc
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from transformers import PreTrainedModel

from ...configuration.errors import brief, shown
from ..inference.stock_taggers import load_tagger
from ..inference.text_tagging import find_entities
from ..processing_bga_mner import BgaMnerProcessor
from ..text.text_input import Entity, SplitText
from ..text.word_encoding import default_max_length, substitute_token
from .chunks import ENTITY_SCHEMA, AnnotatedChunk, TextChunk, make_chunks
from .input_rows import AnnotationInput
from .parts import AnnotationParts


# Gets a function that returns the chunks of texts, and returns annotated ones in any order.
Annotate = Callable[[Callable[[], Iterator[TextChunk]]], Iterable[AnnotatedChunk]]


@dataclass(frozen=True)
class AnnotatorOptions:
    """What a process that annotates has to know.

    The model, a saved one or a stock tagger, is a folder or a name on the Hub; `batch_size`, `max_length` and `stride`
    are those of `predict`. With `threads` None, torch keeps its own number.
    """

    model: str
    device: str = "cpu"
    dtype: str = "float32"
    batch_size: int | None = None
    max_length: int | None = None
    stride: int | None = None
    threads: int | None = None


class TextAnnotator:
    """Finds the entities of chunks of texts; its `fingerprint` has to be the one that is given, if any."""

    def __init__(self, options: AnnotatorOptions, fingerprint: str | None = None):
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        try:
            model, self.processor = load_tagger(options.model, getattr(torch, options.dtype))
        except (OSError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"Expected a folder with a saved model and its processor, or a stock tagger and its tokenizer, or a "
                f"name on the Hub, got {shown(options.model)}, which can't be loaded: {brief(error)}. Check the model."
            ) from error
        self.fingerprint = model_fingerprint(model, self.processor)
        if fingerprint not in (None, self.fingerprint):
            raise ValueError(
                f"Expected the same model {shown(options.model)} on every machine, got another one. Copy it anew."
            )
        try:
            self.model = model.eval().to(options.device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"Expected a device that torch finds here, such as 'cpu' or 'cuda:0', got {shown(options.device)}: "
                f"{brief(error)}. Name another."
            ) from error
        self._tagging: dict[str, Any] = {
            "batch_size": options.batch_size,
            "max_length": options.max_length,
            "stride": options.stride,
        }
        # options that don't fit are refused before there are rows to blame
        self._find([SplitText.from_text("a", self.processor.word_reader)])
        # Objects by the hundred thousand come and go with each chunk, and each time the collector would look through
        # all that torch and transformers hold.
        gc.collect()
        gc.freeze()

    def __call__(self, chunk: TextChunk) -> AnnotatedChunk:
        """Find the entities of a chunk; its bad rows keep their reasons."""
        reader = self.processor.word_reader
        texts = {
            number: SplitText.from_text(row.content, reader)
            if isinstance(row.content, str)
            else SplitText.from_words(row.content, reader)
            for number, row in enumerate(chunk.rows, start=chunk.first_row)
            if row.content is not None
        }
        columns = {
            "row": [*texts],
            "id": [chunk.rows[number - chunk.first_row].id for number in texts],
            "entities": [[_as_dict(entity) for entity in found] for found in self._find([*texts.values()])],
        }
        bad = [
            {"row": number, "id": row.id, "reason": row.reason, "detail": row.detail}
            for number, row in enumerate(chunk.rows, start=chunk.first_row)
            if row.content is None
        ]
        table = pa.table(columns, schema=ENTITY_SCHEMA)
        return AnnotatedChunk(chunk.first_row, len(chunk.rows), table, bad, chunk.ends_input)

    def _find(self, texts: list[SplitText]) -> list[list[Entity]]:
        return find_entities(texts, self.model, self.processor, **self._tagging) if texts else []


def model_fingerprint(model: PreTrainedModel, processor: BgaMnerProcessor) -> str:
    """Compute the SHA-256 of all that a model's answers depend on: the same wherever it lies."""
    checksum = hashlib.sha256()
    about = model.config.to_dict()
    for name in ("_name_or_path", "transformers_version", "training_summary"):
        about.pop(name, None)
    checksum.update(json.dumps(about, sort_keys=True, default=str).encode())
    tokenizer = processor.tokenizer
    checksum.update(tokenizer.backend_tokenizer.to_str().encode())
    # what stands in tokenizer_config.json alone: how long windows are, what a word without any token gets, and whether
    # the text encoder is given token types
    beside: list[Any] = [default_max_length(tokenizer), substitute_token(tokenizer)]
    beside.append("token_type_ids" in tokenizer.model_input_names)
    if processor.unspaced_scripts != "words":  # which was the only way
        beside.append(processor.unspaced_scripts)
    checksum.update(json.dumps(beside).encode())
    for name, tensor in sorted(model.state_dict().items()):
        checksum.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        checksum.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return checksum.hexdigest()


class PartAssembler:
    """Puts annotated chunks together, in whatever order they come, and commits each part that is whole."""

    def __init__(self, parts: AnnotationParts):
        self.parts = parts
        self.total: int | None = None
        self._waiting: dict[int, dict[int, AnnotatedChunk]] = {}

    def add(self, chunk: AnnotatedChunk) -> None:
        """Take a chunk of one part; a RuntimeError says that its rows came before."""
        if chunk.ends_input:
            self.total = chunk.first_row + chunk.rows
        number = chunk.first_row // self.parts.rows_per_part
        if chunk.rows:
            chunks = self._waiting.setdefault(number, {})
            if chunk.first_row in chunks or number in self.parts.done:
                raise RuntimeError(f"Expected each row once, got row {chunk.first_row} again. Report this.")
            chunks[chunk.first_row] = chunk
        # the end of the input may come before other chunks of its part
        for candidate in {number} if self.total is None else set(self._waiting):
            self._commit_if_whole(candidate)

    def finish(self) -> int:
        """Return how many rows the input has; raise RuntimeError if some of them never came."""
        if self.total is None or self._waiting:
            raise RuntimeError(
                f"Expected all rows of the input, got unfinished parts {shown(sorted(self._waiting))}. Run it again."
            )
        return self.total

    def _commit_if_whole(self, number: int) -> None:
        chunks = self._waiting.get(number, {})
        first = number * self.parts.rows_per_part
        end = first + self.parts.rows_per_part
        if self.total is not None:
            end = min(end, self.total)
        if chunks and sum(chunk.rows for chunk in chunks.values()) == end - first:
            self.parts.commit(number, [chunks[first_row] for first_row in sorted(chunks)])
            del self._waiting[number]


def annotate_in_parts(
    source: AnnotationInput,
    parts: AnnotationParts,
    annotate: Annotate,
    *,
    buffer_rows: int = 4096,
    on_progress: Callable[[int], None] = lambda rows: None,
) -> dict[str, Any]:
    """Annotate what isn't yet, and write it; whatever stops it, the parts that are done are kept."""
    if buffer_rows < 1:
        raise ValueError(f"Expected a buffer of at least 1 row, got {buffer_rows}. Give more.")
    skip, size, done = parts.leading_rows, parts.rows_per_part, dict(parts.done)

    def chunks() -> Iterator[TextChunk]:  # Ray sends it to another process
        return make_chunks(source.rows(skip), skip, size, done, buffer_rows)

    assembler, rows, started = PartAssembler(parts), 0, time.perf_counter()
    for chunk in annotate(chunks):
        assembler.add(chunk)
        rows += chunk.rows
        on_progress(chunk.rows)
    seconds = time.perf_counter() - started
    summary = parts.finish(assembler.finish())
    summary |= {"rows_this_run": rows, "seconds": round(seconds, 3), "rows_per_second": round(rows / seconds, 1)}
    parts.write_summary(summary)
    return summary


def in_this_process(annotator: TextAnnotator) -> Annotate:
    """Annotate chunk after chunk in this process; see `annotate_in_parts`."""
    return lambda chunks: map(annotator, chunks())


def _as_dict(entity: Entity) -> dict[str, Any]:
    found = {"type": entity.label, "text": entity.word, "start": entity.start, "end": entity.end}
    return found | {"score": entity.score}


__all__ = [
    "Annotate",
    "AnnotatorOptions",
    "PartAssembler",
    "TextAnnotator",
    "annotate_in_parts",
    "in_this_process",
    "model_fingerprint",
]
