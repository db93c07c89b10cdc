"""The robustness script, shortened: trainings of a few steps, then a test of what they saved."""

from __future__ import annotations

import json

import pytest
import torch

from bga_mner import BgaMnerForTokenClassification, BgaMnerProcessor, predict, read_conll, score_tags, write_conll
from bga_mner.processing.evaluation.robustness import predict_tags


@pytest.fixture(scope="module")
def trained(script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("robustness")
    assert script.TRAINING_SHARES == (0.0, 0.25, 0.5, 0.75, 1.0)
    script.TRAINING_SHARES = (0.0, 0.5)
    sizes = {"steps": 4, "vision_steps": 5, "images": 64, "pairs": 160, "test_sentences": 16, "samples": 20}
    rows = script.main(["train", f"--output_dir={folder}", *(f"--{name}={value}" for name, value in sizes.items())])
    return folder, rows


@pytest.fixture(scope="module")
def model_dir(trained):
    """Save a model that takes most words for an entity of the type MISC, which is right now and then."""
    folder, _ = trained
    model = BgaMnerForTokenClassification.from_pretrained(folder / "model")
    with torch.no_grad():
        model.classifier.bias[model.config.label2id["B-MISC"]] += 5
    model.save_pretrained(folder / "biased")
    BgaMnerProcessor.from_pretrained(folder / "model").save_pretrained(folder / "biased")
    return folder / "biased"


def test_trainings_have_a_row_each_and_leave_a_model_and_a_test_set(trained):
    folder, rows = trained
    assert json.loads((folder / "train.json").read_text())["rows"] == rows
    assert [row["condition"] for row in rows] == ["all images", "50% removed", "mismatched images"]
    for row in rows:
        for test_set in ("labelled", "never_labelled"):
            assert 0 <= row[test_set]["low"] <= row[test_set]["f1"] <= row[test_set]["high"] <= 1
            assert (row[test_set]["compared"] is None) == (row is rows[0])
    model = BgaMnerForTokenClassification.from_pretrained(folder / "model")
    processor = BgaMnerProcessor.from_pretrained(folder / "model")
    dataset, report = read_conll(folder / "test.txt", folder / "images", return_report=True)
    assert (report.images_found, report.images_missing) == (16, 0)
    tags = predict_tags(model, processor, dataset, show_progress=False)
    assert score_tags(tags, dataset["ner_tags"])["overall_f1"] == rows[0]["never_labelled"]["f1"]
    assert isinstance(predict(model, processor, "we need to talk about Kawhi"), list)


def test_a_saved_model_is_tested_with_and_without_images(script, trained, model_dir, tmp_path, capsys):
    folder, _ = trained
    arguments = ["test", f"--model_dir={model_dir}", f"--test_file={folder / 'test.txt'}", "--samples=20"]
    arguments.append(f"--output_dir={tmp_path}")
    rows = script.main([*arguments, f"--image_dir={folder / 'images'}", "--json"])
    printed = capsys.readouterr().out
    assert json.loads(printed.splitlines()[-1]) == rows
    assert json.loads((tmp_path / "test.json").read_text())["rows"] == rows
    assert all(row["types"]["MISC"]["f1"] > 0 for row in rows)
    assert [row["images"] for row in rows] == [16, 12, 8, 4, 0, 16]
    for row in rows:
        assert row["condition"] in printed
        assert f"{row['f1']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" in printed
    # the text of a file without images is read as that of one whose images are all removed
    (alone,) = script.main(arguments)
    assert (alone["condition"], alone["f1"]) == ("text only", rows[4]["f1"])
    assert "Text only was tested, since the file has no images" in capsys.readouterr().out


def test_another_data_set_has_its_types_renamed(script, trained, model_dir, tmp_path, capsys):
    folder, _ = trained
    dataset = read_conll(folder / "test.txt")
    tags = [[tag.replace("MISC", "OTHER") for tag in tags] for tags in dataset["ner_tags"]]
    write_conll(tmp_path / "other.txt", dataset["tokens"], tags, dataset["id"])
    arguments = ["test", f"--model_dir={model_dir}", "--samples=20", f"--output_dir={tmp_path}"]
    (first,) = script.main([*arguments, f"--test_file={folder / 'test.txt'}"])
    assert "The " not in capsys.readouterr().out
    arguments.append(f"--test_file={tmp_path / 'other.txt'}")
    script.main(arguments)
    printed = " ".join(capsys.readouterr().out.split())
    assert "The model knows no OTHER: each one in the file counts as missed." in printed
    assert "The file has no MISC: each one that the model finds counts as wrong." in printed
    (renamed,) = script.main([*arguments, "--label_map", "OTHER=MISC"])
    assert renamed == first
    assert "The model" not in capsys.readouterr().out
    (dropped,) = script.main([*arguments, "--label_map", "OTHER=", "MISC="])
    assert "MISC" not in dropped["types"]
    for wrong, message in (("Other=MISC", "got 'Other'"), ("OTHER", "Expected OLD=NEW"), ("=MISC", "Expected OLD=NEW")):
        with pytest.raises(ValueError, match=message):
            script.main([*arguments, "--label_map", wrong])


def test_a_folder_without_a_model_is_refused(script, tmp_path):
    with pytest.raises(ValueError, match="a saved model as --model_dir"):
        script.main(["test", f"--model_dir={tmp_path}", "--test_file=x", f"--output_dir={tmp_path}"])
