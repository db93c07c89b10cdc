"""Tags in the BIO scheme (IOB2): checking, mending, reading spans, listing labels. Pure Python."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..configuration.messages import brief, shown
from .sequences import as_list


_FIX_IDS = (
    "Ids need their names: those of a datasets.ClassLabel are dataset.features['ner_tags'].feature.names, and "
    "bga_mner.name_tags(dataset) puts them in the place of the ids."
)


def split_tag(tag: str) -> tuple[str, str]:
    """Split a BIO tag into its prefix and its entity type.

    Parameters
    ----------
    tag : str
        "O", "B-<type>" or "I-<type>".

    Returns
    -------
    tuple of (str, str)
        Prefix "O", "B" or "I", and the type, "" for "O".

    Raises
    ------
    ValueError
        If `tag` is anything else.

    Examples
    --------
    >>> split_tag("B-GEO-LOC")
    ('B', 'GEO-LOC')
    """
    if isinstance(tag, str):
        if tag == "O":
            return "O", ""
        if len(tag) > 2 and tag[1] == "-" and tag[0] in "BI":
            return tag[0], tag[2:]
    raise ValueError(_why_not_bio(tag))


def _why_not_bio(tag: Any) -> str:
    """Say what a tag is, if it is not BIO, and what makes BIO of it."""
    if isinstance(tag, str):
        prefix, dash, kind = tag.partition("-")
        if dash and kind and prefix in tuple("ESLUMW"):
            return (
                f"Expected BIO tags, got {shown(tag)}, which belongs to the BIOES scheme or one like it. Convert all "
                "sentences first: tags = bga_mner.to_bio(tags)."
            )
        fix = "Check how the tags were made."
        if tag == "o" or (dash and kind and prefix in tuple("bieslumw")):
            fix = "Convert all sentences first, which writes prefixes in capitals: tags = bga_mner.to_bio(tags)."
        elif tag.lstrip("-").isdecimal():
            fix = _FIX_IDS
        elif re.match("LABEL_[0-9]+$", tag):
            fix = "That is what transformers calls a label without a name: give the model its labels with id2label."
        elif re.match("[BIESLUMW]$", tag):
            fix = f"Behind the prefix stands the type: where all entities are of one, call it as you like, '{tag}-ENT'."
        elif re.match("[BIESLUMW][^A-Za-z-].|.+-[BIESLUMW]$", tag):
            fix = "A prefix stands in front, with a '-' behind it: write the tags so."
        elif tag and not dash:
            fix = (
                "If these are entity types without a prefix, name the scheme: to_bio(tags, scheme='IO'), "
                "read_conll(path, scheme='IO'), or --tag_scheme IO."
            )
        return f"Expected a BIO tag such as 'O', 'B-PER' or 'I-PER', got {shown(tag)}. {fix}"
    what = f"the {type(tag).__name__} {shown(tag)}"
    if isinstance(tag, list | tuple | Mapping):
        return f"Expected one BIO tag such as 'B-PER' a word, got {what}. Check how deep the lists of tags are nested."
    fix = _FIX_IDS if hasattr(tag, "__index__") else "A word without a known tag has None."
    return f"Expected a BIO tag such as 'O', 'B-PER' or 'I-PER', got {what}. {fix}"


def as_tag_lists(sentences: Any, name: str = "tags") -> list[list[Any] | None]:
    """Bring the tags of sentences to lists, whatever holds them, without looking at the tags.

    Parameters
    ----------
    sentences : iterable of (iterable or None)
        One list of tags a sentence. A sequence is whatever `sequences.as_list` takes.
    name : str, default "tags"
        What messages call them.

    Returns
    -------
    list of (list or None)
        None where there is none, or NaN.

    Raises
    ------
    ValueError
        If this isn't a list of sentences: a flat list of tags, a dataset, a number.

    Examples
    --------
    >>> as_tag_lists((("B-PER", "O"), None))
    [['B-PER', 'O'], None]
    """
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
    """Check that these are the BIO tags of sentences: what every function that takes tags asks first.

    Parameters
    ----------
    sentences : iterable of (iterable of (str or None) or None)
        One list of tags a sentence; None stands for an unknown tag, or for a sentence without tags.
    name : str, default "tags"
        What messages call them.

    Returns
    -------
    list of (list of (str or None) or None)
        The same as lists.

    Raises
    ------
    ValueError
        If this isn't a list of sentences, or a tag is not in the BIO scheme. The message names the sentence.

    Examples
    --------
    >>> check_tags([("B-PER", None), None])
    [['B-PER', None], None]
    """
    found = as_tag_lists(sentences, name)
    known: set[Any] = {None}
    for index, tags in enumerate(found):
        for tag in tags or ():
            try:
                if tag in known:
                    continue
                split_tag(tag)
                known.add(tag)
            except TypeError:  # of a list, which no set can hold
                raise ValueError(f"In sentence {index} of {name}: {_why_not_bio(tag)}") from None
            except ValueError as error:
                raise ValueError(f"In sentence {index} of {name}: {brief(error)}.") from None
    return found


def repair_bio(tags: Sequence[str | None]) -> tuple[list[str | None], int]:
    """Make every entity start with a B- tag.

    "I-X" that follows neither "B-X" nor "I-X" becomes "B-X". None stands for an unknown tag and stays; an "I-X"
    after it is left alone, since the unknown word may be the start of the entity.

    Parameters
    ----------
    tags : sequence of (str or None)
        One tag a word.

    Returns
    -------
    tuple of (list of (str or None), int)
        The mended tags and how many of them were changed.

    Raises
    ------
    ValueError
        If a tag is not in the BIO scheme.

    Examples
    --------
    >>> repair_bio(["I-PER", "I-PER", "I-LOC", None, "I-LOC"])
    (['B-PER', 'I-PER', 'B-LOC', None, 'I-LOC'], 2)
    """
    mended: list[str | None] = []
    repairs = 0
    previous: str | None = ""  # type of the entity that goes on up to here, None where unknown
    for tag in tags:
        if tag is None:
            mended.append(None)
            previous = None
            continue
        prefix, label = split_tag(tag)
        if prefix == "I" and previous is not None and previous != label:
            tag = f"B-{label}"
            repairs += 1
        mended.append(tag)
        previous = label
    return mended, repairs


def spans_from_tags(tags: Iterable[str | None]) -> list[tuple[str, int, int]]:
    """Read the entity spans off a sequence of tags.

    Tags that break the scheme are read like `repair_bio` would mend them; unknown words (None) are outside.

    Parameters
    ----------
    tags : iterable of (str or None)
        One tag a word.

    Returns
    -------
    list of tuple of (str, int, int)
        Type, first word and the word behind the last one, in order.

    Raises
    ------
    ValueError
        If a tag is not in the BIO scheme.

    Examples
    --------
    >>> spans_from_tags(["B-PER", "I-PER", "O", "B-LOC", "B-LOC"])
    [('PER', 0, 2), ('LOC', 3, 4), ('LOC', 4, 5)]
    """
    spans: list[tuple[str, int, int]] = []
    current, start, position = "", 0, 0
    for position, tag in enumerate(tags):
        prefix, label = ("O", "") if tag is None else split_tag(tag)
        if prefix == "I" and label == current:
            continue
        if current:
            spans.append((current, start, position))
        current, start = label, position
    if current:
        spans.append((current, start, position + 1))
    return spans


def count_starts(sentences: Iterable[Iterable[tuple[str, str] | None] | None]) -> dict[str, int]:
    """Count by prefix the entities that stand behind no other of the same type: in IOB1 these begin with "I-".

    Parameters
    ----------
    sentences : iterable of (iterable of (tuple of (str, str) or None) or None)
        Prefix and type of each word, as `split_tag` gives them; None where unknown.

    Returns
    -------
    dict of str to int
        For "B" and for "I". An "I-" after an unknown word doesn't count, since its entity may begin there.

    Examples
    --------
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
    """Refuse tags in IOB1, where "B-" only parts neighbouring entities.

    Parameters
    ----------
    sentences : iterable of (iterable of (str or None) or None)
        BIO tags.
    name : str, default "tags"
        What the message calls them.

    Returns
    -------
    int
        How many entities begin with "I-", beside others that begin with "B-".

    Raises
    ------
    ValueError
        If there are entities, and none begins with "B-".
    """
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
        One tag a word, one list a sentence. None (unknown) is skipped.

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
    """Check that a label mapping can hold BIO tags.

    Parameters
    ----------
    label2id : mapping of str to int or None
        Ids of the labels.

    Returns
    -------
    dict of str to int
        The same mapping with plain ints.

    Raises
    ------
    ValueError
        If it is None or empty, lacks "O" or the partner of a B- or I- label, or if its ids are not 0, 1, 2, ...

    Examples
    --------
    >>> check_label2id({"O": 0, "B-PER": 1, "I-PER": 2})
    {'O': 0, 'B-PER': 1, 'I-PER': 2}
    """
    fix = "labels_from_tags(all_tags) lists the labels: label2id = {label: i for i, label in enumerate(labels)}."
    if label2id and not (
        isinstance(label2id, Mapping) and all(hasattr(number, "__index__") for number in label2id.values())
    ):
        raise ValueError(f"Expected `label2id` as a dict of labels and whole numbers, got {shown(label2id)}. {fix}")
    if not label2id:
        raise ValueError(
            "Expected `label2id` to be set, since labels are given, got none. Set `processor.label2id = "
            f"model.config.label2id`. {fix}"
        )
    ids = {str(label): int(number) for label, number in label2id.items()}
    if sorted(ids.values()) != list(range(len(ids))):
        raise ValueError(f"Expected the ids of `label2id` to be 0, 1, 2, ..., got {shown(sorted(ids.values()))}. {fix}")
    for label in ids:
        prefix, kind = split_tag(label)
        partner = {"B": f"I-{kind}", "I": f"B-{kind}", "O": "O"}[prefix]
        if partner not in ids:
            raise ValueError(
                f"Expected `label2id` to hold {shown(partner)} beside {shown(label)}, got {shown(list(ids))}. {fix}"
            )
    if "O" not in ids:
        raise ValueError(f"Expected `label2id` to hold 'O', got {shown(list(ids))}. {fix}")
    return ids


__all__ = [
    "as_tag_lists",
    "check_label2id",
    "check_tags",
    "count_starts",
    "labels_from_tags",
    "refuse_iob1",
    "repair_bio",
    "spans_from_tags",
    "split_tag",
]
