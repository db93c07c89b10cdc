"""Tags in the BIO scheme (IOB2): mending, reading spans, listing labels. Pure Python."""

from collections.abc import Iterable, Mapping, Sequence


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
    if tag == "O":
        return "O", ""
    if isinstance(tag, str) and len(tag) > 2 and tag[1] == "-":
        if tag[0] in "BI":
            return tag[0], tag[2:]
        if tag[0] in "ESLU":
            raise ValueError(
                f"Expected BIO tags, got {tag!r}, which belongs to the BIOES scheme. Convert first: replace the "
                "prefixes 'S-' and 'U-' by 'B-', and 'E-' and 'L-' by 'I-'."
            )
    raise ValueError(f"Expected a BIO tag such as 'O', 'B-PER' or 'I-PER', got {tag!r}. Check how the tags were made.")


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


def labels_from_tags(sentences: Iterable[Iterable[str | None]]) -> list[str]:
    """List the labels that a model for these tags needs.

    Parameters
    ----------
    sentences : iterable of iterables of (str or None)
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
    types: set[str] = set()
    starts_with_i = 0
    starts_with_b = 0
    for tags in sentences:
        if isinstance(tags, str):
            raise ValueError(
                f"Expected a list of sentences, each a list of tags, got the string {tags!r} as a sentence. "
                "Wrap the tags of a single sentence in a list: labels_from_tags([tags])."
            )
        previous: str | None = ""
        for tag in tags or ():
            if tag is None:
                previous = None
                continue
            prefix, label = split_tag(tag)
            if label:
                types.add(label)
            if previous is not None and previous != label:
                starts_with_i += prefix == "I"
                starts_with_b += prefix == "B"
            previous = label
    if starts_with_i and not starts_with_b:
        raise ValueError(
            "Expected BIO tags (IOB2), where each entity starts with 'B-', but no entity does: the tags seem to be "
            "IOB1. Convert first: tags = [repair_bio(sentence)[0] for sentence in tags]."
        )
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
        raise ValueError(f"Expected `label2id` as a dict of labels and whole numbers, got {str(label2id)[:200]}. {fix}")
    if not label2id:
        raise ValueError(
            "Expected `label2id` to be set, since labels are given, got none. Set `processor.label2id = "
            f"model.config.label2id`. {fix}"
        )
    ids = {str(label): int(number) for label, number in label2id.items()}
    if sorted(ids.values()) != list(range(len(ids))):
        raise ValueError(f"Expected the ids of `label2id` to be 0, 1, 2, ..., got {sorted(ids.values())}. {fix}")
    for label in ids:
        prefix, kind = split_tag(label)
        partner = {"B": f"I-{kind}", "I": f"B-{kind}", "O": "O"}[prefix]
        if partner not in ids:
            raise ValueError(f"Expected `label2id` to hold {partner!r} beside {label!r}, got {list(ids)}. {fix}")
    if "O" not in ids:
        raise ValueError(f"Expected `label2id` to hold 'O', got {list(ids)}. {fix}")
    return ids


__all__ = ["check_label2id", "labels_from_tags", "repair_bio", "spans_from_tags", "split_tag"]
