from __future__ import annotations

import pytest
import torch
from model_changes import without_dropout

from bga_mner.modeling_bga.alignment.context_hiding import hide_context


# two tokens of padding, a first token, and words of 1, 2, 3, 1 and 2 tokens
STARTS = torch.tensor([0, 0, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0], dtype=torch.bool)
ATTENDED = torch.tensor([0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], dtype=torch.bool)
WORDS = STARTS.long().cumsum(0)


def hide(entity, rows=2000, sampled=True, starts=STARTS):
    """Hide in many copies of a text; return where each word is hidden (rows, words), the tokens of a word alike."""
    mask = torch.zeros(12, dtype=torch.bool)
    mask[list(entity)] = True
    copies = [tensor.expand(rows, -1) for tensor in (ATTENDED, mask)]
    hidden = hide_context(
        copies[0],
        torch.full((rows,), sampled),
        copies[1],
        None if starts is None else starts.expand(rows, -1),
    )
    assert not hidden[:, :3].any()  # padding and the first token
    return hidden


def by_word(hidden):
    for word in range(1, 6):
        tokens = hidden[:, word == WORDS]
        assert torch.equal(tokens.any(dim=1), tokens.all(dim=1))
    return hidden[:, STARTS]


def finding_nothing(model):
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([9.0, 0, 0, 0, 0]))
    return model


def test_a_word_whose_first_token_is_of_an_entity_stays():
    hidden = by_word(hide({2, 6, 11}))  # the first token and the end of a word are none
    assert not hidden[:, 2].any()
    others = hidden[:, [0, 1, 3, 4]]
    # all in half of the texts, and a share from none to all in the others
    assert 0.45 < others.all(dim=1).float().mean() < 0.75
    assert 0.7 < others.float().mean() < 0.8
    assert not others.any(dim=1).all()


def test_without_an_entity_any_word_may_be_hidden():
    hidden = by_word(hide(()))
    assert ((hidden.float().mean(dim=0) - 0.5).abs() < 0.05).all()
    assert len(hidden.sum(dim=1).unique()) == 6


def test_texts_that_are_not_sampled_stay_whole():
    assert not hide({7}, sampled=False).any()


def test_without_word_starts_each_token_is_a_word():
    hidden = hide({7}, starts=None)
    assert not hidden[:, 7].any()
    assert hidden[:, 6].any()
    assert (hidden[:, 6] != hidden[:, 8]).any()


def test_pairs_lose_words_and_those_with_labels_half_as_often(make_model, make_batch):
    model = finding_nothing(make_model(context_hiding_probability=1.0, use_context_sampler=False).train())
    batch = make_batch()
    batch["labels"][1] = -100
    batch["image_mask"][2] = False
    attended = batch["attention_mask"].bool()
    kept = torch.stack([model(**batch).text_keep_masks[0] for _ in range(100)])
    whole = (kept == attended).all(dim=2).float().mean(dim=0)
    assert 0.4 < whole[0] < 0.7
    assert whole[1] < 0.3
    assert whole[2] == 1, "there is no image to learn from"
    assert (kept[:, :, 0] == 1).all()
    entity = (batch["labels"] > 0) & attended
    assert entity[0].any()
    assert (kept[:, 0][:, entity[0]] == 1).all(), "the entities that the labels tell"
    # in evaluation, and without images, no text does
    assert torch.equal(model.eval()(**batch).text_keep_masks[0], attended.float())
    texts = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    assert torch.equal(model.train()(**texts).text_keep_masks[0], attended.float())


@pytest.mark.parametrize("name", ["labels", "image_mask"])
def test_inputs_of_another_shape_are_refused(make_model, make_batch, name):
    model, batch = make_model(context_hiding_probability=1.0).train(), make_batch()
    batch[name] = batch[name][:2]
    with pytest.raises(ValueError, match=name):
        model(**batch)


def test_labels_alone_need_no_search_for_entities(make_model, make_batch):
    model, batch = make_model(context_hiding_probability=1.0).train(), make_batch()
    passes = []
    model.bga_mner.text_encoder.embeddings.register_forward_hook(lambda *_: passes.append(1))
    model(**batch)
    assert len(passes) == 1
    batch["labels"][:] = -100
    model(**batch)
    assert len(passes) == 3


@pytest.mark.parametrize("labelled", [False, True])
def test_words_that_are_hidden_change_nothing(make_model, make_batch, labelled):
    model = make_model(context_hiding_probability=1.0, use_context_sampler=False)
    model = finding_nothing(without_dropout(model)).train()
    batch = make_batch()
    if not labelled:
        del batch["labels"]

    def run():
        torch.manual_seed(3)
        return model(**batch)

    before = run()
    hidden = batch["attention_mask"].bool() & (before.text_keep_masks[0] == 0)
    assert hidden.any()
    batch["input_ids"] = batch["input_ids"].masked_fill(hidden, 7)
    after = run()
    assert torch.equal(after.generated_vision[-1], before.generated_vision[-1])
    assert torch.equal(after.loss, before.loss)


def test_looking_for_entities_leaves_gradients_under_autocast(make_model, make_batch):
    model = make_model(context_hiding_probability=1.0).train()
    batch = make_batch()
    batch["labels"][1] = -100
    with torch.autocast("cpu", torch.bfloat16):
        model(**batch).loss.backward()
    silent = [
        name
        for name, parameter in model.bga_mner.text_encoder.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert not silent
