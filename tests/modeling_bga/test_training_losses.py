"""Losses of the whole model, and whom they teach."""

from __future__ import annotations

import pytest
import torch
from model_changes import only_text, open_gates, spread_samplers, without_dropout

from bga_mner.modeling_bga.encoders.encoder import encoder_layers


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


@pytest.mark.parametrize("hybrid_attention", ["text", "both"])
@pytest.mark.parametrize("taught", [False, True])
def test_labels_teach_what_layers_read_and_generators_only_if_asked(make_model, make_batch, hybrid_attention, taught):
    options = {"hybrid_attention": hybrid_attention, "generators_learn_from_labels": taught}
    # what vision layers read reaches labels through the real image alone
    options |= {"visual_target": "last", "entity_replacement_probability": 0.5, "replaced_entities_read": "real"}
    model, batch = open_gates(make_model(**options)).train(), make_batch()
    torch.manual_seed(1)
    model(**batch).crf_loss.backward()
    for branch in (model.bga_mner.text_branch, model.bga_mner.vision_branch):
        for part, learns in ((branch.generator, taught), (branch.samplers, taught), (branch.projections, True)):
            if part is not None and branch.projections is not None:
                gradients = [p.grad for p in part.parameters() if p.grad is not None and p.grad.abs().sum() > 0]
                assert bool(gradients) == learns, type(part).__name__


def test_reconstruction_teaches_generators_that_labels_do_not(make_model, make_batch):
    model = make_model(generators_learn_from_labels=False).train()
    model(**make_batch()).reconstruction_loss.backward()
    for branch in (model.bga_mner.text_branch, model.bga_mner.vision_branch):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in branch.generator.parameters())


@pytest.mark.parametrize("visual_target", ["last", "layer"])
@pytest.mark.parametrize("normalize_targets", [True, False])
def test_alignment_losses_against_a_slow_loop(make_model, make_batch, visual_target, normalize_targets):
    model = make_model(visual_target=visual_target, normalize_targets=normalize_targets)
    spread_samplers(model)
    entering = []  # vision: 4 layers, stages before the last 2
    for layer in encoder_layers(model.bga_mner.vision_encoder)[2:]:
        layer.register_forward_pre_hook(lambda module, arguments: entering.append(arguments[0]))
    batch = make_batch()
    batch["image_mask"][1] = False
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
    batch["image_mask"][0] = False
    batch["labels"][3] = -100
    model(**batch).loss.backward()
    large = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for half in (slice(0, 2), slice(2, 4)):
        (model(**{name: tensor[half] for name, tensor in batch.items()}).loss / 2).backward()
    for name, parameter in model.named_parameters():
        if name in large:
            assert torch.allclose(parameter.grad, large[name], atol=1e-5), name


def test_pairs_without_an_image_add_nothing_to_the_alignment_losses(make_model, make_batch):
    model = make_model()
    batch = make_batch()
    batch["image_mask"][:] = False
    output = model(**batch)
    assert output.reconstruction_loss == 0
    assert output.cycle_loss == 0
    assert torch.equal(output.logits, model(**only_text(batch)).logits)


def test_sentences_without_labels_add_nothing_to_the_crf_loss(make_model, make_batch):
    model = make_model()
    batch = make_batch(images=False)
    batch["labels"][1] = -100
    labelled = model(**{name: tensor[[0, 2]] for name, tensor in batch.items()}).crf_loss
    assert torch.allclose(model(**batch).crf_loss * 3, labelled * 2)
    batch["labels"][:] = -100
    assert model(**batch).loss == 0


def test_images_alone_give_a_loss(make_model, make_batch):
    batch = make_batch()
    del batch["labels"]
    output = make_model()(**batch)
    assert output.crf_loss is None
    assert output.loss > 0


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


def test_a_missing_image_has_no_budget_to_spend(make_model, make_batch):
    model, batch = make_model(keep_budget=0.01, use_text_to_image=False).train(), make_batch()
    assert model(**batch).keep_loss > 0
    batch["image_mask"][:] = False
    assert model(**batch).keep_loss == 0


def test_what_stands_for_a_missing_image_reaches_no_gradient(make_model, make_batch):
    model, batch = make_model(), make_batch()
    batch["image_mask"][1] = False
    batch["pixel_values"][1] = float("nan")
    loss = model(**batch).loss
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_without_a_generator_real_images_are_read_in_training_too(make_model, make_batch):
    model = make_model(use_text_to_image=False, use_image_to_text=False, visual_source="real").train()
    model(**make_batch()).loss.backward()
    for name, parameter in model.bga_mner.text_branch.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_texts_may_read_nothing_in_training_too(make_model, make_batch):
    model, batch = without_dropout(open_gates(make_model(visual_source="none")).train()), make_batch()
    labels, batch = batch["labels"], only_text(batch)
    output = model(**batch, labels=labels)
    assert output.generated_vision is None
    output.loss.backward()
    assert all(p.grad is None for p in model.bga_mner.text_branch.generator.parameters())
    # the same as the text encoder alone
    plain = model.bga_mner.text_encoder(batch["input_ids"], batch["attention_mask"]).last_hidden_state
    attended = batch["attention_mask"].bool()
    torch.testing.assert_close(output.emissions[attended], model.classifier(plain)[attended])
    # and not what is read by default
    assert (model(**batch, visual_source="generated").emissions - output.emissions).abs().max() > 1e-5


def test_sampled_stages_have_the_mean_loss_of_all_stages(make_model, make_batch):
    # nothing is random but the draw
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    options = {"use_context_sampler": False, "generator_dropout": 0.0, "text_options": still, "vision_options": still}
    model = make_model(loss_stages="sampled", **options).bga_mner.train()
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


def test_no_stage_is_sampled_in_evaluation_nor_where_images_read_generated_text(make_model, make_batch):
    batch = make_batch()
    assert len(make_model(loss_stages="sampled", num_bga_layers=2)(**batch).generated_text) == 2
    both = make_model(loss_stages="sampled", num_bga_layers=2, hybrid_attention="both").train()
    assert len(both(**batch).generated_text) == 2


@pytest.mark.parametrize(
    ("options", "reached"),
    [({}, False), ({"cycle_weight": 1.0}, True), ({"hybrid_attention": "both"}, True)],
)
def test_what_images_generate_teaches_texts_only_through_a_cycle_or_what_images_read(
    make_model, make_batch, options, reached
):
    settings = {"cycle_weight": 0.0, "context_hiding_probability": 0.5, "entity_replacement_probability": 0.5} | options
    both = without_dropout(open_gates(make_model(**settings)).train())
    one = without_dropout(make_model(**settings | {"use_image_to_text": False}).train())
    one.load_state_dict(both.state_dict(), strict=False)
    gradients = []
    for model in (both, one):
        torch.manual_seed(0)
        model(**make_batch()).loss.backward()
        gradients.append(
            {
                name: parameter.grad
                for name, parameter in model.named_parameters()
                if not name.startswith(("bga_mner.vision_encoder", "bga_mner.vision_branch"))
                and parameter.grad is not None
            }
        )
    with_images_to_text, without = gradients
    assert with_images_to_text.keys() == without.keys()
    same = all(torch.allclose(with_images_to_text[name], without[name], atol=1e-6) for name in without)
    assert same == (not reached)


@pytest.mark.parametrize("aligned", [False, True])
def test_reconstruction_reaches_what_the_head_reads_if_last_states_are_aligned(make_model, make_batch, aligned):
    model = make_model(align_last_states=aligned, cycle_weight=0.0).train()
    output = model(**make_batch())
    assert len(output.generated_vision) == model.config.num_stages
    output.reconstruction_loss.backward()
    *_, last = encoder_layers(model.bga_mner.text_encoder)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in last.parameters()) == aligned
    assert all(p.grad is None for p in model.classifier.parameters())
