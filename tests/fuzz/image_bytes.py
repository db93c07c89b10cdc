"""Fuzzing target: any bytes as an image."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from byte_reader import ByteReader, refusals
from PIL import Image
from small_parts import SIDE, processor

from bga_mner import BadImageError, load_image
from bga_mner.processing.images.image_loading import FORMATS, MAX_PIXELS


KINDS = {"missing", "empty", "unreadable", "not an image", "truncated", "damaged", "too large"}
MAX_LENGTH = 1 << 14


def one_input(data: bytes) -> None:
    """Decode; what comes is an image in RGB, or a BadImageError that names the kind."""
    with refusals():  # for its warnings: those of Pillow about broken files are no failures
        kind, image = "", None
        try:
            image = load_image(data)
        except BadImageError as error:
            kind = error.kind
        assert kind in KINDS if image is None else not kind
        if image is not None:
            assert image.mode == "RGB"
            assert 0 < image.width * image.height <= 2 * MAX_PIXELS
        (encoded,) = processor().encode_images([data])
        assert (encoded is None) == (image is None)
        # of several images of a text, the first that can be read
        (first,) = processor().encode_images([[b"", data, None]])
        assert (first is None) == (encoded is None)
        assert first is None or np.array_equal(first, encoded)
        if encoded is not None:
            assert encoded.shape == (3, SIDE, SIDE)
            assert np.isfinite(encoded).all()
    with refusals(TypeError):  # of what can't be an image, as documented
        reader = ByteReader(data)
        load_image(reader.pick(({"bytes": data[:40], "path": None}, {"path": reader.text(3)}, reader.value())))


def seeds() -> list[bytes]:
    """Return small images in many formats and modes, and one that claims to be huge."""
    made = [b"", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", _png_header(60_000, 60_000)]
    colours = Image.radial_gradient("L").resize((11, 7))
    for mode in ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "F"):
        image = colours.convert(mode) if mode != "I;16" else Image.fromarray(np.asarray(colours).astype(np.uint16))
        for name in FORMATS:
            file = io.BytesIO()
            try:
                image.save(file, name)
            except (OSError, ValueError, KeyError):  # a format that can't be written, or not in this mode
                continue
            made.append(file.getvalue())
    frames = io.BytesIO()
    colours.save(frames, "GIF", save_all=True, append_images=[colours.rotate(90)])
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    colours.save(turned, "JPEG", exif=exif)
    return [*made, frames.getvalue(), turned.getvalue()]


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
