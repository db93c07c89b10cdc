import random
import warnings

import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from bga_mner.processing.data_collator import DataCollatorForMner
from bga_mner.processing.evaluation.mner_metric import MnerMetric, build_compute_metrics, score_tags
from bga_mner.processing.tags.tag_scheme import repair_bio, spans_from_tags


TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
ID2LABEL = dict(enumerate(TAGS))


def random_tags(rng, length):
    return repair_bio([rng.choice(TAGS) for _ in range(length)])[0]


def test_scores_equal_counting_spans():
    rng = random.Random(0)
    for _ in range(50):
        lengths = [rng.randrange(8) for _ in range(4)]
        expected = [random_tags(rng, length) for length in lengths]
        predicted = [random_tags(rng, length) for length in lengths]
        ours = {(row, *span) for row, tags in enumerate(predicted) for span in spans_from_tags(tags)}
        theirs = {(row, *span) for row, tags in enumerate(expected) for span in spans_from_tags(tags)}
        scores = score_tags(predicted, expected)
        right = len(ours & theirs)
        assert scores["overall_precision"] == pytest.approx(right / len(ours) if ours else 0)
        assert scores["overall_recall"] == pytest.approx(right / len(theirs) if theirs else 0)
        assert scores["overall_f1"] == pytest.approx(2 * right / (len(ours) + len(theirs)) if ours or theirs else 0)
        for label in ("PER", "LOC"):
            number = sum(span[1] == label for span in theirs)
            assert scores.get(label, {"number": 0})["number"] == number


def test_metric_is_an_evaluate_metric():
    metric = MnerMetric()
    result = metric.compute(predictions=[["B-PER", "O", "O"]], references=[["B-PER", "O", "B-LOC"]])
    assert result["overall_precision"] == 1.0
    assert result["overall_recall"] == 0.5
    assert result["overall_accuracy"] == pytest.approx(2 / 3)
    assert result["PER"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "number": 1}
    assert result["LOC"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "number": 1}
    assert type(result["overall_f1"]) is float
    metric.add_batch(predictions=[["B-PER"]], references=[["B-PER"]])
    metric.add(prediction=["O"], reference=["B-PER"])
    assert metric.compute()["overall_recall"] == 0.5


def test_unknown_words_are_left_out():
    result = MnerMetric().compute(predictions=[["B-PER", "B-LOC", "O"]], references=[["B-PER", None, "O"]])
    assert (result["overall_f1"], result["overall_accuracy"]) == (1.0, 1.0)
    assert "LOC" not in result


def test_strict_and_lenient_differ_on_broken_entities():
    predictions, references = [["I-PER", "O"]], [["B-PER", "O"]]
    with pytest.warns(UserWarning, match="count nothing of what is predicted.*seem to be IOB1"):
        assert MnerMetric().compute(predictions=predictions, references=references)["overall_f1"] == 0
    lenient = MnerMetric().compute(predictions=predictions, references=references, mode="default")
    assert lenient["overall_f1"] == 1


@pytest.mark.parametrize(
    ("predictions", "references"),
    [
        ([["O"]], [["O"]]),
        ([], []),
        ([[]], [[]]),
        ([["B-PER"]], [[None]]),
        ([["B-PER"]], [["O"]]),
        ([["O"]], [["B-PER"]]),
    ],
)
@pytest.mark.parametrize("mode", ["strict", "default"])
def test_what_is_undefined_is_zero_without_a_warning(predictions, references, mode):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = score_tags(predictions, references, mode)
    assert scores["overall_f1"] == 0
    assert all(np.isfinite(scores[f"overall_{name}"]) for name in ("precision", "recall", "f1", "accuracy"))


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="1 and 2 sentences"):
        score_tags([["O"]], [["O"], ["O"]])
    with pytest.raises(ValueError, match="got 2 for 1 words in sentence 0"):
        score_tags([["O", "O"]], [["O"]])
    with pytest.raises(ValueError, match="mode 'strict' or 'default'"):
        score_tags([["O"]], [["O"]], "loose")


def test_compute_metrics_takes_every_form_of_output():
    labels = np.array([[-100, 1, 2, 0, -100], [-100, 3, 0, -100, -100]])
    tags = np.array([[-100, 1, 2, 0, -100], [-100, 0, 0, -100, -100]])
    logits = np.eye(5, dtype=np.float32)[np.maximum(tags, 0)]
    hidden = np.zeros((2, 5, 7), np.float32)
    compute = build_compute_metrics({str(number): label for number, label in ID2LABEL.items()})
    expected = {"precision": 1.0, "recall": 0.5, "f1": 2 / 3, "accuracy": 0.8, "recall_LOC": 0.0, "number_PER": 1}
    for predictions in (
        tags,
        (logits, tags),
        (tags, logits),
        logits,
        (logits, None, hidden),
        (logits, (hidden,), tags),
    ):
        scores = compute(EvalPrediction(predictions=predictions, label_ids=labels))
        assert {name: scores[name] for name in expected} == pytest.approx(expected)
        assert all(isinstance(value, float | int) for value in scores.values())
    with pytest.raises(ValueError, match="Expected tag ids of shape"):
        compute(EvalPrediction(predictions=logits[:, :2], label_ids=labels))
    with pytest.raises(ValueError, match="got None"):
        compute(EvalPrediction(predictions=tags, label_ids=None))


def test_tokens_and_words_differ_where_a_tag_changes_within_a_word(bert_processor, label2id):
    words, tags = ["Bundesliga", "wins"], ["B-ORG", "O"]
    encoded = bert_processor.encode_examples({"tokens": [words], "ner_tags": [tags]})
    batch = DataCollatorForMner(bert_processor)([{name: column[0] for name, column in encoded.items()}])
    labels = batch["labels"].numpy()
    predictions = labels.copy()
    # Right on the first token of the word, wrong on the second.
    assert batch["word_start_mask"][0, :3].tolist() == [False, True, False]
    predictions[0, 2] = label2id["O"]
    compute = build_compute_metrics({number: label for label, number in label2id.items()})
    by_token = compute(EvalPrediction(predictions=predictions, label_ids=labels))
    at_words = np.where(batch["word_start_mask"].numpy(), predictions, -100)
    by_word = compute(EvalPrediction(predictions=at_words, label_ids=labels))
    assert by_word["f1"] == score_tags([tags], [tags])["overall_f1"] == 1
    assert by_token["f1"] == 0
    # Where no tag changes within a word, both agree on the entities.
    same = compute(EvalPrediction(predictions=labels, label_ids=labels))
    assert same["f1"] == 1
    assert torch.equal(batch["word_start_mask"].sum(), torch.tensor(2))
