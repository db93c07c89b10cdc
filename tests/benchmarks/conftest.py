"""The script that a file of tests is about, and files for it to read."""

from __future__ import annotations

import json
import random
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image
from transformers import BertConfig, BertModel, ViTConfig, ViTImageProcessorPil, ViTModel, set_seed

from bga_mner import write_conll
from bga_mner.examples.synthetic.corpus import generate_corpus
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


# of encoders, which have as many layers as any variant aligns
_TINY = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 24}


@pytest.fixture(scope="module")
def benchmark(request: pytest.FixtureRequest) -> ModuleType:
    """Import the script that stands in benchmarks/ under the name that the file of tests has after "test_"."""
    return import_module(f"bga_mner.benchmarks.{request.path.stem.removeprefix('test_')}")


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write train.txt (12 tweets), valid.txt (8) and a tiny text encoder, "bert"."""
    folder = tmp_path_factory.mktemp("texts")
    corpus = generate_corpus(
        names_per_type=2,
        train_labelled=12,
        train_unlabelled=0,
        test_sentences=0,
        validation_sentences=8,
        image_size=16,
    )
    for name, part in (("train", corpus.train), ("valid", corpus.validation)):
        write_conll(folder / f"{name}.txt", part["tokens"], part["ner_tags"], part["id"])
    tokenizer = build_tokenizer(corpus.sentences(), model_max_length=64)
    tokenizer.save_pretrained(folder / "bert")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)
    BertModel(config).save_pretrained(folder / "bert")
    return folder


@pytest.fixture(scope="module")
def caption_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write captions.tsv and pictures of 30 people and 30 animals, and tiny encoders, "bert" and "vit".

    Three captions of an image say where someone is, which tells no type; one what only that type does.
    """
    folder, rng = tmp_path_factory.mktemp("captions"), random.Random(0)
    (folder / "pictures").mkdir()
    places = ["on grass", "in water", "near a tree", "by a wall", "at night"]
    looks = {
        "person": ("woman", "reads a long book", (200, 150, 120)),
        "animal": ("brown dog", "wags its tail", (60, 40, 20)),
    }
    lines, words = [], []
    for kind, (subject, does, colour) in looks.items():
        for number in range(30):
            image = f"{kind}-{number}"
            noisy = tuple(channel + rng.randrange(-20, 20) for channel in colour)
            Image.new("RGB", (16, 16), noisy).save(folder / "pictures" / f"{image}.jpg")
            for rest in [*rng.sample(places, 3), does]:
                lines.append(f"{image}\tA {subject} {rest} .")
                words.append(f"{rest} .".split())
    (folder / "captions.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    set_seed(0)
    tokenizer = build_tokenizer(words, model_max_length=64)
    tokenizer.save_pretrained(folder / "bert")
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **_TINY)).save_pretrained(
        folder / "bert"
    )
    _save_tiny_vit(folder / "vit")
    return folder


@pytest.fixture(scope="module")
def tweet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write tweets.jsonl (30 tweets, six of unknown sentiment, two with the same text), pictures/, and a tiny "vit"."""
    folder = tmp_path_factory.mktemp("tweets")
    (folder / "pictures").mkdir()
    lines = []
    for number in range(30):
        sentiment = None if number % 5 == 4 else ("negative", "neutral", "positive")[number % 3]
        text = f"This is {min(number, 28)} #now"
        lines.append(json.dumps({"id": str(number), "text": text, "image": f"{number}.jpg", "sentiment": sentiment}))
        Image.new("RGB", (20, 20), (8 * number, 0, 255 - 8 * number)).save(folder / "pictures" / f"{number}.jpg")
    (folder / "tweets.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _save_tiny_vit(folder / "vit")
    return folder


def _save_tiny_vit(folder: Path) -> None:
    """Write a random vision encoder and its image processor."""
    ViTModel(ViTConfig(image_size=16, patch_size=8, **_TINY), add_pooling_layer=False).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
