"""Tweets on their way from a file to a dataset: the file's text, and the images that belong to its ids."""

import hashlib
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import datasets
from datasets.utils import tqdm

from ...configuration.errors import shown
from ..images.image_folder import FoundImages, ImageCounter, ImageFolder
from ..tags.tag_scheme import spans_from_tags
from .data_report import ConllReport


_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
# How files of gzip, ZIP, bzip2, xz and Zstandard begin.
_COMPRESSED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")


class ReadingOptions(TypedDict, total=False):
    """What every reader of a file takes."""

    scheme: str | None
    check_images: bool
    encoding: str
    show_progress: bool | None


@dataclass
class Tweet:
    """A tweet, or another text, as it stands in a file: where, and under which name its image."""

    line: int
    id: str | None
    tokens: list[str] = field(default_factory=list)
    tags: list[str | None] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)  # of the words
    image: str | None = None


def read_file(file: Path, encoding: str, what: str) -> tuple[str, ConllReport]:
    """Read the text of a file, and begin its report; byte sequences that don't fit the encoding are counted."""
    if not file.is_file():
        raise ValueError(f"Expected {what}, got {shown(str(file))}, which is not a file. Check the path.")
    content = file.read_bytes()
    report = ConllReport(str(file), hashlib.sha256(content).hexdigest())
    if content.startswith(_UTF16_MARKS) and encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        raise ValueError(f"Expected UTF-8 in {shown(str(file))}, got UTF-16. Give encoding='utf-16'.")
    if content.startswith(_COMPRESSED):
        raise ValueError(f"Expected text in {shown(str(file))}, got a compressed file. Unpack it first.")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = content.decode(encoding, errors="replace")
        genuine = content.decode(encoding, errors="ignore").count("\ufffd")
        report.replaced_characters = text.count("\ufffd") - genuine
    except LookupError:
        raise ValueError(
            f"Expected an encoding that Python knows, got {shown(encoding)}. Give another, such as 'utf-8'."
        ) from None
    return text.removeprefix("\ufeff"), report


def make_dataset(
    tweets: list[Tweet],
    report: ConllReport,
    image_dir: str | os.PathLike[str] | None,
    check_images: bool,
    show_progress: bool | None,
) -> datasets.Dataset:
    """Find the images of tweets, whose tags are in BIO, count, and put all in a dataset."""
    if image_dir is not None and not os.path.isdir(image_dir):
        raise ValueError(
            f"Expected a folder of images as image_dir, got {shown(os.fspath(image_dir))}, which is none. Check the "
            "path."
        )
    ids = [f"line-{tweet.line}" if tweet.id is None else tweet.id for tweet in tweets]
    entities = Counter(label for tweet in tweets for label, _, _ in spans_from_tags(tweet.tags))
    report.sentences = len(tweets)
    report.tokens = sum(len(tweet.tokens) for tweet in tweets)
    report.unknown_tags = sum(tweet.tags.count(None) for tweet in tweets)
    report.empty_sentences = sum(not tweet.tokens for tweet in tweets)
    report.without_id = sum(tweet.id is None for tweet in tweets)
    report.entities = dict(sorted(entities.items()))
    images: list[str | None] = [None] * len(tweets)
    if image_dir is not None:
        images = _find_images(tweets, ids, image_dir, check_images, show_progress, report)
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
            "image": [None if name is None else {"bytes": None, "path": name} for name in images],
        },
        features=features,
        info=datasets.DatasetInfo(description=str(report), features=features),
    )


def _find_images(
    tweets: list[Tweet],
    ids: list[str],
    folder: str | os.PathLike[str],
    check: bool,
    show_progress: bool | None,
    report: ConllReport,
) -> list[str | None]:
    hide = None if show_progress is None else not show_progress
    files, counter = ImageFolder(folder), ImageCounter(report, check)
    images: list[str | None] = []
    for tweet, name in zip(tqdm(tweets, desc="Checking images", unit="tweet", disable=hide), ids, strict=True):
        found = FoundImages([], [])
        if tweet.image is not None:
            check_id(tweet.image, tweet.line, report.path)
            found = files.find(tweet.image)
        images.append(counter.choose(name, *found))
    report.images_broken = dict(sorted(report.images_broken.items()))
    return images


def check_id(name: str, line: int, file: str) -> None:
    """Refuse an id that leads out of the folder of images."""
    # Looked at as text: links are fine, since data sets are often folders of links.
    if "\0" in name or os.path.isabs(name) or ".." in re.split(r"[\\/]", name) or re.match(r"^[A-Za-z]:", name):
        raise ValueError(
            f"Expected an image id that stays inside the folder of images in line {line} of {shown(file)}, got "
            f"{shown(name)}. Correct the id."
        )


__all__ = ["ReadingOptions", "Tweet", "check_id", "make_dataset", "read_file"]
