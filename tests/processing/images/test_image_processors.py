from __future__ import annotations

import sys

import pytest
from transformers import CLIPImageProcessorPil

from bga_mner import BgaMnerForTokenClassification, load_image_processor


def test_loads_what_a_folder_holds(tmp_path):
    CLIPImageProcessorPil(image_mean=[0.1, 0.2, 0.3]).save_pretrained(tmp_path)
    assert list(load_image_processor(str(tmp_path)).image_mean) == [0.1, 0.2, 0.3]
    assert list(load_image_processor(str(tmp_path), image_mean=[0.5] * 3).image_mean) == [0.5] * 3


def test_says_how_to_install_open_clip(monkeypatch, make_model):
    monkeypatch.setitem(sys.modules, "open_clip", None)  # as where it isn't installed
    with pytest.raises(ValueError, match="Run: pip install open_clip_torch"):
        load_image_processor("open_clip:ViT-B-32/openai")
    with pytest.raises(ValueError, match="Run: pip install open_clip_torch"):
        BgaMnerForTokenClassification.from_text_vision_pretrained(
            make_model().bga_mner.text_encoder, "open_clip:ViT-B-32/openai"
        )
