import base64
import io
import os
import pickle
import struct
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageFile

from bga_mner.processing.images import image_loading as images
from bga_mner.processing.images.image_loading import (
    BadImageError,
    limit_aspect_ratio,
    load_first_image,
    load_image,
    stack_images,
)


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_with_size(width, height):
    """Make a PNG of a few bytes whose header promises any size."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def kind_of(source):
    with pytest.raises(BadImageError) as caught:
        load_image(source)
    message = str(caught.value)
    assert message.startswith("Expected")
    assert message.endswith(".")
    return caught.value.kind


def test_every_kind_of_source_gives_the_same_pixels(photo, tmp_path):
    content = encode(photo, "PNG")
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    for source in (
        photo,
        str(path),
        path,
        content,
        bytearray(content),
        {"bytes": content, "path": None},
        {"bytes": None, "path": str(path)},
        {"path": str(path)},
    ):
        loaded = load_image(source)
        assert loaded.mode == "RGB"
        assert np.array_equal(np.asarray(loaded), np.asarray(photo))


def test_exif_rotation_is_carried_out(photo):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to the right
    loaded = load_image(encode(photo, "PNG", exif=exif))
    assert loaded.size == (20, 40)
    assert np.array_equal(np.asarray(loaded), np.rot90(np.asarray(photo), -1))


def test_the_first_frame_of_an_animation_is_taken():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    loaded = load_image(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert loaded.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV"])
def test_modes_without_transparency_become_rgb(mode):
    white = Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode)
    loaded = load_image(white)
    assert (loaded.mode, loaded.size) == ("RGB", (3, 2))
    assert min(loaded.getpixel((1, 1))) >= 250


def test_cmyk_jpeg_keeps_its_colours():
    red = load_image(encode(Image.new("RGB", (8, 8), (255, 0, 0)).convert("CMYK"), "JPEG"))
    assert red.getpixel((4, 4))[0] > 240
    assert red.getpixel((4, 4))[1] < 20


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La"])
def test_transparency_is_laid_on_white(mode):
    clear = Image.new("LA", (2, 2), (0, 0)) if mode in ("LA", "La") else Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    if mode == "PA":
        clear = Image.new("PA", (2, 2), (0, 0))
    elif clear.mode != mode:
        clear = clear.convert(mode)
    assert load_image(clear).getpixel((0, 0)) == (255, 255, 255)


def test_transparent_palette_entry_is_laid_on_white():
    image = Image.new("P", (2, 1), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((1, 0), 1)
    loaded = load_image(encode(image, "PNG", transparency=0))
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (255, 0, 0)]


def test_16_bit_values_are_scaled_not_clipped():
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    loaded = load_image(encode(Image.fromarray(values), "PNG"))
    assert np.asarray(loaded)[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[np.nan, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0, 65535, 257]], np.int32), [0, 255, 1]),
        (np.array([[0, 131070, 262140]], np.int32), [0, 128, 255]),
    ],
)
def test_32_bit_values_are_scaled(values, expected):
    assert np.asarray(load_image(Image.fromarray(values)))[0, :, 0].tolist() == expected


def test_one_pixel_is_an_image():
    assert load_image(encode(Image.new("RGB", (1, 1), "red"), "PNG")).size == (1, 1)


def test_bad_images_name_their_kind(photo, tmp_path):
    jpeg = encode(photo.resize((200, 200)), "JPEG")
    assert kind_of(tmp_path / "none.jpg") == "missing"
    assert kind_of({"bytes": None, "path": None}) == "missing"
    assert kind_of(b"") == "empty"
    assert kind_of({"bytes": b"", "path": "x.jpg"}) == "empty"
    assert kind_of(Image.new("RGB", (0, 5))) == "empty"
    assert kind_of(tmp_path) == "unreadable"
    assert kind_of("a\0b.jpg") == "unreadable"
    assert kind_of(b"<html>404</html>") == "not an image"
    assert kind_of(jpeg[:1]) == "not an image"
    assert kind_of(jpeg[: len(jpeg) // 2]) == "truncated"
    assert kind_of(encode(photo, "PNG")[:-30]) in ("truncated", "damaged")
    assert kind_of(png_with_size(20_000, 20_000)) == "too large"
    (tmp_path / "empty.jpg").write_bytes(b"")
    assert kind_of(tmp_path / "empty.jpg") == "empty"


def test_bomb_that_pillow_only_warns_about_is_refused_without_a_warning():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert kind_of(png_with_size(10_000, 10_000)) == "too large"
    assert not caught
    with pytest.warns(Image.DecompressionBombWarning):
        opened = Image.open(io.BytesIO(png_with_size(10_000, 10_000)))
    assert kind_of(opened) == "too large"


def test_every_cut_of_a_file_is_an_image_or_a_bad_one(photo):
    kinds = set()
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"):
        content = encode(photo, kind)
        for end in range(0, len(content), max(1, len(content) // 25)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's own remarks on broken files
                try:
                    size = load_image(content[:end]).size
                except BadImageError as error:
                    kinds.add(error.kind)
                else:
                    assert size == (40, 20)
    assert kinds <= {"empty", "not an image", "truncated", "damaged"}


def test_a_program_is_no_image(tmp_path, monkeypatch):
    # Pillow hands EPS, which is a program, to Ghostscript: one that would leave a trace
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/has_run\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # looked up anew
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n0 0 moveto\n%%EOF\n"
    with suppress(OSError):
        Image.open(io.BytesIO(program)).load()
    assert (tmp_path / "has_run").exists()
    (tmp_path / "has_run").unlink()
    assert kind_of(program) == "not an image"
    assert not (tmp_path / "has_run").exists()


def test_files_that_never_end_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    os.mkfifo(tmp_path / "pipe.jpg")
    assert kind_of(tmp_path / "pipe.jpg") == "unreadable"
    assert kind_of("/dev/zero") == "unreadable"
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(images.MAX_FILE_BYTES + 1)  # takes no room on the disk
    assert kind_of(tmp_path / "huge.jpg") == "too large"


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("it was decoded"))
    for side in (10_000, 20_000, 60_000):
        assert kind_of(png_with_size(side, side)) == "too large"


def test_lazily_opened_broken_image_is_bad(photo):
    content = encode(photo.resize((200, 200)), "JPEG")
    assert kind_of(Image.open(io.BytesIO(content[: len(content) // 2]))) == "truncated"


@pytest.mark.parametrize("url", ["https://x.org/a.jpg", "http://x", "s3://b/a.png", "data:image/png;base64,AA"])
def test_urls_are_refused(url):
    with pytest.raises(ValueError, match="Download the file") as caught:
        load_image(url)
    assert not isinstance(caught.value, BadImageError)


@pytest.mark.parametrize("source", [3, None, 2.5, np.zeros((2, 2, 3)), ["a.jpg"]])
def test_wrong_types_are_refused(source):
    with pytest.raises(TypeError, match=r"Expected an image .* got"):
        load_image(source)


def test_wrong_dict_is_refused():
    with pytest.raises(ValueError, match="the keys 'bytes' and 'path'"):
        load_image({"url": "x"})


BASE64 = base64.b64encode(np.random.default_rng(0).bytes(100_000)).decode()
IMAGE_BASE64 = base64.b64encode(encode(Image.new("RGB", (40, 40), "red"), "JPEG")).decode()


@pytest.mark.parametrize(
    ("source", "fix"),
    [
        *((text, r"base64\.b64decode\(text\)") for text in (BASE64, IMAGE_BASE64, BASE64[:300], BASE64 + "\n")),
        ({"bytes": BASE64, "path": None}, r"base64\.b64decode\(text\)"),
        (IMAGE_BASE64.encode(), r"base64\.b64decode\(text\)"),
        (BASE64.encode(), r"base64\.b64decode\(text\)"),
        ("data:image/jpeg;base64," + BASE64, r"base64\.b64decode\(url\.partition"),
        ("https://example.org/" + 5000 * "a", "Download the file"),
        ("a/" * 5000 + "b.jpg", "Check the folder"),
        (Path("a" * 5000), "Check the folder"),
        ("\0" * 5000, "Check the folder"),
        (b"<!DOCTYPE html>" + 5000 * b"a", "error page"),
        (b"<html>", "error page"),
        (b"a" * 70_000, r"base64\.b64decode|error page"),
        (b"%PDF-1.7 " * 1000, "begins with b'%PDF-.*Convert PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "begins with b'%!PS-.*Convert .*PostScript"),
        (b"\xc5\xd0\xd3\xc6" * 9, "Convert .*PostScript"),
        (b"\xd7\xcd\xc6\x9a" * 9, "Convert .*WMF"),
        (b"  <svg xmlns='x'/>", 'begins with b"  <svg.*Convert .*SVG'),
        (b"<?xml version='1.0'?><svg/>", "Convert .*SVG"),
        (dict.fromkeys(map(str, range(9999)), 0), "the keys 'bytes' and 'path'"),
        ({"bytes": ["a"] * 9999, "path": None}, "choose one"),
        (["a.jpg"] * 9999, "choose one, or repeat the text"),
        ((1, 2), "choose one"),
        (np.zeros((300, 300, 3)), r"PIL\.Image\.fromarray"),
        (io.BytesIO(b"a"), r"file\.read\(\)"),
        (Path("/"), "is a folder"),
        (object(), "got object"),
    ],
)
def test_messages_are_short_and_say_how_to_mend_it(source, fix):
    with pytest.raises((ValueError, TypeError), match=fix) as caught:
        load_image(source)
    message = str(caught.value)
    assert len(message) < 700
    assert message.startswith("Expected a")
    assert not any(len(word) > 250 for word in message.split())


def test_warnings_are_short_too(bert_processor):
    with pytest.warns(UserWarning, match="2 of 2 images cannot be used") as caught:
        bert_processor(["a", "b"], images=[BASE64, "a" * 9000 + ".jpg"])
    assert all(len(str(warning.message)) < 1000 for warning in caught)
    assert bert_processor.bad_images == {"unreadable": 2}


@pytest.mark.parametrize("name", ["iVBORw0KGgo", "9j", "AAAA" * 20, "R0lGOD" + "a" * 80])
def test_a_file_whose_name_looks_like_base64_is_read(photo, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    photo.save(tmp_path / name, "PNG")
    assert load_image(name).size == photo.size


def test_the_first_that_can_be_read(photo):
    image, errors = load_first_image([None, b"", photo, Image.new("RGB", (1, 1))])
    assert (image.size, [error.kind for error in errors]) == (photo.size, ["empty"])
    assert load_first_image([None]) == (None, [])


def test_error_survives_pickling():
    error = pickle.loads(pickle.dumps(BadImageError("empty", "Expected more.")))
    assert (error.kind, str(error)) == ("empty", "Expected more.")


@pytest.mark.parametrize("size", [(1, 10_000), (10_000, 1), (3, 999)])
def test_thin_lines_are_cut_to_their_middle(size):
    image = Image.new("RGB", size, "red")
    cut = limit_aspect_ratio(image)
    assert max(cut.size) == 20 * min(cut.size)
    assert cut.getpixel((0, 0)) == (255, 0, 0)


def test_ordinary_images_are_not_cut(photo):
    assert limit_aspect_ratio(photo) is photo


def test_stacking():
    stacked = stack_images([None, np.ones((3, 2, 2)), None])
    assert stacked["pixel_values"].shape == (3, 3, 2, 2)
    assert stacked["pixel_values"].dtype == np.float32
    assert stacked["pixel_values"].sum(axis=(1, 2, 3)).tolist() == [0, 12, 0]
    assert list(stack_images([None])) == ["image_mask"]
    with pytest.raises(ValueError, match="one shape"):
        stack_images([np.ones((3, 2, 2)), np.ones((3, 2, 3))])


def test_limit_is_pillows_own():
    assert images.MAX_PIXELS == Image.MAX_IMAGE_PIXELS


def test_real_photographs_are_read(photos):
    assert len(photos) == 1600
    for path in photos[::100]:
        assert load_image(path).size == (32, 32)
