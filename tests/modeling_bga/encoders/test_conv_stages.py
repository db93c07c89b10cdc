from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import AutoModel, BertConfig, BertModel, Trainer, TrainingArguments
from transformers.models.resnet import ResNetConfig

from bga_mner import BgaMnerConfig, BgaMnerForTokenClassification, BgaMnerModel
from bga_mner.configuration.configuration_conv_stages import ConvStagesConfig
from bga_mner.modeling_bga.encoders.encoder import build_encoder


RESNET = {"model_type": "resnet", "hidden_sizes": [6, 8], "depths": [1, 1], "embedding_size": 6, "layer_type": "basic"}
TEXT = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 20, "vocab_size": 60}
LABELS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def batch_norms(model):
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def statistics(model):
    return copy.deepcopy([norm.state_dict() for norm in batch_norms(model)])


def same(first, second, names):
    return all(torch.equal(a[name], b[name]) for a, b in zip(first, second, strict=True) for name in names)


MOVING = ("running_mean", "running_var", "num_batches_tracked")


@pytest.mark.parametrize("vision", ["resnet", "regnet", "efficientnet"])
@pytest.mark.parametrize("freeze", [False, True])
def test_batch_norm_keeps_its_statistics_in_training(make_model, make_batch, vision, freeze):
    model = make_model(vision=vision)
    before = statistics(model)
    assert before
    if freeze:
        model.freeze_vision_encoder()
    model.train()
    assert model.bga_mner.vision_encoder.training
    assert not any(norm.training for norm in batch_norms(model))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        model(**make_batch()).loss.backward()
        optimizer.step()
    assert same(statistics(model), before, MOVING)
    # scale and shift are trained unless they are frozen
    assert same(statistics(model), before, ("weight", "bias")) == freeze


def test_a_model_that_was_never_told_its_mode_keeps_them_too(make_config, make_batch):
    model = BgaMnerForTokenClassification(make_config(vision="resnet"))
    assert model.training
    assert model.bga_mner.vision_encoder.layers.training
    before = statistics(model)
    model(**make_batch()).loss.backward()
    assert same(statistics(model), before, MOVING)
    encoder = build_encoder(ConvStagesConfig(backbone_config=RESNET, image_size=32, hidden_size=16))
    assert encoder.training
    assert not any(norm.training for norm in batch_norms(encoder))


def test_trainer_keeps_them_too(make_model, make_batch, tmp_path):
    model = make_model(vision="resnet")
    before = statistics(model)
    rows = [{name: tensor[row] for name, tensor in make_batch(lengths=(6, 6, 6, 6)).items()} for row in range(4)]
    arguments = TrainingArguments(
        str(tmp_path), max_steps=2, per_device_train_batch_size=2, report_to=[], save_strategy="no", use_cpu=True
    )
    Trainer(model, arguments, train_dataset=rows).train()
    assert same(statistics(model), before, MOVING)
    assert not same(statistics(model), before, ("weight",))


def test_a_batch_gives_what_single_images_give_in_training(make_model):
    encoder = make_model(vision="resnet").bga_mner.vision_encoder.train()
    images = torch.randn(3, 3, 16, 16)
    assert torch.allclose(encoder(images)[:1], encoder(images[:1]), atol=1e-5)


# Freezing


def test_a_frozen_convolutional_encoder_leaves_the_new_layers_to_be_trained(make_model, make_batch):
    model = make_model(vision="resnet", hybrid_attention="both").train()
    model.freeze_vision_encoder()
    model(**make_batch()).loss.backward()
    encoder = model.bga_mner.vision_encoder
    assert not encoder.backbone.training
    assert encoder.layers.training
    assert all(p.grad is None and not p.requires_grad for p in encoder.backbone.parameters())
    assert encoder.projection.weight.grad.abs().sum() > 0
    assert all(p.grad is not None for p in encoder.layers[:3].parameters())


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_frozen_vision_encoder_stays_in_evaluation_mode_and_builds_no_graph(make_model, make_batch, by_hand):
    model = make_model(vision="vit", vision_options={"hidden_dropout_prob": 0.5})
    if by_hand:
        model.bga_mner.vision_encoder.requires_grad_(False)
    else:
        model.freeze_vision_encoder()
    model.train()
    assert model.training
    assert not any(module.training for module in model.bga_mner.vision_encoder.modules())
    batch = make_batch()
    first, second = model(**batch), model(**batch)
    assert not first.vision_last_hidden_state.requires_grad
    assert torch.equal(first.vision_last_hidden_state, second.vision_last_hidden_state)
    first.loss.backward()
    assert all(p.grad is None for p in model.bga_mner.vision_encoder.parameters())
    assert model.bga_mner.vision_branch.generator.output.weight.grad.abs().sum() > 0
    # and it can be trained again
    model.bga_mner.vision_encoder.requires_grad_(True)
    assert model.train().bga_mner.vision_encoder.training


def test_freezing_takes_effect_at_once_and_leaves_the_mode(make_model):
    model = make_model().train()
    model.freeze_vision_encoder()
    assert not model.bga_mner.vision_encoder.training
    assert model.bga_mner.text_encoder.training
    model.eval()
    model.bga_mner.freeze_vision_encoder()
    assert not model.training
    with pytest.raises(ValueError, match="a model with a vision encoder to freeze"):
        make_model(text_only=True).freeze_vision_encoder()


# Configuration


def test_a_plain_convolutional_configuration_is_wrapped():
    config = BgaMnerConfig(text_config=TEXT, vision_config=RESNET)
    vision = config.vision_config
    assert isinstance(vision, ConvStagesConfig)
    assert (vision.hidden_size, vision.num_hidden_layers, config.image_size) == (384, 4, 224)
    assert config.num_bga_layers == 2
    # strides of 2, 2 and 2
    assert (vision.feature_channels, vision.grid_side, config.num_vision_tokens) == (8, 28, 28 * 28)
    assert BgaMnerConfig(text_config=TEXT, vision_config=ResNetConfig(**RESNET)).to_dict() == config.to_dict()
    convnext = {"model_type": "convnext", "hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2, "image_size": 40}
    assert BgaMnerConfig(text_config=TEXT, vision_config=convnext).image_size == 40


def test_the_configuration_is_saved_with_what_was_found_out(tmp_path, monkeypatch):
    config = BgaMnerConfig(text_config=TEXT, vision_config=RESNET, image_size=32)
    config.save_pretrained(tmp_path)
    # a loaded one has no need of another dry run, which for timm would need timm
    monkeypatch.setattr(AutoModel, "from_config", lambda *_, **__: pytest.fail("built an encoder"))
    loaded = BgaMnerConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert loaded.vision_config.backbone_config.hidden_sizes == [6, 8]


def test_the_default_backbone_is_a_resnet_50():
    config = ConvStagesConfig()
    assert config.backbone_config.to_dict() == ResNetConfig().to_dict()
    config.fit_images(224)
    assert (config.feature_channels, config.grid_side) == (2048, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone_config": {"model_type": "vit"}}, "backbone_config of one of resnet, .*'vit'"),
        ({"backbone_config": 3}, "got 'int'"),
        ({"backbone_config": RESNET, "hidden_size": 30}, "multiple of 4"),
    ],
)
def test_what_cannot_be_built_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ConvStagesConfig(**options)


def test_images_too_small_for_a_feature_map_are_refused():
    convnext = {"model_type": "convnext", "hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2}
    with pytest.raises(ValueError, match=r"an image of 4 pixels.*larger images"):
        BgaMnerConfig(text_config=TEXT, vision_config=convnext, image_size=4)


# Pretrained weights


@pytest.fixture
def resnet():
    return AutoModel.from_config(ResNetConfig(**RESNET))


def test_from_a_convolutional_checkpoint(resnet, make_batch, tmp_path, caplog, capfd):
    text = BertModel(BertConfig(**TEXT))
    for norm in batch_norms(resnet):
        norm.running_mean.normal_()
    resnet.save_pretrained(tmp_path)
    for source in (resnet, str(tmp_path)):
        caplog.clear()
        capfd.readouterr()
        options = {"labels": LABELS, "image_size": 16}
        model = BgaMnerForTokenClassification.from_text_vision_pretrained(text, source, **options)
        message = capfd.readouterr().err + caplog.text  # whichever way transformers was told to log
        for part in ("vision_encoder.layers", "vision_encoder.projection", "vision_encoder.layernorm"):
            assert part in message
        assert "backbone" not in message
        encoder = model.bga_mner.vision_encoder
        weights = resnet.state_dict()
        assert all(torch.equal(tensor, weights[name]) for name, tensor in encoder.backbone.state_dict().items())
        assert model(**make_batch()).loss.isfinite()


def test_new_layers_may_be_frozen_too(make_model, make_batch):
    model = make_model(vision="resnet")
    model.freeze_vision_encoder(new_layers=True)
    encoder = model.train().bga_mner.vision_encoder
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder.training
    before = copy.deepcopy(encoder.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(**make_batch()).loss.backward()
    optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_layers_of_a_chosen_size(resnet):
    config = ConvStagesConfig(
        backbone_config=resnet.config,
        image_size=32,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=20,
    )
    encoder = build_encoder(config)
    encoder.backbone.load_state_dict(resnet.state_dict())
    model = BgaMnerModel.from_text_vision_pretrained(BertModel(BertConfig(**TEXT)), encoder)
    # a whole encoder, new layers and all, is copied as a whole
    weights = encoder.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.vision_encoder.state_dict().items())
    assert model.config.num_bga_layers == 2


def test_cells_know_where_they_are(make_model):
    encoder = make_model(vision="resnet").bga_mner.vision_encoder
    images = torch.zeros(1, 3, 64, 64)
    tokens = encoder.embed(images)[0].unflatten(0, (8, 8))
    inner = tokens[2:6, 2:6].flatten(0, 1)  # the same image everywhere, away from its edges
    assert (torch.cdist(inner, inner) + torch.eye(16) > 1e-2).all()


@pytest.mark.parametrize("channels", [8, 32, 512])
def test_new_layers_begin_with_what_images_show_and_not_with_places_alone(channels):
    """Of narrow feature maps too: else generators learn to make places, which are the same for all images."""
    backbone = ResNetConfig(hidden_sizes=[6, channels], depths=[1, 1], embedding_size=6, layer_type="basic")
    encoder = build_encoder(ConvStagesConfig(backbone_config=backbone, image_size=32, hidden_size=64))
    features = encoder.projection_norm(torch.randn(4, 16, channels))
    assert 0.4 < encoder.projection(features).std() < 2
