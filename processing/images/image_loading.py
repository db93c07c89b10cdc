"""Decode whatever may stand for an image to RGB, or say what is wrong with it."""

import io
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ...configuration.errors import brief, shown
from ..sequences import as_list


# Above this, a file of a few kilobytes can fill the memory. Pillow warns from the same figure on.
MAX_PIXELS = 89_478_485
# A longer file can't be an image of `MAX_PIXELS`, even with 16 bits in four channels.
MAX_FILE_BYTES = 8 * MAX_PIXELS
# Pillow reads more, but its reader of EPS runs the file, which is a program, in Ghostscript.
FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "SGI", "SUN", "TGA"),
    *("TIFF", "WEBP", "XBM"),
)

_URL = re.compile(r"^(?:[A-Za-z][A-Za-z0-9+.-]+://|data:)")
# What may stand for an image; and for the images of texts, of which each may have several.
ImageSource = Image.Image | str | os.PathLike[str] | bytes | bytearray | memoryview | dict[str, Any]
Images = ImageSource | Iterable[ImageSource | Iterable[ImageSource | None] | None] | np.ndarray | None
# `warnings.catch_warnings` changes state of the whole process, so only one thread may be inside it.
_OPEN_LOCK = threading.Lock()


class BadImageError(ValueError):
    """An image that cannot be used.

    Parameters
    ----------
    kind : str
        One of "missing", "empty", "unreadable", "not an image", "truncated", "damaged", "too large".
    message : str
        What was expected, what came and how to mend it.
    """

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        # workers of a DataLoader send errors pickled, and `args` hold the message alone
        return type(self), (self.kind, str(self))


def load_image(source: ImageSource) -> Image.Image:
    """Decode an image to RGB, 8 bits a channel, the right way up.

    Transparent images are laid on white, the first frame of animations is taken, and 16-bit values are scaled.

    Parameters
    ----------
    source : PIL.Image.Image, str, os.PathLike, bytes or dict
        An image, a path, the content of a file, or what `datasets.Image(decode=False)` gives.

    Returns
    -------
    PIL.Image.Image
        Mode "RGB", in memory; no file stays open.

    Raises
    ------
    BadImageError
        If the image is missing, empty, broken or too large.
    TypeError, ValueError
        If `source` is of another type; if it is a URL, or a dict without the keys "bytes" and "path".

    Examples
    --------
    >>> load_image(Image.new("L", (1, 1), 7)).getpixel((0, 0))
    (7, 7, 7)
    """
    if isinstance(source, dict):
        source = _from_dict(source)
    if isinstance(source, Image.Image):
        return _decode(source, "an image in memory")
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_bytes(bytes(source), f"{len(source)} bytes in memory")
    if isinstance(source, str | os.PathLike):
        return _from_path(os.fspath(source))
    raise TypeError(
        "Expected an image as PIL image, path, bytes or a dict with 'bytes' and 'path', got "
        f"{type(source).__name__}. {_advice('type')}"
    )


def load_first_image(sources: Iterable[ImageSource | None]) -> tuple[Image.Image | None, list[BadImageError]]:
    """Decode the first image that can be read; return it, and the errors of those before it."""
    errors: list[BadImageError] = []
    for source in sources:
        try:
            if source is not None:
                return load_image(source), errors
        except BadImageError as error:
            errors.append(error)
    return None, errors


def is_url(source: Any) -> TypeGuard[str]:
    """Whether an image is a URL, which `load_image` refuses."""
    return isinstance(source, str) and _URL.match(source) is not None


def as_image_list(images: Any) -> list[Any]:
    """Make a list of one image or many; an array (H, W, 3) is one, and one of four axes is several."""
    axes = getattr(images, "ndim", 0)
    if axes > 1 and getattr(getattr(images, "dtype", None), "kind", None) not in ("O", "U", "T"):
        return list(images) if axes == 4 else [images]
    several = as_list(images)
    return [images] if several is None else several


def limit_aspect_ratio(image: Image.Image, ratio: float = 20.0) -> Image.Image:
    """Cut the ends off a thin line, of which resizing the shorter edge to a fixed size makes gigabytes."""
    longest = max(1, int(ratio * min(image.size)))
    if max(image.size) <= longest:
        return image
    left, top = (max(0, (side - longest) // 2) for side in image.size)
    return image.crop((left, top, min(image.width, left + longest), min(image.height, top + longest)))


def stack_images(images: Sequence[Any], name: str = "pixel_values") -> dict[str, np.ndarray]:
    """Stack B images (3, H, W) or None: `image_mask` (B,) and, if any is there, `name` (B, 3, H, W)."""
    try:
        arrays = [None if image is None else np.asarray(image, dtype=np.float32) for image in images]
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected {shown(name)} as arrays of numbers, got something else: {brief(error)}.") from error
    present = np.array([array is not None for array in arrays], dtype=bool)
    found = [array for array in arrays if array is not None]
    if not found:
        return {"image_mask": present}
    shapes = {array.shape for array in found}
    if len(shapes) > 1 or found[0].ndim != 3:
        raise ValueError(
            f"Expected images of one shape (channels, height, width), got {shown(sorted(shapes))}. Use an image "
            "processor that resizes or crops to a fixed size."
        )
    stacked = np.zeros((len(arrays), *found[0].shape), dtype=np.float32)
    # N images (3, H, W) -> (N, 3, H, W), into their rows of (B, 3, H, W)
    stacked[present] = np.stack(found)
    return {name: stacked, "image_mask": present}


def bad_image(kind: str, got: str, advice: str) -> BadImageError:
    """Make the error for an image; `advice` is a key of `ADVICE`."""
    return BadImageError(kind, f"Expected an image, got {got}. {_advice(advice)}")


def _advice(about: str) -> str:
    try:
        from .image_advice import ADVICE
    except ImportError:
        return "Give another, or None."
    return ADVICE[about]


def _from_dict(source: dict[str, Any]) -> Any:
    found = source.get("path") if source.get("bytes") is None else source["bytes"]
    if found is None and {"bytes", "path"} & source.keys():
        raise bad_image("missing", "'bytes' and 'path' that are None", "none")
    if found is None:
        keys = shown(sorted(map(str, source)))
        raise ValueError(
            f"Expected an image as dict with the keys 'bytes' and 'path', got the keys {keys}. {_advice('keys')}"
        )
    return found


def _from_path(name: str | bytes) -> Image.Image:
    if is_url(name):
        raise ValueError(f"Expected an image as PIL image, path or bytes, got the URL {shown(name)}. {_advice('url')}")
    try:
        path = Path(os.fsdecode(name))
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # devices and pipes never end, or block whoever opens them
            raise OSError("it is a folder" if stat.S_ISDIR(found.st_mode) else "it is a device or pipe")
        if found.st_size > MAX_FILE_BYTES:
            raise bad_image("too large", f"more than {MAX_FILE_BYTES:,} bytes in {shown(name)}", "too large")
        content = path.read_bytes()
    except BadImageError:
        raise
    except (OSError, ValueError) as error:  # no read permission, a path with a NUL character or longer than any, ...
        kind = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
        raise bad_image(kind, f"the path {shown(name)}: {reason_of(error)}", "path") from error
    return _from_bytes(content, shown(name))


def _from_bytes(content: bytes, name: str) -> Image.Image:
    if not content:
        raise bad_image("empty", f"an empty file: {name}", "file")
    try:
        with _OPEN_LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `_decode` refuses these images
            Image.init()
            image = Image.open(io.BytesIO(content), formats=[name for name in FORMATS if name in Image.OPEN])
    except UnidentifiedImageError as error:
        got = f"{name} of no usual format (it begins with {content[:14]!r})"
        raise bad_image("not an image", got, "not an image") from error
    except Exception as error:  # readers raise nearly anything on damaged headers: SyntaxError, struct.error, ...
        raise _unusable(error, name) from error
    with image:
        return _decode(image, name)


def _decode(image: Image.Image, name: str) -> Image.Image:
    width, height = image.size
    if width < 1 or height < 1:
        raise bad_image("empty", f"{width} x {height} pixels in {name}", "none")
    try:
        if width * height > MAX_PIXELS:
            raise Image.DecompressionBombError
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # so do decoders
        raise _unusable(error, name) from error


def _unusable(error: Exception, name: str) -> BadImageError:
    if isinstance(error, Image.DecompressionBombError):
        return bad_image("too large", f"more than {MAX_PIXELS:,} pixels in {name}", "too large")
    kind = "truncated" if "truncated" in str(error).lower() or isinstance(error, EOFError) else "damaged"
    return bad_image(kind, f"a {kind} one in {name} ({type(error).__name__}: {reason_of(error)})", "file")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _scale_to_8_bits(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode in ("La", "RGBa"):  # premultiplied; each converts to its plain form only
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _scale_to_8_bits(image: Image.Image) -> Image.Image:
    """Scale grey values of 16 or 32 bits, of which Pillow's own conversion makes white."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    # 32-bit formats do not say which range they use
    largest = 65535.0 if image.mode.startswith("I;16") else float(values.max())
    if image.mode == "F" and largest <= 1.0:
        values = values * 255.0
    elif largest > 65535.0:
        values = values * (255.0 / largest)
    elif largest > 255.0:
        values = values / 257.0
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def reason_of(error: Exception) -> str:
    """Return what a library says, without the path, which may be endless."""
    return brief(getattr(error, "strerror", None) or error, 200)


__all__ = [
    "FORMATS",
    "BadImageError",
    "ImageSource",
    "Images",
    "as_image_list",
    "bad_image",
    "is_url",
    "limit_aspect_ratio",
    "load_first_image",
    "load_image",
    "reason_of",
    "stack_images",
]
