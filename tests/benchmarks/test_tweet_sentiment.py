"""The measurement of sentiment, with generated tweets and tiny encoders, since only its machinery is tested."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from bga_mner.benchmarks.tweets import read_tweets


@pytest.fixture
def arguments(text_folder, tweet_folder):
    argv = ["--data_dir", str(tweet_folder), "--text_model", str(text_folder / "bert"), "--epochs", "1", "--quiet"]
    argv += ["--vision_model", str(tweet_folder / "vit"), "--image_size", "16", "--batch_size", "16", "--threads", "1"]
    return [*argv, "--splits", "2", "--json"]


def test_prints_every_variant_for_every_split(benchmark, arguments, capsys):
    found = benchmark.main(arguments)
    printed = capsys.readouterr()
    lines = printed.out.strip().splitlines()
    assert json.loads(lines[-1]) == {"tweet_sentiment": found}
    assert "%|" not in printed.err  # --quiet hides the bars of transformers and datasets, too
    assert list(found) == list(benchmark.VARIANTS)
    for values in found.values():
        assert list(values) == ["accuracy", "macro_f1"]
        assert all(len(of_splits) == 2 and 0 <= min(of_splits) <= max(of_splits) <= 1 for of_splits in values.values())
    # real images at test are shown to the model that was trained anyway
    assert sum("min left" in line for line in lines) == 10
    assert "about 0 min left" in "".join(lines)


def test_real_images_are_read(benchmark, arguments, tweet_folder, monkeypatch):
    read = []

    class Watched(benchmark.Rows):
        def __init__(self, texts, images, states):
            read.append(images)
            super().__init__(texts, images, states)

    monkeypatch.setattr(benchmark, "Rows", Watched)
    benchmark.main([*arguments, "--variants", "text_only,real_at_test,images"])
    tests = [test for _, test in benchmark.split(read_tweets(tweet_folder), 2)]
    # in the order of VARIANTS, for each split
    assert read == [row for test in tests for row in ([None] * len(test), test, [None] * len(test))]


def test_goes_on_from_what_was_measured(benchmark, arguments, tmp_path, monkeypatch):
    trained = []

    class Watched(benchmark.Trainings):
        def train(self, texts, own, variant, seed):
            trained.append((seed, variant.images))
            return super().train(texts, own, variant, seed)

    monkeypatch.setattr(benchmark, "Trainings", Watched)
    file = tmp_path / "sentiment.jsonl"
    kept = [*arguments, "--variants", "images,real_at_test,text_only", "--results", str(file)]
    found = benchmark.main(kept)
    assert trained == [(0, "paired"), (0, "none"), (1, "paired"), (1, "none")]
    # as if the run had been stopped within the second split
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:4]), encoding="utf-8")
    assert benchmark.main(kept) == found
    assert trained[4:] == [(1, "paired"), (1, "none")]


@pytest.mark.parametrize("splits", [2, 4])
def test_splits(benchmark, tweet_folder, splits):
    tweets = read_tweets(tweet_folder)
    labels, texts = tweets["label"][:], tweets["text"][:]
    found = benchmark.split(tweets, splits)
    tests = [row for _, test in found for row in test]
    # each tweet of known sentiment is tested once, and no other
    assert sorted(tests) == [row for row, label in enumerate(labels) if label is not None]
    unknown = {row for row, label in enumerate(labels) if label is None}
    for train, test in found:
        assert sorted([*train, *test]) == list(range(len(labels)))
        assert unknown <= set(train)
        assert {labels[row] for row in test} == {0, 1, 2}
        known_texts = {texts[row] for row in train if labels[row] is not None}
        assert not known_texts & {texts[row] for row in test}
    assert found == benchmark.split(tweets, splits)


def test_scores_against_scikit_learn(benchmark):
    random = np.random.default_rng(0)
    outcomes = random.integers(0, [3, 3, 3], size=(90, 3))
    outcomes[outcomes[:, 0] == 2, 1:] = random.integers(0, 2, size=(np.sum(outcomes[:, 0] == 2), 2))
    accuracy, macro_f1 = benchmark.scores_of(outcomes, 3)
    for fold in range(3):
        _, expected, predicted = outcomes[outcomes[:, 0] == fold].T
        assert accuracy[fold] == pytest.approx(accuracy_score(expected, predicted))
        f1 = f1_score(expected, predicted, labels=range(3), average="macro", zero_division=0)
        assert macro_f1[fold] == pytest.approx(f1)


def test_differences_are_of_the_same_tweets(benchmark):
    expected = np.arange(60) % 3
    fold = np.arange(60) // 30
    base = np.stack([fold, expected, np.where(np.arange(60) % 2, expected, (expected + 1) % 3)], axis=1)
    ours = np.stack([fold, expected, expected], axis=1)
    rows = np.arange(60)
    assert benchmark.difference(0, 2, ours, base, rows) == pytest.approx(0.5)
    assert benchmark.difference(0, 2, base, ours, rows) == pytest.approx(-0.5)
    # the third and the fourth tweet alone: one of them is right without images
    assert benchmark.mean_score(0, 1, base, np.array([2, 3])) == pytest.approx(0.5)
    assert benchmark.difference(0, 1, base, base, np.array([0, 0, 5])) == 0


def test_says_what_to_mend(benchmark, arguments, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"Expected at least 9 texts of each sentiment.* got {'negative': 8"):
        benchmark.main([*arguments, "--splits", "9"])
    with pytest.raises(ValueError, match=r"Expected tweets\.jsonl"):
        benchmark.main([*arguments, "--data_dir", str(tmp_path)])
    with pytest.raises(ValueError, match="Expected scores that are finite, got others of text_only"):
        benchmark.main(
            [*arguments, "--variants", "text_only", "--learning_rate", "1e30", "--new_learning_rate", "1e30"]
        )
    with pytest.raises(SystemExit):
        benchmark.main([*arguments, "--variants", "imagess"])
    assert "expected some of images, real_at_test" in capsys.readouterr().err
