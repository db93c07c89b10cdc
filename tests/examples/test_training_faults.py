"""Data that are not what they should be, in training: nothing is lost in silence. See docs/reference/faults.md."""

from __future__ import annotations

import json

import pytest

from bga_mner.examples import run_mner, run_mner_no_trainer
from bga_mner.examples.fine_tuning import skeleton


MAINS = {"trainer": run_mner.main, "loop": run_mner_no_trainer.main}


@pytest.fixture(params=list(MAINS))
def train(request, mner_arguments, run_script, tmp_path):
    """Return a function that trains for two steps, with other arguments, and returns the results."""

    def run(**others):
        given = mner_arguments | {"output_dir": tmp_path / "out", "max_steps": 2, "validation_file": None} | others
        if request.param == "trainer":
            given |= {"report_to": "none"}
        return MAINS[request.param](run_script.argv(given))

    return run


def report(folder):
    return json.loads((folder / "out" / "data_report.json").read_text(encoding="utf-8"))["train"]


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_file_is_refused(train, tmp_path, content):
    (tmp_path / "empty.txt").write_bytes(content)
    with pytest.raises(ValueError, match="Expected"):
        train(train_file=tmp_path / "empty.txt")


def test_a_missing_image_folder_is_refused(train, tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        train(image_dir=tmp_path / "nowhere")


def test_a_bad_label_is_refused_with_its_line(train, tmp_path):
    (tmp_path / "bad.txt").write_text("IMGID:1\nKawhi\tPER\n\n")
    with pytest.raises(ValueError, match=r"In line 2 of .*bad.txt"):
        train(train_file=tmp_path / "bad.txt")


def test_a_wrong_encoding_is_refused_or_counted(train, mner_files, tmp_path):
    text = (mner_files / "train.txt").read_text(encoding="utf-8")
    (tmp_path / "utf16.txt").write_text(text, encoding="utf-16")
    with pytest.raises(ValueError, match="Expected UTF-8"):
        train(train_file=tmp_path / "utf16.txt")
    (tmp_path / "latin1.txt").write_bytes(text.encode() + "IMGID:x\nZoë\tB-PER\n\n".encode("latin-1"))
    train(train_file=tmp_path / "latin1.txt")
    assert report(tmp_path)["replaced_characters"] == 1


@pytest.mark.filterwarnings("ignore:1 of 4 images cannot be used")
def test_an_image_that_breaks_after_the_check_is_a_missing_one(train, mner_files, tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    for path in (mner_files / "images").iterdir():
        (tmp_path / "images" / path.name).write_bytes(path.read_bytes())
    broken = tmp_path / "images" / "train-labelled-00003.png"
    broken.write_bytes(broken.read_bytes()[:60])
    train(image_dir=tmp_path / "images")
    assert report(tmp_path)["images_broken"] == {"truncated": 1}
    # and one that nobody saw breaking, since the check was before
    broken.write_bytes((mner_files / "images" / broken.name).read_bytes())
    check = skeleton.read_data

    def break_after(*arguments, **options):
        found = check(*arguments, **options)
        broken.write_bytes(b"")
        return found

    monkeypatch.setattr(skeleton, "read_data", break_after)
    found = train(image_dir=tmp_path / "images", overwrite_output_dir=True, max_steps=6)
    assert report(tmp_path)["images_broken"] == {}
    assert found
