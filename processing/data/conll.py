"""Read the CoNLL files of tweets with images."""

import os
import re
from pathlib import Path
from typing import Literal, Unpack, overload

import datasets

from ...configuration.errors import brief, shown
from ..tags.tag_conversion import TagError, convert_tags, scheme_name
from .conll_writing import PLACEHOLDER
from .data_report import ConllReport
from .tweets import ReadingOptions, Tweet, make_dataset, read_file


_FIX_FORMAT = (
    "Write a line 'IMGID:<id>', then one line '<word><TAB><tag>' per word, and a blank line after each tweet. Other "
    "columns may stand between (word_column, tag_column)."
)
# Ids in the files of MultiCoNER; ids and comments in those that follow CoNLL-U.
_COMMENT_ID = re.compile(r"# id (\S+)(?:[ \t]+\S+=\S*)*|# sent_id = (\S+)")
_COMMENT = re.compile(r"# \w+ = [^\t]*")
_TAG = re.compile(r"O|[BIESLUMWbieslumw]-.+|o")
# A word and its tag with another character between than a tab or a space.
_GLUED = re.compile(r".*[,;|](O|[BIESLUMW]-\S+)")


class _Options(ReadingOptions, total=False):
    word_column: int
    tag_column: int


@overload
def read_conll(
    path: str | os.PathLike[str],
    image_dir: str | os.PathLike[str] | None = None,
    *,
    return_report: Literal[False] = False,
    **options: Unpack[_Options],
) -> datasets.Dataset: ...


@overload
def read_conll(
    path: str | os.PathLike[str],
    image_dir: str | os.PathLike[str] | None = None,
    *,
    return_report: Literal[True],
    **options: Unpack[_Options],
) -> tuple[datasets.Dataset, ConllReport]: ...


def read_conll(
    path: str | os.PathLike[str],
    image_dir: str | os.PathLike[str] | None = None,
    *,
    word_column: int = 0,
    tag_column: int = -1,
    scheme: str | None = None,
    check_images: bool = True,
    encoding: str = "utf-8",
    show_progress: bool | None = None,
    return_report: bool = False,
) -> datasets.Dataset | tuple[datasets.Dataset, ConllReport]:
    """Read tweets, or other texts, with one word and tag per line, and find their images.

    Parameters
    ----------
    path : str or os.PathLike
        Blocks of a line "IMGID:<id>", then "<word><TAB><tag>" lines, separated by blank lines. A space in place of the
        tab will do; a line without a tag has an unknown one. Other columns may stand between word and tag, as in the
        files of CoNLL-2003.
    image_dir : str, os.PathLike or None
        Folder with the images: "<id>.jpg", or with another ending of a format that `load_image` reads, such as
        .png, .webp, .gif, .bmp, .avif or .tiff, in any case of letters; an id may also name its file with the ending.
        Of several files of an id the first usable one is taken, and the report counts these tweets: the file that the
        id names exactly, then .jpg, .jpeg, .png and the others in the order of the alphabet. None: no images.
    word_column, tag_column : int
        Which columns hold word and tag, from 0; negative ones count from the last.
    scheme : str or None
        What the tags are in, as for `to_bio`, which converts them to BIO. None tells it from the tags; the report says
        what was found.
    check_images : bool
        Decode every image once, so that broken ones are known before training; else only look for the files.
    encoding : str
        Of the text. Byte sequences that do not fit are replaced and counted.
    show_progress : bool or None
        Show a progress bar while images are checked; None does so on a terminal.
    return_report : bool
        Return the report, too. Its text is the dataset's `info.description` in any case.

    Returns
    -------
    datasets.Dataset or tuple of (datasets.Dataset, ConllReport)
        Columns "id" (string), "tokens" (list of strings), "ner_tags" (list of strings, null where unknown) and
        "image" (`datasets.Image(decode=False)`: the path, or null where there is no usable image).

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
    tweets = _parse(text, report, _LineReader(report.path, word_column, tag_column))
    if not tweets:
        raise ValueError(
            f"Expected tweets in {shown(report.path)}, got none in {file.stat().st_size} bytes. {_FIX_FORMAT}"
        )
    try:
        converted = convert_tags([tweet.tags for tweet in tweets], scheme)
    except TagError as error:
        line = tweets[error.sentence].lines[error.word]
        columns = ""
        if report.columns > 2:
            columns = f" Its lines have {report.columns} columns; running text is for examples/annotate.py."
        raise ValueError(f"In line {line} of {shown(report.path)}: {brief(error)}.{columns} {_FIX_FORMAT}") from None
    report.scheme, report.repaired_tags = converted.scheme, converted.broken
    for tweet, tags in zip(tweets, converted.tags, strict=True):
        tweet.tags = tags or []
    dataset = make_dataset(tweets, report, image_dir, check_images, show_progress)
    return (dataset, report) if return_report else dataset


def _without_empty_column(text: str) -> str:
    """Drop tabs at the ends of all lines, where the tags stand in front of them."""
    rows = [line.rstrip("\r").split("\t") for line in text.split("\n") if "\t" in line.strip()]
    if rows and all(len(row) > 2 and not row[-1].strip() and _TAG.fullmatch(row[-2].strip()) for row in rows):
        return re.sub(r"[\t ]+(?=\r?$)", "", text, flags=re.MULTILINE)
    return text


class _LineReader:
    """Reads word and tag of lines that have all the same columns, or a word alone."""

    def __init__(self, path: str, word_column: int, tag_column: int) -> None:
        self.path, self.positions, self.columns, self.first = path, (word_column, tag_column), 0, 0

    def __call__(self, line: str, number: int) -> tuple[str, str | None]:
        parts = line.split("\t") if "\t" in line else line.split()
        if len(parts) == 1:
            return parts[0], None
        if not self.columns:
            self._take_columns(len(parts), number)
        if len(parts) != self.columns:
            raise ValueError(
                f"Expected {self.columns} columns, as in line {self.first}, in line {number} of {shown(self.path)}, "
                f"got {len(parts)} columns: {shown(line, 80)}. {_FIX_FORMAT} Running text, a text per line, is read by "
                "examples/annotate.py."
            )
        word, tag = (parts[column] for column in self.positions)
        return word, tag.strip() or None

    def _take_columns(self, columns: int, number: int) -> None:
        """Check that a line of several columns has those that are asked for."""
        self.columns, self.first = columns, number
        for name, column in zip(("word_column", "tag_column"), self.positions, strict=True):
            if not isinstance(column, int) or not -columns <= column < columns:
                raise ValueError(
                    f"Expected {name} as one of the {columns} columns (0 to {columns - 1}) of line {number} of "
                    f"{shown(self.path)}, got {shown(column)}. Count from 0, or from the last with -1."
                )


def _parse(text: str, report: ConllReport, read_line: _LineReader) -> list[Tweet]:
    """Read the blocks of a file, with tags as they stand there."""
    tweets: list[Tweet] = []
    tweet: Tweet | None = None
    # Not splitlines(): tweets contain characters that it takes for line breaks, such as U+0085 and U+2028.
    lines = text.split("\n") if "\n" in text else text.split("\r")
    for number, raw in enumerate(lines, start=1):
        line = raw.rstrip("\r")
        # A no-break space in front of a tag is a word; a line of white space alone parts tweets.
        if not line.strip():
            tweet = None
        elif line.split()[0] == "-DOCSTART-":
            report.dropped_lines += 1
            tweet = None
        elif (name := _name_of(line)) is not None:
            tweet = Tweet(number, name or None, image=name or None)
            tweets.append(tweet)
        elif _COMMENT.fullmatch(line):
            report.dropped_lines += 1
        else:
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
            f"Expected a tab or a space between word and tag in {shown(report.path)}, got {shown(words[0])}. "
            f"{_FIX_FORMAT}"
        )
    return tweets


def _name_of(line: str) -> str | None:
    """Return the id that a line gives to what follows; "" if it gives an empty one, and None if it is a word's."""
    if line.startswith("IMGID:") and "\t" not in line:
        return line.removeprefix("IMGID:").strip()
    comment = _COMMENT_ID.fullmatch(line)
    return comment[1] or comment[2] if comment else None


__all__ = ["read_conll"]
