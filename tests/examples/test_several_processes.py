"""Two processes with half the batch each, and small batches added up, train as one process with the whole batch."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig


pytestmark = pytest.mark.slow


SAVING = {"trainer": {"save_strategy": "no", "report_to": "none"}, "loop": {}}
# what accelerate's launcher makes of examples/accelerate_configs/fsdp2.yaml
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "BertLayer,ViTLayer",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}
STEPS = 20


@pytest.fixture(scope="module")
def quiet(mner_files, mner_arguments, tmp_path_factory):
    """Arguments without any noise: no dropout, no context sampler, no replaced entities.

    Noise can't be the same: each process samples its own. A quarter of the images is gone, so that some batches have
    fewer pairs than others, and some none.
    """
    folder = tmp_path_factory.mktemp("quiet")
    shutil.copytree(mner_files, folder, dirs_exist_ok=True)
    config = AutoConfig.from_pretrained(folder / "bert")
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    config.save_pretrained(folder / "bert")
    for number, path in enumerate(sorted((folder / "images").iterdir())):
        if number % 4 == 0 or number % 5 == 0:
            path.unlink()
    folders = {name: folder / Path(value).name for name, value in mner_arguments.items() if isinstance(value, Path)}
    overrides = "classifier_dropout=0,generator_dropout=0,use_context_sampler=false,loss_stages=all"
    # statistics of the first images follow the batches that these come in
    overrides += ",context_hiding_probability=0,visual_target=last"
    options = {"config_overrides": overrides, "entity_replacement_probability": 0, "max_steps": STEPS}
    return mner_arguments | folders | options | {"validation_file": None}


@pytest.fixture(scope="module")
def whole_batch(quiet, kind, run_script, tmp_path_factory):
    """Loss by step, and weights, of one process with batches of 8."""
    folder = tmp_path_factory.mktemp("whole_batch") / "out"
    arguments = quiet | SAVING[kind] | {"per_device_train_batch_size": 8, "output_dir": folder}
    code, log = run_script(kind, arguments)
    assert code == 0, log
    return curve(folder), load_file(folder / "model.safetensors")


def curve(folder):
    if (folder / "log.jsonl").exists():
        entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    else:
        entries = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return torch.tensor([entry["loss"] for entry in entries if "loss" in entry])


def compare(whole_batch, folder):
    losses, weights = whole_batch
    assert len(losses) == STEPS
    torch.testing.assert_close(curve(folder), losses, rtol=1e-4, atol=1e-4)
    found = load_file(folder / "model.safetensors")
    assert found.keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-4, msg=name)


def test_small_batches_add_up_to_the_large_one(quiet, kind, whole_batch, run_script, tmp_path):
    small = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "output_dir": tmp_path / "out"}
    code, log = run_script(kind, quiet | SAVING[kind] | small)
    assert code == 0, log
    compare(whole_batch, tmp_path / "out")


def test_the_loop_takes_the_trainer_s_steps(quiet, whole_batch, kind, run_script, tmp_path):
    other = "loop" if kind == "trainer" else "trainer"
    arguments = quiet | SAVING[other] | {"per_device_train_batch_size": 8, "output_dir": tmp_path / "out"}
    code, log = run_script(other, arguments)
    assert code == 0, log
    compare(whole_batch, tmp_path / "out")


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("wrapper", ["DDP", "FSDP2"])
def test_two_processes_train_as_one(quiet, kind, whole_batch, run_script, tmp_path, wrapper, accumulation):
    half = {"per_device_train_batch_size": 4 // accumulation, "gradient_accumulation_steps": accumulation}
    half |= {"output_dir": tmp_path / "out", "test_file": quiet["train_file"].with_name("test.txt"), "do_predict": True}
    environment = FSDP2 if wrapper == "FSDP2" else {}
    codes, logs, reports = run_script.several(kind, quiet | SAVING[kind] | half, **environment)
    assert codes == [0, 0], "\n".join(logs)
    expected = {"DistributedDataParallel"} if wrapper == "DDP" else {"FSDPBertLayer", "FSDPViTLayer"}
    for report in reports:
        assert report["world_size"] == 2
        assert expected <= set(report["modules"])
        assert ("DistributedDataParallel" in report["modules"]) is (wrapper == "DDP")
    compare(whole_batch, tmp_path / "out")
    assert (tmp_path / "out" / "predictions.conll").read_text().count("IMGID") == 6


@pytest.mark.parametrize("wrapper", ["DDP", "FSDP2"])
def test_two_killed_processes_end_with_the_same_bits(mner_arguments, kind, run_script, tmp_path, wrapper):
    """One is killed, the other with it, as a launcher does; all noise is on, and the cut is amid the second epoch."""
    arguments = mner_arguments | SAVING[kind] | {"validation_file": None, "num_train_epochs": 2}
    arguments |= {"save_steps": 2} | ({"save_strategy": "steps"} if kind == "trainer" else {})
    environment = FSDP2 if wrapper == "FSDP2" else {}
    weights = []
    for name, kills in (("whole", [{}]), ("cut", [dict.fromkeys(range(2), ("step", None, 6)), {}])):
        folder = tmp_path / name
        for kill in kills:
            codes, logs, _ = run_script.several(kind, arguments | {"output_dir": folder}, kill, **environment)
            assert codes == ([-signal.SIGKILL] * 2 if kill else [0, 0]), "\n".join(logs)
        state = "rng_state_{}.pth" if kind == "trainer" else "random_states_{}.pkl"
        noise = [(folder / "checkpoint-6" / state.format(rank)).read_bytes() for rank in range(2)]
        assert noise[0] != noise[1]
        weights.append(load_file(folder / "model.safetensors"))
    assert "Continuing from" in logs[0]
    assert "checkpoint-4" in logs[0]
    whole, cut = weights
    assert [name for name, weight in whole.items() if not torch.equal(weight, cut[name])] == []


def test_a_killed_trainer_goes_on_under_fsdp_with_the_script_s_own_checkpoints(mner_arguments, run_script, tmp_path):
    """It saves after each epoch, of 3 steps in two processes."""
    arguments = mner_arguments | {"num_train_epochs": 2, "report_to": "none", "output_dir": tmp_path}
    codes, logs, _ = run_script.several("trainer", arguments, dict.fromkeys(range(2), ("step", None, 5)), **FSDP2)
    assert codes == [-signal.SIGKILL] * 2, "\n".join(logs)
    codes, logs, _ = run_script.several("trainer", arguments, **FSDP2)
    assert codes == [0, 0], "\n".join(logs)
    assert "Continuing from" in logs[0]
    assert "checkpoint-3" in logs[0]
