"""Measure a student beside its teacher, as its users run it: in the stock pipelines of transformers."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, pipeline

from ...modeling_bga.sequence_classifier import BgaMnerForSequenceClassification
from ..evaluation.bootstrap import score_with_interval
from ..inference.stock_taggers import stock_processor
from ..inference.text_tagging import find_entities
from ..processing_bga_mner import BgaMnerProcessor
from ..tags.label_alignment import UNKNOWN
from ..tags.label_map import name_tags
from ..tags.tag_scheme import spans_from_tags
from ..text.given_words import split_texts
from .teacher_probabilities import GOLD, PROBABILITIES, TEXT, add_teacher_probabilities, gold_tags


class Located(NamedTuple):
    """An entity by its type and its characters."""

    label: str
    start: int
    end: int


def compare_with_teacher(
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    teacher: PreTrainedModel,
    processor: BgaMnerProcessor,
    rows: Dataset,
    *,
    batch_size: int = 16,
) -> dict[str, Any]:
    """Score a student and its teacher on the same texts, and say how often they agree.

    The student runs in the stock pipeline: `pipeline("token-classification", aggregation_strategy="simple")`, or
    `pipeline("text-classification")`. An entity counts if its type and both its ends are right, by characters.

    Parameters
    ----------
    student, tokenizer
        The student and its tokenizer.
    teacher, processor
        Its teacher, and the teacher's processor.
    rows : datasets.Dataset
        As for [`add_teacher_probabilities`]. Both are scored on the rows whose labels are known, and agreement is of
        all.
    batch_size : int, default 16
        Texts at a time.

    Returns
    -------
    dict of str to (dict, float or int)
        `texts`: how many. `agreement`: of a tagger the F1 of the student's entities against the teacher's, of a
        classifier the share of texts that both give the same label. `teacher` and `student`, if any label is known:
        what `score_with_interval` gives, but for the accuracy; of a classifier `accuracy` and `number`. Of a tagger
        also `student_by_words`, the same of tags that are read at the first tokens of words, as `predict` does; and
        `contradictions`: how many of the student's entities begin with an "I-" tag, which a CRF rules out.

    Raises
    ------
    ValueError
        If there are no texts, or as for [`add_teacher_probabilities`].
    """
    if not len(rows):
        raise ValueError("Expected texts to compare student and teacher on, got none. Give some.")
    if isinstance(teacher, BgaMnerForSequenceClassification):
        return _compare_labels(student, tokenizer, teacher, processor, rows, batch_size)
    are_words = "tokens" in rows.column_names
    given = list(rows["tokens" if are_words else TEXT])
    texts, _ = split_texts(given, are_words, processor.word_reader)
    taught, by_words = (
        [[Located(entity.label, entity.start, entity.end) for entity in entities] for entities in found]
        for found in (
            find_entities(texts, teacher, processor, batch_size=batch_size),
            find_entities(texts, student, stock_processor(student, tokenizer), batch_size=batch_size),
        )
    )
    contents = [text.content for text in texts]
    found, contradictions = student_entities(student, tokenizer, contents, batch_size)
    names = {int(number): str(label) for number, label in teacher.config.id2label.items()}
    tags = name_tags(rows)["ner_tags"] if "ner_tags" in rows.column_names else [None] * len(texts)
    gold = [
        None if UNKNOWN in row or not row else entities_at([names[number] for number in row], text.offsets)
        for row, text in zip(gold_tags(texts, tags, given, teacher.config.label2id), texts, strict=True)
    ]
    report: dict[str, Any] = {"texts": len(texts), "contradictions": contradictions}
    report["agreement"] = score_entities(contents, found, taught)["f1"]
    if any(row is not None for row in gold):
        compared = {"teacher": taught, "student": found, "student_by_words": by_words}
        report |= {who: score_entities(contents, entities, gold) for who, entities in compared.items()}
    return report


def student_entities(
    student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], batch_size: int = 16
) -> tuple[list[list[Located]], int]:
    """Tag texts in the stock pipeline; return the entities of each, and how many began with an "I-" tag."""
    texts = list(texts)
    options: dict[str, Any] = {"model": student, "tokenizer": tokenizer, "batch_size": batch_size}
    tag = pipeline("token-classification", **options)
    # longer texts are read in pieces
    group = pipeline(
        "token-classification", aggregation_strategy="simple", stride=tokenizer.model_max_length // 4, **options
    )
    contradictions = 0
    for tokens in tag(texts):
        last: dict[str, Any] = {"index": -1, "entity": "O"}
        for token in tokens:
            goes_on = token["index"] == last["index"] + 1 and token["entity"][1:] == last["entity"][1:]
            contradictions += token["entity"].startswith("I-") and not goes_on
            last = token
    found = []
    for text, entities in zip(texts, group(texts), strict=True):
        trimmed = [_trimmed(Located(one["entity_group"], one["start"], one["end"]), text) for one in entities]
        # a space is no entity
        found.append([entity for entity in trimmed if entity.start < entity.end])
    return found, contradictions


def entities_at(tags: Sequence[str], offsets: Sequence[Sequence[int]]) -> list[Located]:
    """Find the entities of tags of words that stand at these offsets (words, 2)."""
    return [Located(kind, offsets[first][0], offsets[end - 1][1]) for kind, first, end in spans_from_tags(tags)]


def score_entities(
    texts: Sequence[str], found: Sequence[Iterable[Located]], expected: Sequence[Iterable[Located] | None]
) -> dict[str, Any]:
    """Score entities by their characters with intervals, as `score_with_interval` does; None is unknown."""
    known = [row for row in zip(texts, found, expected, strict=True) if row[2] is not None]
    # with a tag for each character entities are equal if all of their characters are
    ours, theirs = ([_character_tags(row[0], row[part]) for row in known] for part in (1, 2))
    scores = score_with_interval(ours, theirs)
    return {name: value for name, value in scores.items() if name != "accuracy"}


def _character_tags(text: str, entities: Any) -> list[str]:
    tags = ["O"] * max(1, len(text))
    for label, start, end in entities:
        tags[start:end] = [f"B-{label}", *[f"I-{label}"] * (end - start - 1)]
    return tags


def _trimmed(entity: Located, text: str) -> Located:
    """Leave out the space before a word, which some tokenizers count as part of it."""
    part = text[entity.start : entity.end]
    return entity._replace(start=entity.start + len(part) - len(part.lstrip()))


def _compare_labels(
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    teacher: Any,
    processor: BgaMnerProcessor,
    rows: Dataset,
    batch_size: int,
) -> dict[str, Any]:
    read = add_teacher_probabilities(rows, teacher, processor, batch_size=batch_size)
    taught = [max(range(len(row)), key=row.__getitem__) for row in read[PROBABILITIES]]
    classify = pipeline("text-classification", model=student, tokenizer=tokenizer, batch_size=batch_size)
    answers = classify(list(read[TEXT]), truncation=True)
    found = [student.config.label2id[answer["label"]] for answer in answers]
    report: dict[str, Any] = {"texts": len(read), "agreement": _share_of_equal(found, taught)}
    known = [row for row, number in enumerate(read[GOLD]) if number != UNKNOWN]
    if known:
        gold = [read[GOLD][row] for row in known]
        for name, labels in (("teacher", taught), ("student", found)):
            accuracy = _share_of_equal([labels[row] for row in known], gold)
            report[name] = {"accuracy": accuracy, "number": len(known)}
    return report


def _share_of_equal(ours: Sequence[int], theirs: Sequence[int]) -> float:
    return sum(one == other for one, other in zip(ours, theirs, strict=True)) / len(ours)


__all__ = ["Located", "compare_with_teacher", "entities_at", "score_entities", "student_entities"]
