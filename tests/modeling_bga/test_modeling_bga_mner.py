from __future__ import annotations

import copy

import pytest
import torch
from model_changes import only_text, open_gates, spread_samplers, without_dropout
from transformers import pipeline

from bga_mner.configuration.encoder_families import TEXT_FAMILIES
from bga_mner.examples.synthetic.tokenizer import build_tokenizer
from bga_mner.modeling_bga.encoders.encoder import encoder_layers
from bga_mner.modeling_bga.token_classifier import BgaMnerForTokenClassification


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
    batch["image_mask"][1] = False
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
    batch = {name: tensor[:, :length] for name, tensor in make_batch(lengths=(40,), images=False).items()}
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


def test_real_images_matter_when_asked_for(make_model, make_batch):
    model = open_gates(make_model())
    batch = make_batch()
    batch["image_mask"][1] = False
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


@pytest.mark.parametrize("num_bga_layers", [1, 3])
def test_text_that_reads_no_features_learns_alike_with_any_number_of_layers(make_model, make_batch, num_bga_layers):
    options = {"visual_source": "none", "entity_replacement_probability": 0.5}  # of random numbers beside dropout
    model, other = make_model(num_bga_layers=2, **options), make_model(num_bga_layers=num_bga_layers, **options)
    own = {name: weight for name, weight in model.state_dict().items() if "_branch." not in name}
    other.load_state_dict(own, strict=False)
    losses = {}
    for trained in (model, other):
        torch.manual_seed(0)
        optimizer = torch.optim.AdamW(trained.train().parameters(), lr=1e-2)
        losses[trained] = []
        for _ in range(4):
            loss = trained(**make_batch(images=False)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses[trained].append(loss.item())
    assert losses[model] == losses[other]
    assert len(set(losses[model])) == 4


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


@pytest.mark.slow
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
        ({"input_ids": None}, "Expected input_ids or inputs_embeds, got neither"),
        ({"inputs_embeds": torch.zeros(3, 9, 16)}, "Expected input_ids or inputs_embeds, got both"),
        ({"pixel_values": torch.zeros(2, 3, 16, 16)}, r"\(3, 3, 16, 16\), got \(2, 3, 16, 16\)"),
        ({"pixel_values": torch.zeros(3, 3, 32, 32)}, "image_size"),
        ({"image_mask": torch.ones(3, 1)}, "image_mask"),
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
    with pytest.raises(ValueError, match=f"at most {longest} tokens, .*got {longest + 1}"):
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
