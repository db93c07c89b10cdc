"""Find the images of a data set in a folder, by the ids of its texts, and count what is found."""

import os
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from PIL import Image

from .pictures import FORMATS, BadPictureError, load_picture


# The endings that are looked for first; the others of `FORMATS` follow in the order of the alphabet.
_FIRST_ENDINGS = (".jpg", ".jpeg", ".png")
# Images all the same, for which Pillow has no reader, or none that is used here.
_OTHER_ENDINGS = (".ai", ".heic", ".heif", ".jxl", ".svg", ".svgz")
REFUSED = "in a refused format"
"""What a report calls an image of a format that is not read, such as EPS, PDF or SVG."""


class FoundPictures(NamedTuple):
    """Files of an id: those that can be read, in the order in which they are tried, and those in refused formats."""

    paths: list[str]
    refused: list[str]


class PictureFolder:
    """Image files of a folder by id: the file's name, with or without its ending, in any case of letters of the ending.

    A folder is listed once, however many ids are looked up; an id may name a subfolder ("2017/12"). Where several files
    belong to an id, the one that it names exactly comes first, then .jpg, .jpeg, .png and the other endings in the
    order of the alphabet, each in small letters before others.

    Parameters
    ----------
    folder : str or os.PathLike
        The folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.fspath(folder)
        self._listed: dict[str, dict[str, list[str]]] = {}

    def find(self, name: str) -> FoundPictures:
        """Find the files of an id.

        Parameters
        ----------
        name : str
            The id, which is not checked: ".." leaves the folder.

        Returns
        -------
        FoundPictures
            Paths; a file without an image's ending belongs to the id that is its whole name. Both lists are empty where
            there is no such file.
        """
        parent, base = os.path.split(name)
        files = self._list(parent)
        stem, ending = os.path.splitext(base)
        named = [file for file in files.get(stem, ()) if os.path.splitext(file)[1].lower() == ending.lower()]
        named.sort(key=lambda file: (file != base, _rank(file)))
        found = [*named, *sorted(set(files.get(base, ())) - set(named), key=_rank)]
        paths = [os.path.join(self.folder, parent, file) for file in found]
        refused = [path for path in paths if _ending(path) in _endings()[1]]
        return FoundPictures([path for path in paths if path not in refused], refused)

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


class PictureCounter:
    """Choose the image of each text, and count into a report what is found.

    Parameters
    ----------
    report : ConllReport
        What is counted into.
    check : bool
        Whether to decode all images, so that broken ones are counted; else only those of which there are several.
    """

    def __init__(self, report: Any, check: bool) -> None:
        report.pictures_checked = check
        self.report, self.check = report, check
        self._kinds: dict[str, str | None] = {}  # several texts may share an image

    def choose(self, name: str, sources: Sequence[Any], refused: Sequence[str] = ()) -> Any:
        """Choose an image for a text.

        Parameters
        ----------
        name : str
            The text's id, for the report.
        sources : sequence of pictures
            Whatever `load_picture` takes.
        refused : sequence of str
            Paths of images of the same text in refused formats.

        Returns
        -------
        picture or None
            The first of `sources` that can be read. A single one that isn't checked is taken as it is.
        """
        report, trouble = self.report, None
        report.several_pictures += len(sources) > 1
        decode = self.check or len(sources) > 1
        for source in sources:
            kind = self._kind_of(source) if decode else None
            if kind is None:
                report.pictures_found += 1
                return source
            trouble = trouble or kind
        if trouble is None and refused:
            trouble, name = REFUSED, os.path.basename(refused[0])
        if trouble in (None, "missing"):
            report.pictures_missing += 1
        else:
            report.pictures_broken[trouble] = report.pictures_broken.get(trouble, 0) + 1
        report.note(f"picture {trouble or 'missing'}", name)
        return None

    def _kind_of(self, source: Any) -> str | None:
        path = source.get("path") if isinstance(source, dict) and source.get("bytes") is None else source
        if not isinstance(path, str):
            return _kind_of(source)
        if path not in self._kinds:
            self._kinds[path] = _kind_of(path)
        return self._kinds[path]


def _kind_of(source: Any) -> str | None:
    """Say what is wrong with an image; None if it can be read."""
    try:
        load_picture(source)
    except BadPictureError as error:
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
    place = _FIRST_ENDINGS.index(ending) if ending in _FIRST_ENDINGS else len(_FIRST_ENDINGS)
    return place, ending, os.path.splitext(file)[1].swapcase()


__all__ = ["REFUSED", "FoundPictures", "PictureCounter", "PictureFolder"]
