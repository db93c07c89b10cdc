from __future__ import annotations

import pytest
import torch
from transformers import Trainer, TrainingArguments

from bga_mner import layerwise_parameter_groups
from bga_mner.configuration.encoder_families import TEXT_FAMILIES, VISION_FAMILIES


def rates(model, groups):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[parameter]: group["lr"] for group in groups for parameter in group["params"]}


@pytest.mark.parametrize(
    ("text", "vision"),
    [*((text, "vit") for text in TEXT_FAMILIES), *(("bert", vision) for vision in (*VISION_FAMILIES, "resnet"))],
)
def test_every_parameter_is_in_one_group_with_the_rate_of_its_layer(make_model, text, vision):
    model = make_model(text, vision)
    groups = layerwise_parameter_groups(model, 0.1, decay=0.5, new_learning_rate=3.0)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    found = rates(model, groups)
    assert found.keys() == dict(model.named_parameters()).keys()
    pretrained = ("bga_mner.text_encoder.", "bga_mner.vision_encoder.")
    assert {rate for name, rate in found.items() if not name.startswith(pretrained)} == {3.0}
    depths = {"text_encoder": 3, "vision_encoder": 4}
    for encoder, depth in depths.items():
        own = {name: rate for name, rate in found.items() if name.startswith(f"bga_mner.{encoder}.")}
        if encoder == "vision_encoder" and vision == "resnet":
            assert {rate for name, rate in own.items() if ".backbone." in name} == {0.1}
            assert {rate for name, rate in own.items() if ".backbone." not in name} == {3.0}
            continue
        for name, rate in own.items():
            numbers = [int(part) for part in name.split(".") if part.isdigit()]
            if ".layer." in name or ".layers." in name:
                assert rate == pytest.approx(0.1 * 0.5 ** (depth - 1 - numbers[0])), name
            elif name.split(".")[2] in ("layernorm", "norm", "final_norm") or ("siglip" in vision and "post" in name):
                assert rate == 0.1, name
            else:
                assert rate == pytest.approx(0.1 * 0.5**depth), name


def test_biases_norms_and_gates_have_no_weight_decay(make_model):
    model = make_model()
    groups = layerwise_parameter_groups(model, 1e-3, weight_decay=0.1)
    decayed = {p for group in groups if group["weight_decay"] for p in group["params"]}
    assert {group["weight_decay"] for group in groups} == {0.0, 0.1}
    for name, parameter in model.named_parameters():
        assert (parameter in decayed) == (parameter.ndim > 1), name
    assert max(group["lr"] for group in groups) == pytest.approx(1e-2)
    assert len({group["name"] for group in groups}) == len(groups)


def test_frozen_parameters_are_in_no_group(make_model):
    model = make_model()
    model.freeze_vision_encoder()
    found = rates(model, layerwise_parameter_groups(model, 1e-3))
    assert found
    assert not any("vision_encoder" in name for name in found)


def test_a_model_without_head_and_one_without_vision_encoder(make_model):
    for model in (make_model().bga_mner, make_model(text_only=True)):
        assert rates(model, layerwise_parameter_groups(model, 1e-3)).keys() == dict(model.named_parameters()).keys()


def test_trainer_takes_them_and_scales_every_rate(make_model, make_batch, tmp_path):
    model = make_model().train()
    groups = layerwise_parameter_groups(model, 1e-3, decay=0.5)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    rows = [{name: tensor[row] for name, tensor in make_batch(lengths=(6, 6)).items()} for row in range(2)]
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=2,
        warmup_steps=0,
        per_device_train_batch_size=2,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
    )
    trainer = Trainer(model, arguments, train_dataset=rows, optimizers=(torch.optim.AdamW(groups), None))
    seen = []
    step = trainer.training_step

    def watched(*positional, **named):
        seen.append([group["lr"] for group in trainer.optimizer.param_groups])
        return step(*positional, **named)

    trainer.training_step = watched
    trainer.train()
    expected = torch.tensor([group["initial_lr"] for group in trainer.optimizer.param_groups])
    # linear, to 0 behind the second step
    assert torch.allclose(torch.tensor(seen), torch.stack([expected, expected / 2]))
    moved = {name: (p - before[name]).abs().max().item() for name, p in model.named_parameters()}
    # Adam's first steps are as large as the rate
    assert moved["classifier.weight"] > 5 * moved["bga_mner.text_encoder.encoder.layer.0.output.dense.weight"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "Expected learning_rate above 0, got 0"),
        ({"learning_rate": 1e-3, "new_learning_rate": -1.0}, "Expected new_learning_rate above 0"),
        ({"learning_rate": 1e-3, "decay": 0.0}, "Expected decay above 0"),
        ({"learning_rate": 1e-3, "decay": 1.1}, "at most 1"),
    ],
)
def test_impossible_rates_are_refused(make_model, options, message):
    with pytest.raises(ValueError, match=message):
        layerwise_parameter_groups(make_model(), **options)
