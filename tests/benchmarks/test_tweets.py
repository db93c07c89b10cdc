"""What the measurements on tweets share: reading, images of other rows, intervals, and trainings that are alike."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from bga_mner.examples.command_line import Parser

import numpy as np
import pytest
import torch

from bga_mner import BgaMnerForSequenceClassification
from bga_mner.examples.synthetic.experiment import TEXT_ONLY, Variant
from bga_mner.examples.synthetic.recipe import encode_once


@pytest.fixture(scope="module")
def options(benchmark, text_folder, tweet_folder):
    parser = Parser("")
    benchmark.add_options(parser, ("images", "text_only"))
    argv = ["--data_dir", str(tweet_folder), "--text_model", str(text_folder / "bert"), "--epochs", "1", "--quiet"]
    argv += ["--vision_model", str(tweet_folder / "vit"), "--image_size", "16", "--batch_size", "8"]
    return parser.parse_args(argv)


@pytest.fixture(scope="module")
def trainings(benchmark, options, tmp_path_factory):
    tweets = benchmark.read_tweets(options.data_dir)
    folder = tmp_path_factory.mktemp("trainings")
    return benchmark.Trainings(options, BgaMnerForSequenceClassification, benchmark.SENTIMENTS, tweets, folder)


def test_reads_tweets(benchmark, tweet_folder):
    tweets = benchmark.read_tweets(tweet_folder)
    assert len(tweets) == 30
    assert tweets[1] == {
        "id": "1",
        "text": "This is 1 #now",
        "image": str(tweet_folder / "pictures" / "1.jpg"),
        "label": benchmark.SENTIMENTS.index("neutral"),
    }
    assert [row for row, label in enumerate(tweets["label"]) if label is None] == [4, 9, 14, 19, 24, 29]
    assert len(benchmark.read_tweets(tweet_folder, 7)) == 7


def test_a_text_may_hold_a_line_separator(benchmark, tweet_folder, tmp_path):
    shutil.copytree(tweet_folder / "pictures", tmp_path / "pictures")
    tweet = {"id": "7", "text": "One\u2028two\x85three", "image": "7.jpg", "sentiment": None}
    (tmp_path / "tweets.jsonl").write_text(json.dumps(tweet, ensure_ascii=False) + "\n", encoding="utf-8")
    assert benchmark.read_tweets(tmp_path)["text"][:] == [tweet["text"]]


def test_says_what_to_mend(benchmark, tweet_folder, tmp_path):
    with pytest.raises(ValueError, match=r"Expected tweets\.jsonl in --data_dir .*, got none"):
        benchmark.read_tweets(tmp_path)
    (tmp_path / "tweets.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"tweets\.jsonl', got an empty file"):
        benchmark.read_tweets(tmp_path)
    tweet = {"id": "7", "text": "Hi", "image": "7.jpg", "sentiment": None}
    (tmp_path / "tweets.jsonl").write_text(json.dumps(tweet), encoding="utf-8")
    with pytest.raises(ValueError, match=r"got none for 1\. Add "):
        benchmark.read_tweets(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sentiment": "glad"}, r"or null as the sentiment in line 2 of .*, got 'glad'"),
        ({"text": None}, 'Expected {"id": "1", .*} in line 2 of '),
        ({"text": ["Hi"]}, "in line 2 of "),
        ({"id": 8}, "in line 2 of "),
        ({"image": "../8.jpg"}, r"name of a file in pictures/ in line 2 .*, got '\.\./8\.jpg'"),
        ({"image": "8" * 300}, "name of a file in pictures/ in line 2 "),
        ({"id": "7"}, "Expected each tweet once in .*, got id '7' 2 times"),
        ("[1]", r"in line 2 of .*, got '\[1\]'"),
        ('{"id": "8"', "in line 2 of "),
        ("[" * 100_000, "in line 2 of "),
        ('{"id": "8", "text": "Hi", "image": "7.jpg"}', "in line 2 of "),
    ],
)
def test_names_a_tweet_that_cannot_be_used(benchmark, tweet_folder, tmp_path, change, said):
    tweet = {"id": "7", "text": "Hi", "image": "7.jpg", "sentiment": None}
    second = change if isinstance(change, str) else json.dumps(tweet | {"id": "8"} | change)
    (tmp_path / "tweets.jsonl").write_text(f"{json.dumps(tweet)}\n{second}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        benchmark.read_tweets(tmp_path)


@pytest.mark.filterwarnings("ignore:1 of 6 images cannot be used")
def test_images_that_cannot_be_read_are_refused_each_time(benchmark, options, tweet_folder, tmp_path):
    shutil.copytree(tweet_folder, tmp_path / "tweets")
    (tmp_path / "tweets" / "pictures" / "3.jpg").write_bytes(b"no image")
    tweets = benchmark.read_tweets(tmp_path / "tweets", 6)
    options.cache_dir = tmp_path / "kept"
    try:
        for _ in range(2):
            with pytest.raises(ValueError, match=r"got 1 of 6 that can't, such as .*3\.jpg"):
                benchmark.Trainings(
                    options, BgaMnerForSequenceClassification, benchmark.SENTIMENTS, tweets, tmp_path / "folder"
                )
    finally:
        options.cache_dir = None


def test_shuffled_images_are_those_of_other_rows(benchmark):
    own = [None, 7, 3, None, 9, 5, 8]
    for seed in range(20):
        shuffled = benchmark.choose_images(own, "shuffled", seed)
        assert [image is None for image in shuffled] == [image is None for image in own]
        assert all(image is None or image != other for image, other in zip(shuffled, own, strict=True))
        assert {*shuffled} == {*own}
    assert benchmark.choose_images(own, "shuffled", 0) != benchmark.choose_images(own, "shuffled", 1)
    assert benchmark.choose_images(own, "paired", 0) == own
    assert benchmark.choose_images(own, "none", 0) == [None] * len(own)
    with pytest.raises(ValueError, match="at least two images to shuffle, got one"):
        benchmark.choose_images([None, 5], "shuffled", 0)


def test_interval_of_a_mean(benchmark):
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    low, high = benchmark.bootstrap(lambda rows: float(values[rows].mean()), len(values))
    # of a mean the interval is known: 1.96 standard errors on either side
    error = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - error, abs=0.03)
    assert high == pytest.approx(values.mean() + error, abs=0.03)
    # what is constant in all rows has no width, and so has a paired difference that is
    assert benchmark.bootstrap(lambda rows: float((values[rows] + 1 - values[rows]).mean()), 400) == pytest.approx(
        (1, 1)
    )
    assert benchmark.with_interval(lambda rows: 0.25, 10, "+") == "+0.250 (+0.250 to +0.250)"


def test_states_are_those_of_the_images(benchmark, options, trainings):
    tweets = benchmark.read_tweets(options.data_dir)
    model = trainings.build({}).eval()
    texts = encode_once(trainings.processor, tweets.remove_columns("image"))
    rows = benchmark.Rows(texts, [3, None, *range(28)], trainings.states)
    pixels = trainings.processor.encode_images([tweets[3]["image"]])[0]
    with torch.no_grad():
        expected = model.bga_mner.encode_images(torch.from_numpy(pixels)[None])[0]
    torch.testing.assert_close(torch.from_numpy(rows[0]["vision_states"]), expected)
    assert rows[1]["vision_states"] is None
    assert rows[0]["label"] == tweets[0]["label"]


def test_variants_differ_in_images_alone(benchmark, options, trainings):
    tweets = benchmark.read_tweets(options.data_dir)
    texts = encode_once(trainings.processor, tweets.remove_columns("image"))
    seen, weights = {}, {}
    for variant in (Variant(), TEXT_ONLY, Variant(images="shuffled")):
        images = variant.images
        trainer = trainings.train(texts, list(range(30)), variant, seed=5)
        torch.manual_seed(1)
        seen[images] = list(trainer.get_train_dataloader())
        weights[images] = trainer.model.state_dict()
    for name in ("input_ids", "labels"):
        for one, other, another in zip(*seen.values(), strict=True):
            assert torch.equal(one[name], other[name])
            assert torch.equal(one[name], another[name])
    assert "vision_states" not in seen["none"][0]
    assert not torch.equal(seen["paired"][0]["vision_states"], seen["shuffled"][0]["vision_states"])
    frozen = [name for name in weights["none"] if name.startswith("bga_mner.vision_encoder.")]
    assert frozen
    assert all(torch.equal(weights["none"][name], weights["paired"][name]) for name in frozen)
    assert not torch.equal(weights["none"]["classifier.weight"], weights["paired"]["classifier.weight"])


def test_states_are_found_again(benchmark, options, tmp_path):
    options.cache_dir = tmp_path / "kept"
    try:
        for number in range(2):
            tweets = benchmark.read_tweets(options.data_dir, 6)
            labels = benchmark.SENTIMENTS
            benchmark.Trainings(options, BgaMnerForSequenceClassification, labels, tweets, tmp_path / str(number))
    finally:
        options.cache_dir = None
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_real_tweets(benchmark):
    folder = os.environ.get("BGA_MNER_TWEETS")
    if folder is None or not Path(folder, "tweets.jsonl").is_file():
        pytest.skip("BGA_MNER_TWEETS names no folder with tweets.jsonl and pictures/")
    labels = benchmark.read_tweets(Path(folder))["label"][:]
    known = [label for label in labels if label is not None]
    assert set(known) == {0, 1, 2}
    assert 0.1 < 1 - len(known) / len(labels) < 0.25
