"""Bulk annotation in this process and on Ray: the same entities as of the pipeline, each row once."""

import json
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from functools import partial
from itertools import count

import psutil
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    pipeline,
)

from bga_mner.examples.synthetic.tokenizer import build_tokenizer
from bga_mner.processing.annotation.annotator import (
    AnnotatorOptions,
    PartAssembler,
    TextAnnotator,
    annotate_in_parts,
    in_this_process,
    model_fingerprint,
)
from bga_mner.processing.annotation.chunks import ENTITY_SCHEMA, AnnotatedChunk, InputRow, TextChunk
from bga_mner.processing.annotation.input_rows import AnnotationInput
from bga_mner.processing.annotation.parts import AnnotationParts
from bga_mner.processing.processing_bga_mner import BgaMnerProcessor


WORDS = ["Kawhi", "wins", "in", "Toronto", "again", "!"]
TEXTS = [" ".join(WORDS[: 1 + number % 6] * (1 + number % 11)) for number in range(230)]


@pytest.fixture
def saved(make_model, tmp_path):
    """Save a model that finds entities."""
    tokenizer = build_tokenizer([WORDS])
    torch.manual_seed(0)
    model = make_model(text_options={"vocab_size": len(tokenizer)})
    with torch.no_grad():
        model.classifier.weight.mul_(50)
    model.save_pretrained(tmp_path / "model")
    BgaMnerProcessor(None, tokenizer, label2id=model.config.label2id).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def options(saved):
    return AnnotatorOptions(str(saved), batch_size=8)


@pytest.fixture
def source(tmp_path):
    texts = [None if number % 50 == 49 else text for number, text in enumerate(TEXTS)]
    path = tmp_path / "texts.parquet"
    pa.parquet.write_table(pa.table({"text": texts, "id": [f"s{number}" for number in range(len(texts))]}), path)
    return AnnotationInput((str(path),), id_column="id")


SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
DISTILBERT = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def save_stock(folder, kind="bert", labels=TAGS, auto=AutoModelForTokenClassification, **options):
    """Save a stock model, and the tokenizer of texts."""
    tokenizer = build_tokenizer([WORDS])
    labels = {"id2label": dict(enumerate(labels)), "label2id": {label: number for number, label in enumerate(labels)}}
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), pad_token_id=0, **{**SHAPE, **options}, **labels)
    torch.manual_seed(0)
    model = auto.from_config(config)
    for parameter in model.parameters():
        parameter.data *= 4
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("bert", {}),
        ("roberta", {"max_position_embeddings": 514}),
        ("distilbert", DISTILBERT),
        ("camembert", {"max_position_embeddings": 16}),  # of families that no teacher has
        ("ernie", {}),
        ("xlnet", {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24}),
        ("bert", {"max_position_embeddings": 16}),  # texts are read in windows
    ],
    ids=str,
)
def test_stock_taggers_annotate_too(tmp_path, kind, options):
    name = save_stock(tmp_path, kind, **options)
    annotate = TextAnnotator(AnnotatorOptions(name))
    rows = [InputRow(None, text) for text in TEXTS]
    found = annotate(TextChunk(0, rows)).table.column("entities").to_pylist()
    assert sum(map(len, found)) > 100
    stock = pipeline("token-classification", model=name, aggregation_strategy="simple")
    short = [number for number, text in enumerate(TEXTS) if len(text.split()) <= 13]
    for number in short:
        expected = [(one["entity_group"], one["start"], one["end"]) for one in stock(TEXTS[number])]
        assert [(one["type"], one["start"], one["end"]) for one in found[number]] == expected
    assert all(0 < entity["score"] <= 1 for entities in found for entity in entities)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"auto": AutoModel}, "it is a 'BertModel', which tags no tokens"),
        ({"auto": AutoModelForSequenceClassification}, "it is a 'BertForSequenceClassification', which tags no tokens"),
        ({"labels": ["negative", "positive"]}, "got 'negative'"),
        ({"labels": ["O", "B-PER", "E-PER"]}, "'E-PER'"),
        ({"kind": "fnet"}, "it takes no attention_mask"),
    ],
    ids=str,
)
def test_what_is_no_tagger_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=f"can't be loaded: .*{message}"):
        TextAnnotator(AnnotatorOptions(save_stock(tmp_path, **options)))


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": None, "num_hidden_layers": 3}, "weights are missing, such as 'bert.encoder.layer.2"),
        ({"id2label": {"0": "O", "1": "B-PER"}, "label2id": None}, "size mismatch|ignore_mismatched_sizes"),
        ({"model_type": "of_somebody", "auto_map": {"AutoConfig": "code.Config"}}, "contains custom code"),
    ],
    ids=str,
)
def test_a_tagger_that_is_broken_is_refused(tmp_path, changes, message):
    name = save_stock(tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(ValueError, match=f"(?s)can't be loaded: .*({message})"):
        TextAnnotator(AnnotatorOptions(name))


def test_a_tagger_without_its_tokenizer_is_refused(tmp_path):
    name = save_stock(tmp_path)
    for path in tmp_path.glob("token*"):
        path.unlink()
    with pytest.raises(ValueError, match="can't be loaded"):
        TextAnnotator(AnnotatorOptions(name))


@pytest.mark.parametrize(
    "changes",
    [{"label2id": None}, {"label2id": {"LABEL_0": 0}}, {"return_dict": False}, {"padding_side": "left"}],
    ids=str,
)
def test_a_stock_tagger_is_read_however_it_is_written(tmp_path, changes):
    name = save_stock(tmp_path)
    chunk = TextChunk(0, [InputRow(None, text) for text in TEXTS])
    expected = TextAnnotator(AnnotatorOptions(name, batch_size=1))(chunk).table
    if "padding_side" in changes:
        tokenizer = AutoTokenizer.from_pretrained(name, **changes)
        tokenizer.save_pretrained(name)
    else:
        change_config(tmp_path, **changes)
    found = TextAnnotator(AnnotatorOptions(name, batch_size=7))(chunk).table
    for ours, theirs in zip(found["entities"].to_pylist(), expected["entities"].to_pylist(), strict=True):
        assert [one | {"score": pytest.approx(one["score"], abs=1e-5)} for one in ours] == theirs


def open_parts(folder, rows_per_part=40):
    return AnnotationParts(folder, {}, "parquet", rows_per_part)


def read(folder):
    """Return the rows of an output, and the bad ones."""
    table = ds.dataset(folder / "entities", format="parquet").to_table().sort_by("row")
    return table.to_pylist(), "".join(path.read_text() for path in sorted((folder / "bad_rows").iterdir()))


def test_what_is_found_is_what_the_pipeline_finds(options, source, tmp_path):
    with open_parts(tmp_path / "out") as parts:
        annotate = in_this_process(TextAnnotator(options))
        seen = []
        summary = annotate_in_parts(source, parts, annotate, buffer_rows=16, on_progress=seen.append)
    assert sum(seen) == summary["rows_this_run"] == summary["rows"] == len(TEXTS)
    rows, bad = read(tmp_path / "out")
    assert [row["row"] for row in rows] == [number for number in range(len(TEXTS)) if number % 50 != 49]
    assert bad.count("missing text") == summary["bad_by_reason"]["missing text"] == summary["bad_rows"] == 4
    one_by_one = pipeline("multimodal-ner", model=options.model, device="cpu")
    for row in rows:
        assert row["id"] == f"s{row['row']}"
        found = [
            {name: entity[mine] for name, mine in (("entity_group", "type"), ("word", "text"))}
            | {"start": entity["start"], "end": entity["end"], "score": pytest.approx(entity["score"], abs=1e-5)}
            for entity in row["entities"]
        ]
        assert one_by_one(TEXTS[row["row"]]) == found
    assert sum(summary["entities"].values()) == sum(len(row["entities"]) for row in rows) > 100
    assert max(len(text.split()) for text in TEXTS) > 40  # which are more than the model reads at once


def test_words_have_places_between_single_spaces(options):
    chunk = TextAnnotator(options)(TextChunk(0, [InputRow(None, WORDS * 3)]))
    (entities,) = chunk.table["entities"].to_pylist()
    assert entities
    assert all(" ".join(WORDS * 3)[entity["start"] : entity["end"]] == entity["text"] for entity in entities)


def test_a_run_goes_on_where_it_stopped(options, source, tmp_path):
    annotator = TextAnnotator(options)
    with open_parts(tmp_path / "whole") as parts:
        annotate_in_parts(source, parts, in_this_process(annotator))

    def stops(chunk, calls=count()):  # noqa: B008
        if next(calls) == 7:
            raise KeyboardInterrupt
        return annotator(chunk)

    with open_parts(tmp_path / "out") as parts, pytest.raises(KeyboardInterrupt):
        annotate_in_parts(source, parts, lambda chunks: map(stops, chunks()), buffer_rows=16)
    os.unlink(tmp_path / "out" / "records" / "part-00000000.json")  # and a part of it is lost
    with open_parts(tmp_path / "out") as parts:
        assert parts.done == {1: 40}
        done = sum(parts.done.values())
        summary = annotate_in_parts(source, parts, in_this_process(annotator), buffer_rows=16)
        assert summary["rows_this_run"] == len(TEXTS) - done
    rows, bad = read(tmp_path / "out")
    whole = read(tmp_path / "whole")
    assert bad == whole[1]
    assert [without_scores(row) for row in rows] == [without_scores(row) for row in whole[0]]
    with open_parts(tmp_path / "out") as parts:
        again = annotate_in_parts(source, parts, in_this_process(annotator))
    assert again["rows_this_run"] == 0
    assert again["entities"] == summary["entities"]


def without_scores(row):
    return row | {
        "entities": [{key: value for key, value in entity.items() if key != "score"} for entity in row["entities"]]
    }


@pytest.mark.parametrize(
    ("option", "value"), [("stride", 1000), ("max_length", 1), ("max_length", 41), ("batch_size", 0)]
)
def test_options_that_do_not_fit_are_no_bad_rows(options, option, value):
    with pytest.raises(ValueError, match="Expected"):
        TextAnnotator(replace(options, **{option: value}))


def test_the_type_of_the_weights(options):
    assert next(TextAnnotator(replace(options, dtype="bfloat16")).model.parameters()).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="can't be loaded"):
        TextAnnotator(replace(options, model="/nowhere"))


def test_a_model_is_known_by_what_it_is(options, saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    one, other = TextAnnotator(options), TextAnnotator(replace(options, model=str(tmp_path / "copy")))
    assert one.fingerprint == other.fingerprint == TextAnnotator(options, one.fingerprint).fingerprint
    with pytest.raises(ValueError, match="Expected the same model"):
        TextAnnotator(options, "another")
    with torch.no_grad():
        other.model.classifier.bias[0] += 1
    assert model_fingerprint(other.model, other.processor) != one.fingerprint
    other.processor.tokenizer.add_tokens(["Diplo"])
    assert model_fingerprint(one.model, other.processor) != one.fingerprint
    mine = one.processor.tokenizer
    for name, value in (
        ("model_max_length", 12),  # windows
        ("unk_token", mine.convert_ids_to_tokens(5)),  # words of which nothing is made
        ("model_input_names", ["input_ids", "token_type_ids", "attention_mask"]),
    ):
        before = getattr(mine, name)
        setattr(mine, name, value)
        assert model_fingerprint(one.model, one.processor) != one.fingerprint, name
        setattr(mine, name, before)
        assert model_fingerprint(one.model, one.processor) == one.fingerprint
    one.model.config.id2label = {**one.model.config.id2label, 1: "B-GPE"}
    assert model_fingerprint(one.model, one.processor) != one.fingerprint


def empty(first, rows, ends_input=False):
    return AnnotatedChunk(first, rows, ENTITY_SCHEMA.empty_table(), ends_input=ends_input)


@pytest.mark.parametrize(
    "order",
    [[(0, 2), (2, 2), (4, 1), (5, 0)], [(5, 0), (4, 1), (2, 2), (0, 2)], [(4, 1), (2, 2), (5, 0), (0, 2)]],
)
def test_parts_are_put_together_in_any_order(tmp_path, order):
    with open_parts(tmp_path, rows_per_part=4) as parts:
        assembler = PartAssembler(parts)
        for first, rows in order:
            assembler.add(empty(first, rows, ends_input=first == 5))
        assert assembler.finish() == 5
        assert parts.done == {0: 4, 1: 1}


def test_rows_that_are_lost_or_come_twice_are_found(tmp_path):
    with open_parts(tmp_path, rows_per_part=4) as parts:
        assembler = PartAssembler(parts)
        assembler.add(empty(2, 2))
        with pytest.raises(RuntimeError, match="got row 2 again"):
            assembler.add(empty(2, 2))
        with pytest.raises(RuntimeError, match="all rows"):
            assembler.finish()
        assembler.add(empty(6, 0, ends_input=True))
        with pytest.raises(RuntimeError, match=r"unfinished parts \[0\]"):
            assembler.finish()
        assembler.add(empty(0, 2))
        assert assembler.finish() == 6
        with pytest.raises(RuntimeError, match="got row 0 again"):
            assembler.add(empty(0, 2))
        with pytest.raises(RuntimeError, match="Expected 6 rows in 2 whole parts"):  # no row of the second ever came
            parts.finish(6)


def kill_an_actor(killed):
    """Kill a process that holds a model, once it annotates."""
    while not killed:
        for process in psutil.Process().children(recursive=True):
            if "MapWorker" in process.name() or "MapWorker" in " ".join(process.cmdline()[:1]):
                killed.append(process.pid)
                process.send_signal(signal.SIGKILL)
                return
        time.sleep(0.01)


@pytest.mark.slow
def test_ray_goes_on_and_finds_the_same(options, source, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    from bga_mner.processing.annotation.ray_engine import on_ray, ray_cluster

    annotator = TextAnnotator(options)
    for name in ("local", "ray"):
        with open_parts(tmp_path / name) as parts:
            annotate_in_parts(source, parts, in_this_process(annotator))
    whole = read(tmp_path / "local")
    for number in (1, 2, 4, 5):
        os.unlink(tmp_path / "ray" / "records" / f"part-{number:08d}.json")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    with pytest.raises(ValueError, match=r"Ray cluster at '127\.0\.0\.1:9'"), ray_cluster("127.0.0.1:9"):
        pass
    with ray_cluster(num_cpus=2):
        assert ray.util.get_node_ip_address().startswith("127.")
        killed = []
        annotate = on_ray(replace(options, threads=1), annotator.fingerprint, actors=1)

        def watched(chunks):
            for chunk in annotate(chunks):
                if not killed:  # the first chunk is here, others are on their way
                    threading.Thread(target=partial(kill_an_actor, killed)).start()
                yield chunk

        with open_parts(tmp_path / "ray") as parts:
            assert sorted(parts.done) == [0, 3]
            summary = annotate_in_parts(source, parts, watched, buffer_rows=8)
        assert killed
        assert summary["rows_this_run"] == 150
        with pytest.raises(ValueError, match="Expected the same model"), open_parts(tmp_path / "other") as parts:
            annotate_in_parts(source, parts, on_ray(options, "another", actors=1))
        missing = replace(source, text_column="content")
        with pytest.raises(ValueError, match="the column 'content'"), open_parts(tmp_path / "other") as parts:
            annotate_in_parts(missing, parts, annotate)
    assert not ray.is_initialized()
    rows, bad = read(tmp_path / "ray")
    assert bad == whole[1]
    assert [without_scores(row) for row in rows] == [without_scores(row) for row in whole[0]]
