"""Convolutional encoders of timm; run by tests/package/test_beside_torchvision.py, where timm is installed."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, BertConfig, BertModel, TimmWrapperConfig

from bga_mner import BgaMnerForTokenClassification, BgaMnerProcessor, cache_vision_states, load_image_processor
from bga_mner.examples.fine_tuning.arguments import ModelArguments
from bga_mner.examples.fine_tuning.model import build_model
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


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


def test_saved_loaded_and_without_images(model, batch, tmp_path):
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
    with pytest.raises(ValueError, match="got \\(1, 197, 192\\)"):
        make_model(vision="resnet", vision_options=options | {"image_size": 224})


@pytest.fixture(params=["center", "squash"])
def checkpoint(request, tmp_path):
    """Save a small encoder as those of timm on the Hub are: what prepares its images stands in `config.json`."""
    timm = import_module("timm")
    found = timm.create_model("mobilenetv3_small_050").pretrained_cfg
    own = {"input_size": [3, 64, 64], "crop_mode": request.param, "crop_pct": 0.8, "interpolation": "bilinear"}
    config = TimmWrapperConfig(architecture="mobilenetv3_small_050", pretrained_cfg={**found, **own})
    AutoModel.from_config(config).save_pretrained(tmp_path / "timm")
    return tmp_path / "timm"


@pytest.mark.parametrize("size", [(160, 160), (200, 120), (90, 90)])
def test_the_image_processor_makes_what_timm_makes(checkpoint, size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 9, 3), dtype=np.uint8)).resize(size)
    made = load_image_processor(checkpoint)(image, return_tensors="np")["pixel_values"]
    theirs = AutoImageProcessor.from_pretrained(checkpoint)(image, return_tensors="pt")["pixel_values"]
    np.testing.assert_allclose(made, theirs.numpy(), atol=1e-6)


def test_a_checkpoint_is_built_encoded_cached_and_saved(checkpoint, tmp_path):
    tokenizer = build_tokenizer([["ann", "saw", "oslo"]], model_max_length=32)
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 20}
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=32, **sizes)).save_pretrained(
        tmp_path / "bert"
    )
    tokenizer.save_pretrained(tmp_path / "bert")
    arguments = ModelArguments(str(tmp_path / "bert"), str(checkpoint), image_size=32, freeze_vision_encoder=True)
    model, processor = build_model(arguments, ["O", "B-PER", "I-PER"], True, None)
    assert (model.config.image_size, processor.image_processor.crop_size["height"]) == (32, 32)
    size = processor.image_processor.size
    assert (size.get("shortest_edge") or size["height"]) == 40
    processor.save_pretrained(tmp_path / "saved")
    loaded = BgaMnerProcessor.from_pretrained(tmp_path / "saved")
    image = Image.new("RGB", (50, 40), "red")
    texts = {"text": [["ann", "saw"], ["oslo"]], "word_labels": [["B-PER", "O"], ["O"]], "return_tensors": "pt"}
    batch = loaded(**texts, images=[image, None])
    assert torch.equal(batch["pixel_values"], processor(**texts, images=[image, None])["pixel_values"])
    rows = datasets.Dataset.from_dict({"image": [image, None]}, datasets.Features({"image": datasets.Image()}))
    cached = cache_vision_states(rows, model, loaded)
    states = loaded.encode_examples({"tokens": [["a"], ["b"]], "vision_states": cached["vision_states"]})
    states = torch.from_numpy(np.stack([states["vision_states"][0]] * 2))
    pixel_values = batch.pop("pixel_values")
    model.eval()
    losses = [model(**batch, **given).loss for given in ({"pixel_values": pixel_values}, {"vision_states": states})]
    torch.testing.assert_close(*losses)
