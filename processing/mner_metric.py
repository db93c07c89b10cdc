"""Score entities, locally (`evaluate.load` would ask the Hub)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from seqeval.metrics import accuracy_score, classification_report
from seqeval.scheme import IOB2

from ..configuration.messages import shown
from .bootstrap import pair_sentences


_DESCRIPTION = "Precision, recall and F1 of entities: an entity counts if its type and both its ends are right."
_CITATION = "seqeval: a Python framework for sequence labeling evaluation, H. Nakayama, 2018"
_INPUTS = """
Args:
    predictions (list of list of str): one BIO tag a word, one list a sentence.
    references (list of list of str or None): the same; words whose tag is None (unknown) are left out of both.
    mode (str): "strict" (default) counts entities that are well-formed in IOB2; "default" is the lenient reading of the
        CoNLL scripts, which also accepts entities that begin with "I-".
Returns:
    overall_precision, overall_recall, overall_f1, overall_accuracy (of tags), and by type a dict with precision,
    recall, f1 and number (of entities in the references).
"""


def score_tags(
    predictions: Iterable[Sequence[str]], references: Iterable[Sequence[str | None]], mode: str = "strict"
) -> dict[str, Any]:
    """Compare tags word by word and entity by entity.

    Parameters
    ----------
    predictions : iterable of sequences of str
        One BIO tag a word.
    references : iterable of sequences of (str or None)
        The same; None where unknown.
    mode : {"strict", "default"}
        Whether entities must be well-formed in IOB2.

    Returns
    -------
    dict of str to (float or dict)
        As described for `MnerMetric`. What is undefined (no entity at all) is 0.

    Raises
    ------
    ValueError
        If lengths differ or `mode` is unknown.

    Examples
    --------
    >>> score_tags([["B-PER", "O"]], [["B-PER", "B-LOC"]])["overall_recall"]
    0.5
    """
    if mode not in ("strict", "default"):
        raise ValueError(f"Expected mode 'strict' or 'default', got {shown(mode)}.")
    predicted: list[list[str]] = []
    expected: list[list[str]] = []
    for ours, theirs in pair_sentences(predictions, references):
        pairs = [(str(our), str(their)) for our, their in zip(ours, theirs, strict=True) if their is not None]
        predicted.append([our for our, _ in pairs])
        expected.append([their for _, their in pairs])
    scores: dict[str, Any] = {}
    overall = {"precision": 0.0, "recall": 0.0, "f1-score": 0.0}
    # seqeval cannot cope with there being no entity on either side; in strict mode each begins with "B-".
    starts = "B-" if mode == "strict" else ("B-", "I-")
    if any(tag.startswith(starts) for tags in (*predicted, *expected) for tag in tags):
        options = {"mode": "strict", "scheme": IOB2} if mode == "strict" else {}
        report = classification_report(expected, predicted, output_dict=True, zero_division=0, **options)
        overall = report.pop("micro avg")
        for name in ("macro avg", "weighted avg"):
            report.pop(name, None)
        for name, values in report.items():
            scores[name] = {
                "precision": float(values["precision"]),
                "recall": float(values["recall"]),
                "f1": float(values["f1-score"]),
                "number": int(values["support"]),
            }
    scores["overall_precision"] = float(overall["precision"])
    scores["overall_recall"] = float(overall["recall"])
    scores["overall_f1"] = float(overall["f1-score"])
    # The accuracy of no words is a division by zero.
    scores["overall_accuracy"] = float(accuracy_score(expected, predicted)) if any(expected) else 0.0
    return scores


class MnerMetric(evaluate.Metric):
    """Entity-level scores as an `evaluate.Metric` that needs no network.

    Parameters
    ----------
    **kwargs : object
        For `evaluate.Metric`. ``keep_in_memory`` is on, unless several processes take part.

    Examples
    --------
    >>> MnerMetric().compute(predictions=[["B-PER"]], references=[["B-PER"]])["overall_f1"]
    1.0
    """

    def __init__(self, **kwargs: Any):
        kwargs.setdefault("keep_in_memory", kwargs.get("num_process", 1) == 1)
        super().__init__(**kwargs)

    def _info(self) -> evaluate.MetricInfo:
        tags = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": tags, "references": tags}),
        )

    def _compute(
        self, predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str | None]], mode: str = "strict"
    ) -> dict[str, Any]:
        return score_tags(predictions, references, mode)


def build_compute_metrics(id2label: Mapping[int, str], mode: str = "strict") -> Callable[[Any], dict[str, float]]:
    """Make the ``compute_metrics`` function for a Trainer.

    Scored are the positions where the label is known (not -100) and a prediction was made (not -100). To score words,
    as papers do, the model's ``predictions`` must be -100 away from the first token of each word; it knows these
    from ``word_start_mask``, which processor and collator provide. Where it does not, tokens are scored: a span that
    changes its tag within a word then counts as an error.

    Parameters
    ----------
    id2label : mapping of int to str
        As in the model's config.
    mode : {"strict", "default"}
        As in `score_tags`.

    Returns
    -------
    callable
        Takes a `transformers.EvalPrediction`, whose ``predictions`` are tag ids (B, L), or scores (B, L, T), or a tuple
        of outputs of which the first integer array of shape (B, L) is taken. Returns precision, recall, f1
        and accuracy, and for each type ``f1_<type>``, ``precision_<type>``, ``recall_<type>``, ``number_<type>``.

    Examples
    --------
    >>> Trainer(..., compute_metrics=build_compute_metrics(model.config.id2label))  # doctest: +SKIP
    """
    names = {int(number): str(label) for number, label in id2label.items()}

    def compute_metrics(evaluation: Any) -> dict[str, float]:
        predictions, labels = evaluation.predictions, evaluation.label_ids
        if isinstance(labels, tuple | list):
            labels = labels[0]
        if labels is None:
            raise ValueError("Expected labels to compare with, got None. Give the evaluation set a 'labels' column.")
        labels = np.asarray(labels)
        tags = _pick_tags(predictions, labels)
        known = (labels != -100) & (tags != -100)
        scores = score_tags(
            [[names[int(tag)] for tag in row[mask]] for row, mask in zip(tags, known, strict=True)],
            [[names[int(tag)] for tag in row[mask]] for row, mask in zip(labels, known, strict=True)],
            mode,
        )
        flat: dict[str, float] = {
            name: scores.pop(f"overall_{name}") for name in ("precision", "recall", "f1", "accuracy")
        }
        for kind, values in scores.items():
            flat.update({f"{name}_{kind}": value for name, value in values.items()})
        return flat

    return compute_metrics


def _pick_tags(predictions: Any, labels: np.ndarray) -> np.ndarray:
    """Find the predicted tag ids (B, L) among a model's outputs."""
    outputs = list(predictions) if isinstance(predictions, tuple | list) else [predictions]
    arrays = [output for output in outputs if isinstance(output, np.ndarray)]
    for array in arrays:
        if array.shape == labels.shape and np.issubdtype(array.dtype, np.integer):
            return array
    for array in arrays:
        # (B, L, T) -> (B, L)
        if array.ndim == 3 and array.shape[:2] == labels.shape:
            return array.argmax(axis=-1)
    raise ValueError(
        f"Expected tag ids of shape {labels.shape} as integers, or scores {(*labels.shape, 'T')}, among the model's "
        f"outputs, got {[(array.shape, str(array.dtype)) for array in arrays]}. Check `preprocess_logits_for_metrics` "
        "and `keys_to_ignore_at_inference`."
    )


__all__ = ["MnerMetric", "build_compute_metrics", "score_tags"]
