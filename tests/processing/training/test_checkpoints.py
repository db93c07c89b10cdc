"""Which checkpoints count, and how they are written. Runs that are killed: tests/examples/test_survival.py."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from transformers import Trainer, TrainingArguments

from bga_mner import (
    WholeCheckpointCallback,
    check_checkpoint,
    check_settings,
    last_whole_checkpoint,
    write_checkpoint,
)
from bga_mner.processing.training.checkpoints import SEAL


def fill(folder):
    save_file({"weight": torch.randn(30, 30)}, folder / "model.safetensors")
    torch.save({"state": torch.randn(30, 30)}, folder / "optimizer.bin")
    (folder / "progress.json").write_text('{"step": 1}')
    (folder / "inner").mkdir()
    (folder / "inner" / "shard.distcp").write_bytes(b"1234")


@pytest.fixture
def written(tmp_path):
    """Write checkpoints of the steps 2, 10 and 9."""
    for step in (2, 10, 9):
        with write_checkpoint(tmp_path, step, {"seed": 1, "labels": ["O"]}) as folder:
            fill(folder)
    return tmp_path


def test_the_last_one_by_number_counts(written, tmp_path):
    assert last_whole_checkpoint(written) == str(written / "checkpoint-10")
    assert last_whole_checkpoint(tmp_path / "nowhere") is None
    (written / "checkpoint-11").write_text("a file")
    (written / "checkpoint-twelve").mkdir()
    assert last_whole_checkpoint(written) == str(written / "checkpoint-10")


FILES = ["model.safetensors", "optimizer.bin", "progress.json", "inner/shard.distcp"]


@pytest.mark.parametrize("name", [*FILES, SEAL])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
def test_no_cut_file_goes_unseen(written, name, keep, caplog):
    file = written / "checkpoint-10" / name
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep)])
    assert name in check_checkpoint(written / "checkpoint-10")
    assert last_whole_checkpoint(written) == str(written / "checkpoint-9")


@pytest.mark.parametrize("name", FILES)
def test_no_missing_file_goes_unseen(written, name):
    (written / "checkpoint-10" / name).unlink()
    assert check_checkpoint(written / "checkpoint-10") == f"{name} is missing"


@pytest.mark.parametrize("name", FILES[:2])
def test_what_is_broken_without_being_shorter_is_seen_where_the_format_shows_it(written, name):
    file = written / "checkpoint-10" / name
    content = bytearray(file.read_bytes())
    content[:8] = b"\xff" * 8  # the length of the header, the archive's mark
    file.write_bytes(content)
    assert name in check_checkpoint(written / "checkpoint-10")
    middle = len(content) // 2
    torch.save({"state": torch.randn(30, 30)}, file)
    if name == "optimizer.bin":
        content = bytearray(file.read_bytes())
        content[middle] ^= 1  # of a tensor: archives have checksums
        file.write_bytes(content)
        assert "broken part" in check_checkpoint(written / "checkpoint-10")


def test_without_a_list_the_last_file_of_the_trainer_has_to_be_there(written):
    (written / "checkpoint-10" / SEAL).unlink()
    assert "trainer_state.json" in check_checkpoint(written / "checkpoint-10")
    (written / "checkpoint-10" / "trainer_state.json").write_text("{}")
    assert check_checkpoint(written / "checkpoint-10") is None
    file = written / "checkpoint-10" / "optimizer.bin"
    file.write_bytes(file.read_bytes()[:-10])
    assert "cut off" in check_checkpoint(written / "checkpoint-10")


def test_what_breaks_off_leaves_the_checkpoint_before(written):
    def break_off(folder):
        fill(folder)
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"), write_checkpoint(written, 12) as folder:
        break_off(folder)
    assert last_whole_checkpoint(written) == str(written / "checkpoint-10")
    assert (written / ".unfinished-checkpoint-12").is_dir()
    with write_checkpoint(written, 10) as folder:  # replaces the one that is there
        fill(folder)
    assert not list(written.glob(".unfinished-*"))
    assert check_checkpoint(written / "checkpoint-10") is None


@pytest.mark.parametrize(
    ("keep", "protected", "left"),
    [
        (None, None, [2, 9, 10, 11]),
        (2, None, [10, 11]),
        (2, 2, [2, 11]),
        (1, 9, [9, 11]),
        (1, 11, [11]),
        (1, None, [11]),
    ],
)
def test_old_ones_are_deleted_but_the_best(written, keep, protected, left):
    with write_checkpoint(written, 11, keep=keep, protected=protected) as folder:
        fill(folder)
    assert sorted(int(path.name.split("-")[1]) for path in written.iterdir()) == left


@pytest.mark.parametrize("protected", [None, 1])
@pytest.mark.parametrize("keep", [2, 3, 4, 5, 6])
def test_none_is_deleted_before_there_are_more_than_are_kept(tmp_path, keep, protected):
    for step in range(1, 9):
        with write_checkpoint(tmp_path, step, keep=keep, protected=protected):
            pass
        left = sorted(int(path.name.split("-")[1]) for path in tmp_path.iterdir())
        steps = list(range(1, step + 1))
        assert left == (steps[-keep:] if protected is None or step <= keep else [1, *steps[1 - keep :]])


def test_other_settings_are_refused_and_named(written):
    checkpoint = written / "checkpoint-10"
    check_settings(checkpoint, {"seed": 1, "labels": ("O",), "unheard of": 3})
    with pytest.raises(ValueError, match=r"labels was \['O'\] and is \['O', 'B-X'\]; seed was 1 and is 2"):
        check_settings(checkpoint, {"seed": 2, "labels": ["O", "B-X"]})
    (checkpoint / SEAL).unlink()
    check_settings(checkpoint, {"seed": 2})  # nobody knows


@pytest.fixture
def train(tmp_path):
    def run(steps=6, checkpoint=None, **options):
        arguments = TrainingArguments(
            str(tmp_path), max_steps=steps, save_steps=2, save_strategy="steps", report_to=[], disable_tqdm=True,
            use_cpu=True, per_device_train_batch_size=1,
        )  # fmt: skip
        rows = [{"x": torch.randn(3), "labels": torch.randn(1)} for _ in range(8)]
        Trainer(Line(), arguments, train_dataset=rows, callbacks=[WholeCheckpointCallback(**options)]).train(checkpoint)

    return run


class Line(torch.nn.Linear):
    def __init__(self):
        super().__init__(3, 1)

    def forward(self, x, labels):
        return ((super().forward(x) - labels) ** 2).mean(), labels


def test_any_trainer_gets_whole_checkpoints(train, tmp_path):
    train(save_total_limit=2, settings={"seed": 3})
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-4", "checkpoint-6"}
    kept = json.loads((tmp_path / "checkpoint-6" / SEAL).read_text())
    assert kept["settings"] == {"seed": 3}
    files = {path.name for path in (tmp_path / "checkpoint-6").iterdir()} - {SEAL}
    assert kept["files"].keys() == files >= {"model.safetensors", "optimizer.pt", "rng_state.pth"}


@pytest.mark.parametrize("limit", [4, 5, 6])
def test_a_trainer_keeps_all_checkpoints_while_there_are_fewer_than_its_limit(train, tmp_path, limit):
    train(save_total_limit=limit)
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4", "checkpoint-6"}


def test_a_trainer_that_starts_earlier_puts_later_checkpoints_aside(train, tmp_path):
    train()
    (tmp_path / "checkpoint-6" / "optimizer.pt").unlink()
    found = last_whole_checkpoint(tmp_path)
    assert found == str(tmp_path / "checkpoint-4")
    shutil.copytree(tmp_path / "checkpoint-6", tmp_path / "checkpoint-8")
    train(6, found)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"superseded-checkpoint-6", "superseded-checkpoint-8", "checkpoint-6"} <= names
    assert "checkpoint-8" not in names
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-6")
