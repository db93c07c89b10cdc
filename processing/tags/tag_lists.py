"""The BIO tags of many sentences: what every function that takes such tags asks first, and their labels."""

from collections.abc import Iterable, Mapping
from typing import Any

from ...configuration.errors import brief, mismatch, shown
from ..sequences import as_list
from .tag_scheme import split_tag


def as_tag_lists(sentences: Any, name: str = "tags") -> list[list[Any] | None]:
    """Bring the tags of sentences to lists, whatever holds them, or None; messages call them `name`."""
    fix = f"The tags of a single sentence are wrapped in a list: [{name}]; those of a dataset are dataset['ner_tags']."
    rows = as_list(sentences)
    if rows is None:
        raise ValueError(
            f"Expected {name} as a list of sentences, each a list of tags, got {type(sentences).__name__} "
            f"{shown(sentences)}. {fix}"
        )
    found = [as_list(tags) for tags in rows]
    for index, (given, tags) in enumerate(zip(rows, found, strict=True)):
        if tags is None and given is not None:
            raise ValueError(
                f"Expected {name} as a list of sentences, each a list of tags, got {type(given).__name__} "
                f"{shown(given)} as sentence {index}. {fix}"
            )
    return found


def check_tags(sentences: Any, name: str = "tags") -> list[list[str | None] | None]:
    """Check that these are the BIO tags of sentences, and bring them to lists; None is unknown.

    >>> check_tags([("B-PER", None), None])
    [['B-PER', None], None]
    """
    found = as_tag_lists(sentences, name)
    known: set[str] = set()
    for index, tags in enumerate(found):
        for tag in tags or ():
            if tag is None or (isinstance(tag, str) and tag in known):
                continue
            try:
                split_tag(tag)
            except ValueError as error:
                raise ValueError(f"In sentence {index} of {name}: {brief(error)}.") from None
            known.add(tag)
    return found


def count_starts(sentences: Iterable[Iterable[tuple[str, str] | None] | None]) -> dict[str, int]:
    """Count by prefix the entities that follow no other of the same type: in IOB1 these begin with "I-".

    Words are given as prefix and type, as `split_tag` splits them. An "I-" after an unknown word doesn't count, since
    its entity may begin there.

    >>> count_starts([[("I", "PER"), ("B", "PER"), ("O", ""), ("I", "LOC")]])
    {'B': 0, 'I': 2}
    """
    found = {"B": 0, "I": 0}
    for tags in sentences:
        previous: str | None = ""
        for item in tags or ():
            if item and item[1] and previous is not None and previous != item[1]:
                found[item[0]] += 1
            previous = item[1] if item else None
    return found


def refuse_iob1(sentences: Iterable[Iterable[str | None] | None], name: str = "tags") -> int:
    """Refuse tags in IOB1; return how many entities begin with "I-" beside others that begin with "B-"."""
    starts = count_starts([None if tag is None else split_tag(tag) for tag in tags or ()] for tags in sentences)
    if starts["I"] and not starts["B"]:
        raise ValueError(
            f"Expected {name} in BIO (IOB2), where each entity starts with 'B-', but no entity does: they seem to be "
            f"IOB1. Convert first: {name} = bga_mner.to_bio({name})."
        )
    return starts["I"]


def labels_from_tags(sentences: Iterable[Iterable[str | None] | None]) -> list[str]:
    """List the labels that a model for these tags needs.

    Parameters
    ----------
    sentences : iterable of (iterable of (str or None) or None)
        One tag per word, one list per sentence. None (unknown) is skipped.

    Returns
    -------
    list of str
        "O", then "B-<type>" and "I-<type>" of each type, sorted by type; both even if only one occurs.

    Raises
    ------
    ValueError
        If a tag is not in the BIO scheme, if the tags are in IOB1, where "B-" only parts neighbouring entities, or
        if the argument is a flat list of tags.

    Examples
    --------
    >>> labels_from_tags([["B-PER", "O"], ["O", "B-LOC", "I-LOC"]])
    ['O', 'B-LOC', 'I-LOC', 'B-PER', 'I-PER']
    """
    checked = check_tags(sentences)
    refuse_iob1(checked)
    types = {split_tag(tag)[1] for tags in checked for tag in tags or () if tag is not None} - {""}
    return ["O", *(f"{prefix}-{label}" for label in sorted(types) for prefix in "BI")]


def check_label2id(label2id: Mapping[str, int] | None) -> dict[str, int]:
    """Return a label mapping with plain ints: 0, 1, 2, ... of "O" and of "B-" and "I-" for each type."""
    fix = "Set label2id = {label: i for i, label in enumerate(labels_from_tags(all_tags))}."
    if not label2id:
        raise mismatch(
            "`label2id`, since labels are given", label2id, "Set processor.label2id = model.config.label2id."
        )
    if not (isinstance(label2id, Mapping) and all(hasattr(number, "__index__") for number in label2id.values())):
        raise mismatch("`label2id` as a dict of labels and whole numbers", label2id, fix)
    ids = {str(label): int(number) for label, number in label2id.items()}
    if sorted(ids.values()) != list(range(len(ids))):
        raise mismatch("the ids of `label2id` to be 0, 1, 2, ...", sorted(ids.values()), fix)
    for label in [*ids, "O"]:
        prefix, kind = split_tag(label)
        partner = {"B": f"I-{kind}", "I": f"B-{kind}", "O": "O"}[prefix]
        if partner not in ids:
            beside = f" beside {shown(label)}" if kind else ""
            raise mismatch(f"`label2id` to hold {shown(partner)}{beside}", list(ids), fix)
    return ids


__all__ = ["as_tag_lists", "check_label2id", "check_tags", "count_starts", "labels_from_tags", "refuse_iob1"]
