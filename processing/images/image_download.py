"""Fetch images from web addresses."""

import warnings
from collections import Counter
from collections.abc import Iterable

import httpx

from ...configuration.errors import brief, shown
from .image_loading import BadImageError, ImageSource, bad_image, is_url, reason_of


# A download is given up beyond this.
MAX_BYTES = 50_000_000


def fetch_image(url: str) -> bytes:
    """Download an image of at most `MAX_BYTES` bytes; a BadImageError says why it can't be had."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"Expected a URL that begins with http:// or https://, got {shown(url)}. Give a path.")
    content = bytearray()
    try:
        with httpx.stream("GET", url, timeout=10.0, follow_redirects=True) as response:
            response.raise_for_status()
            for piece in response.iter_bytes():
                content += piece
                if len(content) > MAX_BYTES:
                    raise bad_image("too large", f"more than {MAX_BYTES:,} bytes at {shown(url)}", "too large")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise bad_image("unreadable", f"from {shown(url)}: {reason_of(error)}", "address") from error
    return bytes(content)


def fetch_images(
    images: Iterable[ImageSource | None], on_bad_image: str, bad_images: Counter[str]
) -> list[ImageSource | None]:
    """Put what addresses lead to in their place; None, with a warning, where it can't be had."""
    return [_fetched(image, on_bad_image, bad_images) if is_url(image) else image for image in images]


def _fetched(url: str, on_bad_image: str, bad_images: Counter[str]) -> bytes | None:
    try:
        return fetch_image(url)
    except BadImageError as error:
        if on_bad_image == "raise":
            raise
        bad_images[error.kind] += 1
        warnings.warn(f"An image cannot be used and is treated as missing: {brief(error)}", stacklevel=2)
        return None


__all__ = ["fetch_image", "fetch_images"]
