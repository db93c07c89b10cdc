"""Read and write the CoNLL files of tweets with pictures."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, overload

import datasets
from datasets.utils import tqdm

from .pictures import BadPictureError, load_picture
from .tag_scheme import repair_bio, spans_from_tags, split_tag


PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
# Stands for a word that is empty or white space, which no tokenizer keeps; the processor makes one unknown token of it.
PLACEHOLDER = "\ufffd"
_FIX_FORMAT = (
    "The format is: a line 'IMGID:<id>', then one line '<word><TAB><tag>' a word with BIO tags, and a blank line "
    "after each tweet."
)


@dataclass
class ConllReport:
    """What was found in a file.

    Attributes
    ----------
    path : str
        The file.
    sha256 : str
        Checksum of its bytes; public versions of the same data set differ.
    sentences, tokens, unknown_tags : int
        Tweets, words, and words without a tag.
    entities : dict of str to int
        Entities by type, after repair.
    empty_sentences, without_id : int
        Tweets with an id and no words (kept), and tweets without an id (they get "line-<number>").
    repaired_tags, placeholder_words, replaced_characters, dropped_lines : int
        "I-" tags read as "B-"; words that were empty or white space and are now "\ufffd"; undecodable byte sequences
        that are now "\ufffd"; -DOCSTART- lines, which are all that is ever dropped.
    pictures_found, pictures_missing : int
        Usable pictures, and tweets whose picture file is not there. Both 0 if no folder was given.
    pictures_broken : dict of str to int
        Unusable picture files by kind.
    examples : dict of str to list of str
        The first few ids by kind of trouble.
    pictures_checked : bool
        Whether the files were opened, or only looked for.
    """

    path: str
    sha256: str
    sentences: int = 0
    tokens: int = 0
    unknown_tags: int = 0
    entities: dict[str, int] = field(default_factory=dict)
    empty_sentences: int = 0
    without_id: int = 0
    repaired_tags: int = 0
    placeholder_words: int = 0
    replaced_characters: int = 0
    dropped_lines: int = 0
    pictures_found: int = 0
    pictures_missing: int = 0
    pictures_broken: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    pictures_checked: bool = False

    def __str__(self) -> str:
        entities = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.entities.items()))
        lines = [
            f"{self.path} (sha256 {self.sha256})",
            f"{self.sentences:,} tweets, {self.tokens:,} words",
            f"{sum(self.entities.values()):,} entities" + (f": {entities}" if entities else ""),
        ]
        if self.pictures_found or self.pictures_missing or self.pictures_broken:
            broken = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.pictures_broken.items()))
            lines.append(
                f"pictures: {self.pictures_found:,} found{'' if self.pictures_checked else ' (not opened)'}, "
                f"{self.pictures_missing:,} missing, {sum(self.pictures_broken.values()):,} broken"
                + (f" ({broken})" if broken else "")
            )
        for count, what in (
            (self.unknown_tags, "words without a tag"),
            (self.empty_sentences, "tweets without words"),
            (self.without_id, "tweets without an id"),
            (self.repaired_tags, "tags began an entity with 'I-' and were read as 'B-'"),
            (self.placeholder_words, "words were empty or white space and are now '\ufffd'"),
            (self.replaced_characters, "undecodable byte sequences were replaced by '\ufffd'"),
            (self.dropped_lines, "-DOCSTART- lines were dropped"),
        ):
            if count:
                lines.append(f"{count:,} {what}")
        lines += [f"{kind}, for example: {', '.join(ids)}" for kind, ids in sorted(self.examples.items())]
        return "\n".join(lines)

    def _note(self, kind: str, example: str) -> None:
        examples = self.examples.setdefault(kind, [])
        if len(examples) < 5:
            examples.append(example)


@dataclass
class _Tweet:
    line: int
    id: str | None
    tokens: list[str] = field(default_factory=list)
    tags: list[str | None] = field(default_factory=list)


@overload
def read_conll(
    path: str | os.PathLike[str],
    image_dir: str | os.PathLike[str] | None = None,
    *,
    check_pictures: bool = True,
    encoding: str = "utf-8",
    show_progress: bool | None = None,
    return_report: Literal[False] = False,
) -> datasets.Dataset: ...


@overload
def read_conll(
    path: str | os.PathLike[str],
    image_dir: str | os.PathLike[str] | None = None,
    *,
    check_pictures: bool = True,
    encoding: str = "utf-8",
    show_progress: bool | None = None,
    return_report: Literal[True],
) -> tuple[datasets.Dataset, ConllReport]: ...


def read_conll(
    path: str | os.PathLike[str],
    image_dir: str | os.PathLike[str] | None = None,
    *,
    check_pictures: bool = True,
    encoding: str = "utf-8",
    show_progress: bool | None = None,
    return_report: bool = False,
) -> datasets.Dataset | tuple[datasets.Dataset, ConllReport]:
    """Read tweets with BIO tags, and find their pictures.

    Parameters
    ----------
    path : str or os.PathLike
        Blocks of a line "IMGID:<id>", then "<word><TAB><tag>" lines, parted by blank lines. A space in place of the
        tab will do; a line without a tag has an unknown one.
    image_dir : str, os.PathLike or None
        Folder with the pictures, "<id>.jpg", ".jpeg" or ".png". None: no pictures.
    check_pictures : bool
        Decode every picture once, so that broken ones are known before training; else only look for the files.
    encoding : str
        Of the text. Byte sequences that do not fit are replaced and counted.
    show_progress : bool or None
        Show a progress bar while pictures are checked; None does so on a terminal.
    return_report : bool
        Return the report, too. Its text is the dataset's ``info.description`` in any case.

    Returns
    -------
    datasets.Dataset or tuple of (datasets.Dataset, ConllReport)
        Columns "id" (string), "tokens" (list of strings), "ner_tags" (list of strings, null where unknown) and
        "image" (`datasets.Image(decode=False)`: the path, or null where there is no usable picture).

    Raises
    ------
    ValueError
        If the file or folder is missing, the file is empty or in another format, or an id points out of the folder.
        The message names the line.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"Expected a CoNLL file, but {str(file)!r} is not a file. Check the path.")
    folder = None if image_dir is None else Path(image_dir)
    if folder is not None and not folder.is_dir():
        raise ValueError(f"Expected a folder of pictures as image_dir, but {str(folder)!r} is not one. Check the path.")
    content = file.read_bytes()
    report = ConllReport(str(file), hashlib.sha256(content).hexdigest())
    tweets = _parse(_decode(content, encoding, file, report), file, report)
    if not tweets:
        raise ValueError(f"Expected tweets in {str(file)!r}, got none in {len(content)} bytes. {_FIX_FORMAT}")

    ids = []
    entities: Counter[str] = Counter()
    for tweet in tweets:
        tweet.tags, repaired = repair_bio(tweet.tags)
        entities.update(label for label, _, _ in spans_from_tags(tweet.tags))
        report.repaired_tags += repaired
        report.tokens += len(tweet.tokens)
        report.unknown_tags += tweet.tags.count(None)
        report.empty_sentences += not tweet.tokens
        report.without_id += tweet.id is None
        ids.append(f"line-{tweet.line}" if tweet.id is None else tweet.id)
    report.sentences = len(tweets)
    report.entities = dict(sorted(entities.items()))
    pictures: list[str | None] = [None] * len(tweets)
    if folder is not None:
        pictures = _find_pictures(tweets, ids, folder, file, check_pictures, show_progress, report)

    tags = datasets.Value("string")
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(tags),
            "image": datasets.Image(decode=False),
        }
    )
    dataset = datasets.Dataset.from_dict(
        {
            "id": ids,
            "tokens": [tweet.tokens for tweet in tweets],
            "ner_tags": [tweet.tags for tweet in tweets],
            "image": [None if name is None else {"bytes": None, "path": name} for name in pictures],
        },
        features=features,
        info=datasets.DatasetInfo(description=str(report), features=features),
    )
    return (dataset, report) if return_report else dataset


def write_conll(
    path: str | os.PathLike[str],
    tokens: Iterable[Sequence[str]],
    tags: Iterable[Sequence[str | None] | None],
    ids: Iterable[str] | None = None,
) -> None:
    """Write tweets so that `read_conll` gives the same ones back.

    Parameters
    ----------
    path : str or os.PathLike
        The file to write, in UTF-8.
    tokens : iterable of sequences of str
        Words.
    tags : iterable of (sequence of (str or None) or None)
        BIO tags, None where unknown. "I-" at the start of an entity is written as it is, and mended on reading.
    ids : iterable of str or None
        Ids of the pictures; None leaves the IMGID lines out.

    Raises
    ------
    ValueError
        If numbers do not fit, or a word, tag or id cannot be written in this format. Nothing is written then.
    """
    sentences, tag_lists = [list(words) for words in tokens], [None if item is None else list(item) for item in tags]
    names: list[str | None] = [None] * len(sentences) if ids is None else list(ids)
    if not len(sentences) == len(tag_lists) == len(names):
        raise ValueError(
            f"Expected as many tag lists and ids as sentences, got {len(sentences)} sentences, {len(tag_lists)} tag "
            f"lists and {len(names)} ids."
        )
    lines = []
    for index, (words, given, name) in enumerate(zip(sentences, tag_lists, names, strict=True)):
        labels = [None] * len(words) if given is None else given
        if len(labels) != len(words):
            raise ValueError(f"Expected one tag a word, got {len(labels)} for {len(words)} words in sentence {index}.")
        if name is not None:
            if not name or name != name.strip() or re.search(r"[\t\r\n]", name):
                raise ValueError(f"Expected an id on one line without white space around it, got {name!r}.")
            lines.append(f"IMGID:{name}")
        elif not words:
            raise ValueError(f"Expected words in sentence {index}, which has no id, got none. Leave it out.")
        for word, tag in zip(words, labels, strict=True):
            if re.search(r"[\t\r\n]", word) or word.split()[:1] in ([], ["-DOCSTART-"]):
                raise ValueError(
                    "Expected words that are neither white space nor '-DOCSTART-' and hold no tabs or line breaks, "
                    f"got {word!r} in sentence {index}. Replace it, for instance by {PLACEHOLDER!r}."
                )
            if tag is not None:
                split_tag(tag)
            lines.append(f"{word}\t{tag or ''}")
        lines.append("")
    text = "".join(f"{line}\n" for line in lines)
    # One byte-order mark is dropped on reading; a text that begins with that character needs another.
    Path(path).write_bytes((("\ufeff" if text.startswith("\ufeff") else "") + text).encode("utf-8"))


def _decode(content: bytes, encoding: str, file: Path, report: ConllReport) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) and encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        raise ValueError(f"Expected UTF-8 in {str(file)!r}, got UTF-16. Give encoding='utf-16'.")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = content.decode(encoding, errors="replace")
        genuine = content.decode(encoding, errors="ignore").count("\ufffd")
        report.replaced_characters = text.count("\ufffd") - genuine
    except LookupError:
        raise ValueError(f"Expected an encoding that Python knows, such as 'utf-8', got {encoding!r}.") from None
    return text.removeprefix("\ufeff")


def _parse(text: str, file: Path, report: ConllReport) -> list[_Tweet]:
    """Read the blocks of a file."""
    tweets: list[_Tweet] = []
    tweet: _Tweet | None = None
    # Not splitlines(): tweets contain characters that it takes for line breaks, such as U+0085 and U+2028.
    lines = text.split("\n") if "\n" in text else text.split("\r")
    for number, raw in enumerate(lines, start=1):
        line = raw.rstrip("\r")
        # A no-break space in front of a tag is a word; a line of white space alone parts tweets.
        if not line.strip():
            tweet = None
            continue
        if line.split()[0] == "-DOCSTART-":
            report.dropped_lines += 1
            tweet = None
            continue
        if line.startswith("IMGID:") and "\t" not in line:
            name = line.removeprefix("IMGID:").strip()
            tweet = _Tweet(number, name or None)
            tweets.append(tweet)
            continue
        word, tag = _parse_line(line, number, file)
        if not word.strip():
            report.placeholder_words += 1
            report._note("white space as a word", f"line {number}")
            word = PLACEHOLDER
        if tweet is None:
            tweet = _Tweet(number, None)
            tweets.append(tweet)
        tweet.tokens.append(word)
        tweet.tags.append(tag)
    return tweets


def _parse_line(line: str, number: int, file: Path) -> tuple[str, str | None]:
    parts = line.split("\t") if "\t" in line else line.split()
    if len(parts) == 1:
        return parts[0], None
    where = f"line {number} of {str(file)!r}"
    if len(parts) != 2:
        raise ValueError(
            f"Expected '<word><TAB><tag>' in {where}, got {len(parts)} columns: {line[:80]!r}. {_FIX_FORMAT} "
            "Cut other columns away first; running text, a text a line, is read by examples/annotate.py."
        )
    word, tag = parts[0], parts[1].strip()
    if not tag:
        return word, None
    try:
        split_tag(tag)
    except ValueError as error:
        raise ValueError(f"In {where}: {error} {_FIX_FORMAT}") from None
    return word, tag


def _find_pictures(
    tweets: list[_Tweet],
    ids: list[str],
    folder: Path,
    file: Path,
    check: bool,
    show_progress: bool | None,
    report: ConllReport,
) -> list[str | None]:
    report.pictures_checked = check
    hide = None if show_progress is None else not show_progress
    pictures: list[str | None] = []
    broken: Counter[str] = Counter()
    verdicts: dict[str, str | None] = {}  # several tweets may share a picture
    for tweet, name in zip(tqdm(tweets, desc="Checking pictures", unit="tweet", disable=hide), ids, strict=True):
        path = None if tweet.id is None else _picture_path(folder, tweet.id, tweet.line, file)
        if path is None:
            report.pictures_missing += 1
            report._note("picture missing", name)
            pictures.append(None)
            continue
        if path not in verdicts:
            verdicts[path] = _trouble_with(path) if check else None
        trouble = verdicts[path]
        if trouble is not None:
            broken[trouble] += 1
            report._note(f"picture {trouble}", name)
        report.pictures_found += trouble is None
        pictures.append(path if trouble is None else None)
    report.pictures_broken = dict(sorted(broken.items()))
    return pictures


def _picture_path(folder: Path, name: str, line: int, file: Path) -> str | None:
    # Looked at as text: links are fine, since data sets are often folders of links.
    if "\0" in name or os.path.isabs(name) or ".." in re.split(r"[\\/]", name) or re.match(r"^[A-Za-z]:", name):
        raise ValueError(
            f"Expected a picture id that stays inside the folder of pictures in line {line} of {str(file)!r}, got "
            f"{name!r}. Correct the id."
        )
    names = [name + ending for ending in PICTURE_ENDINGS]
    if name.endswith(PICTURE_ENDINGS):
        names.insert(0, name)
    for candidate in names:
        if os.path.exists(folder / candidate):  # also of a name that is too long for any file
            return str(folder / candidate)
    return None


def _trouble_with(path: str) -> str | None:
    try:
        load_picture(path)
    except BadPictureError as error:
        return error.kind
    return None


__all__ = ["PLACEHOLDER", "ConllReport", "read_conll", "write_conll"]
