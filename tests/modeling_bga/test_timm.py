"""Convolutional encoders of timm; run by tests/package/test_beside_torchvision.py, where timm is installed."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from bga_mner import BgaMnerForTokenClassification


if find_spec("timm") is None or find_spec("torchvision") is None:
    pytest.skip("timm or torchvision is not installed", allow_module_level=True)

ENCODERS = {
    "timm_backbone": {"model_type": "timm_backbone", "backbone": "resnet18"},
    "timm_wrapper": {"model_type": "timm_wrapper", "architecture": "mobilenetv3_small_050"},
    "convnext": {"model_type": "timm_wrapper", "architecture": "convnext_atto"},
}
STAGES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 28}


@pytest.fixture(params=list(ENCODERS))
def model(request, make_model):
    options = {"backbone_config": ENCODERS[request.param], "image_size": 64, **STAGES}
    return make_model(vision="resnet", vision_options=options, hybrid_attention="both")


@pytest.fixture
def batch(make_batch):
    return make_batch() | {"pixel_values": torch.randn(3, 3, 64, 64)}


def test_forward_backward_and_frozen_statistics(model, batch):
    before = {name: tensor.clone() for name, tensor in model.named_buffers()}
    assert model.config.vision_grid_side == 2
    model.train()
    model(**batch).loss.backward()
    backbone = model.bga_mner.vision_encoder.backbone
    silent = {name for name, p in backbone.named_parameters() if p.grad is None}
    assert not {name for name in silent if "head" not in name}  # what timm puts behind the feature map
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_buffers())


def test_saved_loaded_and_without_pictures(model, batch, tmp_path):
    model.save_pretrained(tmp_path / "whole")
    loaded, report = BgaMnerForTokenClassification.from_pretrained(tmp_path / "whole", output_loading_info=True)
    assert not any(report.values()), report
    assert torch.equal(loaded(**batch).loss, model(**batch).loss)
    model.save_pretrained(tmp_path / "text", text_only=True)
    texts = {name: batch[name] for name in ("input_ids", "attention_mask")}
    alone = BgaMnerForTokenClassification.from_pretrained(tmp_path / "text")
    assert torch.equal(alone(**texts).logits, model(**texts).logits)


def test_a_vision_transformer_of_timm_is_refused(make_model):
    options = {"backbone_config": {"model_type": "timm_wrapper", "architecture": "vit_tiny_patch16_224"}}
    with pytest.raises(ValueError, match="makes \\(1, 197, 192\\)"):
        make_model(vision="resnet", vision_options=options | {"image_size": 224})
