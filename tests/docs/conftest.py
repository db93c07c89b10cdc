"""What the pages tell to type is typed, on tiny models in folders of the names that the pages use."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from transformers import (
    BertConfig,
    BertModel,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
)

from bga_mner import write_conll
from bga_mner.examples.synthetic.corpus import generate_corpus
from bga_mner.examples.synthetic.sentiment import generate_sentiment_corpus
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    corpus = generate_corpus(names_per_type=4, train_labelled=24, train_unlabelled=8, test_sentences=8)
    tokenizer = build_tokenizer(corpus.sentences())
    text = BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **SIZES))
    for name in ("bert-base-cased", "distilbert-base-cased"):
        tokenizer.save_pretrained(folder / name)
        text.save_pretrained(folder / name)
    vision_folder = folder / "openai" / "clip-vit-base-patch32"
    CLIPVisionModel(CLIPVisionConfig(image_size=32, patch_size=16, **SIZES)).save_pretrained(vision_folder)
    side = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=side).save_pretrained(vision_folder)
    (folder / "images").mkdir()
    for name, dataset in (("train", corpus.train), ("valid", corpus.validation)):
        labelled = dataset.filter(lambda row: row["ner_tags"] is not None)
        write_conll(folder / f"{name}.txt", labelled["tokens"], labelled["ner_tags"], labelled["id"])
        for row in labelled:
            (folder / "images" / f"{row['id']}.png").write_bytes(row["image"]["bytes"])
    with (folder / "pairs.jsonl").open("w") as file:
        for row in corpus.train.filter(lambda row: row["ner_tags"] is None):
            path = folder / "images" / f"{row['id']}.png"
            path.write_bytes(row["image"]["bytes"])
            file.write(json.dumps({"text": " ".join(row["tokens"]), "image": f"images/{path.name}"}) + "\n")
    Image.new("RGB", (40, 30), "red").save(folder / "kawhi.jpg")
    opinions = generate_sentiment_corpus(
        names_per_sentiment=2, train_labelled=12, train_unlabelled=12, test_sentences=3
    )
    with (folder / "opinions.jsonl").open("w") as file:
        for row in opinions.train:
            path = folder / "images" / f"{row['id']}.png"
            path.write_bytes(row["image"]["bytes"])
            first, end = row["target"]
            start = len(" ".join([*row["tokens"][:first], ""]))
            target = [start, start + len(" ".join(row["tokens"][first:end]))]
            values = {"text": " ".join(row["tokens"]), "target": target, "label": row["label"]}
            file.write(json.dumps(values | {"image": f"images/{path.name}"}) + "\n")
    return folder


@pytest.fixture(scope="session")
def run_in():
    def run(folder: Path, command: list[str]) -> str:
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run
