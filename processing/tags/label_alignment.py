"""Bring tags of words onto tokens."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from ...configuration.errors import brief, shown
from ..sequences import as_list
from .tag_scheme import repair_bio, split_tag


# The label that losses and metrics skip: unknown, or no word.
UNKNOWN = -100


def read_word_labels(
    word_labels: Sequence[Any], sentences: Sequence[Sequence[str]], label2id: Mapping[str, int] | None
) -> list[list[str | None]]:
    """Bring the tags or ids of words to strings in clean BIO, None where unknown; warn of what is mended."""
    rows = as_list(word_labels)
    if rows is None:
        kind = type(word_labels).__name__
        raise ValueError(f"Expected `word_labels` as a list, got {kind} {shown(word_labels)}. Give a list per text.")
    if len(rows) != len(sentences):
        raise ValueError(
            f"Expected one item of `word_labels` per text, got {len(rows)} for {len(sentences)} texts. Give None for a "
            "text without labels."
        )
    known: dict[str, int] = {}
    names: dict[int, str] = {}
    tags_of_sentences: list[list[str | None]] = []
    repairs, repaired_sentences = 0, 0
    for index, (given, words) in enumerate(zip(rows, sentences, strict=True)):
        labels = _labels_of_text(given, index)
        if labels is None:
            tags_of_sentences.append([None] * len(words))
            continue
        if len(labels) != len(words):
            raise ValueError(
                f"Expected one label per word, got {len(labels)} labels for the {len(words)} words of text {index}. "
                "Give None for an unknown label."
            )
        if not known and any(label is not None and label != UNKNOWN for label in labels):
            known = _known_labels(label2id)
            names = {number: label for label, number in known.items()}
        tags, changed = repair_bio([_tag(label, known, names, index) for label in labels])
        repairs += changed
        repaired_sentences += changed > 0
        tags_of_sentences.append(tags)
    if repairs:
        warnings.warn(
            f"{repairs} tags in {repaired_sentences} of {len(sentences)} texts began an entity with 'I-' and were read "
            "as 'B-'. Mend the data with repair_bio.",
            stacklevel=4,
        )
    return tags_of_sentences


def align_tags(
    tags: Sequence[str | None],
    tokens_per_word: Sequence[int],
    label2id: Mapping[str, int] | None,
    specials: tuple[int, int],
) -> list[int]:
    """Spread the tags of words over their tokens; `specials` are the numbers of special tokens before and after.

    A word's other tokens are "I-" of its type, or "O". Special tokens are "O" if any tag is known, so that no entity is
    ever learned to start there.

    >>> align_tags(["B-PER", "O"], [2, 1], {"O": 0, "B-PER": 1, "I-PER": 2}, (1, 1))
    [0, 1, 2, 0, 0]
    """
    ids = label2id or {}
    special = UNKNOWN if all(tag is None for tag in tags) else ids["O"]
    labels = [special] * specials[0]
    for tag, count in zip(tags, tokens_per_word, strict=True):
        if tag is None:
            labels += [UNKNOWN] * count
            continue
        inner = tag if tag == "O" else f"I-{tag[2:]}"
        labels += [ids[tag]] + [ids[inner]] * (count - 1)
    return labels + [special] * specials[1]


def _known_labels(label2id: Mapping[str, int] | None) -> dict[str, int]:
    try:
        from .tag_lists import check_label2id
    except ImportError:  # what is saved was checked before
        return dict(label2id or {})
    return check_label2id(label2id)


def _labels_of_text(given: Any, index: int) -> list[Any] | None:
    labels = None if given is None else as_list(given)
    if given is not None and labels is None:
        raise ValueError(
            f"Expected the labels of text {index} as a list with one label per word, or None, got "
            f"{type(given).__name__} {shown(given)}. Wrap those of a single text: word_labels=[labels]."
        )
    return labels


def _tag(label: Any, known: Mapping[str, int], names: Mapping[int, str], index: int) -> str | None:
    if label is None:
        return None
    if isinstance(label, str):
        if label in known:
            return label
        try:
            split_tag(label)
        except ValueError as error:
            raise ValueError(f"In text {index}: {brief(error)}.") from None
        raise ValueError(
            f"Expected the labels {shown(list(known))}, got {shown(label)} in text {index}. Correct it, or `label2id` "
            "of model and processor."
        )
    try:
        number = int(label)
    except (TypeError, ValueError):
        number = UNKNOWN - 1
    if number == UNKNOWN:
        return None
    if number not in names or number != label:
        raise ValueError(
            f"Expected labels as strings, or as ids 0 to {len(names) - 1}, got {shown(label)} in text {index}. Give "
            "None or -100 for unknown labels."
        )
    return names[number]


__all__ = ["UNKNOWN", "align_tags", "read_word_labels"]
