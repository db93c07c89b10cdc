"""Images of a data set: a column of any kind, or files that ids name, as the file readers of the package give them."""

import os
import re
from typing import Any

import datasets

from bga_mner.configuration.errors import shown
from bga_mner.processing.images.image_folder import FoundImages, ImageFolder, is_base64
from bga_mner.processing.images.image_loading import as_image_list, is_url


class ImageReader:
    """Reads the images of a split from a column of any kind, or finds files in a folder that are named by id."""

    def __init__(self, features: datasets.Features, column: str, image_dir: str | None) -> None:
        self.column = column if column in features else None
        self.folder = ImageFolder(image_dir or "")
        given = features.get(column)
        self.has_lists = isinstance(given, datasets.List | datasets.LargeList)
        kind = given.feature if self.has_lists else given
        dtype = getattr(kind, "dtype", "")
        self.is_stored = (
            isinstance(kind, datasets.Image)
            or dtype in ("binary", "large_binary")
            or (isinstance(kind, dict) and {"bytes", "path"} <= set(kind))
        )
        is_named = isinstance(kind, datasets.Value) and re.match("(large_)?string|u?int|null", dtype)
        if self.column is not None and not self.is_stored and not is_named:
            raise ValueError(
                f"Expected images, the content of files, or names of files in the column {shown(column)}, got "
                f"{shown(given)}. Name another with --image_column, or 'none'."
            )
        image = datasets.Image(decode=False)
        self.feature = datasets.List(image) if self.has_lists else image

    @classmethod
    def of_split(cls, features: datasets.Features, data: Any) -> "ImageReader | None":
        """Make the reader of a split; None if it has no images."""
        by_id = data.image_dir is not None and data.image_column != "none"
        return cls(features, data.image_column, data.image_dir) if data.image_column in features or by_id else None

    def read(self, value: Any, name: str) -> FoundImages:
        """Return the images of the row with the id `name`: dicts with "bytes" and "path", and refused files."""
        found, refused = [], []
        for item in as_image_list(value if self.column else name):
            if isinstance(item, bytes):
                found.append({"bytes": item, "path": None})
            elif isinstance(item, dict):
                found.append({"bytes": item.get("bytes"), "path": item.get("path")})
            elif item is not None:
                files = self._find(str(item))
                found += [{"bytes": None, "path": path} for path in files.paths]
                refused += files.refused
        return FoundImages(found, refused)

    def _find(self, name: str) -> FoundImages:
        if is_url(name) or is_base64(name):  # which `load_image` explains
            return FoundImages([name], [])
        if os.path.isabs(name) or ".." in re.split(r"[\\/]", name) or "\0" in name:
            return FoundImages([os.path.join(self.folder.folder, name)], [])
        return self.folder.find(name)
