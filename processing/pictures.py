"""Turn anything that may stand for a picture into an RGB image, or say what is wrong with it."""

import io
import os
import re
import stat
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


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
        f"{type(source).__name__}. Arrays become images with PIL.Image.fromarray(array)."
    )


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
        raise ValueError(f"Expected a URL that begins with http:// or https://, got {url[:100]!r}. Give a path.")
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
                        "too large", f"Expected a picture of at most {MAX_BYTES:,} bytes, but {url[:100]!r} has more."
                    )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise BadPictureError(
            "unreadable", f"Expected a picture, but {url[:100]!r} gives: {error}. Check the address."
        ) from error
    return bytes(content)


def as_picture_list(images: Any) -> list[Any]:
    """Make a list of one picture or many.

    Parameters
    ----------
    images : picture or sequence of (picture or None)
        Whatever `load_picture` takes, or several of it, such as a column of a dataset.

    Returns
    -------
    list of (picture or None)
        One item a picture.

    Examples
    --------
    >>> as_picture_list("a.jpg"), as_picture_list(("a.jpg", None))
    (['a.jpg'], ['a.jpg', None])
    """
    single = isinstance(images, str | bytes | bytearray | memoryview) or not isinstance(images, Sequence)
    return [images] if single else list(images)


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
        raise ValueError(f"Expected {name!r} as arrays of numbers, got something else: {error}.") from error
    present = np.array([array is not None for array in arrays], dtype=bool)
    found = [array for array in arrays if array is not None]
    if not found:
        return {"picture_mask": present}
    shapes = {array.shape for array in found}
    if len(shapes) > 1 or found[0].ndim != 3:
        raise ValueError(
            f"Expected pictures of one shape (channels, height, width), got {sorted(shapes)}. Use an image processor "
            "that resizes to a fixed size, or crops, such as size={'height': 224, 'width': 224}."
        )
    stacked = np.zeros((len(arrays), *found[0].shape), dtype=np.float32)
    # N pictures (3, H, W) -> (N, 3, H, W), into their rows of (B, 3, H, W)
    stacked[present] = np.stack(found)
    return {name: stacked, "picture_mask": present}


def _from_dict(source: dict[str, Any]) -> Any:
    if not {"bytes", "path"} & source.keys():
        raise ValueError(
            f"Expected a picture as dict with the keys 'bytes' and 'path', got the keys {sorted(map(str, source))}. "
            "datasets.Image(decode=False) gives such dicts."
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
        raise ValueError(
            f"Expected a picture as PIL image, path or bytes, got the URL {name[:100]!r}. URLs are not fetched: "
            "download the file and give its path."
        )
    try:
        content = _read_file(Path(os.fsdecode(name)))
    except FileNotFoundError:
        raise BadPictureError(
            "missing", f"Expected a picture file, but {name!r} does not exist. Check the folder and the file ending."
        ) from None
    except BadPictureError:
        raise
    except (OSError, ValueError) as error:
        # A folder, a file without read permission, a path with a NUL character, ...
        raise BadPictureError(
            "unreadable", f"Expected a readable picture file, but {name!r} gives: {error}. Check path and permissions."
        ) from error
    return _from_bytes(content, repr(name))


def _read_file(path: Path) -> bytes:
    """Read a whole file; devices and pipes never end, or block whoever opens them."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise BadPictureError("unreadable", f"Expected a picture file, but {str(path)!r} is none. Check the path.")
    if found.st_size > MAX_FILE_BYTES:
        raise BadPictureError(
            "too large",
            f"Expected a picture file of at most {MAX_FILE_BYTES:,} bytes, but {str(path)!r} has {found.st_size:,}. "
            "Scale the picture down first.",
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
            f"{content[:12]!r}). It may be an error page saved under a picture's name: fetch it again.",
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
        f"Expected a whole picture, but {name} is {kind} ({type(error).__name__}: {error}). Fetch the file again.",
    )


__all__ = [
    "BadPictureError",
    "as_picture_list",
    "fetch_picture",
    "is_url",
    "limit_aspect_ratio",
    "load_picture",
    "stack_pictures",
]
