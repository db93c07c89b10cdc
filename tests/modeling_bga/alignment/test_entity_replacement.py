from __future__ import annotations

import pytest
import torch
from model_changes import only_text, open_gates, without_dropout

from bga_mner.modeling_bga.alignment.entity_replacement import replace_entities
from bga_mner.modeling_bga.encoders.encoder import encoder_layers


_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def test_sentences_beside_replaced_ones_read_what_they_always_do(make_model, make_batch):
    # with nothing that generates, the real image
    options = {"use_text_to_image": False, "use_image_to_text": False, "visual_source": "real"}
    options |= {"entity_replacement_probability": 1.0, "classifier_dropout": 0.0, "text_options": _NO_DROPOUT}
    options |= {"replaced_entities_read": "real"}
    model, batch = open_gates(make_model(**options)).train(), make_batch()
    batch["labels"][1:] = -100
    beside_replaced = model(**batch).emissions
    batch["labels"][:] = -100
    alone = model(**batch).emissions
    assert (beside_replaced[0] - alone[0]).abs().max() > 1e-3
    torch.testing.assert_close(beside_replaced[1:], alone[1:])
    batch["pixel_values"] = batch["pixel_values"].flip(0)
    assert (model(**batch).emissions[2] - alone[2]).abs().max() > 1e-5


def test_entity_replacement_hides_entities_and_shows_the_image(make_model, make_batch):
    noiseless = {"generator_dropout": 0.0, "use_context_sampler": False, "replaced_entities_read": "real"}
    model = without_dropout(open_gates(make_model(entity_replacement_probability=1.0, **noiseless)).train())
    batch = make_batch()
    batch["labels"][2] = -100
    arguments = (batch["input_ids"], batch["labels"] > 0, True, torch.tensor([True, False, True]))
    sampled = [replace_entities(model.config, *arguments) for _ in range(20)]
    assert all(replaced.chosen.tolist() == [True, False, False] for replaced in sampled)
    ids = torch.stack([replaced.input_ids for replaced in sampled])
    changed = (ids != batch["input_ids"]).any(dim=0)
    expected = torch.zeros_like(changed)
    expected[0, 1:3] = True  # B-PER I-PER
    assert torch.equal(changed, expected)
    # with the same draw the entity words don't matter any more, but the image does
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
    noiseless = {"generator_dropout": 0.0, "use_context_sampler": False}
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
    options = {"reconstruction_weight": 0.0, "cycle_weight": 0.0}
    model = open_gates(make_model(entity_replacement_probability=1.0, **options).train())
    model(**make_batch()).loss.backward()
    branch = model.bga_mner.text_branch
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in branch.generator.parameters())
    assert all(p.grad.abs().sum() > 0 for p in branch.projections.parameters())


@pytest.mark.parametrize("option", [{"hybrid_attention": "none"}, {"visual_source": "none"}])
def test_replaced_entities_read_nothing_where_texts_do_not(make_model, make_batch, option):
    options = {"use_context_sampler": False, **option}
    model = without_dropout(make_model(entity_replacement_probability=1.0, **options).train())
    batch = make_batch()
    torch.manual_seed(5)
    before = model(**batch)
    batch["input_ids"][:, 1] = 50
    torch.manual_seed(5)
    after = model(**batch)
    assert torch.equal(after.emissions, before.emissions)
    assert after.reconstruction_loss != before.reconstruction_loss


def test_the_same_layers_run_whether_or_not_a_sentence_is_replaced(make_model, make_batch):
    """Processes that share the weights of a layer wait for each other there."""
    noiseless = {"generator_dropout": 0.0, "use_context_sampler": False}
    replacing = without_dropout(make_model(entity_replacement_probability=1.0, **noiseless).train())
    plain = without_dropout(make_model(**noiseless).train())
    plain.load_state_dict(replacing.state_dict())
    runs, batch = [], make_batch()
    encoder_layers(replacing.bga_mner.text_encoder)[0].register_forward_hook(lambda *_: runs.append("layer"))
    replacing(**batch)
    assert len(runs) == 2
    batch["labels"][:] = 0  # no entity
    output = replacing(**batch)
    assert len(runs) == 4
    expected = plain(**batch)
    assert torch.equal(output.emissions, expected.emissions)
    expected.loss.backward()
    output.loss.backward()
    for (name, parameter), other in zip(replacing.named_parameters(), plain.parameters(), strict=True):
        assert (parameter.grad is None) == (other.grad is None), name
        assert parameter.grad is None or torch.equal(parameter.grad, other.grad), name


def test_pairs_whose_replaced_entities_read_images_take_no_part_in_the_alignment_losses(make_model, make_batch):
    options = {"entity_replacement_probability": 1.0, "replaced_entities_read": "real"}
    model, batch = make_model(**options).train(), make_batch()
    output = model(**batch)
    assert output.reconstruction_loss == 0
    assert output.cycle_loss == 0
    batch["labels"][1] = -100  # nothing to replace here
    assert model(**batch).reconstruction_loss > 0


def test_entity_replacement_is_for_training_only(make_model, make_batch):
    batch = make_batch()
    replacing = make_model(entity_replacement_probability=1.0)
    plain = make_model()
    plain.load_state_dict(replacing.state_dict())
    assert torch.equal(replacing(**batch).logits, plain(**batch).logits)


def test_the_crf_teaches_no_generator_by_way_of_replaced_sentences(make_model, make_batch):
    """The generator is to learn what images show, and not to spell out the tags of names that are labelled."""
    model = make_model(entity_replacement_probability=1.0).train()
    batch = make_batch()
    batch["labels"] = batch["labels"].masked_fill(batch["labels"] == 0, 1)  # an entity in each sentence
    model(**batch).crf_loss.backward()
    generator = model.bga_mner.text_branch.generator
    assert all(weight.grad is None or not weight.grad.any() for weight in generator.parameters())
    assert model.bga_mner.text_branch.projections[0].projection.weight.grad.any()
