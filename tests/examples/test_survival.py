"""Runs that are killed, and what the same command makes of what they left."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file


pytestmark = pytest.mark.slow


# both write a checkpoint every other step of six
SAVING = {"trainer": {"save_strategy": "steps", "save_steps": 2, "report_to": "none"}, "loop": {"save_steps": 2}}
# both score before they save, and take the best weights at the end
SCORING = {"trainer": {"save_strategy": "epoch", "report_to": "none"}, "loop": {}}


@pytest.fixture(scope="module")
def arguments(mner_arguments, kind):
    given = mner_arguments | SAVING[kind]
    return given | {"validation_file": None, "num_bga_layers": 1}


@pytest.fixture(scope="module")
def whole(arguments, kind, run_script, tmp_path_factory):
    """Weights of a run that was not cut off."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    code, log = run_script(kind, arguments | {"output_dir": folder})
    assert code == 0, log
    return load_file(folder / "model.safetensors")


def assert_same(weights, folder):
    found = load_file(Path(folder) / "model.safetensors")
    assert found.keys() == weights.keys()
    assert [name for name, weight in weights.items() if not torch.equal(weight, found[name])] == []


def checkpoints(folder):
    return sorted(path.name for path in Path(folder).glob("checkpoint-*"))


@pytest.mark.parametrize("step", range(1, 7))
def test_killed_at_any_step_it_ends_with_the_same_bits(step, arguments, kind, whole, run_script, tmp_path):
    arguments = arguments | {"output_dir": tmp_path / "cut"}
    code, log = run_script(kind, arguments, ("step", None, step))
    assert code == -signal.SIGKILL, log
    assert checkpoints(tmp_path / "cut") == [f"checkpoint-{number}" for number in range(2, step, 2)]
    code, log = run_script(kind, arguments)
    assert code == 0, log
    assert ("Continuing from" in log) is (step > 2)
    assert_same(whole, tmp_path / "cut")


# what is being written at the second checkpoint, and the checkpoint that is gone on from
IN_SAVING = {
    "trainer": [
        ("half", "optimizer.pt", 2),
        ("half", "rng_state.pth", 2),
        ("write", "trainer_state.json", 2),
        ("rename", "checkpoint_files.json", 2),
    ],
    "loop": [
        ("half", "optimizer.bin", 2),
        ("half", "random_states_0.pkl", 2),
        ("write", "progress.json", 2),
        ("rename", "checkpoint-4", 1),
    ],
}


@pytest.mark.parametrize("number", range(4))
def test_killed_while_it_saves_it_goes_on_from_the_checkpoint_before(
    number, arguments, kind, whole, run_script, tmp_path
):
    kill = IN_SAVING[kind][number]
    arguments = arguments | {"output_dir": tmp_path / "cut"}
    code, log = run_script(kind, arguments, kill)
    assert code == -signal.SIGKILL, log
    left = sorted(path.name for path in (tmp_path / "cut").iterdir() if path.is_dir())
    assert (
        left == ["checkpoint-2", "checkpoint-4"] if kind == "trainer" else [".unfinished-checkpoint-4", "checkpoint-2"]
    )
    code, log = run_script(kind, arguments)
    assert code == 0, log
    # all files of the Trainer's were written, and only the list of them was not
    taken = "checkpoint-4" if kill[:2] == ("rename", "checkpoint_files.json") else "checkpoint-2"
    assert f"{taken}; --overwrite_output_dir" in log
    if kind == "trainer" and taken == "checkpoint-2":
        assert "Passing over" in log
        assert "superseded-checkpoint-4" in log
    assert_same(whole, tmp_path / "cut")


def test_killed_while_it_scores_it_ends_with_the_same_bits(mner_arguments, kind, run_script, tmp_path):
    arguments = mner_arguments | SCORING[kind] | {"num_train_epochs": 2}
    code, log = run_script(kind, arguments | {"output_dir": tmp_path / "whole"})
    assert code == 0, log
    # one batch an epoch
    code, log = run_script(kind, arguments | {"output_dir": tmp_path / "cut"}, ("evaluation", None, 2))
    assert code == -signal.SIGKILL, log
    assert checkpoints(tmp_path / "cut") == ["checkpoint-6"]
    code, log = run_script(kind, arguments | {"output_dir": tmp_path / "cut"})
    assert code == 0, log
    assert_same(load_file(tmp_path / "whole" / "model.safetensors"), tmp_path / "cut")


def test_the_log_has_each_step_once(arguments, run_script, tmp_path, kind):
    arguments = arguments | {"output_dir": tmp_path / "cut"}
    for kill in (("step", None, 6), None):
        run_script(kind, arguments, kill)
    if kind == "loop":
        entries = [json.loads(line) for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines()]
    else:
        entries = json.loads((tmp_path / "cut" / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in entries if "loss" in entry] == [1, 2, 3, 4, 5, 6]


def test_a_full_disk_stops_it_and_costs_no_checkpoint(arguments, kind, whole, run_script, tmp_path):
    arguments = arguments | {"output_dir": tmp_path / "cut"}
    # the limit of a file's size is a real one, and what is written of the checkpoint stays half a file
    code, log = run_script(kind, arguments, ("full", None, 4))
    assert code == 1
    assert "Error" in log
    assert "checkpoint-2" in checkpoints(tmp_path / "cut")
    code, log = run_script(kind, arguments)
    assert code == 0, log
    assert "checkpoint-2; --overwrite_output_dir" in log
    assert_same(whole, tmp_path / "cut")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", "truncated"),
        ("model.safetensors", "deleted"),
        ("optimizer", "truncated"),
        ("scheduler", "emptied"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(name, damage, arguments, kind, whole, run_script, tmp_path):
    arguments = arguments | {"output_dir": tmp_path / "cut"}
    run_script(kind, arguments, ("step", None, 6))
    (file,) = (tmp_path / "cut" / "checkpoint-4").glob(f"{name}*")
    content = file.read_bytes()
    if damage == "deleted":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    code, log = run_script(kind, arguments)
    assert code == 0, log
    assert f"checkpoint-4, which is not whole: {file.name}" in log
    assert "checkpoint-2; --overwrite_output_dir" in log
    assert_same(whole, tmp_path / "cut")


def test_a_checkpoint_of_other_data_or_settings_is_refused(arguments, kind, run_script, mner_files, tmp_path):
    arguments = arguments | {"output_dir": tmp_path / "cut"}
    run_script(kind, arguments, ("step", None, 3))
    other = {"per_device_train_batch_size": 8, "learning_rate": 2e-3, "train_file": mner_files / "valid.txt"}
    code, log = run_script(kind, arguments | other)
    assert code == 1
    assert "per_device_train_batch_size was 4 and is 8" in log
    assert "learning_rate was 0.001 and is 0.002" in log
    assert "training data (sha256) was" in log
    assert checkpoints(tmp_path / "cut") == ["checkpoint-2"]
    code, log = run_script(kind, arguments | other | {"overwrite_output_dir": True})
    assert code == 0, log
