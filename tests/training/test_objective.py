"""No Trainer trains another objective than the model's without a word."""

import pytest
import torch
from slow_cases import mostly_slow
from torch.nn import functional as F
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer
from transformers.trainer_pt_utils import LabelSmoother
from transformers.utils import logging

from bga_mner import CardKeepingTrainer


def token_loss(outputs, labels, num_items_in_batch=None):
    """Compute what Trainer's examples do: the cross entropy of each position."""
    return F.cross_entropy(outputs["logits"].flatten(0, -2), labels.flatten(), ignore_index=-100)


def with_loss(compute, pop=False, **options):
    """Make a Trainer whose `compute_loss` computes something of its own."""

    class OwnLossTrainer(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            labels = inputs.pop("labels") if pop else inputs["labels"]
            outputs = model(**inputs, **options)
            loss = compute(outputs, labels)
            return (loss, outputs) if return_outputs else loss

    return OwnLossTrainer


class SmoothingTrainer(Trainer):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.label_smoother = LabelSmoother(0.2)


def focal_loss(outputs, labels):
    probabilities = outputs.logits.softmax(-1).flatten(0, -2)
    right = probabilities.gather(1, labels.clamp(min=0).flatten()[:, None])[:, 0]
    return ((1 - right) ** 2 * -right.log())[labels.flatten() != -100].mean()


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


OTHER_OBJECTIVES = {
    "label_smoothing_factor": {"label_smoothing_factor": 0.1},
    "smoothing, with our Trainer": {"label_smoothing_factor": 0.1, "kind": CardKeepingTrainer},
    "smoothing, Seq2SeqTrainer": {
        "label_smoothing_factor": 0.1,
        "kind": Seq2SeqTrainer,
        "arguments": Seq2SeqTrainingArguments,
    },
    "a label_smoother": {"kind": SmoothingTrainer},
    "compute_loss_func": {"compute_loss_func": token_loss},
    "own loss": {"kind": with_loss(token_loss)},
    "own loss, labels taken out": {"kind": with_loss(token_loss, pop=True)},
    "own loss beside that of the images": {
        "kind": with_loss(lambda outputs, labels: token_loss(outputs, labels) + (outputs.loss or 0), pop=True)
    },
    "own loss of a tuple": {
        "kind": with_loss(lambda outputs, labels: token_loss({"logits": outputs[1]}, labels), return_dict=False)
    },
    "focal loss": {"kind": with_loss(focal_loss)},
    "own loss in bfloat16": {"kind": with_loss(token_loss), "bf16": True},
    "own loss, checkpointed": {"kind": with_loss(token_loss), "activation_checkpointing": True},
    "own loss, accumulated": {"kind": with_loss(token_loss), "gradient_accumulation_steps": 2},
}


@pytest.mark.parametrize("images", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", mostly_slow(OTHER_OBJECTIVES, "label_smoothing_factor", "compute_loss_func", "own loss")
)
def test_another_objective_is_refused_before_the_first_step(make_trainer, rows, name, images):
    data = rows if images else rows.remove_columns("image")
    trainer = make_trainer(data=data, **OTHER_OBJECTIVES[name])
    before = weights(trainer.model)
    with pytest.raises(ValueError, match=r"label_smoothing_factor=0 .*outputs\.emissions") as caught:
        trainer.train()
    assert len(str(caught.value)) < 1000
    assert all(torch.equal(before[name], weight) for name, weight in weights(trainer.model).items())


OWN_OBJECTIVES = {
    "the model's": lambda outputs, labels: outputs.loss,
    "more than the model's": lambda outputs, labels: outputs.loss + token_loss(outputs, labels),
    "the CRF's and distillation": lambda outputs, labels: outputs.crf_loss + outputs.logits.square().mean(),
    "nothing of the scores": lambda outputs, labels: outputs.loss + 0 * outputs.logits.sum(),
    "tag scores, on purpose": lambda outputs, labels: token_loss({"logits": outputs.emissions}, labels),
}


@pytest.mark.parametrize("name", OWN_OBJECTIVES)
def test_the_model_s_objective_is_added_to(make_tagger, make_trainer, name):
    compute = OWN_OBJECTIVES[name]
    trainer = make_trainer(make_tagger(), kind=with_loss(compute))
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(4)])
    loss = trainer.compute_loss(trainer.model.train(), dict(batch))
    loss.backward()
    found = {key: parameter.grad for key, parameter in trainer.model.named_parameters()}
    # the same of scores that nobody watches
    trainer.model.zero_grad()
    outputs = trainer.model(**batch)
    outputs["logits"] = outputs.emissions
    expected = compute(outputs, batch["labels"])
    expected.backward()
    torch.testing.assert_close(loss, expected)
    gradients = {key: parameter.grad for key, parameter in trainer.model.named_parameters()}
    assert found.keys() == gradients.keys()
    for key, gradient in gradients.items():
        assert (gradient is None) == (found[key] is None), key
        if gradient is not None:
            torch.testing.assert_close(found[key], gradient)


def test_gradients_of_parts_may_be_taken_one_by_one(make_tagger, make_batch):
    model, batch = make_tagger().train(), make_batch()
    outputs = model(**batch)
    parameters = [model.classifier.weight]
    (of_loss,) = torch.autograd.grad(outputs.loss, parameters, retain_graph=True)
    (of_scores,) = torch.autograd.grad(outputs.logits.square().sum(), parameters, retain_graph=True)
    (of_both,) = torch.autograd.grad(outputs.loss + outputs.logits.square().sum(), parameters)
    torch.testing.assert_close(of_loss + of_scores, of_both)


@pytest.mark.parametrize("training", [False, True])
def test_what_is_not_trained_is_not_watched(make_tagger, make_batch, training):
    model, batch = make_tagger().train(training), make_batch()
    with torch.no_grad():
        assert not model(**batch).logits.requires_grad
    model.eval()
    # attributions read gradients of an evaluated model
    model(**batch).emissions.sum().backward()
    model.requires_grad_(False).train(training)
    assert not model(**batch).logits.requires_grad


@pytest.fixture
def warnings_of_ours(caplog):
    """Return the warnings so far; those that are said once may be said again."""
    logging.get_logger("bga_mner.modeling_bga.training.objective_check").warning_once.cache_clear()
    return lambda: [record.getMessage() for record in caplog.records if "without labels" in record.getMessage()]


def test_pairs_without_labels_are_trained_on_and_said_once(make_trainer, rows, warnings_of_ours):
    trainer = make_trainer(data=rows.remove_columns("ner_tags"), eval_dataset=rows.remove_columns("ner_tags"))
    before = weights(trainer.model)
    trainer.train()
    after = weights(trainer.model)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(before["crf.transitions"], after["crf.transitions"])
    (message,) = warnings_of_ours()
    assert "compute_loss_func" in message
    assert "label_smoothing_factor" in message


@pytest.mark.parametrize("unlabelled", [0, 5])
def test_labelled_batches_say_nothing(make_trainer, rows, unlabelled, warnings_of_ours):
    tags = [None if row < unlabelled else tags for row, tags in enumerate(rows["ner_tags"])]
    data = rows.remove_columns("ner_tags").add_column("ner_tags", tags, feature=rows.features["ner_tags"])
    make_trainer(data=data, per_device_train_batch_size=8).train()
    assert warnings_of_ours() == []


def test_labels_that_a_loss_function_took_away_are_missed_aloud(make_trainer, warnings_of_ours):
    make_trainer(compute_loss_func=lambda outputs, labels, num_items_in_batch=None: outputs.loss).train()
    assert len(warnings_of_ours()) == 1


def test_an_evaluation_alone_smooths_what_the_crf_says(make_trainer):
    trainer = make_trainer(label_smoothing_factor=0.1, per_device_eval_batch_size=8)
    scores = trainer.evaluate()
    plain = make_trainer(trainer.model, per_device_eval_batch_size=8)
    batch = plain.data_collator([plain.eval_dataset[row] for row in range(8)])
    with torch.no_grad():
        marginals = trainer.model(**batch).logits.flatten(0, 1)
    # log_softmax leaves log-probabilities as they are
    expected = F.cross_entropy(marginals, batch["labels"].flatten(), label_smoothing=0.1)
    assert scores["eval_loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert scores["eval_f1"] == plain.evaluate()["eval_f1"]


@pytest.fixture
def sentiments(rows):
    return rows.remove_columns("ner_tags").add_column("label", [0, 1, 2, 0, 1, 2, 0, 1])


CLASSIFIER_OBJECTIVES = {
    "label_smoothing_factor": {"label_smoothing_factor": 0.1},
    "compute_loss_func": {"compute_loss_func": token_loss},
    "own loss": {"kind": with_loss(token_loss)},
    "own loss, labels taken out": {"kind": with_loss(token_loss, pop=True)},
}


@pytest.mark.parametrize("name", CLASSIFIER_OBJECTIVES)
def test_a_classifier_s_images_are_not_left_out(make_classifier, make_trainer, sentiments, name):
    options = CLASSIFIER_OBJECTIVES[name]
    with pytest.raises(ValueError, match="label_smoothing_factor=0"):
        make_trainer(make_classifier(), sentiments, **options).train()
    # without images the loss of the scores is all there is
    text_only = make_trainer(make_classifier(), sentiments.remove_columns("image"), **options)
    batch = text_only.data_collator([text_only.train_dataset[row] for row in range(8)])
    smoothing = 0.1 if name == "label_smoothing_factor" else 0.0
    scores = text_only.model.train()(**{key: batch[key] for key in batch if key != "labels"}).logits
    expected = F.cross_entropy(scores, batch["labels"], label_smoothing=smoothing).item()
    text_only.args.max_steps, text_only._train_batch_size = 1, 8
    text_only.args.per_device_train_batch_size = 8
    assert text_only.train().training_loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("pop", [False, True])
def test_a_classifier_s_images_may_be_added_to(make_classifier, make_trainer, sentiments, pop):
    kind = with_loss(lambda outputs, labels: outputs.loss + token_loss(outputs, labels), pop=pop)
    trainer = make_trainer(make_classifier(), sentiments, kind=kind)
    before = weights(trainer.model)
    trainer.train()
    untrained = {name for name, weight in weights(trainer.model).items() if torch.equal(before[name], weight)}
    assert not any("generator" in name for name in untrained)
