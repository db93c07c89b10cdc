"""Data sets that are read while the model trains: streams, and images decoded by the workers of a data loader."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import datasets
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from transformers import ViTImageProcessorPil

from bga_mner import BgaMnerProcessor, DataCollatorForMner, read_conll
from bga_mner.examples.run_mner_no_trainer import main
from bga_mner.examples.synthetic.corpus import LABELS
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


pytestmark = pytest.mark.slow


SAVING = {"trainer": {"save_strategy": "steps", "save_steps": 2, "report_to": "none"}, "loop": {"save_steps": 2}}


@pytest.fixture(scope="module")
def stored(mner_files, tmp_path_factory):
    """Store the training sentences and their images as a data set of two files, with named tags."""
    folder = tmp_path_factory.mktemp("stored")
    rows = read_conll(mner_files / "train.txt", mner_files / "images")
    rows = rows.cast_column("ner_tags", datasets.List(datasets.ClassLabel(names=list(LABELS))))
    rows = rows.map(lambda image: {"image": {"bytes": Path(image["path"]).read_bytes()}}, input_columns="image")
    for number in range(2):
        rows.shard(2, number).to_parquet(folder / f"train-{number}.parquet")
    return folder


@pytest.fixture
def streamed(stored, mner_arguments, tmp_path):
    files = dict.fromkeys(("train_file", "validation_file", "image_dir"))
    stream = {"dataset_name": stored, "streaming": True, "shuffle_buffer": 10, "max_steps": 9}
    return mner_arguments | files | stream | {"output_dir": tmp_path / "out"}


def test_a_killed_run_over_a_stream_ends_with_the_same_bits(kind, streamed, run_script, tmp_path):
    # six steps are an epoch, and in the second one the order is another
    weights = []
    for name, kills in (("whole", [None]), ("cut", [("step", None, 9), None])):
        for kill in kills:
            arguments = streamed | SAVING[kind] | {"output_dir": tmp_path / name}
            code, log = run_script(kind, arguments, kill)
            assert code == (-signal.SIGKILL if kill else 0), log
        weights.append(load_file(tmp_path / name / "model.safetensors"))
    assert "checkpoint-8; --overwrite_output_dir" in log
    whole, cut = weights
    assert [name for name, weight in whole.items() if not torch.equal(weight, cut[name])] == []


def test_two_processes_share_a_stream(kind, streamed, run_script):
    codes, logs, reports = run_script.several(kind, streamed | {"max_steps": 4, "report_to": None})
    assert codes == [0, 0], "\n".join(logs)
    assert [report["world_size"] for report in reports] == [2, 2]


def test_a_stream_needs_a_length_and_the_names_of_its_tags(streamed, mner_files, run_script, tmp_path):
    with pytest.raises(ValueError, match="--max_steps"):
        main(run_script.argv(streamed | {"max_steps": -1}))
    rows = read_conll(mner_files / "train.txt", mner_files / "images")
    rows.to_parquet(tmp_path / "train.parquet")  # with strings as tags
    with pytest.raises(ValueError, match="--labels O,B-PER"):
        main(run_script.argv(streamed | {"dataset_name": tmp_path}))
    with pytest.raises(ValueError, match="which are read whole"):
        main(run_script.argv(streamed | {"dataset_name": None, "train_file": tmp_path / "train.txt"}))


@pytest.mark.parametrize("workers", [0, 1])
def test_images_are_decoded_by_the_workers(workers, mner_files):
    rows = read_conll(mner_files / "train.txt", mner_files / "images", check_images=False)
    tokenizer = build_tokenizer(rows["tokens"])
    image_processor = ViTImageProcessorPil(size={"height": 16, "width": 16})
    processor = BgaMnerProcessor(image_processor, tokenizer, {label: number for number, label in enumerate(LABELS)})
    encoded = rows.with_transform(processor.encode_examples)
    opened, watching = [], True

    def watch(event, arguments):  # of this process
        if watching and event == "open" and str(arguments[0]).endswith(".png"):
            opened.append(arguments[0])

    sys.addaudithook(watch)
    loader = DataLoader(encoded, 8, collate_fn=DataCollatorForMner(processor), num_workers=workers)
    batches = list(loader)
    watching = False
    assert sum(int(batch["image_mask"].sum()) for batch in batches) == len(rows)
    assert len(opened) == (0 if workers else len(rows))
