"""Turn anything that may stand for a picture into an RGB image, or say what is wrong with it."""

import io
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..configuration.messages import brief, shown
from .sequences import as_list, is_table


# Above this many pixels a file of a few kilobytes can fill the memory; Pillow warns from the same figure on.
MAX_PIXELS = 89_478_485
# A download is given up when it gets longer than this, or nothing comes for so many seconds.
MAX_BYTES = 50_000_000
_SECONDS = 10.0
# A file on disk of more bytes than this can't be a picture of `MAX_PIXELS`, not even with 16 bits in four channels.
MAX_FILE_BYTES = 8 * MAX_PIXELS
# What pictures come in. Pillow knows more formats; some of its readers are hardly ever used, and the one of EPS runs
# the file, which is a program, in Ghostscript.
FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "SGI", "SUN", "TGA"),
    *("TIFF", "WEBP", "XBM"),
)

_URL = re.compile(r"^(?:[A-Za-z][A-Za-z0-9+.-]+://|data:)")
# A text of base64, of which the beginning tells; and how it begins for JPEG, PNG, GIF, WebP, BMP, TIFF and AVIF.
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]+={0,2}\s*")
_BASE64_STARTS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk0", "SUkq", "TU0AK", "AAAA")
_FIX_BASE64 = "Decode base64 to bytes: base64.b64decode(text)."
# More characters than a file's name has.
_LONGEST_NAME = 255
# What files begin with that get a picture's name, or stand in its place.
_OTHER_FORMATS = {
    b"%!ps": "PostScript (EPS)",
    b"\xc5\xd0\xd3\xc6": "PostScript (EPS)",
    b"%pdf": "PDF",
    b"\xd7\xcd\xc6\x9a": "WMF",
    b"8bps": "PSD",
    b"<svg": "SVG",
    b"<?xml": "XML (SVG?)",
    b"<!doctype html": "HTML",
    b"<html": "HTML",
}
# `warnings.catch_warnings` changes state of the whole process, so only one thread may be inside it.
_OPEN_LOCK = threading.Lock()


class BadPictureError(ValueError):
    """A picture that cannot be used: missing, empty, truncated and so on.

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
        # Exceptions are rebuilt from `args`, which hold the message only; workers of a DataLoader send them pickled.
        return type(self), (self.kind, str(self))


def load_picture(source: Any) -> Image.Image:
    """Decode a picture to RGB, 8 bits a channel, the right way up.

    Pictures with transparency are laid on white, of animations the first frame is taken, 16-bit values are scaled
    to 8 bits, and the rotation that the EXIF data asks for is carried out.

    Parameters
    ----------
    source : PIL.Image.Image, str, os.PathLike, bytes or dict
        An image; a path; the content of a file; or ``{"bytes": ..., "path": ...}``, which is what
        ``datasets.Image(decode=False)`` gives.

    Returns
    -------
    PIL.Image.Image
        Mode "RGB", in memory; no file stays open.

    Raises
    ------
    BadPictureError
        If the picture is missing, empty, broken or has more than `MAX_PIXELS` pixels. Its ``kind`` names the reason.
    TypeError
        If `source` is of another type.
    ValueError
        If `source` is a URL, or a dict without the keys "bytes" and "path".

    Examples
    --------
    >>> load_picture(Image.new("L", (1, 1), 7)).getpixel((0, 0))
    (7, 7, 7)
    """
    if isinstance(source, dict):
        source = _from_dict(source)
    if isinstance(source, Image.Image):
        return _decode(source, "an image in memory")
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_bytes(bytes(source), f"{len(source)} bytes in memory")
    if isinstance(source, str | os.PathLike):
        return _from_path(source)
    raise TypeError(
        "Expected a picture as PIL image, path, bytes or a dict with 'bytes' and 'path', got "
        f"{type(source).__name__}. {_fix_type(source)}"
    )


class FirstPicture(NamedTuple):
    """The first picture of several that can be read.

    Attributes
    ----------
    picture : PIL.Image.Image or None
        None if there is no such picture.
    number : int or None
        Its place among those that were given.
    errors : list of BadPictureError
        What is wrong with those before it.
    """

    picture: Image.Image | None
    number: int | None
    errors: list[BadPictureError]


def load_first_picture(sources: Iterable[Any]) -> FirstPicture:
    """Decode the first picture that can be read: a text has one, and where several are given, the others are left.

    Parameters
    ----------
    sources : iterable of (picture or None)
        Whatever `load_picture` takes; None is passed over.

    Returns
    -------
    FirstPicture
        The picture, its place, and the errors of those before it.

    Raises
    ------
    TypeError, ValueError
        As `load_picture`, for what can't be a picture.
    """
    errors: list[BadPictureError] = []
    for number, source in enumerate(sources):
        if source is None:
            continue
        try:
            return FirstPicture(load_picture(source), number, errors)
        except BadPictureError as error:
            errors.append(error)
    return FirstPicture(None, None, errors)


def is_base64(text: str) -> bool:
    """Tell whether a string is an image as base64 text, and no path: it begins as one, or is longer than any name.

    Examples
    --------
    >>> is_base64("iVBORw0KGgo" + 90 * "A"), is_base64("photos/1.jpg")
    (True, False)
    """
    start = text[:1000]
    if len(text) <= 64 or not _BASE64.fullmatch(start):
        return False
    mixed = any(map(str.isupper, start)) and any(map(str.islower, start)) and any(map(str.isdigit, start))
    return text.startswith(_BASE64_STARTS) or (len(text) > _LONGEST_NAME and mixed)


def is_url(source: Any) -> TypeGuard[str]:
    """Tell whether what stands for a picture is a URL, which `load_picture` refuses.

    Examples
    --------
    >>> is_url("https://example.org/a.jpg"), is_url("a.jpg"), is_url(b"https://example.org/a.jpg")
    (True, False, False)
    """
    return isinstance(source, str) and _URL.match(source) is not None


def fetch_picture(url: str) -> bytes:
    """Download a picture.

    Parameters
    ----------
    url : str
        Begins with ``http://`` or ``https://``.

    Returns
    -------
    bytes
        The file, not decoded yet.

    Raises
    ------
    BadPictureError
        If it can't be had, or has more than `MAX_BYTES` bytes.
    ValueError
        If the URL is of another kind.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"Expected a URL that begins with http:// or https://, got {shown(url)}. Give a path.")
    try:  # what stands outside of `try`, transformers asks of everyone who loads this file from the Hub
        import httpx
    except ImportError as error:
        raise ImportError("Fetching a picture from its address needs httpx. Install it: pip install httpx.") from error
    content = bytearray()
    try:
        with httpx.stream("GET", url, timeout=_SECONDS, follow_redirects=True) as response:
            response.raise_for_status()
            for piece in response.iter_bytes():
                content += piece
                if len(content) > MAX_BYTES:
                    raise BadPictureError(
                        "too large", f"Expected a picture of at most {MAX_BYTES:,} bytes, but {shown(url)} has more."
                    )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise BadPictureError(
            "unreadable", f"Expected a picture, but {shown(url)} gives: {_reason(error)}. Check the address."
        ) from error
    return bytes(content)


def as_picture_list(images: Any) -> list[Any]:
    """Make a list of one picture or many.

    Parameters
    ----------
    images : picture or sequence of (picture or None)
        Whatever `load_picture` takes, or several of it: a list, a column of a dataset or a data frame, an array of
        objects. An array of numbers, such as (H, W, 3), is one picture, and one of four axes is several.

    Returns
    -------
    list of (picture or None)
        One item a picture; what is missing (NaN) is None.

    Examples
    --------
    >>> as_picture_list("a.jpg"), as_picture_list(("a.jpg", None))
    (['a.jpg'], ['a.jpg', None])
    """
    axes = getattr(images, "ndim", 0)
    if axes > 1 and getattr(getattr(images, "dtype", None), "kind", None) not in ("O", "U", "T"):
        return list(images) if axes == 4 else [images]
    pictures = as_list(images)
    return [images] if pictures is None else pictures


def limit_aspect_ratio(picture: Image.Image, ratio: float = 20.0) -> Image.Image:
    """Cut the ends off a picture that is a thin line.

    Image processors that bring the shorter edge to a fixed size blow a 1 x 10,000 picture up to gigabytes before
    they crop it.

    Parameters
    ----------
    picture : PIL.Image.Image
        Any picture.
    ratio : float, default 20.0
        Largest allowed ratio of the longer to the shorter edge.

    Returns
    -------
    PIL.Image.Image
        The same object if it is no thinner than that, otherwise its middle part.

    Examples
    --------
    >>> limit_aspect_ratio(Image.new("RGB", (1000, 2))).size
    (40, 2)
    """
    width, height = picture.size
    longest = max(1, int(ratio * min(width, height)))
    if max(width, height) <= longest:
        return picture
    left = max(0, (width - longest) // 2)
    top = max(0, (height - longest) // 2)
    return picture.crop((left, top, min(width, left + longest), min(height, top + longest)))


def stack_pictures(pictures: Sequence[Any], name: str = "pixel_values") -> dict[str, np.ndarray]:
    """Put encoded pictures, or what a vision encoder made of them, into one array.

    Parameters
    ----------
    pictures : sequence of (array or None)
        float32 (3, H, W) each, all of one shape, which has three axes; None where there is no picture.
    name : str
        What the result is called.

    Returns
    -------
    dict of str to numpy.ndarray
        ``picture_mask``, bool (B,), and, if there is any picture, ``pixel_values`` (or `name`), float32
        (B, 3, H, W), zeros where there is none.

    Raises
    ------
    ValueError
        If shapes differ.

    Examples
    --------
    >>> stack_pictures([np.ones((3, 2, 2)), None])["picture_mask"].tolist()
    [True, False]
    """
    try:
        arrays = [None if picture is None else np.asarray(picture, dtype=np.float32) for picture in pictures]
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected {shown(name)} as arrays of numbers, got something else: {brief(error)}.") from error
    present = np.array([array is not None for array in arrays], dtype=bool)
    found = [array for array in arrays if array is not None]
    if not found:
        return {"picture_mask": present}
    shapes = {array.shape for array in found}
    if len(shapes) > 1 or found[0].ndim != 3:
        raise ValueError(
            f"Expected pictures of one shape (channels, height, width), got {shown(sorted(shapes))}. Use an image "
            "processor that resizes to a fixed size, or crops, such as size={'height': 224, 'width': 224}."
        )
    stacked = np.zeros((len(arrays), *found[0].shape), dtype=np.float32)
    # N pictures (3, H, W) -> (N, 3, H, W), into their rows of (B, 3, H, W)
    stacked[present] = np.stack(found)
    return {name: stacked, "picture_mask": present}


def _from_dict(source: dict[str, Any]) -> Any:
    if not {"bytes", "path"} & source.keys():
        raise ValueError(
            "Expected a picture as dict with the keys 'bytes' and 'path', got the keys "
            f"{shown(sorted(map(str, source)))}. datasets.Image(decode=False) gives such dicts."
        )
    content = source.get("bytes")
    if content is not None:
        return content
    path = source.get("path")
    if path is None:
        raise BadPictureError(
            "missing",
            "Expected a picture, got a dict whose 'bytes' and 'path' are both None. Give None itself for no picture.",
        )
    return path


def _from_path(source: str | os.PathLike[str]) -> Image.Image:
    name = os.fspath(source)
    if is_url(name):
        fix = "download the file and give its path."
        if name.startswith("data:"):
            fix = "decode the base64 in it to bytes: base64.b64decode(url.partition(',')[2])."
        raise ValueError(
            f"Expected a picture as PIL image, path or bytes, got the URL {shown(name)}. URLs are not fetched: {fix}"
        )
    hint = "Check the folder and the file ending."
    if isinstance(name, str) and is_base64(name):
        hint = _FIX_BASE64
    try:
        content = _read_file(Path(os.fsdecode(name)))
    except FileNotFoundError:
        raise BadPictureError("missing", f"Expected a picture file, but {shown(name)} does not exist. {hint}") from None
    except BadPictureError:
        raise
    except (OSError, ValueError) as error:
        # A file without read permission, a path with a NUL character or longer than any, ...
        raise BadPictureError(
            "unreadable", f"Expected a readable picture file, but {shown(name)} gives: {_reason(error)}. {hint}"
        ) from error
    return _from_bytes(content, shown(name))


def _read_file(path: Path) -> bytes:
    """Read a whole file; devices and pipes never end, or block whoever opens them."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        what = "is a folder" if stat.S_ISDIR(found.st_mode) else "is none"
        raise BadPictureError("unreadable", f"Expected a picture file, but {shown(str(path))} {what}. Check the path.")
    if found.st_size > MAX_FILE_BYTES:
        raise BadPictureError(
            "too large",
            f"Expected a picture file of at most {MAX_FILE_BYTES:,} bytes, but {shown(str(path))} has "
            f"{found.st_size:,}. Scale the picture down first.",
        )
    return path.read_bytes()


def _from_bytes(content: bytes, name: str) -> Image.Image:
    if not content:
        raise BadPictureError("empty", f"Expected a picture, but {name} holds zero bytes. Fetch the file again.")
    try:
        with _OPEN_LOCK, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            Image.init()
            image = Image.open(io.BytesIO(content), formats=[name for name in FORMATS if name in Image.OPEN])
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_large(name) from error
    except UnidentifiedImageError as error:
        raise BadPictureError(
            "not an image",
            f"Expected a picture in a usual format (such as JPEG or PNG), but {name} is not one (it starts with "
            f"{content[:12]!r}). {_fix_format(content)}",
        ) from error
    except Exception as error:
        # Pillow's readers raise nearly anything on damaged headers: SyntaxError, struct.error, ValueError, ...
        raise _damaged(name, error) from error
    with image:
        return _decode(image, name)


def _decode(image: Image.Image, name: str) -> Image.Image:
    width, height = image.size
    if width < 1 or height < 1:
        raise BadPictureError(
            "empty", f"Expected a picture of at least 1 x 1 pixel, but {name} has {width} x {height}. Leave it out."
        )
    # An image opened by the caller has passed Pillow's check as a mere warning.
    if width * height > MAX_PIXELS:
        raise _too_large(name)
    try:
        image.load()
        upright = ImageOps.exif_transpose(image)
        return _to_rgb(image if upright is None else upright)
    except Image.DecompressionBombError as error:
        raise _too_large(name) from error
    except Exception as error:
        # As above: the decoders' errors have no common class.
        raise _damaged(name, error) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _scale_to_8_bits(image).convert("RGB")
    has_alpha = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    if not has_alpha:
        return image.convert("RGB")
    if image.mode in ("La", "RGBa"):  # premultiplied; each converts to its plain form only
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _scale_to_8_bits(image: Image.Image) -> Image.Image:
    """Scale grey values of 16 or 32 bits; Pillow's own conversion clips everything above 255 to white."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    if image.mode.startswith("I;16"):
        values = values / 257.0
    else:
        # 32-bit formats do not say which range they use, so the largest value decides.
        largest = float(values.max())
        if image.mode == "F" and largest <= 1.0:
            values = values * 255.0
        elif largest > 65535.0:
            values = values * (255.0 / largest)
        elif largest > 255.0:
            values = values / 257.0
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _too_large(name: str) -> BadPictureError:
    return BadPictureError(
        "too large",
        f"Expected a picture of at most {MAX_PIXELS:,} pixels, but {name} has more (a decompression bomb?). "
        "Scale it down first.",
    )


def _damaged(name: str, error: Exception) -> BadPictureError:
    kind = "truncated" if "truncated" in str(error).lower() or isinstance(error, EOFError) else "damaged"
    return BadPictureError(
        kind,
        f"Expected a whole picture, but {name} is {kind} ({type(error).__name__}: {_reason(error)}). "
        "Fetch the file again.",
    )


def _fix_type(source: Any) -> str:
    """Say what to do with a value that can't be a picture."""
    if is_table(source):
        return "Give one of its columns, such as table['image']."
    if hasattr(source, "read"):
        return "Give what the file holds: file.read()."
    if not hasattr(source, "ndim") and as_list(source) is not None:
        return "A text has one image: choose one, or repeat the text with each of them."
    return "Arrays become images with PIL.Image.fromarray(array)."


def _fix_format(content: bytes) -> str:
    """Say what to do with a file that isn't in one of `FORMATS`."""
    start = content[:100].lstrip().lower()
    name = next((name for mark, name in _OTHER_FORMATS.items() if start.startswith(mark)), None)
    if name == "HTML" or (name is None and not is_base64(content[:1000].decode("latin-1"))):
        return "It may be an error page saved under a picture's name: fetch it again."
    return _FIX_BASE64 if name is None else f"{name} is not read: convert it to PNG."


def _reason(error: Exception) -> str:
    """Return what a system or a library says, without the path, which may be endless."""
    return brief(getattr(error, "strerror", None) or error, 200)


__all__ = [
    "FORMATS",
    "BadPictureError",
    "FirstPicture",
    "as_picture_list",
    "fetch_picture",
    "is_base64",
    "is_url",
    "limit_aspect_ratio",
    "load_first_picture",
    "load_picture",
    "stack_pictures",
]
