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

from ..configuration.messages import brief, shown
from .picture_folder import FoundPictures, PictureCounter, PictureFolder
from .tag_conversion import SCHEMES, TagError, convert_tags, scheme_name
from .tag_scheme import spans_from_tags, split_tag


# Stands for a word that is empty or white space, which no tokenizer keeps; the processor makes one unknown token of it.
PLACEHOLDER = "\ufffd"
_FIX_FORMAT = (
    "The format is: a line 'IMGID:<id>', then one line '<word><TAB><tag>' a word, and a blank line after each tweet. "
    "Other columns may stand between (word_column, tag_column)."
)
# Ids in the files of MultiCoNER; ids and comments in those that follow CoNLL-U.
_COMMENT_ID = re.compile(r"# id (\S+)(?:[ \t]+\S+=\S*)*|# sent_id = (\S+)")
_TAG = re.compile(r"O|[BIESLUMWbieslumw]-.+|o")
_GLUED = re.compile(r".*[,;|](O|[BIESLUMW]-\S+)")
_COMMENT = re.compile(r"# \w+ = [^\t]*")


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
    format, scheme : str
        Of the file, as `read_annotations` names it, and of its tags: the key of what `to_bio` converts; "" for spans.
    columns : int
        Of the lines of a CoNLL file; 0 of another.
    repaired_tags, placeholder_words, replaced_characters, dropped_lines : int
        Beginnings of entities (in BIOES and the like also ends) that were mended; words that were empty or white space
        and are now "\ufffd"; undecodable byte sequences that are now "\ufffd"; -DOCSTART- lines and comments ("# text =
        ..."), which are all that is ever dropped of a CoNLL file.
    troubles : dict of str to int
        What else was found, such as spans that end inside a word, and how often.
    pictures_found, pictures_missing : int
        Usable pictures, and tweets whose picture file is not there. Both 0 if no folder was given.
    pictures_broken : dict of str to int
        Unusable picture files by kind; one is "in a refused format" (EPS, PDF, SVG, ...) by its ending, and not opened.
    several_pictures : int
        Tweets with several picture files (or, of a data set, a list of images), of which the first usable one is taken.
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
    format: str = "conll"
    scheme: str = "IOB2"
    columns: int = 0
    troubles: dict[str, int] = field(default_factory=dict)
    pictures_found: int = 0
    pictures_missing: int = 0
    pictures_broken: dict[str, int] = field(default_factory=dict)
    several_pictures: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)
    pictures_checked: bool = False

    def __str__(self) -> str:
        entities = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.entities.items()))
        lines = [
            f"{self.path} (sha256 {self.sha256})",
            f"{self.sentences:,} tweets, {self.tokens:,} words",
            f"{sum(self.entities.values()):,} entities" + (f": {entities}" if entities else ""),
        ]
        if self.format != "conll":
            lines.insert(1, f"format: {self.format}")
        if self.columns > 2:
            lines.append(f"tags are read of lines with {self.columns} columns")
        if self.scheme not in ("", "IOB2"):
            lines.append(f"tags in the scheme {self.scheme} were converted to BIO")
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
            (self.repaired_tags, self.repairs),
            (self.placeholder_words, "words were empty or white space and are now '\ufffd'"),
            (self.replaced_characters, "undecodable byte sequences were replaced by '\ufffd'"),
            (self.dropped_lines, "-DOCSTART- lines and comments were dropped"),
            (self.several_pictures, "tweets have several pictures, of which the first usable one is taken"),
        ):
            if count:
                lines.append(f"{count:,} {what}")
        lines += [f"{count:,} {what}{self._examples(what)}" for what, count in sorted(self.troubles.items())]
        others = sorted(set(self.examples) - set(self.troubles))
        lines += [f"{kind}{self._examples(kind)}" for kind in others]
        return "\n".join(lines)

    @property
    def repairs(self) -> str:
        """What `repaired_tags` counts."""
        if len(SCHEMES.get(self.scheme, "BI")) > 2:
            return "ends of entities had no mark and were read as far as they go"
        return "tags began an entity with 'I-' and were read as 'B-'"

    def _examples(self, kind: str) -> str:
        return f", for example: {', '.join(self.examples[kind])}" if kind in self.examples else ""

    def count(self, trouble: str, example: str) -> None:
        """Count a trouble, and keep the first examples of it."""
        self.troubles[trouble] = self.troubles.get(trouble, 0) + 1
        self.note(trouble, example)

    def note(self, kind: str, example: str) -> None:
        """Keep an example of a kind of trouble, of which a few are enough."""
        examples = self.examples.setdefault(kind, [])
        if len(examples) < 5:
            examples.append(example)


@dataclass
class Tweet:
    """A tweet as it stands in a file: where, and under which name its picture."""

    line: int
    id: str | None
    tokens: list[str] = field(default_factory=list)
    tags: list[str | None] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)  # of the words
    picture: str | None = None


@overload
def read_conll(
    path: str | os.PathLike[str],
    image_dir: str | os.PathLike[str] | None = None,
    *,
    word_column: int = 0,
    tag_column: int = -1,
    scheme: str | None = None,
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
    word_column: int = 0,
    tag_column: int = -1,
    scheme: str | None = None,
    check_pictures: bool = True,
    encoding: str = "utf-8",
    show_progress: bool | None = None,
    return_report: Literal[True],
) -> tuple[datasets.Dataset, ConllReport]: ...


def read_conll(
    path: str | os.PathLike[str],
    image_dir: str | os.PathLike[str] | None = None,
    *,
    word_column: int = 0,
    tag_column: int = -1,
    scheme: str | None = None,
    check_pictures: bool = True,
    encoding: str = "utf-8",
    show_progress: bool | None = None,
    return_report: bool = False,
) -> datasets.Dataset | tuple[datasets.Dataset, ConllReport]:
    """Read tweets, or other texts, with one word and tag a line, and find their pictures.

    Parameters
    ----------
    path : str or os.PathLike
        Blocks of a line "IMGID:<id>", then "<word><TAB><tag>" lines, parted by blank lines. A space in place of the
        tab will do; a line without a tag has an unknown one. Other columns may stand between word and tag, as in the
        files of CoNLL-2003.
    image_dir : str, os.PathLike or None
        Folder with the pictures: "<id>.jpg", or with another ending of a format that `load_picture` reads, such as
        .png, .webp, .gif, .bmp, .avif or .tiff, in any case of letters; an id may also name its file with the ending.
        Of several files of an id the first usable one is taken, and the report counts these tweets: the file that the
        id names exactly, then .jpg, .jpeg, .png and the others in the order of the alphabet. None: no pictures.
    word_column, tag_column : int
        Which columns hold word and tag, from 0; negative ones count from the last.
    scheme : str or None
        What the tags are in, as for `to_bio`, which converts them to BIO. None tells it from the tags; the report says
        what was found.
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
        If the file or folder is missing, the file is empty or in another format, its lines or tags don't fit together,
        or an id points out of the folder. The message names the line.
    """
    file = Path(path)
    text, report = read_file(file, encoding, "a CoNLL file")
    if tag_column == -1:
        text = _without_empty_column(text)
    scheme = None if scheme is None else scheme_name(scheme)
    tweets = _parse(text, file, report, word_column, tag_column)
    if not tweets:
        raise ValueError(
            f"Expected tweets in {shown(str(file))}, got none in {file.stat().st_size} bytes. {_FIX_FORMAT}"
        )
    try:
        converted = convert_tags([tweet.tags for tweet in tweets], scheme)
    except TagError as error:
        line = tweets[error.sentence].lines[error.word]
        columns = ""
        if report.columns > 2:
            columns = f" Its lines have {report.columns} columns; running text is for examples/annotate.py."
        raise ValueError(f"In line {line} of {shown(str(file))}: {brief(error)}.{columns} {_FIX_FORMAT}") from None
    report.scheme, report.repaired_tags = converted.scheme, converted.broken
    for tweet, tags in zip(tweets, converted.tags, strict=True):
        tweet.tags = tags or []
    dataset = make_dataset(tweets, file, report, image_dir, check_pictures, show_progress)
    return (dataset, report) if return_report else dataset


def read_file(file: Path, encoding: str, what: str) -> tuple[str, ConllReport]:
    """Read a file whole, and begin its report.

    Raises
    ------
    ValueError
        If it isn't there, or in another encoding.
    """
    if not file.is_file():
        raise ValueError(f"Expected {what}, but {shown(str(file))} is not a file. Check the path.")
    content = file.read_bytes()
    report = ConllReport(str(file), hashlib.sha256(content).hexdigest())
    return _decode(content, encoding, file, report), report


def make_dataset(
    tweets: list[Tweet],
    file: Path,
    report: ConllReport,
    image_dir: str | os.PathLike[str] | None,
    check_pictures: bool,
    show_progress: bool | None,
) -> datasets.Dataset:
    """Find the pictures of tweets, whose tags are in BIO, count, and put all in a dataset."""
    folder = None if image_dir is None else Path(image_dir)
    if folder is not None and not folder.is_dir():
        raise ValueError(
            f"Expected a folder of pictures as image_dir, but {shown(str(folder))} is not one. Check the path."
        )
    ids = []
    entities: Counter[str] = Counter()
    for tweet in tweets:
        entities.update(label for label, _, _ in spans_from_tags(tweet.tags))
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

    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.Value("string")),
            "image": datasets.Image(decode=False),
        }
    )
    return datasets.Dataset.from_dict(
        {
            "id": ids,
            "tokens": [tweet.tokens for tweet in tweets],
            "ner_tags": [tweet.tags for tweet in tweets],
            "image": [None if name is None else {"bytes": None, "path": name} for name in pictures],
        },
        features=features,
        info=datasets.DatasetInfo(description=str(report), features=features),
    )


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
                raise ValueError(f"Expected an id on one line without white space around it, got {shown(name)}.")
            lines.append(f"IMGID:{name}")
        elif not words:
            raise ValueError(f"Expected words in sentence {index}, which has no id, got none. Leave it out.")
        for word, tag in zip(words, labels, strict=True):
            if re.search(r"[\t\r\n]", word) or word.split()[:1] in ([], ["-DOCSTART-"]):
                raise ValueError(
                    "Expected words that are neither white space nor '-DOCSTART-' and hold no tabs or line breaks, "
                    f"got {shown(word)} in sentence {index}. Replace it, for instance by {PLACEHOLDER!r}."
                )
            if tag is not None:
                split_tag(tag)
            lines.append(f"{word}\t{tag or ''}")
        lines.append("")
    text = "".join(f"{line}\n" for line in lines)
    # One byte-order mark is dropped on reading; a text that begins with that character needs another.
    Path(path).write_bytes((("\ufeff" if text.startswith("\ufeff") else "") + text).encode("utf-8"))


def writable(word: str) -> str:
    """Mend what no CoNLL file can hold: white space as a word, and tabs and line breaks inside."""
    word = word.replace("\t", " ").replace("\r", " ").replace("\n", " ")
    return word if word.strip() and word.split()[0] != "-DOCSTART-" else PLACEHOLDER


def _decode(content: bytes, encoding: str, file: Path, report: ConllReport) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) and encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        raise ValueError(f"Expected UTF-8 in {shown(str(file))}, got UTF-16. Give encoding='utf-16'.")
    if content.startswith((b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        raise ValueError(f"Expected text in {shown(str(file))}, got a compressed file. Unpack it first.")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = content.decode(encoding, errors="replace")
        genuine = content.decode(encoding, errors="ignore").count("\ufffd")
        report.replaced_characters = text.count("\ufffd") - genuine
    except LookupError:
        raise ValueError(f"Expected an encoding that Python knows, such as 'utf-8', got {shown(encoding)}.") from None
    return text.removeprefix("\ufeff")


def _without_empty_column(text: str) -> str:
    """Drop tabs at the ends of all lines, where the tags stand in front of them."""
    rows = [line.rstrip("\r").split("\t") for line in text.split("\n") if "\t" in line.strip()]
    if rows and all(len(row) > 2 and not row[-1].strip() and _TAG.fullmatch(row[-2].strip()) for row in rows):
        return re.sub(r"[\t ]+(?=\r?$)", "", text, flags=re.MULTILINE)
    return text


def _parse(text: str, file: Path, report: ConllReport, word_column: int, tag_column: int) -> list[Tweet]:
    """Read the blocks of a file, with tags as they stand there."""
    tweets: list[Tweet] = []
    tweet: Tweet | None = None
    read_line = _LineReader(file, word_column, tag_column)
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
        name = _name_of(line)
        if name is not None:
            tweet = Tweet(number, name or None, picture=name or None)
            tweets.append(tweet)
            continue
        if _COMMENT.fullmatch(line):
            report.dropped_lines += 1
            continue
        word, tag = read_line(line, number)
        if not word.strip():
            report.placeholder_words += 1
            report.note("white space as a word", f"line {number}")
            word = PLACEHOLDER
        if tweet is None:
            tweet = Tweet(number, None)
            tweets.append(tweet)
        tweet.tokens.append(word)
        tweet.tags.append(tag)
        tweet.lines.append(number)
    report.columns = read_line.columns
    words = [] if report.columns else [word for tweet in tweets for word in tweet.tokens]
    if words and all(map(_GLUED.fullmatch, words)):
        raise ValueError(
            f"Expected a tab or a space between word and tag in {shown(str(file))}, got {shown(words[0])}. "
            f"Write one there. {_FIX_FORMAT}"
        )
    return tweets


def _name_of(line: str) -> str | None:
    """Return the id that a line gives to what follows; "" if it gives an empty one, and None if it is a word's."""
    if line.startswith("IMGID:") and "\t" not in line:
        return line.removeprefix("IMGID:").strip()
    comment = _COMMENT_ID.fullmatch(line)
    return comment[1] or comment[2] if comment else None


class _LineReader:
    """Reads word and tag of lines that have all the same columns, or a word alone."""

    def __init__(self, file: Path, word_column: int, tag_column: int) -> None:
        self.file, self.places, self.columns, self.first = file, (word_column, tag_column), 0, 0

    def __call__(self, line: str, number: int) -> tuple[str, str | None]:
        parts = line.split("\t") if "\t" in line else line.split()
        if len(parts) == 1:
            return parts[0], None
        if not self.columns:
            self.columns, self.first = len(parts), number
            for name, place in zip(("word_column", "tag_column"), self.places, strict=True):
                if not isinstance(place, int) or not -len(parts) <= place < len(parts):
                    raise ValueError(
                        f"Expected {name} as one of the {len(parts)} columns (0 to {len(parts) - 1}) of line {number} "
                        f"of {shown(str(self.file))}, got {shown(place)}. Count from 0, or from the last with -1."
                    )
        if len(parts) != self.columns:
            raise ValueError(
                f"Expected {self.columns} columns, as in line {self.first}, in line {number} of "
                f"{shown(str(self.file))}, got {len(parts)} columns: {shown(line, 80)}. {_FIX_FORMAT} Running text, a "
                "text a line, is read by examples/annotate.py."
            )
        word, tag = (parts[place] for place in self.places)
        return word, tag.strip() or None


def _find_pictures(
    tweets: list[Tweet],
    ids: list[str],
    folder: Path,
    file: Path,
    check: bool,
    show_progress: bool | None,
    report: ConllReport,
) -> list[str | None]:
    hide = None if show_progress is None else not show_progress
    files, counter = PictureFolder(folder), PictureCounter(report, check)
    pictures: list[str | None] = []
    for tweet, name in zip(tqdm(tweets, desc="Checking pictures", unit="tweet", disable=hide), ids, strict=True):
        found = FoundPictures([], [])
        if tweet.picture is not None:
            _check_id(tweet.picture, tweet.line, file)
            found = files.find(tweet.picture)
        pictures.append(counter.choose(name, *found))
    report.pictures_broken = dict(sorted(report.pictures_broken.items()))
    return pictures


def _check_id(name: str, line: int, file: Path) -> None:
    """Refuse an id that leads out of the folder of pictures."""
    # Looked at as text: links are fine, since data sets are often folders of links.
    if "\0" in name or os.path.isabs(name) or ".." in re.split(r"[\\/]", name) or re.match(r"^[A-Za-z]:", name):
        raise ValueError(
            f"Expected a picture id that stays inside the folder of pictures in line {line} of {shown(str(file))}, got "
            f"{shown(name)}. Correct the id."
        )


__all__ = [
    "PLACEHOLDER",
    "ConllReport",
    "Tweet",
    "make_dataset",
    "read_conll",
    "read_file",
    "writable",
    "write_conll",
]
