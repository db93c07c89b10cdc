"""The model against a float64 reference written from the paper: 200 sampled configurations, and gradients."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import pytest
import torch
from reference_forward import Reference

from bga_mner import BgaMnerConfig, BgaMnerForTokenClassification


CASES = 200
CHUNKS = 8
GRADIENT_CASES = 24
# Of single precision: an element may be off by this, times its size where that is above 1.
TOLERANCE = 1e-5
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
VOCABULARY = 30


class Case(NamedTuple):
    """A sampled configuration, a batch and how it is run."""

    config: dict[str, Any]
    batch: dict[str, Any]
    training: bool
    gives_states: bool
    sampled: dict[str, Any]  # what was sampled, by name, to see that everything is


def draw(seed: int) -> Case:
    """Draw a configuration and a batch."""
    rng = random.Random(seed)
    sampled = {
        "training": rng.random() < 0.6,
        "text_layers": rng.randint(1, 4),
        "vision_layers": rng.randint(1, 4),
        "vision_family": rng.choice(["clip_vision_model", "vit", "siglip_vision_model"]),
        "hybrid_attention": rng.choice(["text", "both", "none"]),
        "use_context_sampler": rng.random() < 0.8,
        "sampler_reads_match": rng.random() < 0.5,
        "sampler_temperature": rng.choice([0.5, 1.0, 2.0]),
        "keep_budget": rng.choice([1.0, 0.3]),
        "use_text_to_image": rng.random() < 0.85,
        "use_image_to_text": rng.random() < 0.85,
        "generator_num_layers": rng.choice([1, 1, 2]),
        "generator_ffn_ratio": rng.choice([0.5, 1, 2]),
        "generators_learn_from_labels": rng.random() < 0.5,
        "reconstruction_weight": rng.choice([0.0, 1.0, 0.7]),
        "cycle_weight": rng.choice([0.0, 1.0, 0.3]),
        "loss_stages": rng.choice(["all", "sampled"]),
        "reconstruction_distance": rng.choice(["mse", "smooth_l1", "cosine"]),
        "normalize_targets": rng.random() < 0.6,
        "visual_target": rng.choice(["pooled", "pooled", "last", "layer"]),
        "keep_weighted_reconstruction": rng.random() < 0.4,
        "context_hiding_probability": rng.choice([0.0, 0.8]),
        "images_seen": rng.choice([0, 3, 10**6]),
        "entity_replacement_probability": rng.choice([0.0, 0.7]),
        "replaced_entities_read": rng.choice(["real", "generated"]),
        "visual_source": rng.choice(["generated", "generated", "real", "none"]),
        "constrain_transitions": rng.random() < 0.7,
        "text_only": rng.random() < 0.1,
        "tags": rng.choice([1, 3, 5, 7]),
        "padding": rng.choice(["right", "left", "holes", "none"]),
        "labels": rng.choice(["all", "some", "some", "not given"]),
        "images": rng.choice(["all", "some", "some", "not given"]),
        "gives": rng.choice(["pixel_values", "pixel_values", "vision_states"]),
        "words": rng.choice(["input_ids", "input_ids", "inputs_embeds"]),
        "token_type_ids": rng.random() < 0.5,
        "position_ids": rng.random() < 0.2,
        "word_start_mask": rng.random() < 0.3,
        # apart, so that all else is drawn as before
        "align_last_states": random.Random(f"last states of case {seed}").random() < 0.5,
    }
    sampled["num_bga_layers"] = rng.randint(1, min(sampled["text_layers"], sampled["vision_layers"]))
    sampled["vision_side"] = rng.choice([2, 3])
    _make_consistent(sampled)
    own = {"training", "text_layers", "vision_layers", "vision_family", "tags", "padding", "labels", "images", "gives"}
    own |= {"words", "token_type_ids", "position_ids", "word_start_mask", "vision_side", "images_seen"}
    text_heads, vision_heads = rng.choice([1, 2]), rng.choice([1, 3])
    config = {
        "text_config": {
            "model_type": "bert",
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 12,
            "hidden_size": rng.choice([8, 10]),
            "num_hidden_layers": sampled["text_layers"],
            "num_attention_heads": text_heads,
            "intermediate_size": 12,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        "vision_config": {
            "model_type": sampled["vision_family"],
            "hidden_size": rng.choice([12, 15]),
            "num_hidden_layers": sampled["vision_layers"],
            "num_attention_heads": vision_heads,
            "intermediate_size": 14,
            "image_size": 2 * sampled["vision_side"],
            "patch_size": 2,
        },
        "id2label": dict(enumerate(TAGS[: sampled["tags"]])),
        "generator_dropout": 0.0,
        "classifier_dropout": 0.0,
        **{name: value for name, value in sampled.items() if name not in own},
    }
    batch = _draw_batch(rng, seed, sampled, config)
    return Case(config, batch, sampled["training"], sampled["gives"] == "vision_states", sampled)


def _make_consistent(sampled: dict[str, Any]) -> None:
    """Change what the configuration or the forward would refuse."""
    if sampled["text_only"]:
        sampled["images"] = "not given"
    if sampled["visual_target"] == "pooled":
        sampled["keep_weighted_reconstruction"] = False
    if sampled["visual_source"] == "real" and (sampled["hybrid_attention"] == "none" or sampled["text_only"]):
        sampled["visual_source"] = "generated"
    reads = sampled["hybrid_attention"] != "none" and (
        sampled["use_text_to_image"] or sampled["visual_source"] == "real"
    )
    if sampled["replaced_entities_read"] == "real" and not reads:
        sampled["entity_replacement_probability"] = 0.0
    if sampled["entity_replacement_probability"] > 0:
        sampled["words"] = "input_ids"
    if sampled["hybrid_attention"] == "both":
        sampled["gives"] = "pixel_values"
    if sampled["images"] == "not given":
        sampled["gives"] = "pixel_values"


def _draw_batch(rng: random.Random, seed: int, sampled: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    count, length = rng.randint(1, 3), rng.randint(1, 8)
    mask = torch.ones(count, length, dtype=torch.bool)
    for row in range(count):
        present = rng.randint(1, length)
        if sampled["padding"] == "right":
            mask[row, present:] = False
        elif sampled["padding"] == "left":
            mask[row, : length - present] = False
        elif sampled["padding"] == "holes":
            mask[row, rng.sample(range(length), length - present)] = False
    batch: dict[str, Any] = {"attention_mask": mask}
    if sampled["words"] == "input_ids":
        batch["input_ids"] = torch.randint(VOCABULARY, (count, length), generator=generator)
    else:
        batch["inputs_embeds"] = torch.randn(count, length, config["text_config"]["hidden_size"], generator=generator)
    if sampled["token_type_ids"]:
        batch["token_type_ids"] = torch.randint(2, (count, length), generator=generator)
    if sampled["position_ids"]:
        batch["position_ids"] = torch.randint(12, (count, length), generator=generator)
    if sampled["word_start_mask"]:
        batch["word_start_mask"] = torch.rand(count, length, generator=generator) < 0.6
    if sampled["labels"] != "not given":
        labels = torch.randint(sampled["tags"], (count, length), generator=generator)
        if sampled["labels"] == "some":
            labels[torch.rand(count, length, generator=generator) < 0.4] = -100
            labels[rng.randrange(count)] = -100
        batch["labels"] = labels.masked_fill(~mask, -100)
    if sampled["images"] != "not given":
        side = config["vision_config"]["image_size"]
        batch["pixel_values"] = torch.randn(count, 3, side, side, generator=generator)
        batch["image_mask"] = torch.ones(count, dtype=torch.bool)
        if sampled["images"] == "some":
            batch["image_mask"][rng.randrange(count)] = False
    return batch


def make_model(case: Case) -> BgaMnerForTokenClassification:
    """Build a model whose every weight matters: those of a new one are small, and its gates closed."""
    model = BgaMnerForTokenClassification(BgaMnerConfig(**case.config)).train(case.training)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gate"):
                parameter.normal_(-1, 1)
            elif parameter.ndim == 1 and name.endswith("weight") and "match" not in name:  # of a norm
                parameter.normal_(1, 0.2)
            elif parameter.ndim > 1 and "crf" not in name:
                parameter.normal_(0, 1 / parameter[0].numel() ** 0.5)
            else:
                parameter.normal_(0, 0.5)
        if (pooled := model.bga_mner.pooled_target) is not None and case.sampled["images_seen"]:
            pooled.mean.normal_(0, 0.5)
            pooled.variance.uniform_(0.5, 2.0)
            pooled.images_seen.fill_(case.sampled["images_seen"])
    return model


def run_both(seed: int, needs_gradient: bool = False) -> tuple[Case, Any, dict[str, Any], dict[str, torch.Tensor], Any]:
    """Run model and reference on a sampled case, from the same seed."""
    torch.manual_seed(seed)
    case = draw(seed)
    model = make_model(case)
    weights = {name: tensor.double().requires_grad_(needs_gradient) for name, tensor in model.state_dict().items()}
    given = dict(case.batch)
    if case.sampled["padding"] == "none":
        del given["attention_mask"]
    if case.gives_states and not needs_gradient:
        with torch.no_grad():
            given["vision_states"] = model.bga_mner.encode_images(given.pop("pixel_values"))
    with torch.set_grad_enabled(needs_gradient):
        torch.manual_seed(1000 + seed)
        ours = model(**given)
        expected = Reference(model.config, weights, case.training)(case.batch, 1000 + seed)
    return case, ours, expected, weights, model


def assert_close(ours: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    assert ours.shape == expected.shape, what
    apart = (ours.double() - expected).abs() / expected.abs().clamp(min=1)
    assert apart.numel() == 0 or apart.max() <= TOLERANCE, f"{what} is off by {apart.max():.1e}"


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_the_model_computes_what_the_reference_does(chunk):
    for seed in range(chunk, CASES, CHUNKS):
        case, ours, expected, *_ = run_both(seed)
        for part in ("loss", "crf_loss", "reconstruction_loss", "cycle_loss", "keep_loss"):
            found = getattr(ours, part)
            assert (found is None) == (expected[part] is None), (seed, part, case.sampled)
            if found is not None:
                assert_close(found, expected[part], f"{part} of case {seed} {case.sampled}")
        for row, sentence in enumerate(expected["sentences"]):
            where, places = f"sentence {row} of case {seed} {case.sampled}", sentence.places
            for name in ("emissions", "logits"):
                assert_close(ours[name][row, places], expected[name][row], f"{name}, {where}")
            if not case.training:
                _assert_same_tags(case, ours.predictions[row], expected["predictions"][row], row, places, where)
            assert len(ours.text_keep_masks or ()) == len(sentence.keep), where
            for stage, keep in enumerate(sentence.keep):
                found = ours.text_keep_masks[stage][row]
                assert_close(found[places], keep, f"text keep mask {stage}, {where}")
                assert found.sum() == found[places].sum(), where  # nothing of the padding
            assert len(ours.generated_vision or ()) == len(sentence.generated), where
            for stage, made in enumerate(sentence.generated):
                assert_close(ours.generated_vision[stage][row], made, f"generated vision {stage}, {where}")
        for row, image in enumerate(expected["images"]):
            where, places = f"image {row} of case {seed} {case.sampled}", expected["sentences"][row].places
            assert (ours.pair_match is None) == (image.match is None), where
            if image.match is not None:
                assert_close(ours.pair_match[row], image.match, f"pair match, {where}")
            if not case.batch["image_mask"][row]:
                continue
            assert_close(ours.vision_last_hidden_state[row], image.last, f"last vision states, {where}")
            for stage, keep in enumerate(image.keep):
                assert_close(ours.vision_keep_masks[stage][row], keep, f"vision keep mask {stage}, {where}")
            assert len(ours.generated_text or ()) == len(image.generated), where
            for found, made in zip(ours.generated_text or (), image.generated.values(), strict=True):
                assert_close(found[row, places], made, f"generated text, {where}")


def _assert_same_tags(
    case: Case, found: torch.Tensor, path: list[int], row: int, places: torch.Tensor, where: str
) -> None:
    expected = torch.full_like(found, -100)
    expected[places] = torch.tensor(path)
    if "word_start_mask" in case.batch:
        expected[~case.batch["word_start_mask"][row]] = -100
    assert found.tolist() == expected.tolist(), where


def test_training_steps_have_the_reference_s_gradients():
    # those of samplers are divided by 1e-6 on the way: they are the least exact in single precision
    compared = 0
    for seed in range(CASES):
        if compared == GRADIENT_CASES:
            return
        if not draw(seed).training:
            continue
        case, ours, expected, weights, model = run_both(seed, needs_gradient=True)
        if expected["loss"] is None or not expected["loss"].requires_grad:
            continue  # neither labels, nor a pair that could be aligned
        ours.loss.backward()
        expected["loss"].backward()
        for name, parameter in model.named_parameters():
            reference = weights[name].grad
            found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            if reference is None:
                assert not found.any(), (seed, name)
                continue
            if name.endswith("word_embeddings.weight"):
                reference[model.config.text_config.pad_token_id] = 0  # which never learns
            scale = reference.abs().max().clamp(min=1e-2)
            assert (found - reference).abs().max() <= 1e-3 * scale, (seed, name, case.sampled)
        compared += 1
    raise AssertionError("There are too few training steps among the cases.")


def test_every_option_is_sampled():
    sampled = [draw(seed).sampled for seed in range(CASES)]
    values = {name: {case[name] for case in sampled} for name in sampled[0]}
    assert {name for name, found in values.items() if len(found) < 2} == set()
    assert values["hybrid_attention"] == {"text", "both", "none"}
    assert values["num_bga_layers"] == values["text_layers"] == {1, 2, 3, 4}
    assert values["padding"] == {"right", "left", "holes", "none"}
    assert values["visual_source"] == {"generated", "real", "none"}
    # what a new option of the configuration would be missing in
    unlike = {"text_config", "vision_config", "generator_dropout", "classifier_dropout", "initializer_range"}
    unlike |= {"gate_initial_bias", "sampler_initial_keep", "image_size", "keep_budget_weight"}
    unlike |= {"id2label", "label2id", "problem_type", "training_summary"}
    of_our_own = set(BgaMnerConfig.__annotations__) - unlike
    assert of_our_own - set(values) == set()
