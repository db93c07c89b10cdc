"""The same labelled data in every format gives the same rows, the same model and the same scores."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import datasets
import pytest
from safetensors.torch import load_file
from transformers import AutoTokenizer

from bga_mner import BgaMnerProcessor, read_annotations, read_conll, spans_from_tags, split_words, write_annotations
from bga_mner.examples import run_mner
from bga_mner.examples.fine_tuning.arguments import DataArguments
from bga_mner.examples.fine_tuning.data import read_data


PARTS = {"train": "train", "validation": "valid", "test": "test"}
# in another order than the model's, which is sorted
NAMES = ["I-PER", "B-PER", "O", "I-ORG", "B-ORG", "I-MISC", "B-MISC", "B-LOC", "I-LOC"]
FORMATS = ("conll", "bioes", "columns", "doccano", "label-studio", "prodigy", "spacy", "gliner", "tokens", "parquet")


def bioes(tags):
    written = list(tags)
    for label, start, end in spans_from_tags(tags):
        written[end - 1] = f"{'S' if end - start == 1 else 'E'}-{label}"
    return written


def entities(words, tags):
    starts = [sum(len(word) + 1 for word in words[:at]) for at in range(len(words))]
    return [(starts[a], starts[b - 1] + len(words[b - 1]), label) for label, a, b in spans_from_tags(tags)]


def labelled(mner_files, name):
    """Read the rows that somebody annotated; not every format has others."""
    rows = read_conll(mner_files / f"{name}.txt", mner_files / "images")
    return rows.filter(lambda tags: None not in tags, input_columns="ner_tags")


def write(rows, file: Path, kind: str) -> None:
    """Write rows in a format."""
    texts = [" ".join(words) for words in rows["tokens"]]
    found = list(map(entities, rows["tokens"], rows["ner_tags"]))
    if kind == "label-studio":
        write_annotations(file, texts, found, kind, ids=rows["id"])
        tasks = [task | {"annotations": task["predictions"]} for task in json.loads(file.read_text())]
        file.write_text(json.dumps(tasks))
    elif kind in ("doccano", "prodigy", "spacy", "gliner"):
        write_annotations(file, texts, found, kind, ids=rows["id"])
    elif kind == "tokens":
        file.write_text("".join(json.dumps({**row, "image": None}) + "\n" for row in rows.remove_columns("image")))
        file.write_text(file.read_text().replace(', "image": null', ""))
    elif kind == "parquet":
        tags = datasets.List(datasets.ClassLabel(names=NAMES))
        ids = [[NAMES.index(tag) for tag in tags] for tags in rows["ner_tags"]]
        plain = rows.remove_columns(["ner_tags", "image"]).add_column("ner_tags", ids, feature=tags)
        plain.add_column("photo", [f"{name}.png" for name in rows["id"]]).to_parquet(file)
    else:
        lines = []
        for row in rows:
            lines.append(f"IMGID:{row['id']}")
            tags = row["ner_tags"] if kind == "conll" else bioes(row["ner_tags"])
            between = "\tNN\tB-NP\t" if kind == "columns" else "\t"
            lines += [f"{word}{between}{tag}" for word, tag in zip(row["tokens"], tags, strict=True)] + [""]
        file.write_text("\n".join(lines))


@pytest.fixture(scope="module")
def arguments(mner_files, tmp_path_factory):
    """Write the files; return by format what names them on the command line."""
    given = {}
    for kind in FORMATS:
        folder = tmp_path_factory.mktemp(kind)
        given[kind] = {"image_dir": str(mner_files / "images")}
        for part, name in PARTS.items():
            file = folder / (f"{part}.parquet" if kind == "parquet" else f"{part}.json")
            if kind in ("conll", "bioes", "columns"):
                file = file.with_suffix(".txt")
            write(labelled(mner_files, name), file, kind)
            given[kind][f"{part}_file"] = str(file)
        if kind == "parquet":
            given[kind] = {
                "image_dir": given[kind]["image_dir"],
                "dataset_name": str(folder),
                "image_column": "photo",
            }
    return given


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_rows_and_labels(mner_files, arguments, kind):
    parts, labels = read_data(DataArguments(**arguments[kind]), seed=0)
    tokenizer = AutoTokenizer.from_pretrained(mner_files / "bert")
    processor = BgaMnerProcessor(None, tokenizer, {label: number for number, label in enumerate(labels)})
    images = 0
    for part, name in PARTS.items():
        expected = labelled(mner_files, name)
        assert all([word for word, _, _ in split_words(" ".join(words))] == words for words in expected["tokens"])
        rows, found = parts[part]
        assert rows.to_list() == expected.to_list() or kind == "parquet"
        for column in ("id", "tokens", "ner_tags"):
            assert rows[column][:] == expected[column][:]
        here, there = ([image and Path(image["path"]) for image in data["image"]] for data in (rows, expected))
        assert [path for path in here if path and path.exists()] == [path for path in there if path]
        entities = Counter(label for tags in expected["ner_tags"] for label, _, _ in spans_from_tags(tags))
        assert (found.entities, found.repaired_tags, found.troubles) == (dict(entities), 0, {})
        assert found.images_found == sum(path is not None for path in there)
        images += found.images_found
        encoded = [
            data.remove_columns("image").with_transform(processor.encode_examples)[:] for data in (rows, expected)
        ]
        assert encoded[0] == encoded[1]
    assert images


@pytest.fixture(scope="module")
def runs(mner_files, arguments, tmp_path_factory):
    found = {}
    options = {"text_model": mner_files / "bert", "vision_model": mner_files / "vit", "num_bga_layers": 1}
    options |= {"per_device_train_batch_size": 8, "max_steps": 2, "eval_strategy": "no", "save_strategy": "no"}
    options |= {"learning_rate": 1e-2, "use_cpu": True, "disable_tqdm": True, "dataloader_pin_memory": False}

    def run(kind):
        if kind not in found:
            folder = tmp_path_factory.mktemp("run")
            given = options | arguments[kind] | {"output_dir": folder, "predictions_format": "doccano"}
            argv = [word for name, value in given.items() for word in (f"--{name}", str(value))]
            found[kind] = folder, run_mner.main(argv)
        return found[kind]

    return run


@pytest.mark.parametrize("kind", ["bioes", "doccano", "parquet"])
def test_every_format_gives_the_same_model_and_scores(runs, kind):
    (expected_folder, expected), (folder, results) = runs("conll"), runs(kind)
    scores = {name: value for name, value in expected.items() if name.startswith(("eval_", "test_"))}
    scores = {name: value for name, value in scores.items() if "runtime" not in name and "per_second" not in name}
    assert "test_f1" in scores
    assert {name: results[name] for name in scores} == scores
    weights, others = (load_file(Path(each) / "model.safetensors") for each in (expected_folder, folder))
    assert all((weights[name] == others[name]).all() for name in weights)
    for name in ("predictions.conll", "predictions.jsonl", "predictions.doccano.jsonl"):
        assert (folder / name).read_text() == (expected_folder / name).read_text()


def test_predictions_are_written_for_a_tool(runs):
    folder, _ = runs("conll")
    for name, kind in (("predictions.doccano.jsonl", "doccano"), ("predictions.jsonl", "entities")):
        read, report = read_annotations(folder / name, return_report=True)
        tags = read_conll(folder / "predictions.conll")
        assert report.format == kind or not report.entities
        assert read["ner_tags"][:] == tags["ner_tags"][:]
        assert read["id"][:] == tags["id"][:]


def test_wrong_formats_are_refused_before_anything_is_read():
    for options, message in (
        ({"predictions_format": "brat"}, "--predictions_format as one of doccano, "),
        ({"file_format": "brat"}, "Expected a format of conll, "),
        ({"tag_scheme": "XYZ"}, "Expected a scheme of tags"),
    ):
        with pytest.raises(ValueError, match=message):
            read_data(DataArguments(train_file=__file__, **options), seed=0)


@pytest.mark.parametrize("tag_scheme", [None, "BIOES"])
def test_streams_are_converted_as_their_names_tell(arguments, tmp_path, tag_scheme):
    parts, labels = read_data(DataArguments(**arguments["parquet"]), seed=0)
    rows = parts["train"][0].remove_columns("image")
    names = ["O", *(f"{letter}-{kind}" for kind in ("LOC", "MISC", "ORG", "PER") for letter in "BIES")]
    ids = [[names.index(tag) for tag in bioes(tags)] for tags in rows["ner_tags"]]
    kind = datasets.List(datasets.ClassLabel(names=names))
    rows.remove_columns("ner_tags").add_column("ner_tags", ids, feature=kind).to_parquet(tmp_path / "train.parquet")
    options = {"dataset_name": str(tmp_path), "streaming": True, "tag_scheme": tag_scheme}
    streamed, found = read_data(DataArguments(**options), seed=0)
    assert found == labels
    expected = {row["id"]: row["ner_tags"] for row in rows}
    assert {row["id"]: row["ner_tags"] for row in streamed["train"][0]} == expected
