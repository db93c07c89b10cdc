"""Checkpoints in folders, of every family of encoders: the fine-tuning scripts build a model, and encode a batch."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from conftest import BACKBONE_CONFIGS, TEXT_CONFIGS, VISION_CONFIGS
from PIL import Image
from slow_cases import mostly_slow
from transformers import AutoConfig, AutoModel

from bga_mner import BgaMnerForTokenClassification, BgaMnerProcessor
from bga_mner.configuration.encoder_families import BACKBONE_FAMILIES, TEXT_FAMILIES, VISION_FAMILIES
from bga_mner.examples.fine_tuning.arguments import ModelArguments
from bga_mner.examples.fine_tuning.model import build_model


LABELS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
TOKENIZERS = {"roberta": "byte-level-no-prefix", "xlm-roberta": "unigram", "deberta-v2": "deberta"}
TOKENIZERS |= {"modernbert": "modernbert"}
CROPPED = {"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}}
SQUARE = {"size": {"height": 16, "width": 16}}
# What checkpoints of the family on the Hub come with.
IMAGE_PROCESSORS = {
    "clip_vision_model": ("CLIPImageProcessorPil", CROPPED),
    "vit": ("ViTImageProcessorPil", SQUARE),
    "dinov2": ("BitImageProcessorPil", CROPPED),
    "dinov2_with_registers": ("BitImageProcessorPil", CROPPED),
    "dinov3_vit": ("ViTImageProcessorPil", {**SQUARE, "image_mean": [0.485, 0.456, 0.406]}),
    "siglip_vision_model": ("SiglipImageProcessorPil", SQUARE),
    "siglip2_vision_model": ("Siglip2ImageProcessorPil", {"patch_size": 8, "max_num_patches": 4}),
    "resnet": ("ConvNextImageProcessorPil", {"size": {"shortest_edge": 16}, "crop_pct": 0.8}),
    "regnet": ("ConvNextImageProcessorPil", {"size": {"shortest_edge": 16}, "crop_pct": 0.8}),
    "convnext": ("ConvNextImageProcessorPil", {"size": {"shortest_edge": 16}, "crop_pct": 0.8}),
    "convnextv2": ("ConvNextImageProcessorPil", {"size": {"shortest_edge": 16}, "crop_pct": 0.8}),
    "efficientnet": ("EfficientNetImageProcessorPil", SQUARE),
}


@pytest.fixture
def save_text(tokenizers, tmp_path):
    def save(family):
        tokenizer = tokenizers[TOKENIZERS.get(family, "wordpiece")]
        # as the tokenizer has it: RoBERTa's positions begin behind the padding's
        options = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        config = {**TEXT_CONFIGS[family], **options, "max_position_embeddings": 70}
        AutoModel.from_config(AutoConfig.for_model(**config)).save_pretrained(tmp_path / "text")
        tokenizer.save_pretrained(tmp_path / "text")
        return str(tmp_path / "text")

    return save


@pytest.fixture
def save_vision(tmp_path):
    def save(family):
        if family in BACKBONE_CONFIGS:
            config = AutoConfig.for_model(family, **BACKBONE_CONFIGS[family])
        else:
            config = AutoConfig.for_model(**VISION_CONFIGS[family])
        AutoModel.from_config(config).save_pretrained(tmp_path / "vision")
        name, options = IMAGE_PROCESSORS[family]
        getattr(transformers, name)(**options).save_pretrained(tmp_path / "vision")
        if family == "dinov3_vit":  # can't be made without torchvision
            file = tmp_path / "vision" / "preprocessor_config.json"
            settings = json.loads(file.read_text())
            file.write_text(json.dumps(settings | {"image_processor_type": "DINOv3ViTImageProcessorFast"}))
        return str(tmp_path / "vision")

    return save


def check(text, vision, folder, **options):
    model, processor = build_model(ModelArguments(text, vision, **options), LABELS, True, None)
    side = options.get("image_size") or model.config.image_size
    texts = {"text": [["ann", "saw", "oslo"], ["it"]], "word_labels": [["B-PER", "O", "B-LOC"], ["O"]]}
    texts["images"] = [Image.new("RGB", (50, 40), "red"), None]
    batch = processor(**texts, return_tensors="pt")
    assert batch["pixel_values"].shape == (2, 3, side, side)
    loss = model.eval()(**batch).loss
    assert loss.isfinite()
    # what is saved loads, and does the same
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    again = BgaMnerProcessor.from_pretrained(folder)(**texts, return_tensors="pt")
    torch.testing.assert_close(BgaMnerForTokenClassification.from_pretrained(folder)(**again).loss, loss)


@pytest.mark.parametrize("family", list(TEXT_FAMILIES))
def test_text_encoders(family, save_text, save_vision, tmp_path):
    check(save_text(family), save_vision("vit"), tmp_path / "saved")


@pytest.mark.parametrize("image_size", mostly_slow([None, 24], None))
@pytest.mark.parametrize("family", [*VISION_FAMILIES, *(name for name in BACKBONE_FAMILIES if "timm" not in name)])
def test_vision_encoders(family, image_size, save_text, save_vision, tmp_path):
    text, vision = save_text("bert"), save_vision(family)
    check(text, vision, tmp_path / "saved", image_size=image_size, freeze_vision_encoder=True)


@pytest.mark.parametrize("tower", ["clip", "siglip", "siglip2"])
def test_vision_towers_of_whole_models(tower, save_text, tmp_path):
    family = f"{tower}_vision_model"
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    sizes = {name: VISION_CONFIGS[family][name] for name in names} | {"vocab_size": 60, "max_position_embeddings": 20}
    config = AutoConfig.for_model(tower, vision_config=VISION_CONFIGS[family], text_config=sizes)
    AutoModel.from_config(config).save_pretrained(tmp_path / "vision")
    name, options = IMAGE_PROCESSORS[family]
    getattr(transformers, name)(**options).save_pretrained(tmp_path / "vision")
    check(save_text("bert"), str(tmp_path / "vision"), tmp_path / "saved")
