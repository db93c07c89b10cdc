from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForTokenClassification,
    BertConfig,
    BertForTokenClassification,
    BertModel,
    CLIPConfig,
    CLIPModel,
    ViTConfig,
    ViTModel,
)

from bga_mner import BgaMnerConfig, BgaMnerForTokenClassification, BgaMnerModel


@pytest.mark.parametrize(("text", "vision"), [("bert", "vit"), ("deberta-v2", "resnet")])
def test_a_saved_model_predicts_the_same_to_the_bit(make_model, make_batch, tmp_path, text, vision):
    model = make_model(text, vision, hybrid_attention="both")
    batch = make_batch(pad_token_id=model.config.text_config.pad_token_id)
    model.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["model.safetensors"]
    # Trainer restores a checkpoint by these names, without renaming
    with safe_open(tmp_path / "model.safetensors", "pt") as opened:
        assert set(opened.keys()) == set(model.state_dict())
    for auto_class in (AutoModelForTokenClassification, BgaMnerForTokenClassification):
        loaded, report = auto_class.from_pretrained(tmp_path, output_loading_info=True)
        assert isinstance(loaded, BgaMnerForTokenClassification)
        assert not any(report.values()), report
        ours, theirs = model(**batch), loaded(**batch)
        for name in ("loss", "logits", "predictions", "emissions"):
            assert torch.equal(ours[name], theirs[name])
        # constraints aren't in the file, and have to be there all the same
        assert torch.equal(loaded.crf.allowed_transitions, model.crf.allowed_transitions)
        assert torch.equal(loaded.crf.allowed_starts, model.crf.allowed_starts)
    configs = [AutoConfig.from_pretrained(tmp_path).to_dict(), model.config.to_dict()]
    assert {**configs[0], "_name_or_path": ""} == {**configs[1], "_name_or_path": ""}


def test_the_base_model_loads_from_a_tagger_and_back(make_model, make_batch, tmp_path):
    model, batch = make_model(), make_batch()
    model.save_pretrained(tmp_path / "tagger")
    base = AutoModel.from_pretrained(tmp_path / "tagger")
    assert isinstance(base, BgaMnerModel)
    del batch["labels"]
    expected = model.bga_mner(**batch).last_hidden_state
    assert torch.equal(base(**batch).last_hidden_state, expected)
    base.save_pretrained(tmp_path / "base")
    tagger, report = BgaMnerForTokenClassification.from_pretrained(tmp_path / "base", output_loading_info=True)
    assert set(report["missing_keys"]) == {name for name in tagger.state_dict() if not name.startswith("bga_mner.")}
    assert torch.equal(tagger.bga_mner(**batch).last_hidden_state, expected)


def test_weights_missing_from_a_checkpoint_are_initialised(make_model, tmp_path):
    model = make_model()
    kept = {name: tensor for name, tensor in model.state_dict().items() if "encoder" in name}
    model.save_pretrained(tmp_path, state_dict=kept)
    loaded = BgaMnerForTokenClassification.from_pretrained(tmp_path)
    for name, parameter in loaded.named_parameters():
        assert parameter.isfinite().all(), name
        assert parameter.abs().max() < 10, name
    for branch in (loaded.bga_mner.text_branch, loaded.bga_mner.vision_branch):
        # not raw memory, nor zeros: scaled to the width, one by one
        assert 0.5 < branch.generator.modality_queries.std() < 1.5
        for sampler in branch.samplers:
            assert sampler.decision_bias[0].item() == pytest.approx(sampler.initial_logit)
    pooled = loaded.bga_mner.pooled_target
    assert (pooled.mean == 0).all()
    assert (pooled.variance == 1).all()
    assert pooled.images_seen == 0
    assert [p.gate.item() for p in loaded.bga_mner.text_branch.projections] == [loaded.config.gate_initial_bias] * 2


def test_only_safetensors_are_written(make_model, tmp_path):
    make_model().save_pretrained(tmp_path, max_shard_size="20KB")
    files = {path.suffix for path in tmp_path.iterdir()}
    assert files - {"", ".md", ".py"} == {".json", ".safetensors"}
    for path in tmp_path.glob("*.safetensors"):
        with safe_open(path, "pt") as opened:
            assert opened.keys()
    assert BgaMnerForTokenClassification.from_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_keep_a_single_precision_crf(make_model, make_batch, tmp_path, dtype):
    model, batch = make_model(), make_batch()
    model.save_pretrained(tmp_path)
    loaded = BgaMnerForTokenClassification.from_pretrained(tmp_path, dtype=dtype)
    cast = copy.deepcopy(model).to(dtype)
    for half in (loaded, cast):
        assert half.classifier.weight.dtype == dtype
        assert {parameter.dtype for parameter in half.crf.parameters()} == {torch.float32}
        assert torch.equal(half.crf.transitions, model.crf.transitions)
        output = half(**batch)
        assert output.logits.dtype == torch.float32
        assert output.loss.isfinite()
        assert (output.logits - model(**batch).logits).abs().max() < 0.2


def test_bf16_trains_under_autocast(make_model, make_batch):
    model = make_model(hybrid_attention="both", entity_replacement_probability=0.5).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**make_batch()).loss
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    for branch in (model.bga_mner.text_branch, model.bga_mner.vision_branch):
        assert all(sampler.decision_bias.grad.abs().sum() > 0 for sampler in branch.samplers)


@pytest.mark.parametrize("mode", ["autocast", "weights"])
@pytest.mark.parametrize(("text", "vision"), [("bert", "vit"), ("deberta-v2", "dinov2"), ("modernbert", "resnet")])
def test_bf16_stays_near_single_precision(make_model, make_batch, text, vision, mode):
    # without the sampler, whose decisions are steps: one that flips is no rounding error
    model = make_model(text, vision, hybrid_attention="both", use_context_sampler=False)
    with torch.no_grad():
        for branch in (model.bga_mner.text_branch, model.bga_mner.vision_branch):
            for projection in branch.projections:
                projection.gate.zero_()
        model.classifier.weight.mul_(50)  # emissions of the size that trained ones have
    batch = make_batch(pad_token_id=model.config.text_config.pad_token_id)
    attended = batch["attention_mask"].bool()
    with torch.no_grad():
        exact = model(**batch)
        half = copy.deepcopy(model).to(torch.bfloat16) if mode == "weights" else model
        with torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
            rounded = half(**batch)
    # bfloat16 has 8 significant bits: a rounding is off by up to 0.4 %, and some hundred of them by a few per cent
    for ours, theirs in (
        (rounded.emissions[attended], exact.emissions[attended]),
        (rounded.generated_vision[-1], exact.generated_vision[-1]),
        (rounded.generated_text[-1][attended], exact.generated_text[-1][attended]),
    ):
        apart = (ours.float() - theirs).square().mean().sqrt() / theirs.square().mean().sqrt()
        assert 0 < apart < 0.02
    for part in ("loss", "crf_loss", "reconstruction_loss", "cycle_loss"):
        assert rounded[part].item() == pytest.approx(exact[part].item(), rel=0.02), part
    assert (rounded.logits.softmax(-1) - exact.logits.softmax(-1))[attended].abs().max() < 0.05


def test_from_two_checkpoints(make_batch, tmp_path, caplog):
    text = BertModel(
        BertConfig(vocab_size=60, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=20)
    )
    vision = ViTModel(
        ViTConfig(
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=30,
            image_size=16,
            patch_size=8,
        )
    )
    text.save_pretrained(tmp_path / "text")
    vision.save_pretrained(tmp_path / "vision")
    labels = ["O", "B-PER", "I-PER"]
    from_disk = BgaMnerForTokenClassification.from_text_vision_pretrained(
        str(tmp_path / "text"), str(tmp_path / "vision"), labels=labels, cycle_weight=0.5
    )
    from_memory = BgaMnerForTokenClassification.from_text_vision_pretrained(text, vision, labels=labels)
    of_paper = BgaMnerForTokenClassification.from_text_vision_pretrained(
        text, vision, labels=labels, preset="paper", cycle_weight=0.5
    )
    with pytest.raises(ValueError, match=r'the preset "default" or "paper", got .papr.'):
        BgaMnerForTokenClassification.from_text_vision_pretrained(text, vision, labels=labels, preset="papr")
    for model in (from_disk, from_memory, of_paper):
        assert not model.training
        assert model.config.label2id == {"O": 0, "B-PER": 1, "I-PER": 2}
        for ours, theirs in ((model.bga_mner.text_encoder, text), (model.bga_mner.vision_encoder, vision)):
            weights = theirs.state_dict()
            assert all(torch.equal(tensor, weights[name]) for name, tensor in ours.state_dict().items())
    assert from_disk.config.cycle_weight == of_paper.config.cycle_weight == 0.5
    assert (of_paper.config.visual_target, of_paper.config.num_bga_layers) == ("layer", 2)
    batch = make_batch()
    batch["labels"].clamp_(max=2)
    assert from_disk(**batch).loss.isfinite()


def test_the_vision_tower_of_a_clip_checkpoint(tmp_path):
    tower = {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 30,
        "image_size": 16,
        "patch_size": 8,
    }
    other = {"vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    clip = CLIPModel(CLIPConfig(vision_config=tower, text_config=other | {"intermediate_size": 9}))
    clip.save_pretrained(tmp_path)
    text = BertModel(BertConfig(vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2))
    for source in (str(tmp_path), clip):
        model = BgaMnerModel.from_text_vision_pretrained(text, source)
        weights = clip.vision_model.state_dict()
        for name, tensor in model.vision_encoder.state_dict().items():
            assert torch.equal(tensor, weights[name]), name


def test_encoders_of_other_precision_are_brought_to_the_models(make_model, make_batch, tmp_path):
    source = make_model().bga_mner
    source.text_encoder.to(torch.bfloat16).save_pretrained(tmp_path / "text")
    source.vision_encoder.half()
    model = BgaMnerForTokenClassification.from_text_vision_pretrained(
        str(tmp_path / "text"), source.vision_encoder, labels=["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    )
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model(**make_batch()).loss.isfinite()


def test_models_with_heads_give_their_encoder_and_others_are_refused(make_config):
    config = make_config()
    tagger = BertForTokenClassification(BertConfig(**config.text_config.to_dict()))
    vision = ViTModel(ViTConfig(**config.vision_config.to_dict()))
    model = BgaMnerModel.from_text_vision_pretrained(tagger, vision)
    assert torch.equal(model.get_input_embeddings().weight, tagger.get_input_embeddings().weight)
    vision.layers = vision.layers[:1]
    with pytest.raises(ValueError, match="lacks"):
        BgaMnerModel.from_text_vision_pretrained(tagger, vision)


def test_an_unsupported_checkpoint_is_refused_by_name(tmp_path):
    AutoConfig.for_model("albert").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"Expected a text encoder of .*'albert'"):
        BgaMnerModel.from_text_vision_pretrained(str(tmp_path), str(tmp_path))


def test_new_weights_are_named(make_config, capfd):
    # transformers logs to stderr by a handler of its own
    code = """
from transformers import BertConfig, BertModel, ViTConfig, ViTModel
from bga_mner import BgaMnerForTokenClassification
small = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
text, vision = BertModel(BertConfig(vocab_size=9, **small)), ViTModel(ViTConfig(image_size=16, **small))
BgaMnerForTokenClassification.from_text_vision_pretrained(text, vision, labels=["O"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for new in ("classifier", "crf.transitions", "text_branch.generator", "vision_branch.samplers"):
        assert new in done.stderr
    assert "text_encoder" not in done.stderr


def test_importing_model_files_registers_nothing():
    # they travel to the Hub as remote code: what they change at import would change the importer's process
    code = """
from transformers import AttentionInterface, AutoConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
before = set(AttentionInterface._global_mapping), set(CONFIG_MAPPING.keys())
import importlib.util, sys, types
root = importlib.util.find_spec("bga_mner").submodule_search_locations[0]
package = types.ModuleType("bga_mner"); package.__path__ = [root]; sys.modules["bga_mner"] = package
import bga_mner.modeling_bga.modeling_bga_mner, bga_mner.processing.processing_bga_mner
assert before == (set(AttentionInterface._global_mapping), set(CONFIG_MAPPING.keys()))
assert "datasets" not in sys.modules and "evaluate" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_defaults_build():
    config = BgaMnerConfig()
    with torch.device("meta"):
        model = BgaMnerForTokenClassification(config)
    assert sum(parameter.numel() for parameter in model.parameters()) > 190e6


@pytest.mark.parametrize("options", [{}, {"hybrid_attention": "both"}, {"sampler_reads_match": True}])
def test_no_parameter_is_a_scalar(make_model, options):
    # FSDP can't split those, and refuses the whole model
    assert all(parameter.ndim > 0 for parameter in make_model(**options).parameters())
