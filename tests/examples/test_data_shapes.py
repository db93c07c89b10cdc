"""Data of the shapes that people have, read by the fine-tuning scripts: the same rows as of CoNLL files."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import datasets
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from transformers import ViTImageProcessorPil

from bga_mner import BgaMnerProcessor, read_conll, write_conll
from bga_mner.examples import run_mner
from bga_mner.examples.fine_tuning.arguments import DataArguments
from bga_mner.examples.fine_tuning.data import has_images, log_reports, prepare_rows, read_data
from bga_mner.examples.synthetic.tokenizer import build_tokenizer
from bga_mner.processing.images.image_loading import as_image_list, load_first_image


LABELS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
TOKENS = [["ann", "lee", "saw", "oslo"], ["[", "oslo", "]"], ["it", "rains"], ["ann"]]
TAGS = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-LOC", "O"], ["O", "O"], ["B-PER"]]
IDS = ["11", "12", "13", "14"]
NAMES = ["11.png", "12.webp", "13.jpg", "14.bmp"]
IMAGE = datasets.Image()


@pytest.fixture
def images(tmp_path):
    """Write one image per sentence, each of another colour and format."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        Image.new("RGB", (8, 8), (60 * number, 10, 200)).save(folder / name)
    return folder


def rows(images, **columns):
    return {"id": IDS, "tokens": TOKENS, "ner_tags": TAGS, **columns}


def contents(images):
    return [(images / name).read_bytes() for name in NAMES]


def write_parquet(folder, columns, **features):
    folder.mkdir(exist_ok=True)
    dataset = datasets.Dataset.from_dict(columns)
    for name, feature in features.items():
        dataset = dataset.cast_column(name, feature)
    dataset.to_parquet(folder / "train.parquet")


def write_lines(file, columns):
    file.parent.mkdir(exist_ok=True, parents=True)
    lines = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def stored_images(folder, images):
    write_parquet(folder, rows(images, image=[str(images / name) for name in NAMES]), image=IMAGE)
    return {}


def renamed_columns(folder, images):
    """All under other names, beside columns of its own, some of which have the default names."""
    columns = {"key": [11, 12, 13, 14], "words": TOKENS, "tags": TAGS, "photo": contents(images)}
    columns |= {
        "image": ["of a cat"] * 4,
        "id": [7.5] * 4,
        "text": ["a"] * 4,
        "ner_tags": [[0]] * 4,
        "split": ["x"] * 4,
    }
    columns |= {"tokens": [1, 2, 3, 4], "lines": [None] * 4, "split": ["x"] * 4}
    write_parquet(folder, columns, photo=IMAGE)
    return {"id_column": "key", "tokens_column": "words", "tags_column": "tags", "image_column": "photo"}


def named_tags(folder, images):
    tags = datasets.List(datasets.ClassLabel(names=LABELS))
    columns = rows(images, image=contents(images)) | {"id": [11, 12, 13, 14]}
    columns["ner_tags"] = [[LABELS.index(tag) for tag in sentence] for sentence in TAGS]
    write_parquet(folder, columns, image=IMAGE, ner_tags=tags)
    return {}


def bytes_of_files(folder, images):
    write_parquet(folder, rows(images, image=contents(images)))
    return {}


def dicts_of_pandas(folder, images):
    """As other libraries write it: nothing says that these are images."""
    folder.mkdir()
    column = [{"bytes": content, "path": "x"} for content in contents(images)]
    pq.write_table(pa.table(rows(images, image=column)), folder / "train.parquet")
    return {}


def lists_of_images(folder, images):
    column = [[content, contents(images)[0]] for content in contents(images)]
    write_parquet(folder, rows(images, image=column), image=datasets.List(IMAGE))
    return {}


def lists_with_broken_images(folder, images):
    column = [[b"", content] for content in contents(images)]
    write_parquet(folder, rows(images, image=column), image=datasets.List(IMAGE))
    return {}


def lists_of_names(folder, images):
    write_lines(folder / "train.jsonl", rows(images, image=[["gone.png", name] for name in NAMES]))
    return {"image_dir": str(images)}


def names(folder, images):
    write_lines(folder / "train.jsonl", rows(images, image=NAMES))
    return {"image_dir": str(images)}


def names_in_a_folder(folder, images):
    write_lines(folder / "train.jsonl", rows(images, image=[f"images/{name}" for name in NAMES]))
    return {"image_dir": str(images.parent)}


def whole_paths(folder, images):
    write_lines(folder / "train.jsonl", rows(images, image=[str(images / name) for name in NAMES]))
    return {}


def names_without_endings(folder, images):
    write_lines(folder / "train.jsonl", rows(images, image=[11, 12, 13, 14]))
    return {"image_dir": str(images)}


def files_of_the_ids(folder, images):
    write_lines(folder / "train.jsonl", rows(images) | {"id": [11, 12, 13, 14]})
    return {"image_dir": str(images)}


def cells_of_csv(folder, images):
    folder.mkdir()
    frame = pandas.DataFrame(rows(images, image=NAMES))
    frame.to_csv(folder / "train.csv", index=False)  # lists as Python writes them
    return {"image_dir": str(images)}


def parted_by_spaces(folder, images):
    folder.mkdir()
    joined = {name: list(map(" ".join, lists)) for name, lists in (("tokens", TOKENS), ("ner_tags", TAGS))}
    pandas.DataFrame(rows(images, image=NAMES) | joined).to_csv(folder / "train.csv", index=False)
    return {"image_dir": str(images)}


def saved_to_disk(folder, images):
    part = datasets.Dataset.from_dict(rows(images, image=contents(images)))
    part.cast_column("image", IMAGE).save_to_disk(folder)
    return {}


def saved_splits(folder, images):
    part = datasets.Dataset.from_dict(rows(images, image=contents(images))).cast_column("image", IMAGE)
    datasets.DatasetDict(train=part, validation=part).save_to_disk(folder)
    return {}


def image_folder(kind):
    def write(folder, images):
        folder.mkdir()
        for name in NAMES:
            (folder / name).write_bytes((images / name).read_bytes())
        frame = pandas.DataFrame(rows(images, file_name=NAMES, source=["x"] * 4))
        if kind == "jsonl":
            frame.to_json(folder / "metadata.jsonl", orient="records", lines=True)
        elif kind == "csv":
            frame.to_csv(folder / "metadata.csv", index=False)
        else:
            frame.to_parquet(folder / "metadata.parquet")
        return {}

    write.__name__ = f"image_folder_{kind}"
    return write


def image_folder_of_splits(folder, images):
    folder.mkdir()
    for part in ("train", "validation"):
        image_folder("jsonl")(folder / part, images)
    return {}


SHAPES = [
    *(stored_images, renamed_columns, named_tags, bytes_of_files, dicts_of_pandas, lists_of_images),
    *(lists_with_broken_images, lists_of_names, names, names_in_a_folder, whole_paths, names_without_endings),
    *(files_of_the_ids, cells_of_csv, parted_by_spaces, saved_to_disk, saved_splits),
    *(image_folder("jsonl"), image_folder("csv"), image_folder("parquet"), image_folder_of_splits),
]


def seen(rows):
    """Return what a model could learn from: ids, words, tags, and the pixels of the images."""
    found = {}
    for row in rows:
        image = load_first_image(as_image_list(row.get("image")))[0]
        pixels = None if image is None else np.asarray(image).tolist()
        found[row["id"]] = (list(row["tokens"]), list(row["ner_tags"]), pixels)
    return found


@pytest.fixture
def expected(images, tmp_path):
    write_conll(tmp_path / "train.txt", TOKENS, TAGS, IDS)
    data = DataArguments(train_file=str(tmp_path / "train.txt"), image_dir=str(images))
    parts, labels = read_data(data, 0)
    assert parts["train"][1].images_found == 4
    return seen(parts["train"][0]), labels


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_rows_are_those_of_conll_files(shape, streaming, images, expected, tmp_path):
    flags = shape(tmp_path / "data", images)
    flags |= {"streaming": True, "labels": ",".join(LABELS)} if streaming else {}
    parts, labels = read_data(DataArguments(dataset_name=str(tmp_path / "data"), **flags), 0)
    train, report = parts["train"]
    assert seen(train) == expected[0]
    assert set(labels) == set(LABELS if streaming else expected[1])
    assert set(train.column_names) == {"id", "tokens", "ner_tags", "image"}
    assert has_images(parts)
    if not streaming:
        assert (report.images_found, report.images_missing, report.images_broken) == (4, 0, {})
        lists = ("lists_of_images", "lists_with_broken_images")
        assert report.several_images == (4 if shape.__name__ in lists else 0)


@pytest.mark.filterwarnings("ignore:4 of 8 images cannot be used", "ignore:1 of 2 images cannot be used")
@pytest.mark.filterwarnings("ignore:Some texts have several images")
def test_a_stream_and_a_set_are_encoded_alike(images, make_model, tmp_path):
    """Of lists of images the encoded row has the first that can be read, and so do cached states."""
    lists_with_broken_images(tmp_path / "data", images)
    tokenizer = build_tokenizer(TOKENS)
    image_processor = ViTImageProcessorPil(size={"height": 16, "width": 16})
    processor = BgaMnerProcessor(image_processor, tokenizer, {label: number for number, label in enumerate(LABELS)})
    model = make_model(text_options={"vocab_size": len(tokenizer)})
    model.freeze_vision_encoder()
    encoded = {}
    for name, flags, cache in (("set", {}, False), ("stream", {"streaming": True}, False), ("cached", {}, True)):
        flags |= {"labels": ",".join(LABELS)} if flags else {}
        parts, _ = read_data(DataArguments(dataset_name=str(tmp_path / "data"), shuffle_buffer=1, **flags), 0)
        encoded[name] = list(prepare_rows(parts, model, processor, max_length=None, cache=cache)[1]["train"])
    for row, streamed, cached in zip(*encoded.values(), strict=True):
        assert row["input_ids"] == streamed["input_ids"] == cached["input_ids"]
        np.testing.assert_array_equal(row["pixel_values"], streamed["pixel_values"])
        states = model.bga_mner.encode_images(torch.from_numpy(np.asarray(row["pixel_values"]))[None])
        np.testing.assert_allclose(states[0].detach(), cached["vision_states"], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "flags", "counts"),
    [
        ({"image": [None, None, "13.jpg", "14"]}, {}, (2, 2, {})),
        ({"image": [None] * 4}, {}, (0, 4, {})),
        ({"image": ["gone", "gone.jpg", "", "../images/14.bmp"]}, {}, (1, 3, {})),
        ({"image": ["html.jpg", "empty.png", "12", "14"]}, {}, (2, 0, {"not an image": 1, "empty": 1})),
        ({"image": ["drawing", "drawing.svg", "page.pdf", "14"]}, {}, (1, 0, {"in a refused format": 3})),
        # with a list a text may have none, and nothing is counted twice
        ({"image": [["11"], [], None, ["gone", "14"]]}, {}, (2, 2, {})),
        ({"id": [None, "", "a\tb", 4]}, {"image_dir": None, "image_column": "none"}, (0, 0, {})),
        # strings that are too long for any name
        ({"image": [base64.b64encode(bytes(range(256)) * 40).decode()] * 4}, {}, (0, 0, {"unreadable": 4})),
    ],
)
def test_images_that_cannot_be_used_are_counted(change, flags, counts, images, tmp_path, caplog):
    (images / "html.jpg").write_text("<html>404</html>")
    (images / "empty.png").write_bytes(b"")
    (images / "drawing.svg").write_text("<svg/>")
    (images / "page.pdf").write_bytes(b"%PDF-1.4")
    write_lines(tmp_path / "data" / "train.jsonl", rows(images) | change)
    flags = {"image_dir": str(images)} | flags
    parts, _ = read_data(DataArguments(dataset_name=str(tmp_path / "data"), **flags), 0)
    train, report = parts["train"]
    assert (report.images_found, report.images_missing, report.images_broken) == counts
    assert sum(image is not None for _, _, image in seen(train).values()) == counts[0]
    assert all(len(example) <= 200 for examples in report.examples.values() for example in examples)
    if "id" in change:
        assert list(train["id"]) == ["0", "1", "a b", "4"]
    log_reports(parts)
    assert ("No image of the training set" in caplog.text) == (counts[0] == 0 and counts != (0, 0, {}))


@pytest.mark.parametrize(
    ("change", "flags", "fix"),
    [
        ({"image": ["https://example.org/a.jpg"] * 4}, {}, "Download the file"),
        ({"image": ["data:image/png;base64," + "A" * 9000] * 4}, {}, "decode the base64"),
        ({"image": [0.5] * 4}, {}, "--image_column"),
        ({"image": [{"address": "x"}] * 4}, {}, "--image_column"),
        ({"image": [[[1, 2], [3, 4]]] * 4}, {}, "--image_column"),
        ({}, {"image_column": "photo"}, "--image_column"),
        ({}, {"id_column": "key"}, "--id_column"),
        ({}, {"tags_column": "labels"}, "--tags_column"),
        ({"tokens": [3] * 4}, {}, "--tokens_column"),
        ({"ner_tags": [3] * 4}, {}, "--tags_column"),
        ({"ner_tags": [[{"start": 0, "end": 3, "label": "PER"}]] * 4}, {}, "read_annotations"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_columns_that_do_not_fit_are_said(change, flags, fix, streaming, images, tmp_path):
    write_lines(tmp_path / "data" / "train.jsonl", rows(images) | change)
    flags |= {"streaming": True, "labels": ",".join(LABELS)} if streaming else {}
    with pytest.raises(ValueError, match=fix) as caught:  # noqa: PT012 - a stream is read row by row
        parts, _ = read_data(DataArguments(dataset_name=str(tmp_path / "data"), **flags), 0)
        for row in parts["train"][0]:
            load_first_image(as_image_list(row["image"]))
    assert len(str(caught.value)) < 1000


def test_tags_that_are_too_many(images, tmp_path):
    write_lines(tmp_path / "data" / "train.jsonl", rows(images) | {"tokens": [["a"], *TOKENS[1:]]})
    with pytest.raises(ValueError, match="Expected one tag per word, got 4 for 1 words"):
        read_data(DataArguments(dataset_name=str(tmp_path / "data")), 0)
    flags = {"streaming": True, "labels": ",".join(LABELS), "shuffle_buffer": 1}
    parts, _ = read_data(DataArguments(dataset_name=str(tmp_path / "data"), **flags), 0)
    with pytest.warns(UserWarning, match="Row '11' of 'train' has 4 tags for 1 words"):
        assert [row["ner_tags"] for row in parts["train"][0]] == [None, *TAGS[1:]]


@pytest.mark.parametrize(
    ("names", "read"),
    [
        (("train", "dev"), ("train", "dev")),
        (("train", "valid", "test"), ("train", "valid", "test")),
        (("training", "val", "evaluation"), ("training", "val", "evaluation")),
        (("train", "dev", "validation"), ("train", "validation")),
    ],
)
def test_splits_have_the_names_that_datasets_knows(names, read, images, tmp_path):
    part = datasets.Dataset.from_dict(rows(images))
    datasets.DatasetDict(dict.fromkeys(names, part)).save_to_disk(tmp_path / "data")
    parts, _ = read_data(DataArguments(dataset_name=str(tmp_path / "data")), 0)
    assert [report.path.rpartition(":")[2] for _, report in parts.values()] == list(read)
    assert list(parts) == ["train", "validation", "test"][: len(read)]


def test_texts_alone(images, tmp_path):
    write_lines(tmp_path / "data" / "train.jsonl", {"tokens": TOKENS, "other": [1] * 4})
    for flags in ({}, {"streaming": True, "labels": ",".join(LABELS)}):
        parts, _ = read_data(DataArguments(dataset_name=str(tmp_path / "data"), **flags), 0)
        assert sorted((row["id"], row["tokens"]) for row in parts["train"][0]) == list(zip("0123", TOKENS, strict=True))
        # no vision encoder is asked for
        assert not has_images(parts)


def test_what_is_no_data_set_is_said(images, tmp_path):
    write_lines(tmp_path / "data" / "train.jsonl", rows(images))
    with pytest.raises(ValueError, match="Give its folder"):
        read_data(DataArguments(dataset_name=str(tmp_path / "data" / "train.jsonl")), 0)
    with pytest.raises(ValueError, match="--dataset_name"):
        read_data(DataArguments(dataset_name=str(tmp_path / "nowhere")), 0)


def test_a_run_with_every_default(mner_files, run_script, tmp_path):
    """An image folder, with splits in folders of their own: no flag names a column or a split."""
    for part, name in (("train", "train"), ("validation", "valid")):
        folder = tmp_path / "data" / part
        folder.mkdir(parents=True)
        rows_ = read_conll(mner_files / f"{name}.txt", mner_files / "images")
        lines = []
        for row in rows_:
            file = Path(row["image"]["path"]) if row["image"] else None
            if file is not None:
                (folder / file.name).write_bytes(file.read_bytes())
                lines.append({"file_name": file.name, **{key: row[key] for key in ("id", "tokens", "ner_tags")}})
        (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = {"dataset_name": tmp_path / "data", "text_model": mner_files / "bert"}
    arguments |= {
        "vision_model": mner_files / "vit",
        "output_dir": tmp_path / "out",
        "max_steps": 2,
        "report_to": "none",
        "logging_steps": 1,
    }
    found = run_mner.main(run_script.argv(arguments | {"disable_tqdm": True, "use_cpu": True, "num_bga_layers": 1}))
    assert {"train_loss", "eval_f1"} <= set(found)
    report = json.loads((tmp_path / "out" / "data_report.json").read_text())
    images = {part: len(list((tmp_path / "data" / part).glob("*.png"))) for part in ("train", "validation")}
    assert {part: report[part]["images_found"] for part in images} == images
    history = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
    assert any("reconstruction_loss" in entry for entry in history)
