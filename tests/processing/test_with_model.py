"""From a CoNLL file and a folder of images to a trained model and entities, with the stock Trainer."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, Trainer, TrainingArguments

from bga_mner.processing.data.conll import read_conll
from bga_mner.processing.data_collator import DataCollatorForMner
from bga_mner.processing.evaluation.mner_metric import build_compute_metrics, score_tags
from bga_mner.processing.inference.prediction import predict
from bga_mner.processing.processing_bga_mner import BgaMnerProcessor
from bga_mner.processing.tags.tag_scheme import spans_from_tags


TEXT = """IMGID:1
# O
NBA B-ORG
: O
Kawhi B-PER
Leonard I-PER
wins O

IMGID:2
Eric B-PER
Nam I-PER
announces O
dates O
for O
Atlanta B-LOC
\u200d O

IMGID:3
Bundesliga_EN B-ORG
in O
Seattle B-LOC

IMGID:4
fans
line
up

"""


@pytest.fixture(autouse=True)
def _one_thread():
    """Run on one thread: on models this small, several wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def data(tmp_path):
    (tmp_path / "tweets.txt").write_text(TEXT, encoding="utf-8")
    for name, colour in (("1", "red"), ("2", "blue")):
        Image.new("RGB", (30, 20), colour).save(tmp_path / f"{name}.jpg")
    (tmp_path / "3.jpg").write_bytes(b"")
    return read_conll(tmp_path / "tweets.txt", tmp_path, show_progress=False)


@pytest.fixture
def small_processor(tokenizer, label2id):
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    return BgaMnerProcessor(image_processor, tokenizer, label2id)


@pytest.fixture
def model(make_model, small_processor):
    options = {
        "vocab_size": len(small_processor.tokenizer),
        "max_position_embeddings": 80,
        "pad_token_id": small_processor.tokenizer.pad_token_id,
    }
    names = {number: label for label, number in small_processor.label2id.items()}
    return make_model("bert", "vit", text_options=options, id2label=names)


@pytest.mark.parametrize("tokenizer", ["wordpiece", "left-padded"], indirect=True)
def test_trainer_learns_and_scores_words(data, small_processor, model, tmp_path):
    encoded = data.with_transform(small_processor.encode_examples)
    arguments = TrainingArguments(
        str(tmp_path / "out"),
        per_device_train_batch_size=2,
        per_device_eval_batch_size=3,
        num_train_epochs=40,
        learning_rate=1e-2,
        report_to=[],
        remove_unused_columns=False,
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=1000,
        use_cpu=True,
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=encoded,
        eval_dataset=encoded,
        data_collator=DataCollatorForMner(small_processor),
        compute_metrics=build_compute_metrics(model.config.id2label),
    )
    trainer.train()
    scores = trainer.evaluate()
    found = predict(model, small_processor, data["tokens"])
    assert scores["eval_f1"] > 0.9
    # The same score by another way: entities of `predict`, back to tags of words, against the file.
    predicted = []
    for words, entities in zip(data["tokens"], found, strict=True):
        starts = np.cumsum([0] + [len(word) + 1 for word in words]).tolist()
        tags = ["O"] * len(words)
        for entity in entities:
            first, behind = starts.index(entity["start"]), starts.index(entity["end"] + 1)
            tags[first:behind] = [f"B-{entity['label']}"] + [f"I-{entity['label']}"] * (behind - first - 1)
        predicted.append(tags)
    by_predict = score_tags(predicted, data["ner_tags"])
    for name in ("precision", "recall", "f1", "accuracy"):
        assert scores[f"eval_{name}"] == pytest.approx(by_predict[f"overall_{name}"])
    assert scores["eval_number_PER"] == 2


def test_predict_reads_the_best_path(data, small_processor, model):
    sentences = data["tokens"][:]
    batch = small_processor(sentences, return_tensors="pt", return_word_start_mask=True)
    with torch.no_grad():
        output = model(**batch)
    found = predict(model, small_processor, sentences)
    for row, entities in enumerate(found):
        starts = batch["word_start_mask"][row]
        assert output.predictions[row][~starts].eq(-100).all()
        tags = [model.config.id2label[int(number)] for number in output.predictions[row][starts]]
        assert [entity["label"] for entity in entities] == [label for label, _, _ in spans_from_tags(tags)]


def test_every_kind_of_batch_runs_and_images_do_not_change_inference(data, small_processor, model):
    collate = DataCollatorForMner(small_processor)
    rows = list(data.with_transform(small_processor.encode_examples))
    assert small_processor.bad_images == {}
    for part in (rows, rows[2:], rows[3:]):
        assert torch.isfinite(model(**collate(part)).loss)
    blind = [{**row, "pixel_values": None} for row in copy.copy(rows)]
    with torch.no_grad():
        seeing, not_seeing = model(**collate(rows)), model(**collate(blind))
    assert torch.equal(seeing.predictions, not_seeing.predictions)
    assert predict(model, small_processor, data["tokens"], images=data["image"]) == predict(
        model, small_processor, data["tokens"]
    )
    words = data["tokens"][0] * 30
    assert len(predict(model, small_processor, [words], max_length=20)) == 1
