"""A student starts as its teacher is: the same states, the same scores of tags, the same labels."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertModel,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
)

from bga_mner import BgaMnerForSequenceClassification, BgaMnerProcessor, build_student, save_student
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


FAMILIES = ["bert", "roberta", "xlm-roberta", "distilbert", "electra", "mpnet", "deberta-v2", "modernbert"]
# heads that are a linear layer alone, as the teacher's is
PLAIN_HEADS = {"bert", "roberta", "xlm-roberta", "distilbert", "electra", "mpnet", "deberta-v2"}


@pytest.fixture
def make_teacher(make_model):
    """Return a function that makes a tagger whose layers read nothing, and its processor."""

    def make(family="bert", **options):
        tokenizer = build_tokenizer([["Kawhi", "wins"]], model_max_length=64)
        options = {"hybrid_attention": "none"} | options
        model = make_model(family, text_options={"vocab_size": len(tokenizer)}, **options)
        return model, BgaMnerProcessor(None, tokenizer, label2id=model.config.label2id)

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_it_has_the_states_and_the_scores_of_its_teacher(make_teacher, make_batch, family):
    teacher, processor = make_teacher(family)
    student, tokenizer = build_student(teacher, processor)
    batch = make_batch(images=False, pad_token_id=teacher.config.text_config.pad_token_id)
    labels = batch.pop("labels")
    with torch.no_grad():
        expected = teacher(**batch)
        states = student.base_model(**batch).last_hidden_state
        own = teacher.bga_mner(**batch).last_hidden_state
        kept = labels != -100
        torch.testing.assert_close(states[kept], own[kept], atol=1e-5, rtol=1e-5)
        if family in PLAIN_HEADS:
            torch.testing.assert_close(student(**batch).logits[kept], expected.emissions[kept], atol=1e-5, rtol=1e-5)
    assert student.config.id2label == {int(number): label for number, label in teacher.config.id2label.items()}
    assert tokenizer.model_max_length <= 40
    assert not student.training


@pytest.mark.parametrize("family", FAMILIES)
def test_some_layers_are_the_lowest_and_the_highest(make_teacher, make_batch, family):
    teacher, processor = make_teacher(family)
    student, _ = build_student(teacher, processor, num_layers=2)
    assert student.config.num_hidden_layers == 2
    ours = {name: weight for name, weight in student.base_model.state_dict().items() if "layer" in name}
    theirs = teacher.bga_mner.text_encoder.state_dict()
    moved = [name for name in ours if ".1." in name]
    assert moved
    for name in moved:
        assert torch.equal(ours[name], theirs[name.replace(".1.", ".2.", 1)])
    student(**{name: it for name, it in make_batch(images=False).items() if name != "labels"})


@pytest.mark.parametrize("number", [0, 4])
def test_numbers_of_layers_that_there_are_not_are_refused(make_teacher, number):
    with pytest.raises(ValueError, match="num_layers between 1 and the teacher's 3, got"):
        build_student(*make_teacher(), num_layers=number)
    with pytest.raises(ValueError, match="Drop one of both"):
        build_student(*make_teacher(), "some/checkpoint", num_layers=2)


def test_it_may_start_from_another_encoder(make_teacher, tmp_path):
    other = build_tokenizer([["other", "words"]], model_max_length=77)
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
    encoder = BertModel(BertConfig(vocab_size=len(other), max_position_embeddings=50, **sizes))
    encoder.save_pretrained(tmp_path)
    other.save_pretrained(tmp_path)
    teacher, processor = make_teacher()
    student, tokenizer = build_student(teacher, processor, str(tmp_path))
    assert tokenizer.get_vocab() == other.get_vocab()
    assert tokenizer.model_max_length == 50
    assert student.num_labels == 5
    assert torch.equal(student.base_model.embeddings.word_embeddings.weight, encoder.embeddings.word_embeddings.weight)


def test_a_student_of_half_precision_is_whole(make_teacher, tmp_path):
    teacher, processor = make_teacher()
    teacher.bfloat16().save_pretrained(tmp_path)
    halved = type(teacher).from_pretrained(tmp_path)
    assert halved.dtype == torch.bfloat16
    student, _ = build_student(halved, processor)
    assert {weight.dtype for weight in student.parameters()} == {torch.float32}


def test_checkpoints_that_cannot_be_used_are_named(make_teacher, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"Expected an encoder with its tokenizer, got '.*nowhere'.*Check the path"):
        build_student(*make_teacher(), str(tmp_path / "nowhere"))
    tokenizer = build_tokenizer([["other"]])
    tokenizer.pad_token = None
    BertModel(BertConfig(vocab_size=len(tokenizer), hidden_size=12, num_hidden_layers=1)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a fast tokenizer that has a padding token"):
        build_student(*make_teacher(), str(tmp_path))


def test_an_encoder_that_no_teacher_has(make_teacher, tmp_path):
    tokenizer = build_tokenizer([["other"]], model_max_length=300)
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
    AlbertModel(AlbertConfig(vocab_size=len(tokenizer), max_position_embeddings=50, **sizes)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    student, tokenizer = build_student(*make_teacher(), str(tmp_path))
    assert type(student).__name__ == "AlbertForTokenClassification"
    assert tokenizer.model_max_length == 49  # it may count positions from the padding token on


def test_a_classifier_has_its_labels(make_config):
    tokenizer = build_tokenizer([["Kawhi", "wins"]])
    config = make_config(text_options={"vocab_size": len(tokenizer)}, id2label={0: "no", 1: "so", 2: "yes"})
    teacher = BgaMnerForSequenceClassification(config)
    student, _ = build_student(teacher, BgaMnerProcessor(None, tokenizer))
    assert type(student).__name__ == "BertForSequenceClassification"
    assert student.config.label2id == {"no": 0, "so": 1, "yes": 2}


LOADED_ALONE = """
import importlib.abc, sys

class Forbidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "bga_mner":
            raise ImportError("forbidden")

sys.meta_path.insert(0, Forbidden())
import torch
from datasets import Dataset
from transformers import (
    AutoModelForTokenClassification, AutoTokenizer, DataCollatorForTokenClassification, Trainer, TrainingArguments,
    pipeline,
)

folder = {folder!r}
tagger = pipeline("token-classification", model=folder, aggregation_strategy="simple")
print(len(tagger("Kawhi wins")))
tokenizer = AutoTokenizer.from_pretrained(folder)
rows = Dataset.from_dict({{"tokens": [["Kawhi", "wins"]]}})
rows = rows.map(lambda row: dict(tokenizer(row["tokens"], is_split_into_words=True)), remove_columns="tokens")
rows = rows.map(lambda row: {{"labels": [0] * len(row["input_ids"])}})
arguments = TrainingArguments(output_dir=folder + "/more", max_steps=1, use_cpu=True, report_to="none")
model = AutoModelForTokenClassification.from_pretrained(folder)
Trainer(
    model=model, args=arguments, train_dataset=rows, data_collator=DataCollatorForTokenClassification(tokenizer)
).train()
print(sorted(name for name in sys.modules if name.startswith("bga_mner")))
"""


def test_transformers_alone_loads_tags_and_trains_it(make_teacher, tmp_path, bare_python, run_python):
    teacher, processor = make_teacher()
    with torch.no_grad():
        teacher.classifier.bias[3] += 100  # each token begins an entity
    save_student(tmp_path, *build_student(teacher, processor), teacher, training={})
    config = json.loads((tmp_path / "config.json").read_text())
    assert "auto_map" not in config
    assert not list(tmp_path.rglob("*.py"))
    lines = run_python(LOADED_ALONE.format(folder=str(tmp_path)), bare_python).splitlines()
    assert int(lines[0]) >= 2
    assert lines[-1] == "[]"


def test_saved_and_loaded_it_is_the_same(make_teacher, make_batch, tmp_path):
    teacher, processor = make_teacher("roberta")
    student, tokenizer = build_student(teacher, processor)
    save_student(tmp_path, student, tokenizer, teacher, training={})
    again = AutoModelForTokenClassification.from_pretrained(tmp_path)
    batch = {name: it for name, it in make_batch(images=False, pad_token_id=1).items() if name != "labels"}
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, student(**batch).logits)
    assert AutoTokenizer.from_pretrained(tmp_path).model_max_length == tokenizer.model_max_length
