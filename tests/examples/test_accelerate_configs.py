"""Accelerate reads its configurations; what two processes do with DDP and FSDP2: test_several_processes.py."""

from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file


FOLDER = Path(__file__).resolve().parents[2] / "examples" / "accelerate_configs"
KINDS = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_reads_it(name):
    path = FOLDER / f"{name}.yaml"
    config = load_config_from_file(str(path))
    assert config.distributed_type == KINDS[name]
    assert config.num_processes == 2
    if name == "fsdp2":
        assert config.fsdp_config["fsdp_version"] == 2
    elif name != "ddp":
        assert config.deepspeed_config["zero_stage"] == int(name[-1])


def test_there_are_no_others():
    assert {path.stem for path in FOLDER.iterdir()} == set(KINDS)


def test_what_fsdp_wraps_are_the_layers_of_bert_and_clip(make_model):
    # accelerate refuses a model that lacks one of them
    names = yaml.safe_load((FOLDER / "fsdp2.yaml").read_text())["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"]
    modules = [type(module).__name__ for module in make_model("bert", "clip_vision_model").modules()]
    assert [modules.count(name) for name in names.split(",")] == [3, 4]
