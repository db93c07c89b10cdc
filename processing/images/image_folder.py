"""Find the images of a data set in a folder, by the ids of its texts, and count what is found."""

import os
import re
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from PIL import Image

from ..data.data_report import ConllReport
from .image_loading import FORMATS, BadImageError, ImageSource, load_image


# The endings that are looked for first; the others of `FORMATS` follow in the order of the alphabet.
_FIRST_ENDINGS = (".jpg", ".jpeg", ".png")
# Images all the same, for which Pillow has no reader, or none that is used here.
_OTHER_ENDINGS = (".ai", ".heic", ".heif", ".jxl", ".svg", ".svgz")
# What a report calls an image of a format that is not read, such as EPS, PDF or SVG.
REFUSED = "in a refused format"
# Base64, and how that of JPEG, PNG, GIF, WebP, BMP, TIFF and AVIF begins.
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]+={0,2}\s*")
_BASE64_STARTS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk0", "SUkq", "TU0AK", "AAAA")
_LONGEST_NAME = 255


class FoundImages(NamedTuple):
    """Files of an id: those that can be read, in the order in which they are tried, and those in refused formats."""

    paths: list[str]
    refused: list[str]


class ImageFolder:
    """Image files of a folder by id: the file's name, with or without its ending, in any case of letters of the ending.

    A folder is listed once, however many ids are looked up; an id may name a subfolder ("2017/12"). Where several files
    belong to an id, the one that it names exactly comes first, then .jpg, .jpeg, .png and the other endings in the
    order of the alphabet, each in small letters before others.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.fspath(folder)
        self._listed: dict[str, dict[str, list[str]]] = {}

    def find(self, name: str) -> FoundImages:
        """Find the files of an id, which is not checked: ".." leaves the folder."""
        parent, base = os.path.split(name)
        files = self._list(parent)
        stem, ending = os.path.splitext(base)
        named = [file for file in files.get(stem, ()) if _ending(file) == ending.lower()]
        named.sort(key=lambda file: (file != base, _rank(file)))
        # a file without an image's ending belongs to the id that is its whole name
        found = [*named, *sorted(set(files.get(base, ())) - set(named), key=_rank)]
        paths = [os.path.join(self.folder, parent, file) for file in found]
        refused = [path for path in paths if _ending(path) in _endings()[1]]
        return FoundImages([path for path in paths if path not in refused], refused)

    def _list(self, parent: str) -> dict[str, list[str]]:
        """List a folder: by name without an image's ending, the names of the files."""
        if parent not in self._listed:
            files: dict[str, list[str]] = {}
            try:
                with os.scandir(os.path.join(self.folder, parent) or ".") as entries:
                    for entry in entries:
                        stem, ending = os.path.splitext(entry.name)
                        known = any(ending.lower() in endings for endings in _endings())
                        # data sets are often folders of links, of which some lead nowhere
                        if (known or not entry.is_dir()) and not (entry.is_symlink() and not os.path.exists(entry)):
                            files.setdefault(stem if known else entry.name, []).append(entry.name)
            except (OSError, ValueError):  # no such folder, or nothing that can be the name of one
                files = {}
            self._listed[parent] = files
        return self._listed[parent]


class ImageCounter:
    """Choose the image of each text, and count into a report what is found.

    With `check`, all images are decoded, so that broken ones are counted; else only those of texts with several.
    """

    def __init__(self, report: ConllReport, check: bool) -> None:
        report.images_checked = check
        self.report, self.check = report, check
        self._kinds: dict[str, str | None] = {}  # several texts may share an image

    def choose(self, name: str, sources: Sequence[Any], refused: Sequence[str] = ()) -> Any:
        """Return the first of the sources of the text `name` that can be read; a single unchecked one as it is."""
        report, trouble = self.report, None
        report.several_images += len(sources) > 1
        decode = self.check or len(sources) > 1
        for source in sources:
            kind = self._kind_of(source) if decode else None
            if kind is None:
                report.images_found += 1
                return source
            trouble = trouble or kind
        if trouble is None and refused:
            trouble, name = REFUSED, os.path.basename(refused[0])
        if trouble in (None, "missing"):
            report.images_missing += 1
        else:
            report.images_broken[trouble] = report.images_broken.get(trouble, 0) + 1
        report.note(f"image {trouble or 'missing'}", name)
        return None

    def _kind_of(self, source: ImageSource) -> str | None:
        path = source.get("path") if isinstance(source, dict) and source.get("bytes") is None else source
        if not isinstance(path, str):
            return _kind_of(source)
        if path not in self._kinds:
            self._kinds[path] = _kind_of(path)
        return self._kinds[path]


def is_base64(text: str) -> bool:
    """Whether a string is an image as base64 text, and no path: it begins as one, or is longer than any name."""
    start = text[:1000]
    if len(text) <= 64 or not _BASE64.fullmatch(start):
        return False
    mixed = any(map(str.isupper, start)) and any(map(str.islower, start)) and any(map(str.isdigit, start))
    return text.startswith(_BASE64_STARTS) or (len(text) > _LONGEST_NAME and mixed)


def _kind_of(source: ImageSource) -> str | None:
    """Say what is wrong with an image; None if it can be read."""
    try:
        load_image(source)
    except BadImageError as error:
        return error.kind
    return None


@cache
def _endings() -> tuple[frozenset[str], frozenset[str]]:
    """Return the endings of images that are read, and of those in refused formats."""
    known = Image.registered_extensions()
    read = {ending for ending, name in known.items() if name in FORMATS}
    return frozenset(read), frozenset({*known, *_OTHER_ENDINGS} - read)


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _rank(file: str) -> tuple[int, str, str]:
    """Return by what the files of an id are sorted."""
    ending = _ending(file)
    rank = _FIRST_ENDINGS.index(ending) if ending in _FIRST_ENDINGS else len(_FIRST_ENDINGS)
    return rank, ending, os.path.splitext(file)[1].swapcase()


__all__ = ["REFUSED", "FoundImages", "ImageCounter", "ImageFolder", "is_base64"]
