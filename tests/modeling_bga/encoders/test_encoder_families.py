"""Every text encoder with every vision encoder, in sizes that take milliseconds."""

from __future__ import annotations

import copy

import pytest
import torch
from model_changes import only_text, open_gates
from transformers import AutoModel

from bga_mner import BgaMnerForTokenClassification
from bga_mner.configuration.encoder_families import BACKBONE_FAMILIES, TEXT_FAMILIES, VISION_FAMILIES
from bga_mner.modeling_bga.alignment.hybrid_attention import HYBRID_ATTENTION, HybridStates
from bga_mner.modeling_bga.encoders.embedding import TextInputs, embed_images, embed_text
from bga_mner.modeling_bga.encoders.encoder import build_encoder, encoder_layers


BACKBONES = [name for name in BACKBONE_FAMILIES if not name.startswith("timm")]  # see test_timm.py
VISION = [*VISION_FAMILIES, *BACKBONES]
# Parameters that serve pre-training or a pooled output only.
UNUSED = (
    "bga_mner.vision_encoder.embeddings.mask_token",  # all DINOs
    "bga_mner.vision_encoder.post_layernorm",  # CLIP
    "bga_mner.vision_encoder.backbone.layernorm",  # ConvNeXt
)


def gradients(model, batch):
    model.zero_grad()
    model(**batch).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def check_gradients(model, batch):
    """Check that every parameter that can learn does, in one step."""
    model.train()
    found = gradients(model, batch)
    silent = {name for name, _ in model.named_parameters() if name not in found or found[name].abs().sum() == 0}
    assert not {name for name in silent if not name.startswith(UNUSED)}
    model.eval()


def check_saving(model, batch, folder):
    """Check that what is loaded predicts the same, to the bit."""
    model.save_pretrained(folder)
    loaded, report = BgaMnerForTokenClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    assert torch.equal(loaded(**batch).loss, model(**batch).loss)
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)


def check_text_only(model, batch, folder):
    """Check that texts are tagged the same without the vision encoder."""
    model.save_pretrained(folder, text_only=True)
    loaded = BgaMnerForTokenClassification.from_pretrained(folder)
    assert loaded.bga_mner.vision_encoder is None
    output = loaded(**only_text(batch))
    assert torch.equal(output.logits, model(**only_text(batch)).logits)
    assert torch.equal(output.predictions, model(**batch).predictions)


def check_padding(model, batch):
    """Check that padding on either side never changes a real token."""
    pad = model.config.text_config.pad_token_id
    alone = model(input_ids=batch["input_ids"][:1])
    length = batch["input_ids"].shape[1]
    for real in (slice(0, length), slice(5, 5 + length)):
        ids = torch.full((1, length + 5), pad)
        mask = torch.zeros(1, length + 5, dtype=torch.long)
        ids[:, real], mask[:, real] = batch["input_ids"][:1], 1
        padded = model(input_ids=ids, attention_mask=mask)
        assert torch.allclose(padded.emissions[:, real], alone.emissions, atol=1e-5)
        assert torch.equal(padded.predictions[:, real], alone.predictions)
        assert (padded.predictions[mask == 0] == -100).all()


def check_checkpointing(model, batch):
    """Check that both encoders compute layers again in the backward pass, and get the same gradients."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "drop_connect_rate"):
            module.drop_connect_rate = 0.0
    model.config.entity_replacement_probability = 0.0
    # hooks of the layer itself would stay outside of what is computed again, and no loss reads the last vision layer
    run = {}
    for name in ("text_encoder", "vision_encoder"):
        for part in encoder_layers(getattr(model.bga_mner, name))[0].modules():
            if isinstance(part, torch.nn.Linear | torch.nn.LayerNorm):
                part.register_forward_hook(lambda part, *_, name=name: run[name].append(part))

    def counted():
        run.update(text_encoder=[], vision_encoder=[])
        torch.manual_seed(3)
        found = gradients(model, batch)
        # what is run first: the rest is computed again only as far as it is needed
        return found, {name: parts.count(parts[0]) for name, parts in run.items()}

    plain, calls = counted()
    model.activation_checkpointing_enable()
    again, more_calls = counted()
    assert more_calls == {name: 2 * count for name, count in calls.items()}
    for name, gradient in plain.items():
        assert torch.allclose(again[name], gradient, atol=1e-5), name


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("text", TEXT_FAMILIES)
def test_every_pair(make_model, make_batch, tmp_path, text, vision):
    options = {"hybrid_attention": "both", "entity_replacement_probability": 1.0, "replaced_entities_read": "real"}
    model = open_gates(make_model(text, vision, **options))
    batch = make_batch(lengths=(9, 6, 4, 8, 7, 5), pad_token_id=model.config.text_config.pad_token_id)
    batch["labels"][3:] = -100  # these read generated features, the labelled ones real ones
    check_gradients(model, batch)
    if "bert" in (text, vision) or vision == "vit":
        check_saving(model, batch, tmp_path / "whole")
        check_text_only(model, batch, tmp_path / "text")
        check_padding(model, batch)
        check_checkpointing(model, batch)


def test_the_families_are_those_that_are_tested(make_config):
    for name in VISION:
        assert make_config(vision=name)
    assert set(VISION_FAMILIES) | set(BACKBONE_FAMILIES) == {*VISION, "timm_backbone", "timm_wrapper"}


# One encoder


def text_layers(encoder, states):
    ids = torch.randint(5, 60, states.shape[:2])
    return embed_text(encoder, TextInputs(ids, None, None, None, torch.ones_like(ids, dtype=torch.bool), None))[1]


def vision_layers(encoder, states):
    return embed_images(encoder, torch.randn(len(states), 3, 16, 16))[1]


@pytest.fixture
def make_encoder(make_config):
    """Return a function that makes an encoder, states that may enter its layers, and the layers, ready for a batch."""

    def make(family):
        is_text = family in TEXT_FAMILIES
        config = make_config(text=family) if is_text else make_config(vision=family)
        encoder = build_encoder(config.text_config if is_text else config.vision_config).eval()
        length = 6 if is_text else config.num_vision_tokens
        states = torch.randn(2, length, encoder.config.hidden_size)
        return encoder, states, (text_layers if is_text else vision_layers)(encoder, states)

    return make


@pytest.mark.parametrize("family", [*TEXT_FAMILIES, *VISION])
def test_every_layer_of_every_family_reads_the_states(make_encoder, family):
    _, own, layers = make_encoder(family)
    states = torch.randn(2, 3, own.shape[-1])
    for layer in layers:
        plain = layer.run(own, layer.own_mask)
        opened = layer.run(own, HybridStates(layer.own_mask, states, torch.zeros(1, 1, 1, 3)))
        closed = layer.run(own, HybridStates(layer.own_mask, states, torch.full((1, 1, 1, 3), -1e4)))
        assert torch.allclose(closed, plain, atol=1e-6)
        assert (opened - plain).abs().max() > 1e-4
        # perturbing the states changes the output, so they don't just pass by
        moved = states + torch.randn_like(states)
        other = layer.run(own, HybridStates(layer.own_mask, moved, torch.zeros(1, 1, 1, 3)))
        assert (opened - other).abs().max() > 1e-4
        # and their order doesn't: they have no place in the sentence
        turned = layer.run(own, HybridStates(layer.own_mask, states.flip(1), torch.zeros(1, 1, 1, 3)))
        assert torch.allclose(turned, opened, atol=1e-6)


@pytest.mark.parametrize("family", [*TEXT_FAMILIES, *VISION])
def test_another_attention_function_fails_instead_of_ignoring_the_states(make_encoder, family):
    if family in TEXT_FAMILIES and TEXT_FAMILIES[family].own_attention:
        pytest.skip("its attention is a class of this package, and can't be another function")
    encoder, own, layers = make_encoder(family)
    encoder.config._attn_implementation = "sdpa"
    hybrid = HybridStates(None, torch.randn(2, 3, own.shape[-1]), torch.zeros(1, 1, 1, 3))
    with pytest.raises((TypeError, AttributeError)):
        layers[0].run(own, hybrid)


@pytest.mark.parametrize("family", ["bert", "modernbert", "mpnet", "vit", "siglip2_vision_model", "resnet"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_an_encoder_whose_attention_was_changed_is_refused(make_model, make_batch, family, implementation):
    is_text = family in TEXT_FAMILIES
    model = make_model(family) if is_text else make_model(vision=family)
    encoder = getattr(model.bga_mner, "text_encoder" if is_text else "vision_encoder")
    batch = make_batch(pad_token_id=model.config.text_config.pad_token_id)
    expected = model(**batch).loss
    encoder.config._attn_implementation = implementation
    with pytest.raises(ValueError, match=f"but it was set to '{implementation}'"):
        model(**batch)
    encoder.config._attn_implementation = HYBRID_ATTENTION
    assert torch.equal(model(**batch).loss, expected)


@pytest.mark.parametrize("family", [*TEXT_FAMILIES, *VISION_FAMILIES])
def test_which_layers_a_flash_kernel_may_run(make_model, make_batch, monkeypatch, family):
    """Those without mask and bias: all that no stage stands before, unless something is padded."""
    is_text = family in TEXT_FAMILIES
    model = make_model(family) if is_text else make_model(vision=family, hybrid_attention="both")
    encoder = getattr(model.bga_mner, "text_encoder" if is_text else "vision_encoder")
    masked = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def watched(query, key, value, attn_mask=None, **kwargs):
        masked.append(attn_mask is not None)
        return attend(query, key, value, attn_mask=attn_mask, **kwargs)

    def masks(arguments):
        """Return, layer by layer of one encoder, whether attention was given a mask or a bias."""
        found = []
        hooks = []
        for layer in encoder_layers(encoder):
            hooks.append(layer.register_forward_pre_hook(lambda *_: masked.clear()))
            hooks.append(layer.register_forward_hook(lambda *_: found.append(list(masked))))
        with torch.no_grad():
            model(**arguments)
        for hook in hooks:
            hook.remove()
        return found

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    batch = make_batch(lengths=(8, 8), pad_token_id=model.config.text_config.pad_token_id)
    batch["pixel_values"] = batch["pixel_values"][:2]
    full = {name: tensor for name, tensor in batch.items() if name in ("input_ids", "pixel_values")}
    depth, stages = len(encoder_layers(encoder)), model.config.num_stages
    has_bias = family in ("mpnet", "deberta-v2")
    local = family == "modernbert"  # its local layers have a mask of their own
    for number, calls in enumerate(masks(full)):
        assert len(calls) == 1
        if not local:
            assert calls == [has_bias or number >= depth - stages], number
    if is_text:
        padded = make_batch(lengths=(8, 5), images=False, pad_token_id=model.config.text_config.pad_token_id)
        assert masks(padded) == [[True]] * depth


V2_OPTIONS = [
    {},
    {"conv_kernel_size": 3},
    {"share_att_key": False, "pos_att_type": ["c2p"], "type_vocab_size": 2, "position_biased_input": True},
    {"relative_attention": False, "pos_att_type": [], "embedding_size": 8},
]


@pytest.mark.parametrize(
    ("text", "options"),
    [*((text, {}) for text in TEXT_FAMILIES), *(("deberta-v2", options) for options in V2_OPTIONS[1:])],
)
def test_with_closed_gates_the_text_branch_is_the_plain_encoder(make_model, make_batch, text, options):
    model = make_model(text, text_options=options)
    with torch.no_grad():
        for parameter in model.bga_mner.text_encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)  # what is zero at first hides mistakes
    open_gates(model, value=-1e4)
    batch = only_text(make_batch(pad_token_id=model.config.text_config.pad_token_id))
    implementation = "eager" if TEXT_FAMILIES[text].own_attention else "sdpa"
    plain = AutoModel.from_config(copy.deepcopy(model.config.text_config), attn_implementation=implementation).eval()
    missing, unexpected = plain.load_state_dict(model.bga_mner.text_encoder.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith("pooler") for name in missing)
    real = batch["attention_mask"].bool()
    expected = plain(**batch, output_hidden_states=True)
    actual = model.bga_mner(**batch, output_hidden_states=True)
    assert torch.allclose(actual.last_hidden_state[real], expected.last_hidden_state[real], atol=1e-5)
    for ours, theirs in zip(actual.hidden_states, expected.hidden_states, strict=True):
        assert torch.allclose(ours[real], theirs[real], atol=1e-5)
    # an encoder run by its own forward, too
    own = model.bga_mner.text_encoder(**batch).last_hidden_state
    assert torch.allclose(own[real], expected.last_hidden_state[real], atol=1e-5)
    opened = open_gates(model).bga_mner(**batch).last_hidden_state[real]
    assert (opened - expected.last_hidden_state[real]).abs().max() > 1e-3


def plain_vision(config):
    if config.model_type == "conv_stages":
        return build_encoder(copy.deepcopy(config))
    return AutoModel.from_config(copy.deepcopy(config), attn_implementation="sdpa")


@pytest.mark.parametrize("vision", VISION)
def test_with_closed_gates_the_vision_branch_is_the_plain_encoder(make_model, make_batch, vision):
    model = open_gates(make_model(vision=vision, hybrid_attention="both"), value=-1e4)
    batch = make_batch()
    plain = plain_vision(model.config.vision_config).eval()
    plain.load_state_dict(model.bga_mner.vision_encoder.state_dict(), strict=False)
    inputs = {"pixel_values": batch["pixel_values"]}
    if vision == "siglip2_vision_model":
        inputs = naflex_inputs(batch["pixel_values"], patch=8)
    expected = plain(**inputs)
    expected = expected if isinstance(expected, torch.Tensor) else expected.last_hidden_state
    actual = model.bga_mner(**only_text(batch), pixel_values=batch["pixel_values"]).vision_last_hidden_state
    assert torch.allclose(actual, expected, atol=1e-5)
    # by default it is the plain encoder, whatever the gates: its states are the targets of reconstruction
    assert make_model(vision=vision).bga_mner.vision_branch.projections is None


def naflex_inputs(pixel_values, patch):
    from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

    patches = [convert_image_to_patches(image.numpy(), patch) for image in pixel_values]
    side = pixel_values.shape[-1] // patch
    return {
        "pixel_values": torch.stack([torch.from_numpy(cut) for cut in patches]),
        "pixel_attention_mask": torch.ones(len(patches), side * side, dtype=torch.long),
        "spatial_shapes": torch.full((len(patches), 2), side),
    }


# strides of 8 where padding rounds up, and of 4
GRID_OF_24 = {"efficientnet": 6}


@pytest.mark.parametrize("vision", VISION)
def test_images_of_another_size_than_the_encoders_own(make_model, make_batch, vision):
    model = make_model(vision=vision, image_size=24)
    batch = make_batch()
    with pytest.raises(ValueError, match="image_size"):
        model(**batch)
    batch["pixel_values"] = torch.randn(3, 3, 24, 24)
    output = model(**batch)
    side = GRID_OF_24.get(vision, 3)
    assert model.config.vision_grid_side == side
    assert output.vision_last_hidden_state.shape[1] == side**2 + model.config.num_vision_prefix_tokens
    assert output.generated_vision[0].shape[1] == 2
    per_patch = make_model(vision=vision, image_size=24, visual_target="last")(**batch)
    assert per_patch.vision_last_hidden_state.shape == per_patch.generated_vision[0].shape


@pytest.mark.parametrize(("text", "vision"), [("mpnet", "dinov3_vit"), ("deberta-v2", "convnext")])
@pytest.mark.parametrize("deeper", ["text", "vision"])
def test_unequal_widths_and_depths(make_model, make_batch, text, vision, deeper):
    few, many = {"num_hidden_layers": 2}, {"num_hidden_layers": 5}
    model = make_model(
        text,
        vision,
        num_bga_layers=2,
        text_options=(many if deeper == "text" else few) | {"hidden_size": 8},
        vision_options=many if deeper == "vision" else few,
        hybrid_attention="both",
    )
    output = model(**make_batch(pad_token_id=model.config.text_config.pad_token_id))
    assert output.loss.isfinite()
    assert [features.shape[-1] for features in output.generated_vision] == [24, 24]
    assert [features.shape[-1] for features in output.generated_text] == [8, 8]


def test_modernbert_reads_its_surroundings_alone_in_local_layers(make_model):
    """Two local layers, which see two tokens on either side."""
    options = {"layer_types": ["sliding_attention"] * 2, "num_hidden_layers": 2}
    model = make_model("modernbert", text_options=options, use_text_to_image=False, use_image_to_text=False)
    ids = torch.randint(5, 60, (1, 12))
    before = model.bga_mner(input_ids=ids).last_hidden_state
    ids[0, 0] = 4
    moved = (model.bga_mner(input_ids=ids).last_hidden_state - before).abs().amax(dim=(0, 2)) > 0
    assert moved.tolist() == [True] * 5 + [False] * 7


def test_dinov3_knows_where_patches_are(make_model):
    encoder = make_model(vision="dinov3_vit").bga_mner.vision_encoder
    states, layers = embed_images(encoder, torch.randn(1, 3, 16, 16))
    patches = torch.cat([states[:, :3], states[:, 3:].flip(1)], dim=1)
    turned = layers[0].run(patches, None)[:, 3:].flip(1)
    assert not torch.allclose(turned, layers[0].run(states, None)[:, 3:], atol=1e-5)
