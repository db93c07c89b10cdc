"""A frozen vision encoder, run once over all images: the same training as with images, of each kind of encoder."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from slow_cases import mostly_slow
from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetModel

from bga_mner.configuration.encoder_families import BACKBONE_FAMILIES, VISION_FAMILIES
from bga_mner.examples import run_mner
from bga_mner.examples.fine_tuning.model import freeze_idle


CONVOLUTIONAL = [name for name in BACKBONE_FAMILIES if not name.startswith("timm")]


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


@pytest.mark.parametrize("vision", [*VISION_FAMILIES, *CONVOLUTIONAL])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"entity_replacement_probability": 1.0},
        {"entity_replacement_probability": 1.0, "replaced_entities_read": "real"},
        {"visual_source": "real", "use_text_to_image": False},
        {"hybrid_attention": "both"},
        {"visual_target": "layer"},
    ],
)
def test_what_gets_no_gradient_is_frozen_where_weights_are_spread(make_model, make_batch, vision, options):
    model = make_model("bert", vision, **{"visual_target": "pooled"} | options).train()
    model(**make_batch()).loss.backward()
    weights = dict(model.bga_mner.vision_encoder.named_parameters())
    reached = {name for name, weight in weights.items() if weight.grad is not None}
    freeze_idle(model)
    assert {name for name, weight in weights.items() if weight.requires_grad} == reached
