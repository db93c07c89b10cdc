"""The comparison of encoders, shortened to where only its machinery is tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, CLIPImageProcessorPil, ViTConfig, ViTModel

from bga_mner import ConvStagesConfig
from bga_mner.examples.synthetic.recipe import training_arguments


ROOT = Path(__file__).resolve().parents[2]


SHORT = ["--steps", "2", "--vision_steps", "2", "--drawings", "40", "--pairs", "24", "--names_per_type", "2"]
SHORT += ["--test_sentences", "8", "--batch_size", "8", "--quiet", "--json"]


def test_a_row_an_encoder_and_one_without_images(script, capsys):
    found = script.main([*SHORT, "--encoders", "clip,resnet", "--seeds", "3,4"])
    printed = capsys.readouterr().out
    assert json.loads(printed.strip().splitlines()[-1]) == {"encoders": found}
    assert list(found) == ["clip", "text only", "resnet"]
    assert [row["kind"] for row in found.values()] == ["transformer", "", "convolutional"]
    for name, row in found.items():
        assert all(len(row[key]) == 2 for key in ("f1", "type_accuracy", "seconds_a_step"))
        assert min(row["seconds_a_step"]) > 0
        assert len(row.get("accuracy", [])) == (0 if name == "text only" else 2)
    assert found["resnet"]["parameters"] > 10_000
    assert "Never-labelled names" in printed


@pytest.mark.parametrize("name", ["resnet", "clip"])
def test_new_layers_alone_are_trained_if_asked_for(script, make_model, name):
    model = make_model(vision={"clip": "clip_vision_model"}.get(name, name))
    model.freeze_vision_encoder(new_layers=True)
    script.train_new_layers(model)
    trained = {n for n, parameter in model.bga_mner.vision_encoder.named_parameters() if parameter.requires_grad}
    assert bool(trained) == (name == "resnet")
    assert not any(n.startswith("backbone") for n in trained)


def test_a_saved_encoder_is_used_as_it_is(script, tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
    encoder = ViTModel(ViTConfig(image_size=16, patch_size=8, **sizes), add_pooling_layer=False)
    encoder.save_pretrained(tmp_path)
    size = {"height": 16, "width": 16}
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=size).save_pretrained(tmp_path)
    row = script.main([*SHORT, "--encoders", str(tmp_path)])[str(tmp_path)]
    assert row["parameters"] == encoder.num_parameters()
    assert "accuracy" not in row


def test_all_encoders_see_whole_images_in_few_tokens(script):
    for name, config in script.ENCODERS.items():
        made = AutoConfig.for_model(**config)
        if made.model_type in script.BACKBONE_FAMILIES:
            stages = ConvStagesConfig(backbone_config=made, image_size=64, **script.LAYERS)
            stages.fit_images(64)
            assert stages.grid_side == 4, name
        else:
            assert (made.image_size // made.patch_size, made.hidden_size) == (8, 32), name


@pytest.mark.parametrize("name", ["clip", "resnet"])
def test_the_concepts_are_learned_from_patches(script, name, tmp_path):
    """Images of one colour each: whatever learns anything tells them apart."""
    arguments = training_arguments(tmp_path, 30, 16, 3e-3, 0)
    arguments.disable_tqdm = True
    images = [torch.full((3, 64, 64), float(number % 2)) for number in range(32)]
    labels = [number % 2 for number in range(32)]

    def process(images, return_tensors):
        return {"pixel_values": torch.stack(images)}

    encoder, accuracy = script.pretrain(
        script.ENCODERS[name], 2, process, (images, labels), (images, labels), arguments
    )
    assert accuracy == 1.0
    assert not encoder.training
    assert encoder.config.model_type == ("clip_vision_model" if name == "clip" else "conv_stages")


def test_it_runs_from_any_folder(tmp_path):
    """What it imports of benchmarks/ is found without the paths that these tests have."""
    command = [sys.executable, str(ROOT / "examples" / "compare_encoders.py"), "--no_such_flag"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert ended.stderr.startswith("error: unknown argument '--no_such_flag'")
