"""Images of ids in folders: which files are found, which of several is taken, and what reports say of the others."""

from __future__ import annotations

import os

import pytest
from PIL import Image, features

from bga_mner import ConllReport, load_image, read_conll
from bga_mner.processing.images.image_folder import ImageCounter, ImageFolder
from bga_mner.processing.images.image_loading import FORMATS


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def draw(file, kind="PNG", colour="red"):
    file.parent.mkdir(exist_ok=True)
    Image.new("RGB", (16, 16), colour).save(file, kind)  # an icon has at least 16 pixels


def read(folder, *ids, **options):
    file = folder.parent / "t.txt"
    file.write_text("".join(f"IMGID:{name}\nann B-PER\n\n" for name in ids))
    rows, report = read_conll(file, folder, return_report=True, **options)
    paths = [row["image"] and os.path.relpath(row["image"]["path"], folder) for row in rows]
    return paths, report


def can_write(kind):
    try:
        Image.new("RGB", (8, 8)).save(os.devnull, kind)
    except (KeyError, OSError):
        return False
    return True


ENDINGS = sorted(ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS)


@pytest.mark.parametrize("ending", ENDINGS)
def test_images_of_every_format_that_is_read(folder, ending):
    kind = Image.registered_extensions()[ending]
    if kind not in Image.SAVE or not can_write(kind):
        pytest.skip(f"{kind} can't be written here")
    names = [f"1{ending}", f"2{ending.upper()}", f"3{ending.title()}", f"4.b{ending}"]
    for name in names:
        draw(folder / name, kind)
    paths, report = read(folder, "1", "2", "3", "4.b", *names, f"2{ending}", f"1{ending.upper()}")
    assert paths == [*names, *names, names[1], names[0]]
    assert (report.images_found, report.images_missing, report.several_images) == (10, 0, 0)
    assert load_image(folder / names[0]).size == (16, 16)


def test_formats_that_people_have_are_among_them():
    assert {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".jfif", ".ico"} <= set(ENDINGS)
    for name in ("webp", "avif"):
        assert (f".{name}" in ENDINGS) or not features.check(name)


@pytest.mark.parametrize(
    ("files", "name", "taken"),
    [
        (["1.png", "1.jpg", "1.bmp", "1.jpeg"], "1", "1.jpg"),
        (["1.png", "1.jpeg"], "1", "1.jpeg"),
        (["1.webp", "1.gif", "1.bmp"], "1", "1.bmp"),
        (["1.JPG", "1.jpg", "1.Jpg"], "1", "1.jpg"),
        (["1.JPG", "1.jpg"], "1.JPG", "1.JPG"),
        (["1.jpg", "1.png"], "1.png", "1.png"),
        (["1.PNG", "1.jpg"], "1.png", "1.PNG"),
        # the file of the name as a whole comes before one that has another ending behind it
        (["1.png.jpg", "1.png"], "1.png", "1.png"),
        (["1.png.jpg"], "1.png", "1.png.jpg"),
        (["1.2.jpg", "1.jpg"], "1.2", "1.2.jpg"),
        (["1.2.jpg", "1.jpg"], "1", "1.jpg"),
        # no ending, and one that isn't an image's
        (["1"], "1", "1"),
        (["1.img"], "1.img", "1.img"),
        (["1.img"], "1", None),
        (["1", "1.jpg"], "1", "1"),
        (["12.jpg"], "1", None),
        (["sub/1.webp"], "sub/1", "sub/1.webp"),
        (["sub/1.webp"], "sub/1.webp", "sub/1.webp"),
        (["sub/1.webp"], "sub", None),
        (["sub/1.webp"], "1", None),
        ([".jpg"], "a", None),
    ],
)
def test_which_file_is_taken(folder, files, name, taken):
    for number, file in enumerate(files):
        draw(folder / file, "PNG", (number, 0, 0))
    for check in (True, False):
        paths, report = read(folder, name, check_images=check)
        assert paths == [taken]
        several = len(ImageFolder(folder).find(name).paths) > 1
        assert (report.images_found, report.several_images) == (int(taken is not None), int(several))
        assert ("1 tweets have several images" in str(report)) == several


@pytest.mark.parametrize("check", [True, False])
def test_of_several_files_a_broken_one_is_passed_over(folder, check):
    (folder / "1.jpg").write_bytes(b"")
    draw(folder / "1.png")
    paths, report = read(folder, "1", check_images=check)
    assert (paths, report.images_found, report.images_broken) == (["1.png"], 1, {})
    (folder / "1.png").write_text("<html>")
    paths, report = read(folder, "1", check_images=check)
    assert (paths, report.images_found, report.images_broken) == ([None], 0, {"empty": 1})


@pytest.mark.parametrize("ending", ["eps", "ps", "pdf", "svg", "SVG", "wmf", "emf", "psd", "heic", "jxl"])
@pytest.mark.parametrize("named", [True, False])
def test_refused_formats_are_no_missing_images(folder, ending, named):
    (folder / f"1.{ending}").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    paths, report = read(folder, f"1.{ending}" if named else "1", "2")
    assert paths == [None, None]
    assert (report.images_found, report.images_missing) == (0, 1)
    assert report.images_broken == {"in a refused format": 1}
    assert report.examples["image in a refused format"] == [f"1.{ending}"]
    assert f"image in a refused format, for example: 1.{ending}" in str(report)
    # beside one that is read it doesn't matter
    draw(folder / "1.jpg")
    paths, report = read(folder, "1")
    assert (paths, report.images_broken, report.several_images) == (["1.jpg"], {}, 0)


def test_a_folder_is_listed_once_and_no_file_is_looked_for(folder, monkeypatch):
    for number in range(20):
        draw(folder / f"{number}.png")
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or scandir(path))
    for name in ("stat", "lstat"):
        monkeypatch.setattr(os, name, lambda *path: pytest.fail(f"{path} was looked for"))
    files = ImageFolder(folder)
    assert [len(files.find(str(number)).paths) for number in range(40)] == [1] * 20 + [0] * 20
    assert len(listed) == 1


def test_links_folders_and_names_that_are_none(folder):
    draw(folder / "a.png")
    (folder / "linked.jpg").symlink_to(folder / "a.png")
    (folder / "broken.jpg").symlink_to(folder / "gone.png")
    (folder / "sub.jpg").mkdir()
    (folder / "plain").mkdir()
    paths, report = read(folder, "linked", "broken", "sub", "plain", "x" * 5000, "y/" * 3000)
    assert paths == ["linked.jpg", *[None] * 5]
    assert (report.images_missing, report.images_broken) == (4, {"unreadable": 1})
    assert ImageFolder(folder / "nowhere").find("a") == ([], [])


def test_an_image_of_several_texts_is_opened_once(folder, monkeypatch):
    draw(folder / "1.png")
    opened = []
    from bga_mner.processing.images import image_folder

    monkeypatch.setattr(image_folder, "load_image", lambda source: opened.append(source) or load_image(source))
    counter = ImageCounter(ConllReport("", ""), True)
    source = {"bytes": None, "path": str(folder / "1.png")}
    assert [counter.choose(str(number), [source]) for number in range(3)] == [source] * 3
    assert opened == [source["path"]]
    assert counter.report.images_found == 3
