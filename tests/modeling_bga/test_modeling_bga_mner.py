from __future__ import annotations

import copy

import pytest
import torch
from transformers import pipeline

from bga_mner.configuration.encoder_families import TEXT_FAMILIES
from bga_mner.modeling_bga import BgaMnerForTokenClassification
from bga_mner.modeling_bga.encoders import encoder_layers
from bga_mner.modeling_bga.entity_replacement import replace_entities
from bga_mner.processing.generated_corpus import build_tokenizer


def only_text(batch):
    return {name: tensor for name, tensor in batch.items() if name in ("input_ids", "attention_mask")}


def open_gates(model, value=0.0):
    """Let generated features weigh as much as own tokens, so that a test sees them."""
    with torch.no_grad():
        for branch in (model.bga_mner.text_branch, model.bga_mner.vision_branch):
            for projection in branch.projections or []:
                projection.gate.fill_(value)
    return model


def spread_samplers(model):
    """Make untrained samplers keep about half of what they see, so that keep masks have something to show."""
    with torch.no_grad():
        for branch in (model.bga_mner.text_branch, model.bga_mner.vision_branch):
            for sampler in branch.samplers:
                sampler.decision_bias.zero_()
                sampler.decision.weight.mul_(5)
    return model


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


# Training


def test_without_visual_teaching_only_the_last_vision_layer_learns_nothing(make_model, make_batch):
    model = make_model("bert", "vit").train()
    model(**make_batch()).loss.backward()
    silent = {name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().sum() == 0}
    # Its output is a detached target and nothing else: no stage stands behind it.
    last = ("vision_encoder.layers.3.", "vision_encoder.layernorm.")
    assert silent
    assert all(name.startswith(tuple(f"bga_mner.{module}" for module in last)) for name in silent)


def test_loss_is_the_weighted_sum_of_its_parts(make_model, make_batch):
    model = make_model(reconstruction_weight=0.3, cycle_weight=0.2)
    output = model(**make_batch())
    parts = output.crf_loss + 0.3 * output.reconstruction_loss + 0.2 * output.cycle_loss
    assert torch.allclose(output.loss, parts)
    assert min(output.crf_loss, output.reconstruction_loss, output.cycle_loss) > 0


@pytest.mark.parametrize("visual_target", ["last", "layer"])
@pytest.mark.parametrize("normalize_targets", [True, False])
def test_alignment_losses_against_a_slow_loop(make_model, make_batch, visual_target, normalize_targets):
    model = make_model(visual_target=visual_target, normalize_targets=normalize_targets)
    spread_samplers(model)
    entering = []  # vision: 4 layers, stages before the last 2
    for layer in encoder_layers(model.bga_mner.vision_encoder)[2:]:
        layer.register_forward_pre_hook(lambda module, arguments: entering.append(arguments[0]))
    batch = make_batch()
    batch["picture_mask"][1] = False
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    output = model.bga_mner(**inputs, output_hidden_states=True)
    text_generator, vision_generator = model.bga_mner.text_branch.generator, model.bga_mner.vision_branch.generator

    def distance(made, real):
        if normalize_targets:
            real = torch.nn.functional.layer_norm(real, real.shape[-1:])
        return sum(((made[i] - real[i]) ** 2).mean() for i in range(len(made))) / len(made)

    reconstruction, cycle = 0.0, 0.0
    for b in (0, 2):
        length = int(batch["attention_mask"][b].sum())
        for stage in (0, 1):
            real_vision = (output.vision_last_hidden_state if visual_target == "last" else entering[stage])[b]
            real_text = output.hidden_states[1 + stage][b, :length]  # text: 3 layers, stages before the last 2
            made_vision = output.generated_vision[stage][b]
            made_text = output.generated_text[stage][b, :length]
            reconstruction += distance(made_vision, real_vision)
            reconstruction += distance(made_text, real_text)
            cycle += distance(vision_generator(made_vision[None], None, vision_generator.prepare(length))[0], real_text)
            cycle += distance(text_generator(made_text[None], None, text_generator.prepare(5))[0], real_vision)
    stages, sentences = 2, 3
    assert torch.allclose(output.reconstruction_loss, reconstruction / (stages * sentences), atol=1e-5)
    assert torch.allclose(output.cycle_loss, cycle / (stages * sentences), atol=1e-5)


def test_accumulated_small_batches_equal_one_large_batch(make_model, make_batch):
    model = make_model()
    batch = make_batch(lengths=(7, 7, 7, 7))
    batch["picture_mask"][0] = False
    batch["labels"][3] = -100
    model(**batch).loss.backward()
    large = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for half in (slice(0, 2), slice(2, 4)):
        (model(**{name: tensor[half] for name, tensor in batch.items()}).loss / 2).backward()
    for name, parameter in model.named_parameters():
        if name in large:
            assert torch.allclose(parameter.grad, large[name], atol=1e-5), name


def test_pairs_without_a_picture_add_nothing_to_the_alignment_losses(make_model, make_batch):
    model = make_model()
    batch = make_batch()
    batch["picture_mask"][:] = False
    output = model(**batch)
    assert output.reconstruction_loss == 0
    assert output.cycle_loss == 0
    assert torch.equal(output.logits, model(**only_text(batch)).logits)


def test_sentences_without_labels_add_nothing_to_the_crf_loss(make_model, make_batch):
    model = make_model()
    batch = make_batch(pictures=False)
    batch["labels"][1] = -100
    labelled = model(**{name: tensor[[0, 2]] for name, tensor in batch.items()}).crf_loss
    assert torch.allclose(model(**batch).crf_loss * 3, labelled * 2)
    batch["labels"][:] = -100
    assert model(**batch).loss == 0


def test_pictures_alone_give_a_loss(make_model, make_batch):
    batch = make_batch()
    del batch["labels"]
    output = make_model()(**batch)
    assert output.crf_loss is None
    assert output.loss > 0


def test_entity_replacement_hides_entities_and_shows_the_picture(make_model, make_batch):
    noiseless = {"generator_dropout": 0.0, "use_context_sampler": False}
    model = without_dropout(open_gates(make_model(entity_replacement_probability=1.0, **noiseless)).train())
    batch = make_batch()
    batch["labels"][2] = -100
    arguments = (batch["input_ids"], batch["labels"] > 0, True, torch.tensor([True, False, True]))
    drawn = [replace_entities(model.config, *arguments) for _ in range(20)]
    assert all(replaced.chosen.tolist() == [True, False, False] for replaced in drawn)
    ids = torch.stack([replaced.input_ids for replaced in drawn])
    changed = (ids != batch["input_ids"]).any(dim=0)
    expected = torch.zeros_like(changed)
    expected[0, 1:3] = True  # B-PER I-PER
    assert torch.equal(changed, expected)
    # with the same draw the entity words don't matter any more, but the picture does
    batch = {name: tensor[:1] for name, tensor in make_batch().items()}

    def emissions():
        torch.manual_seed(5)
        return model(**batch).emissions

    before = emissions()
    batch["input_ids"][0, 1:3] = torch.tensor([50, 51])
    assert torch.equal(emissions(), before)
    batch["pixel_values"] = torch.randn_like(batch["pixel_values"])
    assert not torch.allclose(emissions(), before, atol=1e-4)


def test_replaced_entities_read_what_the_true_words_generate(make_model, make_batch):
    noiseless = {"generator_dropout": 0.0, "use_context_sampler": False, "replaced_entities_read": "generated"}
    model = without_dropout(open_gates(make_model(entity_replacement_probability=1.0, **noiseless)).train())
    batch = only_text(make_batch())
    batch["labels"] = make_batch()["labels"]
    batch["labels"][2] = -100

    def emissions():
        torch.manual_seed(5)
        return model(**batch).emissions

    before = emissions()
    # seen only by way of the features that it generates
    batch["input_ids"][0, 1] = 50
    changed = (emissions() - before).abs().amax(dim=(1, 2))
    assert changed[0] > 1e-6
    assert torch.equal(changed[1:], torch.zeros(2))
    with torch.no_grad():
        model.bga_mner.text_branch.generator.output.weight.zero_()
        model.bga_mner.text_branch.generator.output.bias.zero_()
    before = emissions()
    batch["input_ids"][0, 1] = 51
    assert torch.equal(emissions(), before)
    # a sentence without labels is read as it is
    batch["input_ids"][2, 1] = 51
    assert not torch.allclose(emissions()[2], before[2], atol=1e-4)


def test_generated_features_learn_no_tags_from_replaced_entities(make_model, make_batch):
    options = {"entity_replacement_probability": 1.0, "replaced_entities_read": "generated"}
    model = open_gates(make_model(reconstruction_weight=0.0, cycle_weight=0.0, **options).train())
    model(**make_batch()).loss.backward()
    branch = model.bga_mner.text_branch
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in branch.generator.parameters())
    assert all(p.grad.abs().sum() > 0 for p in branch.projections.parameters())


def test_replaced_entities_without_hybrid_attention_read_nothing(make_model, make_batch):
    options = {"hybrid_attention": "none", "replaced_entities_read": "generated", "use_context_sampler": False}
    model = without_dropout(make_model(entity_replacement_probability=1.0, **options).train())
    batch = make_batch()
    torch.manual_seed(5)
    before = model(**batch)
    batch["input_ids"][:, 1] = 50
    torch.manual_seed(5)
    after = model(**batch)
    assert torch.equal(after.emissions, before.emissions)
    assert after.reconstruction_loss != before.reconstruction_loss


def test_pairs_with_replaced_entities_take_no_part_in_the_alignment_losses(make_model, make_batch):
    model, batch = make_model(entity_replacement_probability=1.0).train(), make_batch()
    output = model(**batch)
    assert output.reconstruction_loss == 0
    assert output.cycle_loss == 0
    batch["labels"][1] = -100  # nothing to replace here
    assert model(**batch).reconstruction_loss > 0


def test_a_budget_is_part_of_the_loss_and_teaches_the_vision_samplers(make_model, make_batch):
    model = make_model(keep_budget=0.1, keep_budget_weight=3.0).train()
    output = model(**make_batch())
    parts = output.crf_loss + output.reconstruction_loss + output.cycle_loss + 3 * output.keep_loss
    assert torch.allclose(output.loss, parts)
    output.keep_loss.backward()
    assert all(sampler.decision.weight.grad.abs().sum() > 0 for sampler in model.bga_mner.vision_branch.samplers)
    # texts aren't priced
    assert all(sampler.decision.weight.grad is None for sampler in model.bga_mner.text_branch.samplers)
    assert model.eval()(**make_batch()).keep_loss is None
    assert make_model().train()(**make_batch()).keep_loss is None


def test_a_missing_picture_has_no_budget_to_spend(make_model, make_batch):
    model, batch = make_model(keep_budget=0.01, use_text_to_image=False).train(), make_batch()
    assert model(**batch).keep_loss > 0
    batch["picture_mask"][:] = False
    assert model(**batch).keep_loss == 0


def test_what_stands_for_a_missing_picture_reaches_no_gradient(make_model, make_batch):
    model, batch = make_model(), make_batch()
    batch["picture_mask"][1] = False
    batch["pixel_values"][1] = float("nan")
    loss = model(**batch).loss
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_without_a_generator_real_pictures_are_read_in_training_too(make_model, make_batch):
    model = make_model(use_text_to_image=False, use_image_to_text=False, visual_source="real").train()
    model(**make_batch()).loss.backward()
    for name, parameter in model.bga_mner.text_branch.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_entity_replacement_is_for_training_only(make_model, make_batch):
    batch = make_batch()
    replacing = make_model(entity_replacement_probability=1.0)
    plain = make_model()
    plain.load_state_dict(replacing.state_dict())
    assert torch.equal(replacing(**batch).logits, plain(**batch).logits)


# Inference


def test_the_vision_branch_reads_generated_text_when_asked_to(make_model, make_batch):
    model, batch = make_model(hybrid_attention="both"), make_batch()
    closed = open_gates(model, value=-1e4)(**batch).vision_last_hidden_state
    assert (open_gates(model)(**batch).vision_last_hidden_state - closed).abs().max() > 1e-3


@pytest.mark.parametrize("encoder", ["text_encoder", "vision_encoder"])
def test_every_layer_is_run(make_model, make_batch, encoder):
    model = open_gates(make_model(hybrid_attention="both"))
    batch = make_batch()
    before = model(**batch)
    for layer in encoder_layers(getattr(model.bga_mner, encoder)):
        changed = copy.deepcopy(layer.state_dict())
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)
        after = model(**batch)
        layer.load_state_dict(changed)
        field = "emissions" if encoder == "text_encoder" else "vision_last_hidden_state"
        assert (getattr(after, field) - getattr(before, field)).abs().max() > 1e-3


def test_padding_changes_no_loss(make_model, make_batch):
    model = spread_samplers(open_gates(make_model(hybrid_attention="both")))
    batch = make_batch(lengths=(7, 5))
    before = model(**batch)
    longer = dict(batch)
    for name, value in (("input_ids", 0), ("attention_mask", 0), ("labels", -100)):
        longer[name] = torch.nn.functional.pad(batch[name], (0, 6), value=value)
    after = model(**longer)
    for part in ("crf_loss", "reconstruction_loss", "cycle_loss"):
        assert torch.allclose(getattr(after, part), getattr(before, part), atol=1e-5), part


def test_a_batch_gives_what_single_sentences_give(make_model, make_batch):
    model = spread_samplers(open_gates(make_model(visual_source="real", hybrid_attention="both")))
    batch = make_batch()
    batch["picture_mask"][1] = False
    together = model(**batch)
    for row, length in enumerate((9, 6, 4)):
        single = {name: tensor[row : row + 1] for name, tensor in batch.items()}
        for name in ("input_ids", "attention_mask", "labels"):
            single[name] = single[name][:, :length]
        alone = model(**single)
        assert torch.allclose(together.logits[row, :length], alone.logits[0], atol=1e-5)
        assert torch.equal(together.predictions[row, :length], alone.predictions[0])


def test_order_does_not_matter(make_model, make_batch):
    model = open_gates(make_model())
    batch = make_batch()
    order = [2, 0, 1]
    shuffled = {name: tensor[order] for name, tensor in batch.items()}
    assert torch.allclose(model(**batch).logits[order], model(**shuffled).logits, atol=1e-5)


def test_evaluation_is_deterministic(make_model, make_batch):
    model, batch = spread_samplers(make_model()), make_batch()
    first, second = model(**batch), model(**batch)
    for name in ("loss", "logits", "predictions"):
        assert torch.equal(first[name], second[name])
    assert all(map(torch.equal, first.text_keep_masks, second.text_keep_masks))


@pytest.mark.parametrize("training", [False, True])
def test_keep_masks_shrink_from_stage_to_stage(make_model, make_batch, training):
    model = spread_samplers(make_model(num_bga_layers=3)).train(training)
    batch = make_batch(lengths=(30, 20, 25))
    output = model(**batch)
    padding = batch["attention_mask"].bool()
    for masks, whole in ((output.text_keep_masks, padding), (output.vision_keep_masks, torch.ones(3, 5).bool())):
        previous = whole
        for mask in masks:
            kept = mask > 0
            assert not (kept & ~previous).any()
            assert kept[:, 0].all()
            previous = kept
        assert previous.sum() < whole.sum()


def test_only_kept_patches_reach_the_generator(make_model, make_batch):
    model = spread_samplers(make_model("bert", "vit", num_bga_layers=1))
    batch = make_batch()
    branch, seen = model.bga_mner.vision_branch, []
    branch.generator.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[:2]))
    output = model(**batch)
    keep = output.vision_keep_masks[0]
    dropped = (keep == 0).nonzero()
    assert len(dropped)
    states, bias = (tensor.detach().clone() for tensor in seen[0])
    row, patch = dropped[0].tolist()
    queries = branch.generator.prepare(batch["input_ids"].shape[1])
    before = branch.generator(states, bias, queries)
    states[row, patch] = torch.randn(24)
    assert torch.equal(branch.generator(states, bias, queries), before)
    states[row, 0] = torch.randn(24)
    assert not torch.allclose(branch.generator(states, bias, queries)[row], before[row], atol=1e-4)


@pytest.mark.parametrize("length", [1, 2, 17, 40])
def test_any_text_length(make_model, make_batch, length):
    batch = {name: tensor[:, :length] for name, tensor in make_batch(lengths=(40,), pictures=False).items()}
    output = make_model()(**batch, pixel_values=torch.randn(1, 3, 16, 16))
    assert output.logits.shape == (1, length, 5)
    assert output.loss.isfinite()


def test_inference_needs_the_text_branch_only(make_model, make_batch):
    model = make_model()
    base, called = model.bga_mner, []
    for name in ("vision_encoder", "vision_branch"):
        for module in getattr(base, name).modules():
            module.register_forward_hook(lambda module, *_: called.append(module))
    expected = model(**only_text(make_batch())).logits
    assert not called
    base.vision_encoder = base.vision_branch = None
    assert torch.equal(model(**only_text(make_batch())).logits, expected)


@pytest.mark.parametrize("option", [{"hybrid_attention": "none"}, {"visual_source": "none"}])
def test_features_that_nothing_reads_are_not_generated(make_model, make_batch, option):
    output = make_model(**option)(**only_text(make_batch()))
    assert output.generated_vision is None


def test_real_pictures_matter_when_asked_for(make_model, make_batch):
    model = open_gates(make_model())
    batch = make_batch()
    batch["picture_mask"][1] = False
    generated, real = model(**batch), model(**batch, visual_source="real")
    changed = (generated.emissions - real.emissions).abs().amax(dim=(1, 2)) > 1e-4
    assert changed.tolist() == [True, False, True]
    other = batch | {"pixel_values": torch.randn_like(batch["pixel_values"])}
    assert torch.allclose(model(**other).emissions, generated.emissions, atol=1e-6)
    changed = (model(**other, visual_source="real").emissions - real.emissions).abs().amax(dim=(1, 2)) > 1e-4
    assert changed.tolist() == [True, False, True]


def test_logits_are_log_probabilities_in_evaluation_and_emissions_in_training(make_model, make_batch):
    model, batch = make_model(), make_batch()
    output = model(**batch)
    real = batch["attention_mask"].bool()
    assert torch.allclose(output.logits.exp().sum(-1)[real], torch.ones(int(real.sum())), atol=1e-5)
    assert output.predictions.shape == batch["input_ids"].shape
    output = model.train()(**batch)
    assert output.predictions is None
    assert torch.equal(output.logits, output.emissions)


def test_predictions_obey_bio_and_word_starts(make_model, make_batch):
    model = make_model()
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([0.0, 0, 9, 0, 9]))  # I-LOC and I-PER everywhere
    batch = only_text(make_batch(lengths=(9, 9)))
    tags = model(**batch).predictions
    for row in tags.tolist():
        for previous, tag in zip([0, *row], row, strict=False):
            assert tag not in (2, 4) or previous in (tag, tag - 1)
    starts = torch.rand(2, 9) < 0.5
    masked = model(**batch, word_start_mask=starts).predictions
    assert torch.equal(masked, tags.masked_fill(~starts, -100))


# Ablations


@pytest.mark.parametrize(
    ("option", "has_reconstruction", "has_cycle"),
    [
        ({}, True, True),
        ({"use_context_sampler": False}, True, True),
        ({"use_text_to_image": False}, True, False),
        ({"use_image_to_text": False}, True, False),
        ({"use_text_to_image": False, "use_image_to_text": False}, False, False),
        ({"use_text_to_image": False, "use_image_to_text": False, "visual_source": "real"}, False, False),
        ({"hybrid_attention": "none"}, True, True),
        ({"hybrid_attention": "both"}, True, True),
        ({"reconstruction_weight": 0.0}, False, True),
        ({"cycle_weight": 0.0}, True, False),
        ({"visual_target": "layer"}, True, True),
        ({"normalize_targets": False}, True, True),
        ({"generator_num_layers": 2, "generator_ffn_ratio": 1.5}, True, True),
        ({"reconstruction_distance": "cosine"}, True, True),
    ],
)
def test_every_switch_trains_evaluates_saves_and_loads(
    make_model, make_batch, tmp_path, option, has_reconstruction, has_cycle
):
    model, batch = make_model(**option), make_batch()
    output = model.train()(**batch)
    output.loss.backward()
    assert (output.reconstruction_loss is not None) == has_reconstruction
    assert (output.cycle_loss is not None) == has_cycle
    if option.get("use_context_sampler", True) is False:
        assert all((mask == batch["attention_mask"]).all() for mask in output.text_keep_masks)
    model.eval().save_pretrained(tmp_path)
    again = BgaMnerForTokenClassification.from_pretrained(tmp_path)
    assert torch.equal(again(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize(
    ("option", "silent"),
    [
        ({"use_context_sampler": False}, set()),
        ({"use_text_to_image": False}, set()),
        ({"use_image_to_text": False}, {"vision_encoder"}),
        ({"hybrid_attention": "none"}, set()),
        ({"reconstruction_weight": 0.0, "cycle_weight": 0.0}, {"vision_encoder", "vision_branch"}),
        ({"visual_target": "layer"}, set()),
    ],
)
def test_what_a_switch_leaves_on_gets_gradients(make_model, make_batch, option, silent):
    model = make_model(**option).train()
    model(**make_batch()).loss.backward()
    base = model.bga_mner
    for name in ("text_encoder", "vision_encoder", "text_branch", "vision_branch"):
        parameters = list(getattr(base, name).parameters())
        gets_gradients = any(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)
        assert gets_gradients == (bool(parameters) and name not in silent), name


def test_real_features_are_refused_where_no_layer_reads_any(make_model, make_batch):
    model = make_model(hybrid_attention="none")
    with pytest.raises(ValueError, match="built without"):
        model(**make_batch(), visual_source="real")


# With the rest of the ecosystem


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_stock_pipeline(make_model, strategy):
    tokenizer = build_tokenizer([["Kawhi", "wins", "in", "Toronto"]])
    model = make_model(text_options={"vocab_size": len(tokenizer)})
    tagger = pipeline("token-classification", model, tokenizer=tokenizer, aggregation_strategy=strategy)
    texts = ["Kawhi wins", "in Toronto in Toronto wins"]
    alone = [tagger(text) for text in texts]
    for one, other in zip(alone, tagger(texts, batch_size=2), strict=True):
        assert [{**e, "score": None} for e in one] == [{**e, "score": None} for e in other]
        assert all(0 <= entity["score"] <= 1 for entity in one)


# torch looks at the gradients of inner tensors while it traces, and warns about itself
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("training", [False, True])
def test_torch_compile_changes_nothing(make_model, make_batch, training):
    model = without_dropout(make_model(generator_dropout=0.0, use_context_sampler=False)).train(training)
    batch = make_batch()
    plain = model(**batch)
    compiled = torch.compile(model, backend="eager")(**batch)
    assert torch.allclose(compiled.loss, plain.loss, atol=1e-5)
    assert torch.allclose(compiled.logits, plain.logits, atol=1e-5)


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_ids": None}, "either input_ids or inputs_embeds"),
        ({"inputs_embeds": torch.zeros(3, 9, 16)}, "either input_ids or inputs_embeds"),
        ({"pixel_values": torch.zeros(2, 3, 16, 16)}, r"\(3, 3, 16, 16\), but have \(2, 3, 16, 16\)"),
        ({"pixel_values": torch.zeros(3, 3, 32, 32)}, "image_size"),
        ({"picture_mask": torch.ones(3, 1)}, "picture_mask"),
        ({"visual_source": "imagined"}, "'generated', 'real' or 'none'"),
        ({"labels": torch.zeros(3, 8, dtype=torch.long)}, "(?i)tags|labels"),
        ({"labels": torch.full((3, 9), 5)}, "(?i)tag"),
    ],
)
def test_bad_input_is_refused_with_the_fix(make_model, make_batch, change, message):
    with pytest.raises(ValueError, match=message):
        make_model()(**(make_batch() | change))


@pytest.mark.parametrize("text", TEXT_FAMILIES)
def test_a_text_longer_than_the_encoder_is_refused(make_model, text):
    model = make_model(text)
    longest = 38 if "roberta" in text or text == "mpnet" else 40
    assert model(input_ids=torch.randint(5, 60, (1, longest))).logits.shape == (1, longest, 5)
    with pytest.raises(ValueError, match=f"at most {longest} tokens, but a text has {longest + 1}"):
        model(input_ids=torch.randint(5, 60, (1, longest + 1)))


@pytest.mark.parametrize("implementation", ["eager", "flash_attention_2"])
def test_other_attention_implementations_are_refused(make_config, implementation):
    model = BgaMnerForTokenClassification(make_config())
    with pytest.raises(ValueError, match="sdpa"):
        model.set_attn_implementation(implementation)
    if implementation == "eager":
        with pytest.raises(ValueError, match="sdpa"):
            BgaMnerForTokenClassification._from_config(make_config(), attn_implementation=implementation)


def test_tuples_and_embeddings_instead_of_ids(make_model, make_batch):
    model, batch = make_model(), only_text(make_batch())
    embedded = {"inputs_embeds": model.get_input_embeddings()(batch["input_ids"])}
    output = model(attention_mask=batch["attention_mask"], **embedded)
    assert torch.allclose(output.logits, model(**batch).logits)
    assert torch.equal(model(**batch, return_dict=False)[0], model(**batch).logits)


def test_resized_token_embeddings(make_model, make_batch):
    model, batch = make_model(), only_text(make_batch())
    before = model(**batch).logits
    model.resize_token_embeddings(80)
    assert model.config.text_config.vocab_size == 80
    assert torch.equal(model(**batch).logits, before)


def test_drawn_stages_have_the_mean_loss_of_all_stages(make_model, make_batch):
    # nothing is random but the draw
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    options = {"use_context_sampler": False, "generator_dropout": 0.0, "text_options": still, "vision_options": still}
    model = make_model(loss_stages="drawn", **options).bga_mner.train()
    batch = make_batch((9, 6))
    del batch["labels"]
    found = {}
    for _ in range(40):
        output = model(**batch)
        assert len(output.generated_text) == 1, "one stage a pair"
        assert len(output.generated_vision) == 2, "the text reads what each stage generates"
        found[round(output.cycle_loss.item(), 6)] = torch.stack([output.reconstruction_loss, output.cycle_loss])
    assert len(found) == 4, "two pairs, each at one of two stages"
    model.config.loss_stages = "all"
    whole = model(**batch)
    assert len(whole.generated_text) == 2
    expected = torch.stack([whole.reconstruction_loss, whole.cycle_loss])
    torch.testing.assert_close(torch.stack(list(found.values())).mean(0), expected, rtol=1e-5, atol=1e-5)


def test_no_stage_is_drawn_in_evaluation_nor_where_pictures_read_generated_text(make_model, make_batch):
    batch = make_batch()
    assert len(make_model(loss_stages="drawn", num_bga_layers=2)(**batch).generated_text) == 2
    both = make_model(loss_stages="drawn", num_bga_layers=2, hybrid_attention="both").train()
    assert len(both(**batch).generated_text) == 2
