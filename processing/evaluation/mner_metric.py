"""Score entities, locally (`evaluate.load` would ask the Hub)."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
from accelerate.state import GradientState
from seqeval.metrics import accuracy_score, classification_report
from seqeval.scheme import IOB2
from transformers import EvalPrediction

from ...configuration.errors import brief, shown
from ..tags.tag_lists import check_tags, refuse_iob1
from ..tags.tag_scheme import split_tag


_DESCRIPTION = "Precision, recall and F1 of entities: an entity counts if its type and both its ends are right."
_CITATION = "seqeval: a Python framework for sequence labeling evaluation, H. Nakayama, 2018"
_INPUTS = """
Args:
    predictions (list of list of str): one BIO tag per word, one list per sentence.
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
        One BIO tag per word.
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
        If lengths differ, a tag is not in the BIO scheme (`to_bio` converts others), or `mode` is unknown.

    Examples
    --------
    >>> score_tags([["B-PER", "O"]], [["B-PER", "B-LOC"]])["overall_recall"]
    0.5
    """
    _check_mode(mode)
    return _score(pair_sentences(predictions, references, strict=mode == "strict"), mode)


def _check_mode(mode: str) -> None:
    if mode not in ("strict", "default"):
        raise ValueError(f"Expected mode 'strict' or 'default', got {shown(mode)}. Pass one of them.")


def _score(pairs: list[tuple[list[str], list[str]]], mode: str) -> dict[str, Any]:
    """Score predicted beside expected tags, one pair per sentence."""
    predicted, expected = [ours for ours, _ in pairs], [theirs for _, theirs in pairs]
    report: dict[str, Any] = {"micro avg": {"precision": 0, "recall": 0, "f1-score": 0}}
    # seqeval cannot cope with there being no entity on either side; in strict mode each begins with "B-".
    starts = "B-" if mode == "strict" else ("B-", "I-")
    if any(tag.startswith(starts) for tags in (*predicted, *expected) for tag in tags):
        options = {"mode": "strict", "scheme": IOB2} if mode == "strict" else {}
        report = classification_report(expected, predicted, output_dict=True, zero_division=0, **options)
    overall = report.pop("micro avg")
    names = {"precision": "precision", "recall": "recall", "f1": "f1-score"}
    scores: dict[str, Any] = {
        kind: {name: float(values[key]) for name, key in names.items()} | {"number": int(values["support"])}
        for kind, values in report.items()
        if kind not in ("macro avg", "weighted avg")
    }
    scores |= {f"overall_{name}": float(overall[key]) for name, key in names.items()}
    # The accuracy of no words is a division by zero.
    scores["overall_accuracy"] = float(accuracy_score(expected, predicted)) if any(expected) else 0.0
    return scores


def pair_sentences(
    predictions: Iterable[Sequence[str]], references: Iterable[Sequence[str | None]], strict: bool = True
) -> list[tuple[list[str], list[str]]]:
    """Put predicted beside expected tags of the words whose tag is known; strict ones must be IOB2."""
    predicted, expected = check_tags(predictions, "predictions"), check_tags(references, "references")
    if len(predicted) != len(expected):
        raise ValueError(
            f"Expected as many predictions as references, got {len(predicted)} and {len(expected)} sentences. "
            "Give both for the same sentences, in the same order."
        )
    pairs: list[tuple[list[str], list[str]]] = []
    for index, (ours, theirs) in enumerate(zip(predicted, expected, strict=True)):
        if ours is None:
            raise ValueError(f"Expected predicted tags for sentence {index}, got None. Predict 'O' for its words.")
        theirs = [None] * len(ours) if theirs is None else theirs
        if len(ours) != len(theirs):
            raise ValueError(
                f"Expected one predicted tag per word, got {len(ours)} for {len(theirs)} words in sentence {index}. "
                "Reduce tags of tokens to tags of words first."
            )
        known = [(our, their) for our, their in zip(ours, theirs, strict=True) if their is not None]
        if any(our is None for our, _ in known):
            raise ValueError(
                f"Expected a predicted tag for each word whose tag is known, got None in sentence {index}. Predict 'O'."
            )
        pairs.append(([str(our) for our, _ in known], [str(their) for _, their in known]))
    if strict:
        _warn_of_starts(predicted, expected)
    return pairs


def _warn_of_starts(predicted: Sequence[list[str | None] | None], expected: Sequence[list[str | None] | None]) -> None:
    uncounted = refuse_iob1(expected, "references")
    if uncounted:
        warnings.warn(
            f"{uncounted} entities of the references begin with 'I-', so that strict scores leave them out. Mend them "
            "first: references = bga_mner.to_bio(references).",
            stacklevel=4,
        )
    try:
        refuse_iob1(predicted, "predictions")
    except ValueError as error:
        warnings.warn(f"Strict scores count nothing of what is predicted. {brief(error)}.", stacklevel=4)


class MnerMetric(evaluate.Metric):
    """Entity-level scores as an `evaluate.Metric` that needs no network.

    Parameters
    ----------
    **kwargs : object
        For `evaluate.Metric`. `keep_in_memory` is on, unless several processes take part.

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

    def add_batch(
        self,
        *,
        predictions: Iterable[Sequence[str]] | None = None,
        references: Iterable[Sequence[str | None]] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep tags of sentences, as `evaluate.Metric` does, whose own message about others holds all of them."""
        given = {"predictions": predictions, "references": references}
        checked = {name: value if value is None else check_tags(value, name) for name, value in given.items()}
        super().add_batch(**checked, **kwargs)

    def _compute(
        self, predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str | None]], mode: str = "strict"
    ) -> dict[str, Any]:
        return score_tags(predictions, references, mode)


def build_compute_metrics(id2label: Mapping[int, str], mode: str = "strict") -> Callable[..., dict[str, float]]:
    """Make the `compute_metrics` function for a Trainer.

    Scored are the positions where the label is known (not -100) and a prediction was made (not -100). To score words,
    as papers do, the model's `predictions` must be -100 away from the first token of each word; it knows these
    from `word_start_mask`, which processor and collator provide. Where it does not, tokens are scored: a span that
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
        Takes a `transformers.EvalPrediction`, whose `predictions` are tag ids (B, L), or scores (B, L, T), or a tuple
        of outputs of which the first integer array of shape (B, L) is taken; or a list of these, one per batch, as with
        `eval_do_concat_batches=False`. Returns precision, recall, f1 and accuracy, and for each type `f1_<type>`,
        `precision_<type>`, `recall_<type>`, `number_<type>`. With `batch_eval_metrics=True` Trainer calls it
        for each batch with `compute_result`: False keeps the batch and returns nothing, True returns the scores of
        all batches of this evaluation.

    Raises
    ------
    ValueError
        If a label is not in the BIO scheme; and by the function, if labels and predictions don't fit together or are
        no ids of `id2label`.

    Examples
    --------
    >>> Trainer(..., compute_metrics=build_compute_metrics(model.config.id2label))  # doctest: +SKIP
    """
    numbers = isinstance(id2label, Mapping) and all(str(number).strip().isdecimal() for number in id2label)
    if not numbers or not id2label:
        raise ValueError(
            f"Expected `id2label` as a dict of ids and labels, got {shown(id2label)}. Pass model.config's."
        )
    _check_mode(mode)
    names = {int(number): str(label) for number, label in id2label.items()}
    for label in names.values():
        split_tag(label)
    return _TagScorer(names, mode)


class _TagScorer:
    """What `build_compute_metrics` makes: a class, since tags of earlier batches have to be kept."""

    def __init__(self, names: dict[int, str], mode: str) -> None:
        self.names, self.mode = names, mode
        self._kept: list[tuple[list[str], list[str]]] = []
        self._kept_of: tuple[Any, ...] = ()

    def __call__(self, evaluation: EvalPrediction, compute_result: bool | None = None) -> dict[str, float]:
        predictions, labels = evaluation[0], evaluation[1]  # EvalPrediction, or a pair of these
        # batches that aren't concatenated come as lists; several outputs of a batch as a tuple
        batches = zip(predictions, labels, strict=True) if isinstance(labels, list) else [(predictions, labels)]
        pairs = [pair for batch in batches for pair in self._pairs(*batch)]
        if compute_result is None:
            return self._scores(pairs)
        # the batches of an evaluation that was broken off are still here, but the next one reads from another loader
        loader = GradientState().active_dataloader
        of = (loader, getattr(loader, "iteration", None))
        if of != self._kept_of:
            self._kept, self._kept_of = [], of
        self._kept += pairs
        if not compute_result:
            return {}
        pairs, self._kept, self._kept_of = self._kept, [], ()
        return self._scores(pairs)

    def _pairs(self, predictions: Any, labels: Any) -> list[tuple[list[str], list[str]]]:
        """Find the tags of each sentence of a batch, predicted and expected, where both are known."""
        if isinstance(labels, tuple):  # of several `label_names`
            labels = next((column for column in labels if _is_tags(column)), labels[0])
        if labels is None:
            raise ValueError("Expected labels to compare with, got None. Give the evaluation set a 'labels' column.")
        labels = _as_array(labels)
        tags = _pick_tags(predictions, labels)
        known = (labels != -100) & (tags != -100)
        for what, ids in (("labels", labels[known]), ("predictions", tags[known])):
            if strange := sorted(set(np.unique(ids).tolist()) - set(self.names)):
                raise ValueError(
                    f"Expected ids of `id2label` ({min(self.names)} to {max(self.names)}) or -100 as {what}, got "
                    f"{shown(strange)}. Give the id2label of the model that predicts."
                )
        return [
            ([self.names[int(tag)] for tag in ours[mask]], [self.names[int(tag)] for tag in theirs[mask]])
            for ours, theirs, mask in zip(tags, labels, known, strict=True)
        ]

    def _scores(self, pairs: list[tuple[list[str], list[str]]]) -> dict[str, float]:
        # of tokens, of which a prediction may begin anywhere with "I-"
        scores = _score(pairs, self.mode)
        flat: dict[str, float] = {
            name: scores.pop(f"overall_{name}") for name in ("precision", "recall", "f1", "accuracy")
        }
        for kind, values in scores.items():
            flat.update({f"{name}_{kind}": value for name, value in values.items()})
        return flat


def _is_tags(values: Any) -> bool:
    return values.ndim == 2 and np.issubdtype(_as_array(values).dtype, np.integer)


def _as_array(values: Any) -> np.ndarray:
    """Bring what a batch is scored by to numpy, which has no bfloat16."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.is_floating_point() else values).numpy()
    return np.asarray(values)


def _pick_tags(predictions: Any, labels: np.ndarray) -> np.ndarray:
    """Find the predicted tag ids (B, L) among a model's outputs."""
    outputs = predictions if isinstance(predictions, tuple | list) else [predictions]
    # left where they are until one fits: others may be large
    arrays = [output for output in outputs if isinstance(output, np.ndarray | torch.Tensor)]
    for array in arrays:
        if array.shape == labels.shape and _is_tags(array):
            return _as_array(array)
    for array in arrays:
        # (B, L, T) -> (B, L)
        if array.ndim == 3 and array.shape[:2] == labels.shape:
            return _as_array(array).argmax(axis=-1)
    raise ValueError(
        f"Expected tag ids of shape {labels.shape} as integers, or scores {(*labels.shape, 'T')}, among the model's "
        f"outputs, got {[(tuple(array.shape), str(array.dtype)) for array in arrays]}. Check "
        "`preprocess_logits_for_metrics` and `keys_to_ignore_at_inference`. With more predictions than "
        "labels: batches without any label have none, so leave sentences without labels out of the evaluation set."
    )


__all__ = ["MnerMetric", "build_compute_metrics", "pair_sentences", "score_tags"]
