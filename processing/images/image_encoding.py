"""Bring the images of texts to the arrays that the vision encoder reads."""

import warnings
from collections import Counter
from typing import Any

import numpy as np
from transformers.image_processing_utils import BaseImageProcessor

from ...configuration.errors import brief, mismatch
from .image_loading import BadImageError, as_image_list, limit_aspect_ratio, load_first_image


def image_of_each_text(images: Any, count: int) -> list[Any]:
    """Make a list of the images of `count` texts, and check that there are as many."""
    found = as_image_list(images)
    if len(found) != count:
        raise ValueError(
            f"Expected one item of `images` per text, got {len(found)} for {count} texts. Give None for none. "
            "A text has one image: choose one, or repeat the text with each."
        )
    return found


def encode_images(
    image_processor: BaseImageProcessor | None, images: Any, on_bad_image: str, options: dict[str, Any] | None
) -> tuple[list[np.ndarray | None], Counter[str]]:
    """Encode the first image of each item that can be read, float32 (3, H, W); count broken ones, and warn."""
    if on_bad_image not in ("missing", "raise"):
        raise mismatch("on_bad_image 'missing' or 'raise'", on_bad_image, "Choose one.")
    sources = [[source for source in as_image_list(item) if source is not None] for item in as_image_list(images)]
    encoded: list[np.ndarray | None] = [None] * len(sources)
    broken: Counter[str] = Counter()
    first_error = ""
    for index, given in enumerate(sources):
        if not given:
            continue
        if image_processor is None:
            raise ValueError(
                "Expected no images, got some for a processor made for text alone. Give it an image_processor."
            )
        image, errors = load_first_image(given)
        for error in errors:
            if on_bad_image == "raise":
                raise BadImageError(error.kind, f"Image {index}: {brief(error)}") from error
            first_error = first_error or str(error)
            broken[error.kind] += 1
        if image is not None:
            found = image_processor(limit_aspect_ratio(image), **{"return_tensors": "np", **(options or {})})
            # (1, 3, H, W) -> (3, H, W)
            encoded[index] = np.asarray(found["pixel_values"], dtype=np.float32)[0]
    if any(len(given) > 1 for given in sources):
        # the same words each time: Python shows them once
        warnings.warn(
            "Some texts have several images, and the model reads one image per text: the first that can be read. Put "
            "another first, or repeat the text with each.",
            stacklevel=4,
        )
    if broken:
        counts = ", ".join(f"{count} {kind}" for kind, count in broken.most_common())
        warnings.warn(
            f"{broken.total()} of {sum(map(len, sources))} images cannot be used and are treated as missing: "
            f"{counts}. The first: {first_error}",
            stacklevel=4,
        )
    return encoded, broken


__all__ = ["encode_images", "image_of_each_text"]
