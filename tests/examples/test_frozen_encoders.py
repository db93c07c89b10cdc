"""A frozen vision encoder, run once over all images: the same training as with images, of each kind of encoder."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from slow_cases import mostly_slow
from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetModel

from bga_mner.examples import run_mner


@pytest.fixture(scope="module")
def encoders(mner_files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("resnet")
    torch.manual_seed(0)
    config = ResNetConfig(hidden_sizes=[6, 8], depths=[1, 1], embedding_size=6, layer_type="basic")
    ResNetModel(config).save_pretrained(folder)
    ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=0.9).save_pretrained(folder)
    return {"vit": mner_files / "vit", "resnet": folder}


@pytest.mark.parametrize("rank", mostly_slow([None, 2], None))
@pytest.mark.parametrize("vision", ["vit", "resnet"])
def test_cached_states_train_as_images_do(vision, rank, encoders, mner_arguments, run_script, tmp_path):
    arguments = mner_arguments | {"vision_model": encoders[vision], "freeze_vision_encoder": True, "lora_rank": rank}
    arguments |= {"max_steps": 4, "report_to": "none", "dataloader_pin_memory": False}
    logs, weights = [], []
    for cache in (False, True):
        folder = tmp_path / str(cache)
        run_mner.main(run_script.argv(arguments | {"cache_vision_states": cache, "output_dir": folder}))
        history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
        logs.append([entry["loss"] for entry in history if "loss" in entry])
        weights.append(load_file(folder / "model.safetensors"))
    assert len(logs[0]) == 4
    assert logs[1] == pytest.approx(logs[0], rel=1e-4)
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-3, atol=1e-4, msg=name)
    if vision == "resnet":
        before, prefix = load_file(encoders[vision] / "model.safetensors"), "bga_mner.vision_encoder.backbone."
        kept = {name.removeprefix(prefix): weight for name, weight in weights[1].items() if name.startswith(prefix)}
        assert kept
        assert all(torch.equal(weight, before[name]) for name, weight in kept.items())
