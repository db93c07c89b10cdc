"""Tags of other schemes to BIO (IOB2)."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ...configuration.errors import brief, shown
from .tag_lists import as_tag_lists, count_starts
from .tag_scheme import split_tag


# What each scheme writes before a type. "O" is in all of them.
SCHEMES = {
    "IOB2": "BI",
    "IOB1": "BI",
    "BIOES": "BIES",
    "BILOU": "BILU",
    "BMES": "BMES",
    "BMEWO": "BMEW",
    "IOE1": "IE",
    "IOE2": "IE",
    "IO": "I",
}
_ALIASES = {"BIO": "IOB2", "IOB": "IOB1"} | {  # other orders of the same letters: "IOBES", "BILUO", "BMESO", ...
    frozenset(letters): name for name, letters in SCHEMES.items() if not letters.strip("BIESLUMW") and len(letters) == 4
}
_BEGIN, _END = "BSUW", "ELSUW"
# Schemes that mark the last word of each entity, so that one without the mark is broken.
_CLOSING = ("BIOES", "BILOU", "BMES", "BMEWO", "IOE2")
_NAMES = ", ".join(f"'{name}'" for name in SCHEMES)


class TagError(ValueError):
    """A tag that can't be converted, and where it stands: `sentence` and `word`, both from 0."""

    def __init__(self, message: str, sentence: int, word: int) -> None:
        super().__init__(message)
        self.sentence, self.word = sentence, word


class Converted(NamedTuple):
    """Tags in BIO, the scheme that they came in, and how many ends of entities were not well-formed in it.

    In IOB1, an "I-" at the beginning of an entity counts, too.
    """

    tags: list[list[str | None] | None]
    scheme: str
    broken: int


def to_bio(
    sentences: Iterable[Sequence[str | None] | None], scheme: str | None = None
) -> list[list[str | None] | None]:
    """Convert the tags of sentences to BIO (IOB2).

    Parameters
    ----------
    sentences : iterable of (sequence of (str or None) or None)
        One tag per word, one list per sentence; None where unknown. All sentences of a data set at once: of a few, the
        scheme can't always be told. Prefixes may be in lower case if all are.
    scheme : {"IOB2", "IOB1", "BIOES", "BILOU", "BMES", "BMEWO", "IOE1", "IOE2", "IO"}, optional
        What the tags are in; "BIO", "IOBES" and the like are other names of the same. None tells it from the tags.
        "IO" has to be named where types stand without a prefix ("PER", "O"), since tags of another kind, such as parts
        of speech, look the same.

    Returns
    -------
    list of (list of (str or None) or None)
        BIO tags; each entity starts with "B-". Entities that are not well-formed are read as far as they go, with a
        warning. After an unknown tag, the rest of an entity stays "I-".

    Raises
    ------
    ValueError
        If tags are of no scheme, of several, or not of the one that is named.

    Examples
    --------
    >>> to_bio([["B-PER", "E-PER", "O", "S-LOC"], ["U-PER"]], scheme="BIOES")
    Traceback (most recent call last):
        ...
    ValueError: In sentence 1, word 0: expected tags of the scheme BIOES (B-, I-, E-, S- and O), got 'U-PER'. ...
    >>> to_bio([["B-PER", "E-PER", "O", "S-LOC"], None])
    [['B-PER', 'I-PER', 'O', 'B-LOC'], None]
    >>> to_bio([["PER", "PER", "O"]], scheme="IO")
    [['B-PER', 'I-PER', 'O']]
    """
    try:
        found = convert_tags(sentences, scheme)
    except TagError as error:
        raise ValueError(f"In sentence {error.sentence}, word {error.word}: {brief(error)}.") from None
    if found.broken and found.scheme != "IOB1":
        warnings.warn(
            f"{found.broken} ends of entities are not well-formed in the scheme {found.scheme}: a beginning or an end "
            "has no mark. The entities were read as far as they go.",
            stacklevel=2,
        )
    return found.tags


def convert_tags(sentences: Any, scheme: str | None = None) -> Converted:
    """Convert as `to_bio` does, and say what was found; a `TagError` says where a tag can't be converted."""
    given = as_tag_lists(sentences)
    name = None if scheme is None else scheme_name(scheme)
    parts, first = _split_all(given, name)
    if name is None:
        name = _detect(parts, first)
    elif wrong := sorted(where for letter, where in first.items() if letter not in (*SCHEMES[name], "O")):
        letters = ", ".join(f"{letter}-" for letter in SCHEMES[name])
        index, position, tag = wrong[0]
        raise TagError(
            f"expected tags of the scheme {name} ({letters} and O), got {shown(tag)}. Name another scheme ({_NAMES}), "
            "or none, to have it told from the tags.",
            *(index, position),
        )
    converted = [None if tags is None else _convert(tags, name) for tags in parts]
    broken = sum(number for item in converted if item is not None for number in item[1:])
    return Converted([None if item is None else item[0] for item in converted], name, broken)


def scheme_name(scheme: str) -> str:
    """Return the name under which `SCHEMES` has a scheme.

    >>> scheme_name("iobes"), scheme_name("BIO")
    ('BIOES', 'IOB2')
    """
    name = scheme.upper() if isinstance(scheme, str) else ""
    name = _ALIASES.get(name, name)
    name = _ALIASES.get(frozenset(name) - {"O"}, name)
    if name not in SCHEMES:
        raise ValueError(f"Expected a scheme of tags, got {shown(scheme)}. Name one of {_NAMES}, or None to detect it.")
    return name


def _split_all(
    sentences: list[list[Any] | None], scheme: str | None
) -> tuple[list[list[tuple[str, str] | None] | None], dict[str, tuple[int, int, str]]]:
    """Split tags into prefix and type; tell where each prefix stands for the first time, and in which tag."""
    strings = (tag for tags in sentences for tag in tags or () if isinstance(tag, str))
    lower = not any(tag[1:2] == "-" and tag[0] in "BIESLUMW" for tag in strings)
    known: dict[Any, tuple[str, str] | None] = {None: None}
    first: dict[str, tuple[int, int, str]] = {}
    parts: list[list[tuple[str, str] | None] | None] = []
    for index, tags in enumerate(sentences):
        for position, tag in enumerate(tags or ()):
            if tag is not None and (not isinstance(tag, str) or tag not in known):
                try:
                    known[tag] = split = _split(tag, scheme, lower)
                except ValueError as error:
                    raise TagError(str(error), index, position) from None
                first.setdefault(split[0], (index, position, tag))
        parts.append(None if tags is None else [known[tag] for tag in tags])
    return parts, first


def _split(tag: Any, scheme: str | None, lower: bool) -> tuple[str, str]:
    """Split a tag into its prefix in capitals and its type."""
    if isinstance(tag, str):
        prefix, dash, kind = tag.partition("-")
        if tag in ("O", "o"):
            return "O", ""
        # a type such as "e-mail" has no prefix
        small = "i" if scheme == "IO" else "bieslumw"
        if dash and kind and len(prefix) == 1 and prefix in "BIESLUMW" + small:
            if prefix in small and not lower:
                raise ValueError(
                    f"Expected all prefixes in capitals, or none, got {shown(tag)} beside others. Write them alike."
                )
            return prefix.upper(), kind
        if scheme == "IO" and tag and not tag.isspace() and not tag.lstrip("-").isdecimal():
            return "I", tag
    return split_tag(tag)  # says what is wrong


def _detect(parts: Iterable[Iterable[tuple[str, str] | None] | None], first: dict[str, tuple[int, int, str]]) -> str:
    """Tell the scheme by the prefixes that occur, and by where they stand if two schemes have the same ones."""
    letters = set(first) - {"O"}
    fitting = [name for name, own in SCHEMES.items() if letters <= set(own)]
    if not fitting:
        examples = ", ".join(shown(tag, 40) for _, _, tag in sorted(first.values()))
        index, position, _ = max(first.values())
        raise TagError(
            f"expected tags of one scheme, got prefixes that none has together: {examples}. Convert the data sets "
            f"that were mixed one by one, each with its scheme: {_NAMES}.",
            *(index, position),
        )
    if letters <= {"B", "I"}:
        starts = count_starts(parts)
        return "IOB1" if starts["I"] and not starts["B"] else "IOB2"
    if letters <= {"I", "E"}:
        return "IOE1" if any(_convert(tags, "IOE2")[2] for tags in parts if tags is not None) else "IOE2"
    return fitting[0]


def _convert(tags: Iterable[tuple[str, str] | None], scheme: str) -> tuple[list[str | None], int, int]:
    """Convert a sentence; count the entities that begin, and those that end, without the scheme's mark."""
    converted: list[str | None] = []
    no_begin = no_end = 0
    # type of the entity that the word before belongs to ("" if to none, None where unknown), and whether it ends there
    previous: str | None = ""
    ended = True
    for item in [*tags, ("O", "")]:
        if item is None:
            converted.append(None)
            previous, ended = None, True
            continue
        letter, kind = item
        goes_on = kind == previous and not ended and letter not in _BEGIN
        if previous and not ended and not goes_on:
            no_end += scheme in _CLOSING
        begins = bool(kind) and not goes_on and (letter in _BEGIN or previous is not None)
        no_begin += begins and letter not in _BEGIN and scheme not in ("IO", "IOE1", "IOE2")
        converted.append(f"{'B' if begins else 'I'}-{kind}" if kind else "O")
        previous, ended = kind, letter in _END or not kind
    return converted[:-1], no_begin, no_end


__all__ = ["SCHEMES", "Converted", "TagError", "convert_tags", "scheme_name", "to_bio"]
