"""However Trainer hands an evaluation over, its scores are those of seqeval over words."""

import copy

import numpy as np
import pytest
import torch
from seqeval.metrics import classification_report
from seqeval.scheme import IOB2
from slow_cases import mostly_slow
from transformers import EvalPrediction

from bga_mner import build_compute_metrics


LEARNED = {}


@pytest.fixture
def tagger(make_tagger, make_trainer):
    """Make a tagger that finds some entities, and not all."""
    model = make_tagger()
    if not LEARNED:
        make_trainer(model, max_steps=6, learning_rate=2e-2, per_device_train_batch_size=8).train()
        LEARNED.update(copy.deepcopy(model.state_dict()))
    model.load_state_dict(LEARNED)
    return model.eval()


def scores_of_words(model, trainer):
    """Tag one sentence after the other, and let seqeval score the words."""
    names, predicted, expected = model.config.id2label, [], []
    for row in trainer.eval_dataset:
        batch = trainer.data_collator([row])
        with torch.no_grad():
            tags = model(**{name: batch[name] for name in batch if name != "labels"}).predictions[0]
        first = batch["word_start_mask"][0]
        predicted.append([names[int(tag)] for tag in tags[first]])
        expected.append([names[int(tag)] for tag in batch["labels"][0][first]])
    report = classification_report(expected, predicted, mode="strict", scheme=IOB2, output_dict=True, zero_division=0)
    pairs = [pair for tags in zip(predicted, expected, strict=True) for pair in zip(*tags, strict=True)]
    scores = {f"eval_{name}": report["micro avg"][key] for name, key in NAMES.items()}
    scores["eval_accuracy"] = np.mean([ours == theirs for ours, theirs in pairs])
    for kind in ("LOC", "PER"):
        scores |= {f"eval_{name}_{kind}": report[kind][key] for name, key in NAMES.items()}
        scores[f"eval_number_{kind}"] = report[kind]["support"]
    return scores


NAMES = {"precision": "precision", "recall": "recall", "f1": "f1-score"}
OPTIONS = {
    "plain": {},
    "batch_eval_metrics": {"batch_eval_metrics": True},
    "eval_do_concat_batches": {"eval_do_concat_batches": False},
    "both": {"batch_eval_metrics": True, "eval_do_concat_batches": False},
    "eval_accumulation_steps": {"eval_accumulation_steps": 1},
    "accumulated lists": {"eval_accumulation_steps": 2, "eval_do_concat_batches": False},
    "more for metrics": {"include_for_metrics": ["inputs", "loss"]},
    "more for batches": {"include_for_metrics": ["inputs", "loss"], "batch_eval_metrics": True},
    "one batch": {"batch_eval_metrics": True, "per_device_eval_batch_size": 8},
    "one at a time": {"batch_eval_metrics": True, "per_device_eval_batch_size": 1},
    "label_names": {"label_names": ["labels"]},
    "label_names, more": {"label_names": ["word_start_mask", "image_mask", "labels"]},
    "label_names, more in batches": {"label_names": ["word_start_mask", "labels"], "batch_eval_metrics": True},
    "label_names, more in lists": {"label_names": ["word_start_mask", "labels"], "eval_do_concat_batches": False},
    "gathered as objects": {"eval_use_gather_object": True},
    "workers": {"batch_eval_metrics": True, "dataloader_num_workers": 1, "dataloader_persistent_workers": True},
    "by length": {"batch_eval_metrics": True, "train_sampling_strategy": "group_by_length"},
}


@pytest.mark.parametrize("preprocess", mostly_slow([None, lambda outputs, labels: outputs[1]], None))
@pytest.mark.parametrize("name", OPTIONS)
def test_every_score_is_that_of_the_words(make_trainer, tagger, name, preprocess):
    trainer = make_trainer(tagger, preprocess_logits_for_metrics=preprocess, **OPTIONS[name])
    found, again = trainer.evaluate(), trainer.evaluate()
    expected = scores_of_words(tagger, trainer)
    assert 0 < expected["eval_f1"] < 1
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-12)
    assert {key: again[key] for key in expected} == {key: found[key] for key in expected}
    assert trainer.predict(trainer.eval_dataset, metric_key_prefix="eval").metrics["eval_f1"] == found["eval_f1"]


def test_an_evaluation_that_was_broken_off_leaves_nothing_behind(make_trainer, tagger, rows):
    trainer = make_trainer(tagger, batch_eval_metrics=True)
    expected = trainer.evaluate()["eval_f1"]
    prediction_step, seen = trainer.prediction_step, []

    def stop(*arguments, **options):
        seen.append(None)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return prediction_step(*arguments, **options)

    trainer.prediction_step = stop
    with pytest.raises(KeyboardInterrupt):
        trainer.evaluate()
    assert trainer.evaluate()["eval_f1"] == expected


def test_several_evaluation_sets_are_scored_one_by_one(make_trainer, tagger):
    trainer = make_trainer(tagger, batch_eval_metrics=True)
    halves = {"a": trainer.eval_dataset.select(range(3)), "b": trainer.eval_dataset.select(range(3, 8))}
    together = trainer.evaluate(halves)
    for name, half in halves.items():
        alone = make_trainer(tagger).evaluate(half)
        assert together[f"eval_{name}_f1"] == alone["eval_f1"]
        assert together[f"eval_{name}_number_PER"] == alone["eval_number_PER"]


def test_scores_are_taken_in_any_precision_and_from_any_output(tagger):
    labels = torch.tensor([[-100, 3, 4, 0, -100], [-100, 1, 0, -100, -100]])
    tags = torch.tensor([[-100, 3, 4, 1, -100], [-100, 1, 0, -100, -100]])
    scores = torch.nn.functional.one_hot(tags.clamp(min=0), 5)
    expected = build_compute_metrics(tagger.config.id2label)(EvalPrediction(tags.numpy(), labels.numpy()))
    for predictions in (tags, scores.bfloat16(), scores.half(), (scores.float(), tags, scores.bfloat16())):
        compute = build_compute_metrics(tagger.config.id2label)
        assert compute(EvalPrediction(predictions, labels), compute_result=True) == expected
        assert compute(EvalPrediction([predictions], [labels])) == expected


@pytest.mark.parametrize("options", [{}, {"batch_eval_metrics": True}, {"eval_do_concat_batches": False}])
def test_sentences_without_labels_count_for_nothing(make_trainer, tagger, rows, options):
    tags = rows["ner_tags"][:3] + [None] * 5
    data = rows.remove_columns("ner_tags").add_column("ner_tags", tags, feature=rows.features["ner_tags"])
    found = make_trainer(tagger, data, **options).evaluate()
    alone = make_trainer(tagger, rows.select(range(3))).evaluate()
    assert alone["eval_number_PER"] == 2
    assert {key: found[key] for key in alone if "_PER" in key or "_LOC" in key or key == "eval_f1"} == {
        key: alone[key] for key in alone if "_PER" in key or "_LOC" in key or key == "eval_f1"
    }


def test_predictions_without_labels_are_refused(tagger):
    tags = np.zeros((3, 4), dtype=int)
    with pytest.raises(ValueError, match="leave sentences without labels out of the evaluation set"):
        build_compute_metrics(tagger.config.id2label)(EvalPrediction(tags, tags[:2]))


def test_the_loss_alone_has_no_scores(make_trainer, tagger):
    found = make_trainer(tagger, prediction_loss_only=True).evaluate()
    assert found["eval_loss"] == pytest.approx(make_trainer(tagger).evaluate()["eval_loss"])
    assert "eval_f1" not in found


def test_inputs_and_losses_are_given_to_whom_they_are_for(make_trainer, tagger):
    seen = []
    options = {"include_for_metrics": ["inputs", "loss"], "compute_metrics": lambda given: seen.append(given) or {}}
    trainer = make_trainer(tagger, **options)
    scores = trainer.evaluate()
    assert seen[0].inputs.shape == seen[0].label_ids.shape
    assert seen[0].losses.mean() == pytest.approx(scores["eval_loss"], rel=1e-5)
