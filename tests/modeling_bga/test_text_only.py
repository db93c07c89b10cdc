"""The text branch alone: saved from a whole model, it tags texts exactly as that does, and needs nothing visual."""

import pytest
import torch
from safetensors import safe_open

from bga_mner import BgaMnerConfig, BgaMnerForTokenClassification, BgaMnerModel


def load(model, folder, **options):
    model.save_pretrained(folder, text_only=True, **options)
    loaded, report = type(model).from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return loaded


@pytest.mark.parametrize(
    ("families", "options"),
    [
        (("bert", "vit"), {}),
        (("roberta", "clip_vision_model"), {"hybrid_attention": "both"}),
        (("distilbert", "siglip_vision_model"), {"hybrid_attention": "none"}),
        (("electra", "dinov2"), {"use_image_to_text": False, "use_context_sampler": False}),
        (("bert", "vit"), {"visual_source": "real"}),
        (("bert", "vit"), {"visual_source": "real", "use_text_to_image": False}),
        (("bert", "vit"), {"visual_source": "none"}),
        (
            ("bert", "vit"),
            {
                "visual_source": "real",
                "use_text_to_image": False,
                "entity_replacement_probability": 0.5,
                "replaced_entities_read": "real",
            },
        ),
    ],
)
def test_texts_are_tagged_as_by_the_whole_model(make_model, make_batch, tmp_path, families, options):
    model = make_model(*families, **options)
    alone = load(model, tmp_path)
    batch = make_batch(pad_token_id=model.config.text_config.pad_token_id, images=False)
    ours, theirs = alone(**batch), model(**batch)
    for name in ("loss", "logits", "predictions", "emissions"):
        assert torch.equal(ours[name], theirs[name])
    assert alone.config.text_only
    assert not model.config.text_only
    assert model.config.visual_source == options.get("visual_source", "generated")


def test_only_the_text_branch_is_in_the_file(make_model, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path, text_only=True)
    with safe_open(tmp_path / "model.safetensors", "pt") as opened:
        saved = set(opened.keys())
    assert saved == {
        name for name in model.state_dict() if ".vision_encoder." not in name and ".vision_branch." not in name
    }
    assert any(".text_branch.generator." in name for name in saved)


def test_the_base_model_and_weights_of_ones_own(make_model, make_batch, tmp_path):
    model = make_model()
    batch = {name: make_batch()[name] for name in ("input_ids", "attention_mask")}
    alone = load(model.bga_mner, tmp_path / "base")
    assert torch.equal(alone(**batch).last_hidden_state, model.bga_mner(**batch).last_hidden_state)
    weights = {name: torch.zeros_like(weight) for name, weight in model.state_dict().items()}
    alone = load(model, tmp_path / "zeros", state_dict=weights)
    assert not any(parameter.any() for parameter in alone.parameters())
    # saved again, it is what it was
    again = load(alone, tmp_path / "again")
    assert again.state_dict().keys() == alone.state_dict().keys()


def test_half_precision_stays(make_model, tmp_path):
    alone = load(make_model().bfloat16(), tmp_path)
    assert alone.dtype == torch.bfloat16


def test_a_whole_model_can_be_loaded_without_its_vision(make_model, make_batch, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path)
    alone = BgaMnerForTokenClassification.from_pretrained(tmp_path, text_only=True)
    assert alone.bga_mner.vision_encoder is None
    batch = make_batch(images=False)
    assert torch.equal(alone(**batch).logits, model(**batch).logits)


def test_images_are_refused(make_model, make_batch, tmp_path):
    alone = load(make_model(), tmp_path)
    batch = make_batch()
    with pytest.raises(ValueError, match=r"text_only=True.*pixel_values\. Leave that out"):
        alone(**batch)
    texts = make_batch(images=False)
    with pytest.raises(ValueError, match=r"text_only=True.*visual_source='real'\. Leave that out"):
        alone(**texts, visual_source="real")
    with pytest.raises(ValueError, match="in a model with text_only=True, which has no encoder of images"):
        BgaMnerConfig(text_only=True, visual_source="real")


@pytest.mark.parametrize("options", [{}, {"keep_budget": 0.5}, {"entity_replacement_probability": 1.0}])
def test_it_learns_from_texts(make_model, make_batch, tmp_path, options):
    alone = load(make_model(**options), tmp_path).train()
    optimizer = torch.optim.Adam(alone.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = alone(**make_batch(images=False)).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] / 2


def test_two_encoders_make_one(make_model, make_batch):
    source = make_model().bga_mner
    model = BgaMnerModel.from_text_vision_pretrained(
        source.text_encoder, source.vision_encoder, num_bga_layers=2, text_only=True
    )
    assert model.vision_encoder is None
    assert model.config.num_vision_tokens == source.config.num_vision_tokens
    for name, weight in model.text_encoder.state_dict().items():
        assert torch.equal(weight, source.text_encoder.state_dict()[name])
