"""What a training was, collected for the card: complete, plain JSON, and nothing that is nobody's business."""

from __future__ import annotations

import hashlib
import json
import re
from io import BytesIO

import datasets
import pytest
import torch
from huggingface_hub import metadata_load
from huggingface_hub.repocard_data import model_index_to_eval_results
from PIL import Image
from transformers import Trainer, TrainingArguments

from bga_mner import (
    BgaMnerForSequenceClassification,
    BgaMnerProcessor,
    DataCollatorForMner,
    bootstrap_interval,
    read_conll,
    score_tags,
    score_with_interval,
    summarize_training,
)
from bga_mner.processing.training.training_summary import TrainingRun


PREDICTED = [["B-PER", "I-PER", "O"], ["B-LOC", "O"], ["O", "B-PER"], ["B-PER"]]
EXPECTED = [["B-PER", "I-PER", "O"], ["B-LOC", "B-PER"], ["O", "B-LOC"], [None]]


@pytest.fixture
def train(make_batch, tmp_path):
    """Return a function that trains a model for three steps with the stock Trainer."""

    def run(model, images=True, labels=None, **options):
        batch = make_batch(lengths=(6,) * 4, images=images)
        batch |= {} if labels is None else {"labels": torch.tensor(labels)}
        rows = [{name: values[row] for name, values in batch.items()} for row in range(4)]
        trainer = Trainer(model=model, args=arguments(tmp_path), train_dataset=rows, eval_dataset=rows[:2], **options)
        trainer.train()
        return trainer

    return run


@pytest.fixture
def trainer(train, make_model):
    """Train a tiny model."""
    return train(make_model())


def arguments(folder):
    return TrainingArguments(
        output_dir=str(folder / "my-tagger"),
        max_steps=3,
        per_device_train_batch_size=2,
        learning_rate=1e-3,
        seed=17,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        hub_token="hf_secret",
    )


def test_scores_are_those_of_the_metric_and_the_bootstrap():
    found = score_with_interval(PREDICTED, EXPECTED, samples=40, seed=3)
    scores, intervals = score_tags(PREDICTED, EXPECTED), bootstrap_interval(PREDICTED, EXPECTED, 40, seed=3)
    assert {name: found[name] for name in ("precision", "recall", "f1", "accuracy")} == {
        name: scores[f"overall_{name}"] for name in ("precision", "recall", "f1", "accuracy")
    }
    assert (found["f1_low"], found["f1_high"]) == (intervals["low"], intervals["high"])
    assert set(found["types"]) == {"LOC", "PER"}
    for kind, values in found["types"].items():
        assert values == {
            **scores[kind],
            "f1_low": intervals["types"][kind]["low"],
            "f1_high": intervals["types"][kind]["high"],
        }
    assert (found["samples"], found["confidence"]) == (40, 0.95)


def test_a_few_lines_give_a_card(train, make_model, tmp_path):
    trainer = train(make_model(), images=False)
    file = tmp_path / "train.txt"
    file.write_text("IMGID:1\nKawhi\tB-PER\nwins\tO\n\nIMGID:2\nRome\tB-LOC\n\n", encoding="utf-8")
    report = read_conll(file, return_report=True)[1]
    scores = {"validation": trainer.evaluate() | {"eval_f1": 0.5}, "test": score_with_interval(PREDICTED, EXPECTED)}
    model = trainer.model
    model.config.training_summary = summarize_training(trainer, data={"train": report}, scores=scores, language="en")
    trainer.save_model(tmp_path / "saved")
    metadata = metadata_load(tmp_path / "saved" / "README.md")
    name, results = model_index_to_eval_results(metadata["model-index"])
    assert name == "my-tagger"
    found = {(result.dataset_split, result.metric_type): result.metric_value for result in results}
    assert found["validation", "f1"] == 0.5
    assert found["test", "recall"] == scores["test"]["recall"]
    card = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(file.read_bytes()).hexdigest() in card
    assert "It was trained on text alone." in card


def test_a_loop_of_one_s_own_says_what_is_read_off_a_trainer(trainer):
    known = summarize_training(trainer, name="tweets", scores={"test": {"f1": 0.5}})
    arguments = {"learning_rate": 1e-3, "optim": "sgd", "max_steps": 3, "seed": 17, "output_dir": "/home/me"}
    run = TrainingRun(trainer.model, "tweets", arguments, steps=3, device=torch.device("cpu"))
    found = summarize_training(run, scores={"test": {"f1": 0.5}})
    assert found["hyperparameters"] == {
        name: arguments[name] for name in ("learning_rate", "optim", "max_steps", "seed")
    }
    assert found["progress"] == {"steps": 3}
    same = ("name", "base_models", "parameters", "longest_text", "reads", "hardware", "versions", "scores")
    assert {name: found[name] for name in same} == {name: known[name] for name in same}
    assert "data" not in found
    run.train_dataset, run.seconds, run.best_step, run.chosen_by = PAIRS, 1.5, 2, "f1"
    found = summarize_training(run, resumed=True)
    assert found["progress"] == {"steps": 3, "resumed": True, "seconds": 1.5, "best_step": 2, "chosen_by": "f1"}
    assert found["trained_with_images"] is True
    run.reads_images = False
    assert summarize_training(run)["trained_with_images"] is False


def test_what_is_collected(trainer):
    summary = summarize_training(trainer, resumed=True)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["name"] == "my-tagger"
    assert summary["hyperparameters"]["seed"] == 17
    assert summary["hyperparameters"]["learning_rate"] == 1e-3
    assert summary["hyperparameters"]["max_steps"] == 3
    assert "num_train_epochs" not in summary["hyperparameters"]
    assert summary["progress"]["steps"] == 3
    (seconds,) = [entry["train_runtime"] for entry in trainer.state.log_history if "train_runtime" in entry]
    assert summary["progress"]["seconds"] == seconds
    assert summary["progress"]["resumed"] is True
    images = {"missing": 0, "broken": {}, "checked": False}
    assert summary["data"] == {
        "train": {"sentences": 4, "images": {"found": 4, **images}},
        "validation": {"sentences": 2, "images": {"found": 2, **images}},
    }
    assert summary["trained_with_images"] is True
    assert summary["parameters"] == sum(parameter.numel() for parameter in trainer.model.parameters())
    assert summary["hardware"]["device"].startswith("cpu: ")
    assert summary["hardware"]["processes"] == 1
    assert {"bga_mner", "python", "torch", "transformers"} <= set(summary["versions"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", summary["date"])
    assert summary["base_models"]["text encoder"] == {
        "description": "bert, 3 layers, width 16",
        "frozen": False,
        "on_hub": False,
    }
    # nothing was said of these
    for name in ("scores", "language", "license", "datasets", "widget_texts", "repository"):
        assert name not in summary


def _png() -> bytes:
    file = BytesIO()
    Image.new("RGB", (16, 16)).save(file, "PNG")
    return file.getvalue()


ROWS = [{"tokens": ["a"], "ner_tags": ["O"], "image": {"bytes": _png()} if row % 3 else None} for row in range(7)]
PAIRS = datasets.Dataset.from_list(ROWS).cast_column("image", datasets.Image())
SETS = {
    "pairs": (PAIRS, 4),
    "encoded as they are read": (PAIRS.with_transform(lambda batch: pytest.fail("encoded")), 4),
    "a selection": (PAIRS.select([0, 1, 3, 6]), 1),
    "a selection without images": (PAIRS.select([0, 3]), 0),
    "shuffled and cut": (PAIRS.shuffle(seed=3).select(range(5)), None),
    "paths": (datasets.Dataset.from_dict({"tokens": [["a"], ["b"]], "image": ["a.png", None]}), 1),
    "states": (datasets.Dataset.from_dict({"tokens": [["a"], ["b"]], "vision_states": [[[0.0]], None]}), 1),
    "texts": (PAIRS.remove_columns("image"), 0),
    "a column of nothing": (datasets.Dataset.from_dict({"tokens": [["a"]], "image": [None]}), 0),
    "a list": (ROWS, 4),
    "a list of tensors": ([{"pixel_values": torch.zeros(3, 2, 2), "image_mask": torch.tensor(x)} for x in (0, 1)], 1),
}


@pytest.mark.parametrize("name", SETS)
def test_images_of_sets_that_no_report_tells_of_are_counted(trainer, name):
    rows, count = SETS[name]
    if count is None:
        count = sum(row["image"] is not None for row in rows)
        assert 0 < count < 5
    trainer.train_dataset = rows
    summary = summarize_training(trainer)
    assert summary["trained_with_images"] is (count > 0)
    found = summary["data"]["train"].get("images", {"found": 0})
    assert found["found"] == count
    assert json.loads(json.dumps(summary)) == summary


@pytest.mark.parametrize(
    "rows",
    [
        PAIRS.rename_column("image", "photo"),  # for a transform of the user's own
        PAIRS.to_iterable_dataset(),
        torch.utils.data.TensorDataset(torch.zeros(3)),
        None,
    ],
)
def test_what_rows_do_not_tell_is_left_open_unless_a_report_tells_it(trainer, rows, tmp_path):
    trainer.train_dataset = rows
    assert "trained_with_images" not in summarize_training(trainer)
    (tmp_path / "train.txt").write_text("IMGID:1\nKawhi\tB-PER\n", encoding="utf-8")
    report = read_conll(tmp_path / "train.txt", return_report=True)[1]
    assert summarize_training(trainer, data={"train": report})["trained_with_images"] is False
    report.images_found = 1
    assert summarize_training(trainer, data={"train": report})["trained_with_images"] is True


def test_images_that_nothing_reads_were_not_used(trainer, train, make_model, processor):
    trainer.train_dataset = PAIRS
    trainer.data_collator = DataCollatorForMner(processor)
    assert summarize_training(trainer)["trained_with_images"] is True
    trainer.data_collator = DataCollatorForMner(BgaMnerProcessor(None, processor.tokenizer))
    assert summarize_training(trainer)["trained_with_images"] is False
    trainer = train(make_model(text_only=True), images=False)
    trainer.train_dataset = PAIRS
    assert summarize_training(trainer)["trained_with_images"] is False


def test_datasets_in_folders_are_no_names_on_the_hub(trainer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "tweets").mkdir(parents=True)
    names = ["org/tweets", "data/tweets", "../data", str(tmp_path), "C:\\data"]
    assert summarize_training(trainer, datasets=names)["datasets"] == ["org/tweets"]


def test_paths_and_tokens_stay_private(trainer, tmp_path):
    (tmp_path / "secret").mkdir()
    file = tmp_path / "secret" / "train.txt"
    file.write_text("IMGID:1\nKawhi\tB-PER\n\n", encoding="utf-8")
    report = read_conll(file, return_report=True)[1]
    trainer.model.config.text_config._name_or_path = str(tmp_path / "secret")
    summary = summarize_training(trainer, data={"train": report})
    assert summary["data"]["train"]["source"] == "train.txt"
    assert summary["base_models"]["text encoder"]["name"] == "secret"
    assert summary["base_models"]["text encoder"]["on_hub"] is False
    text = json.dumps(summary)
    assert str(tmp_path) not in text
    assert "hf_secret" not in text


def test_base_models(trainer):
    config, encoders = trainer.model.config, trainer.model.bga_mner
    config.text_config._name_or_path = "google-bert/bert-base-cased"
    encoders.vision_encoder.requires_grad_(False)
    found = summarize_training(trainer)["base_models"]
    assert (found["text encoder"]["name"], found["text encoder"]["on_hub"]) == ("google-bert/bert-base-cased", True)
    assert found["vision encoder"]["frozen"] is True
    config.name_or_path = "someone/tweets"
    assert summarize_training(trainer)["base_models"] == {"started from": {"name": "someone/tweets", "on_hub": True}}


def test_a_folder_that_is_gone_stays_private(trainer):
    trainer.model.config.text_config._name_or_path = "/home/me/runs/gone"
    base = summarize_training(trainer)["base_models"]["text encoder"]
    assert (base["name"], base["on_hub"]) == ("gone", False)


def test_a_convolutional_encoder_is_named_and_frozen_without_its_new_layers(train, make_model):
    model = make_model("bert", "resnet")
    model.config.vision_config.backbone_config._name_or_path = "microsoft/resnet-50"
    expected = {
        "name": "microsoft/resnet-50",
        "on_hub": True,
        "description": "resnet, below 4 new layers of width 24",
        "frozen": False,
    }
    trainer = train(model)
    assert summarize_training(trainer)["base_models"]["vision encoder"] == expected
    model.freeze_vision_encoder()
    assert summarize_training(trainer)["base_models"]["vision encoder"] == expected | {"frozen": True}
    # the same encoder, saved with its layers
    model.config.vision_config._name_or_path = "someone/stages"
    found = summarize_training(trainer)["base_models"]["vision encoder"]
    assert found == {
        "name": "someone/stages",
        "on_hub": True,
        "description": "conv_stages, 4 layers, width 24",
        "frozen": False,
    }


def test_the_text_branch_alone_has_one_encoder(train, make_model, tmp_path):
    trainer = train(make_model(text_only=True), images=False)
    summary = summarize_training(trainer)
    assert set(summary["base_models"]) == {"text encoder"}
    trainer.model.config.training_summary = summary
    trainer.save_model(tmp_path / "saved")
    assert "| text encoder |" in (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")


def test_further_hyperparameters_stand_beside_the_trainer_s(trainer):
    found = summarize_training(trainer, hyperparameters={"lora_rank": 8, "layerwise_decay": None})["hyperparameters"]
    assert found == summarize_training(trainer)["hyperparameters"] | {"lora_rank": 8}


def test_a_classifier_s_accuracy_is_enough(train, make_config, tmp_path):
    model = BgaMnerForSequenceClassification(make_config(id2label={0: "negative", 1: "positive"}))
    trainer = train(model, labels=[0, 1, 0, 1], compute_metrics=lambda _: {"accuracy": 0.75})
    model.config.training_summary = summarize_training(trainer, scores={"validation": trainer.evaluate()})
    assert model.config.training_summary["scores"] == {"validation": {"accuracy": 0.75, "types": {}}}
    trainer.save_model(tmp_path / "saved")
    card = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert "**Accuracy 0.750** on validation." in card
    assert "| validation | 0.750 |" in card


def test_f1_goes_before_accuracy(trainer):
    scores = {"eval_f1": 0.5, "accuracy": 0.9, "eval_accuracy": 0.75}
    found = summarize_training(trainer, scores={"validation": scores})["scores"]["validation"]
    assert found == {"f1": 0.5, "accuracy": 0.75, "types": {}}


def test_metrics_without_f1_and_accuracy_are_refused(trainer):
    with pytest.raises(ValueError, match="compute_metrics=build_compute_metrics"):
        summarize_training(trainer, scores={"test": {"eval_loss": 1.0}})


def test_a_language_that_the_hub_refuses_is_left_out(trainer):
    assert summarize_training(trainer, language=["en", "English"])["language"] == ["en"]


def test_numbers_that_are_none_are_left_out(trainer):
    scores = {"test_f1": 0.5, "test_precision": float("nan"), "test_number_PER": 2}
    scores |= {"test_f1_PER": 0.5, "test_precision_PER": 0.25, "test_recall_PER": 1.0}
    found = summarize_training(trainer, scores={"test": scores})["scores"]["test"]
    assert found == {"f1": 0.5, "types": {"PER": {"precision": 0.25, "recall": 1.0, "f1": 0.5, "number": 2}}}
