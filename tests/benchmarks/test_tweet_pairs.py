"""The measurement of unlabelled pairs, with generated texts and tiny encoders, since only its machinery is tested."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bga_mner import score_tags
from bga_mner.processing.evaluation.bootstrap import count_entities


@pytest.fixture
def arguments(text_folder, tweet_folder):
    argv = ["--data_dir", str(tweet_folder), "--text_model", str(text_folder / "bert"), "--epochs", "1", "--quiet"]
    argv += ["--vision_model", str(tweet_folder / "vit"), "--image_size", "16", "--batch_size", "16", "--threads", "1"]
    return [*argv, "--labelled_dir", str(text_folder), "--json"]


def test_prints_every_variant_for_every_seed(benchmark, arguments, capsys):
    found = benchmark.main([*arguments, "--seeds", "3,4"])
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1]) == {"tweet_pairs": found}
    assert list(found) == list(benchmark.VARIANTS)
    for values in found.values():
        assert list(values) == ["f1"]
        assert len(values["f1"]) == 2
        assert all(0 <= value <= 1 for value in values["f1"])


def test_goes_on_from_what_was_measured(benchmark, arguments, tmp_path, monkeypatch):
    trained = []

    class Watched(benchmark.Trainings):
        def train(self, texts, own, variant, seed):
            trained.append((seed, variant))
            return super().train(texts, own, variant, seed)

    monkeypatch.setattr(benchmark, "Trainings", Watched)
    kept = [*arguments, "--variants", "images,labelled_alone", "--results", str(tmp_path / "kept" / "pairs.jsonl")]
    first = benchmark.main([*kept, "--seeds", "4"])
    both = benchmark.main([*kept, "--seeds", "3,4"])
    images, alone = benchmark.VARIANTS["images"], benchmark.VARIANTS["labelled_alone"]
    assert trained == [(4, images), (4, alone), (3, images), (3, alone)]
    assert {name: values["f1"][1:] for name, values in both.items()} == {name: of["f1"] for name, of in first.items()}
    assert benchmark.main([*kept, "--seeds", "3,4"]) == both
    assert len(trained) == 4
    # another learning rate is another measurement
    benchmark.main([*kept, "--seeds", "4", "--learning_rate", "3e-4"])
    assert len(trained) == 6


def test_labelled_texts_have_no_image_and_tweets_no_tags(benchmark, arguments, monkeypatch):
    given = []

    class Watched(benchmark.Trainings):
        def train(self, texts, own, variant, seed):
            given.append((texts, own))
            return super().train(texts, own, variant, seed)

    monkeypatch.setattr(benchmark, "Trainings", Watched)
    benchmark.main([*arguments, "--seeds", "0", "--variants", "images", "--max_rows", "10"])
    ((texts, own),) = given
    assert own == [None] * 10 + list(range(10))
    assert [any(label != -100 for label in text["labels"]) for text in texts] == [True] * 10 + [False] * 10


def test_a_batch_of_tweets_alone_stops_no_training(benchmark, arguments):
    found = benchmark.main([*arguments, "--seeds", "0", "--variants", "labelled_alone", "--batch_size", "1"])
    assert 0 <= found["labelled_alone"]["f1"][0] <= 1


def test_scores_are_those_of_seqeval(benchmark):
    expected = [["B-PER", "O"], ["B-LOC", "I-LOC"], ["O", "B-PER"]]
    seeds = [[["B-PER", "O"], ["B-LOC", "O"], ["O", "O"]], expected, [["O", "O"]] * 3]
    counts = np.stack([count_entities(tags, expected)[1].sum(axis=1) for tags in seeds], axis=1)
    f1 = [score_tags(tags, expected)["overall_f1"] for tags in seeds]
    rows = np.arange(3)
    assert benchmark.f1_of(counts, rows) == pytest.approx(f1)
    assert benchmark.mean_f1(counts, rows) == pytest.approx(np.mean(f1))
    assert benchmark.difference(counts, counts[:, [2, 2, 2]], rows) == pytest.approx(np.mean(f1))
    # the first sentence twice
    assert benchmark.f1_of(counts, np.array([0, 0])) == pytest.approx([1, 1, 0])


def test_says_what_to_mend(benchmark, arguments, tmp_path):
    with pytest.raises(ValueError, match=r"--labelled_dir .*, got no train\.txt"):
        benchmark.main([*arguments, "--labelled_dir", str(tmp_path)])
    for part in ("train", "valid"):
        (tmp_path / f"{part}.txt").write_text("IMGID:1\nKawhi B-PER\nwins\n\nIMGID:2\nhi O\n\n", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"in train\.txt, with a tag for each word, got 2 with \d entities, and 1 without"
    ):
        benchmark.main([*arguments, "--labelled_dir", str(tmp_path)])
    with pytest.raises(ValueError, match=r"two texts with entities in train\.txt"):
        benchmark.main([*arguments, "--max_rows", "1"])
    with pytest.raises(ValueError, match=r"Expected tweets\.jsonl"):
        benchmark.main([*arguments, "--data_dir", str(tmp_path)])
