"""Adapters on both encoders: what is trained, saved, merged, and read by hybrid attention."""

from __future__ import annotations

import sys

import peft
import pytest
import torch
from packaging import version
from peft import PeftModel, get_peft_model, inject_adapter_in_model
from transformers.integrations.peft import MIN_PEFT_VERSION

from bga_mner import BgaMnerForSequenceClassification, layerwise_parameter_groups, lora_config
from bga_mner.configuration.encoder_families import BACKBONE_FAMILIES, TEXT_FAMILIES, VISION_FAMILIES
from bga_mner.modeling_bga.alignment.hybrid_attention import HybridStates, hybrid_attention_forward, projection_names
from bga_mner.modeling_bga.encoders.encoder import encoder_layers


BACKBONES = [name for name in BACKBONE_FAMILIES if not name.startswith("timm")]
PAIRS = [(text, "vit") for text in TEXT_FAMILIES] + [("bert", vision) for vision in [*VISION_FAMILIES, *BACKBONES]]


def adapt(model, **options):
    """Put adapters on a model, none of which is zero, as one of each pair is at first."""
    adapted = get_peft_model(model, lora_config(model, r=2, **options))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    return adapted.eval()


def batch_for(model, make_batch):
    return make_batch(pad_token_id=model.config.text_config.pad_token_id)


def kind_of(name):
    if "lora_" in name:
        return "adapter"
    return "new" if "modules_to_save" in name else "pretrained"


def outputs(model, batch):
    with torch.no_grad():
        output = model(**batch)
    return {"emissions": output.emissions, "vision": output.vision_last_hidden_state, "loss": output.loss}


def assert_close(found, expected):
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, atol=1e-5), name


@pytest.mark.parametrize(("text", "vision"), PAIRS)
def test_adapters_and_what_is_new_are_trained_and_merge(make_model, make_batch, text, vision):
    model = make_model(text, vision, hybrid_attention="both")
    new = {name for name, _ in model.named_parameters() if "_encoder." not in name}
    if vision in BACKBONES:
        new |= {n for n, _ in model.named_parameters() if ".vision_encoder." in n and ".backbone." not in n}
    batch = batch_for(model, make_batch)
    adapted = adapt(model)
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert {kind_of(name) for name in trained} == {"adapter", "new"}
    whole = {
        name.removeprefix("base_model.model.").replace("modules_to_save.default.", "")
        for name in trained
        if kind_of(name) == "new"
    }
    assert whole == new
    with_adapters = {name.split(".lora_")[0] for name in trained if kind_of(name) == "adapter"}
    fused = 1 if text == "modernbert" else 3
    assert len(with_adapters) == fused * 3 + (0 if vision in BACKBONES else 3 * 4)
    adapted.train()
    before = {name: parameter.clone() for name, parameter in adapted.named_parameters()}
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
    adapted(**batch).loss.backward()
    optimizer.step()
    moved = {name for name, parameter in adapted.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved <= trained
    assert {kind_of(name) for name in moved} == {"adapter", "new"}
    for kind in ("text_encoder",) if vision in BACKBONES else ("text_encoder", "vision_encoder"):
        assert any(kind in name and "lora_A" in name for name in moved)
    adapted.eval()
    expected = outputs(adapted, batch)
    merged = adapted.merge_and_unload()
    assert type(merged) is type(make_model())
    assert not any("lora" in name or "modules_to_save" in name for name in merged.state_dict())
    assert_close(outputs(merged, batch), expected)


@pytest.mark.parametrize(("text", "vision"), [("bert", "clip_vision_model"), ("modernbert", "resnet")])
def test_saved_adapters_give_the_same(make_model, make_batch, tmp_path, text, vision):
    torch.manual_seed(7)
    model = make_model(text, vision)
    batch = batch_for(model, make_batch)
    model.save_pretrained(tmp_path / "base")
    adapted = adapt(model)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if kind_of(name) == "new":
                parameter.add_(torch.randn_like(parameter) * 0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    expected = outputs(adapted, batch)
    base = type(model).from_pretrained(tmp_path / "base")
    assert not torch.allclose(outputs(base, batch)["emissions"], expected["emissions"], atol=1e-2)
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter")
    assert_close(outputs(loaded, batch), expected)
    # transformers' own way
    base = type(model).from_pretrained(tmp_path / "base")
    base.load_adapter(str(tmp_path / "adapter"))
    assert_close(outputs(base, batch), expected)


@pytest.mark.skipif(
    version.parse(peft.__version__) < version.parse(MIN_PEFT_VERSION),
    reason=f"add_adapter of this transformers wants peft {MIN_PEFT_VERSION}",
)
def test_add_adapter_does_the_same(make_model, make_batch, tmp_path):
    model = make_model(hybrid_attention="both")
    batch = make_batch()
    model.save_pretrained(tmp_path / "base")
    model.add_adapter(lora_config(model, r=2))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {kind_of(name) for name in trained} == {"adapter", "new"}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.train()
    for _ in range(2):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    model.eval()
    model.save_pretrained(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    loaded = type(model).from_pretrained(tmp_path / "base")
    loaded.load_adapter(str(tmp_path / "adapter"))
    assert_close(outputs(loaded, batch), outputs(model, batch))


@pytest.mark.parametrize("kind", ["text", "vision"])
def test_one_encoder_alone(make_model, make_batch, kind):
    model = make_model()
    adapted = adapt(model, encoders=[kind])
    assert {name.split("_encoder")[0].split(".")[-1] for name, _ in adapted.named_parameters() if "lora_" in name} == {
        kind
    }
    adapted.train()
    assert model.bga_mner.vision_encoder.training == (kind == "vision")  # frozen, it gives the same targets each time


@pytest.mark.parametrize("family", [*TEXT_FAMILIES, *VISION_FAMILIES])
def test_hybrid_attention_reads_generated_features_through_the_adapters(make_model, family):
    """Own tokens all masked: what comes out differs by the adapters of keys and values alone."""
    is_text = family in TEXT_FAMILIES
    model = make_model(family if is_text else "bert", "vit" if is_text else family)
    encoder = getattr(model.bga_mner, "text_encoder" if is_text else "vision_encoder")
    (attention,) = [part for part in encoder_layers(encoder)[-1].modules() if projection_names(part)]
    names = projection_names(attention)
    width = encoder.config.hidden_size
    query = torch.randn(1, 2, 3, width // 2)
    own = torch.zeros(1, 1, 1, 3, dtype=torch.bool)
    hybrid = HybridStates(own, torch.randn(1, 5, width), torch.zeros(1, 1, 1, 5))

    def read():
        with torch.no_grad():
            return hybrid_attention_forward(attention, query, query, query, hybrid)[0]

    plain = read()
    adapted = adapt(model)
    with_adapters = read()
    assert (with_adapters - plain).abs().max() > 1e-3
    with adapted.disable_adapter():
        assert torch.equal(read(), plain)
    # of the keys and of the values
    for name in names[-2:]:
        getattr(attention, name).enable_adapters(False)
        assert (read() - with_adapters).abs().max() > 1e-4
        getattr(attention, name).enable_adapters(True)


@pytest.mark.parametrize(("text", "vision"), [("bert", "vit"), ("mpnet", "dinov3_vit"), ("distilbert", "resnet")])
def test_gradient_checkpointing_gives_the_same_gradients(make_model, make_batch, text, vision):
    model = make_model(text, vision, hybrid_attention="both", generator_dropout=0.0, classifier_dropout=0.0)
    batch = batch_for(model, make_batch)
    adapted = adapt(model).train()
    for module in adapted.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0

    def gradients():
        adapted.zero_grad()
        torch.manual_seed(3)
        adapted(**batch).loss.backward()
        return {name: p.grad.clone() for name, p in adapted.named_parameters() if p.grad is not None}

    plain = gradients()
    adapted.gradient_checkpointing_enable()
    again = gradients()
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        assert torch.allclose(again[name], gradient, atol=1e-5), name


def test_options_of_peft_and_the_text_branch_alone(make_model):
    config = lora_config(make_model(text_only=True), r=4, lora_dropout=0.1)
    assert (config.r, config.lora_alpha, config.lora_dropout) == (4, 8, 0.1)
    assert config.target_modules == r"(.*\.)?(text_encoder\..*\.(key|query|value))"
    assert set(config.modules_to_save) == {"bga_mner.text_branch", "classifier", "crf"}
    other = BgaMnerForSequenceClassification(make_model().config)
    assert set(lora_config(other).modules_to_save) == {"bga_mner.text_branch", "bga_mner.vision_branch", "classifier"}
    base = make_model().bga_mner
    assert set(lora_config(base).modules_to_save) == {"text_branch", "vision_branch"}
    assert lora_config(base, target_modules=["query"]).target_modules == {"query"}


def test_adapters_have_the_rate_of_what_is_new(make_model):
    model = make_model()
    inject_adapter_in_model(lora_config(model, r=2), model)  # as add_adapter does
    groups = layerwise_parameter_groups(model, 1e-4, new_learning_rate=1e-2)
    assert {group["name"].split(",")[0] for group in groups} == {"new"}
    assert sum(len(group["params"]) for group in groups) == sum(p.requires_grad for p in model.parameters())


def test_says_what_to_mend(make_model, monkeypatch):
    with pytest.raises(ValueError, match="Leave out 'audio'"):
        lora_config(make_model(), encoders=["text", "audio"])
    with pytest.raises(ValueError, match=r"of 'vision' this model has none"):
        lora_config(make_model(vision="resnet"), encoders=["vision"])
    with pytest.raises(ValueError, match="of none"):
        lora_config(make_model(), encoders=[])
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match="Run: pip install peft"):
        lora_config(make_model())
