"""Ragged rows with and without images and labels, and a Trainer for them."""

from __future__ import annotations

import io

import datasets
import pytest
from PIL import Image
from transformers import Trainer, TrainingArguments
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from bga_mner import (
    BgaMnerForSequenceClassification,
    BgaMnerForTokenClassification,
    BgaMnerProcessor,
    DataCollatorForMner,
    build_compute_metrics,
)
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


SENTENCES = [
    ("Ann saw Oslo", "B-PER O B-LOC"),
    ("in New Oslo today", "O B-LOC I-LOC O"),
    ("Bo", "B-PER"),
    ("we met Ann Lee and Bo in Oslo", "O O B-PER I-PER O B-PER O B-LOC"),
    ("nothing here", "O O"),
    ("Lee saw New Oslo and Ann today in Oslo", "B-PER O B-LOC I-LOC O B-PER O O B-LOC"),
    ("Oslo today", "B-LOC O"),
    ("and Ann Lee saw Bo", "O B-PER I-PER O B-PER"),
]
# nothing is sampled but the order of the rows
QUIET = {"use_context_sampler": False, "generator_dropout": 0.0, "classifier_dropout": 0.0}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def png(colour):
    data = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="session")
def tokenizer():
    return build_tokenizer([text.split() for text, _ in SENTENCES], model_max_length=40)


@pytest.fixture(scope="session")
def rows():
    """Rows of different lengths; the third has no image."""
    images = [None if row == 2 else {"bytes": png((30 * row, 90, 200)), "path": None} for row in range(8)]
    columns = {
        "tokens": [text.split() for text, _ in SENTENCES],
        "ner_tags": [tags.split() for _, tags in SENTENCES],
        "image": images,
    }
    strings = datasets.List(datasets.Value("string"))
    features = datasets.Features(tokens=strings, ner_tags=strings, image=datasets.Image(decode=False))
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.fixture
def make_tagger(make_model, tokenizer):
    """Return a function that makes a tiny tagger for these rows; without any noise unless `noise` is True."""

    def make(noise=False, **options):
        quiet = {} if noise else QUIET
        sizes = {"vocab_size": len(tokenizer)} | ({} if noise else NO_DROPOUT)
        return make_model(text_options=sizes, vision_options={} if noise else NO_DROPOUT, **(quiet | options))

    return make


@pytest.fixture
def make_classifier(make_config, tokenizer):
    """Return a function that makes a tiny classifier with three labels, without noise."""

    def make(**options):
        sizes = NO_DROPOUT | {"vocab_size": len(tokenizer)}
        names = {"id2label": dict(enumerate(("bad", "fair", "good")))}
        config = make_config(text_options=sizes, vision_options=NO_DROPOUT, **(QUIET | names | options))
        return BgaMnerForSequenceClassification(config).eval()

    return make


@pytest.fixture
def make_trainer(make_tagger, tokenizer, rows, tmp_path):
    """Return a function that makes a Trainer: two steps of four rows, on CPU, in silence."""

    def make(model=None, data=None, *, kind=Trainer, arguments=TrainingArguments, encode=True, **options):
        model = make_tagger() if model is None else model
        is_tagger = isinstance(model, BgaMnerForTokenClassification)
        images = ViTImageProcessorPil(size={"height": 16, "width": 16})
        processor = BgaMnerProcessor(images, tokenizer, model.config.label2id if is_tagger else None)
        data = rows if data is None else data
        data = data.with_transform(processor.encode_examples) if encode else data
        to_trainer = {
            "data_collator": DataCollatorForMner(processor),
            "processing_class": processor,
            "compute_metrics": build_compute_metrics(model.config.id2label) if is_tagger else None,
        }
        names = {*to_trainer, "compute_loss_func", "preprocess_logits_for_metrics", "callbacks", "eval_dataset"}
        to_trainer |= {name: options.pop(name) for name in names if name in options}
        to_arguments = {
            "output_dir": str(tmp_path / "out"),
            "max_steps": 2,
            "per_device_train_batch_size": 4,
            "per_device_eval_batch_size": 3,
            "learning_rate": 1e-2,
            "use_cpu": True,
            "remove_unused_columns": False,
            "save_strategy": "no",
            "logging_strategy": "no",
            "disable_tqdm": True,
            "report_to": "none",
        }
        to_trainer = {"train_dataset": data, "eval_dataset": data} | to_trainer
        return kind(model=model, args=arguments(**(to_arguments | options)), **to_trainer)

    return make
