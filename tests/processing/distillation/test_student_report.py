"""Student and teacher are counted by entity, as the stock pipeline gives them out; the card says what was counted."""

from __future__ import annotations

import json
import re

import pytest
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from tokenizers import pre_tokenizers
from transformers.modeling_outputs import TokenClassifierOutput

from bga_mner import (
    BgaMnerForSequenceClassification,
    BgaMnerProcessor,
    build_student,
    compare_with_teacher,
    predict,
    save_student,
    score_tags,
)
from bga_mner.examples.synthetic.tokenizer import build_tokenizer
from bga_mner.processing.distillation import student_card
from bga_mner.processing.distillation.student_report import Located, entities_at, score_entities, student_entities


WORDS = ["Kawhi", "Leonard", "wins", "the", "fan", "vote", "in", "Toronto", "again", "."]
TEXTS = [WORDS, WORDS[:3], WORDS[::-1]]
# which tag each word has; others are "O"
TAGS = {"Kawhi": 3, "Leonard": 4, "Toronto": 1, "again": 2}


@pytest.fixture
def teacher(make_model):
    """Make a tagger that tags words by their embeddings, so that all is known of it, and its processor."""
    tokenizer = build_tokenizer([WORDS], model_max_length=40)
    model = make_model(text_options={"vocab_size": len(tokenizer)}, hybrid_attention="none")
    with torch.no_grad():
        for parameter in (model.crf.transitions, model.crf.start_transitions, model.crf.end_transitions):
            parameter.zero_()
    return model, BgaMnerProcessor(None, tokenizer, model.config.label2id)


def set_tags(model, tokenizer, tags):
    """Let a student score each token by its id."""
    scores = torch.zeros(len(tokenizer), 5)
    scores[:, 0] = 5
    for word, tag in tags.items():
        scores[tokenizer.convert_tokens_to_ids(word), tag] = 10

    def forward(input_ids, **_):
        return TokenClassifierOutput(logits=scores[input_ids])

    model.forward = forward


def test_entities_come_from_the_stock_pipeline(teacher):
    student, tokenizer = build_student(*teacher)
    set_tags(student, tokenizer, TAGS)
    found, contradictions = student_entities(student, tokenizer, [" ".join(words) for words in TEXTS])
    assert found[0] == [Located("PER", 0, 13), Located("LOC", 35, 48)]
    # "again Toronto" and "Leonard Kawhi" begin with "I-" tags
    assert [entity.label for entity in found[2]] == ["LOC", "LOC", "PER", "PER"]
    assert contradictions == 2


def test_texts_beyond_the_limit_are_read_whole(teacher):
    student, tokenizer = build_student(*teacher)
    set_tags(student, tokenizer, TAGS)
    long = " ".join(["fan"] * 60 + ["Kawhi", "Leonard"])
    [found], _ = student_entities(student, tokenizer, [long])
    assert found == [Located("PER", 240, 253)]


def test_scores_by_characters_are_those_by_words():
    tags = [["B-PER", "I-PER", "O"], ["O", "B-LOC", "B-LOC"], ["O", "O", "O"]]
    gold = [["B-PER", "I-PER", "O"], ["O", "B-LOC", "I-LOC"], ["B-PER", "O", "O"]]
    offsets = [[0, 2], [3, 5], [6, 8]]
    texts = ["aa bb cc"] * 3
    found = score_entities(
        texts, [entities_at(row, offsets) for row in tags], [entities_at(row, offsets) for row in gold]
    )
    expected = score_tags(tags, gold)
    for name in ("precision", "recall", "f1"):
        assert found[name] == pytest.approx(expected[f"overall_{name}"])
    assert found["f1_low"] <= found["f1"] <= found["f1_high"]


def test_an_entity_with_another_end_is_wrong():
    scores = score_entities(["Kawhi"], [[Located("PER", 0, 3)]], [[Located("PER", 0, 5)]])
    assert scores["f1"] == 0
    assert score_entities(["Kawhi", "x"], [[], []], [[Located("PER", 0, 5)], None])["recall"] == 0


def test_both_are_scored_and_compared(teacher):
    model, processor = teacher
    student, tokenizer = build_student(model, processor)
    set_tags(student, tokenizer, TAGS)
    gold = [["B-PER", "I-PER", *["O"] * 5, "B-LOC", "I-LOC", "O"], None, None]
    rows = Dataset.from_dict({"tokens": TEXTS, "ner_tags": gold})
    report = compare_with_teacher(student, tokenizer, model, processor, rows)
    assert report["texts"] == 3
    assert report["contradictions"] == 2
    assert report["student"]["f1"] == report["student_by_words"]["f1"] == 1
    [entities] = predict(model, processor, TEXTS[:1])
    right = sum((one["label"], one["start"], one["end"]) in {("PER", 0, 13), ("LOC", 35, 48)} for one in entities)
    assert report["teacher"]["recall"] == right / 2


def test_words_whose_tokens_disagree_are_read_at_the_first(teacher):
    student, tokenizer = build_student(*teacher)
    set_tags(student, tokenizer, TAGS)
    rows = Dataset.from_dict({"tokens": [["Kawhi", "Toronto.again"]], "ner_tags": [["B-PER", "B-LOC"]]})
    report = compare_with_teacher(student, tokenizer, *teacher, rows)
    assert (report["student"]["precision"], report["student"]["recall"]) == (pytest.approx(1 / 3), 0.5)
    assert report["student_by_words"]["f1"] == 1


def test_without_known_labels_agreement_is_all_there_is(teacher):
    model, processor = teacher
    # each word is an entity, of any text
    with torch.no_grad():
        model.classifier.bias[3] += 100
    student, tokenizer = build_student(model, processor)
    report = compare_with_teacher(student, tokenizer, model, processor, Dataset.from_dict({"tokens": TEXTS}))
    assert report == {"texts": 3, "contradictions": 0, "agreement": 1.0}


def test_empty_texts_are_no_known_labels(teacher):
    model, processor = teacher
    student = build_student(model, processor)
    for rows in ({"tokens": [*TEXTS, []]}, {"text": ["Kawhi wins", "  "]}):
        report = compare_with_teacher(*student, model, processor, Dataset.from_dict(rows))
        assert set(report) == {"texts", "contradictions", "agreement"}


def test_a_space_is_no_entity(teacher):
    student, tokenizer = build_student(*teacher)
    set_tags(student, tokenizer, TAGS)
    spaced = tokenizer.backend_tokenizer
    spaced.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    spaced.add_tokens([" "])
    scores = student.forward

    def tags_spaces(input_ids, **_):
        logits = scores(input_ids.clamp(max=len(tokenizer) - 2))["logits"].clone()
        logits[input_ids == tokenizer.convert_tokens_to_ids(" "), 1] = 99
        return {"logits": logits}

    student.forward = tags_spaces
    [found], _ = student_entities(student, tokenizer, ["Kawhi Leonard wins"])
    assert [(entity.start, entity.end) for entity in found] == [(0, 5), (6, 13)]


def test_classifiers_are_compared_by_labels(make_config):
    tokenizer = build_tokenizer([WORDS], model_max_length=40)
    config = make_config(text_options={"vocab_size": len(tokenizer)}, id2label={0: "no", 1: "yes"})
    model, processor = BgaMnerForSequenceClassification(config).eval(), BgaMnerProcessor(None, tokenizer)
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([9.0, 0.0]))
    student, tokenizer = build_student(model, processor)
    with torch.no_grad():
        student.classifier.weight.zero_()
        student.classifier.bias.copy_(torch.tensor([0.0, 9.0]))
    rows = Dataset.from_dict({"text": ["fan vote", "the fan", "again"], "label": [1, 0, None]})
    report = compare_with_teacher(student, tokenizer, model, processor, rows)
    assert report == {
        "texts": 3,
        "agreement": 0.0,
        "teacher": {"accuracy": 0.5, "number": 2},
        "student": {"accuracy": 0.5, "number": 2},
    }


def test_nothing_to_compare_on_is_refused(teacher):
    with pytest.raises(ValueError, match="Expected texts to compare student and teacher on"):
        compare_with_teacher(*build_student(*teacher), *teacher, Dataset.from_dict({"tokens": []}))


def test_the_card_says_who_taught_and_how_well(teacher, tmp_path):
    model, processor = teacher
    student, tokenizer = build_student(model, processor)
    rows = Dataset.from_dict({"tokens": TEXTS, "ner_tags": [["O"] * 10, ["B-PER", "O", "O"], None]})
    report = compare_with_teacher(student, tokenizer, model, processor, rows)
    model.config.name_or_path = "org/teacher"
    model.config.training_summary = {"trained_with_images": True}
    save_student(
        tmp_path,
        student,
        tokenizer,
        model,
        training={"texts": 12},
        report=report | {"data": "tweets"},
        name="student",
        language="en",
        license="mit",
        widget_texts=["Kawhi wins"],
        repository="org/student",
    )
    card = ModelCard.load(tmp_path / "README.md")
    data = card.data.to_dict()
    assert (data["pipeline_tag"], data["base_model"], data["language"]) == ("token-classification", "org/teacher", "en")
    assert data["widget"] == [{"text": "Kawhi wins"}]
    assert {result.metric_type: result.metric_value for result in card.data.eval_results} == {
        name: report["student"][name] for name in ("f1", "precision", "recall")
    }
    for part in (
        "[org/teacher](https://huggingface.co/org/teacher)",
        "trained on texts with images",
        'model="org/student"',
        "| texts | 12 |",
        f"| student | {report['student']['precision']:.3f} |",
        f"an F1 of {report['agreement']:.3f} in 3 texts",
        f"{report['contradictions']} of its entities began",
    ):
        assert part in re.sub(r"\s+", " ", card.text), part
    assert "onnx" not in card.text.lower()


def test_an_edited_card_is_kept(teacher, tmp_path):
    model, processor = teacher
    student = build_student(model, processor)
    card = tmp_path / "README.md"
    save_student(tmp_path, *student, model, training={"texts": 1})
    save_student(tmp_path, *student, model, training={"texts": 2})
    assert "| texts | 2 |" in card.read_text()
    card.write_text(card.read_text() + "\nMine.\n")
    save_student(tmp_path, *student, model, training={"texts": 3})
    assert "| texts | 2 |" in card.read_text()
    assert "Mine." in card.read_text()


def test_graphs_of_an_older_student_do_not_stay(teacher, tmp_path, monkeypatch):
    model, processor = teacher
    student = build_student(model, processor)

    def export(student, tokenizer, folder):
        (folder / "onnx").mkdir(exist_ok=True)
        for name in ("model.onnx", "model_quantized.onnx"):
            (folder / "onnx" / name).write_bytes(b"graph")

    monkeypatch.setattr(student_card, "export_student", export)
    save_student(tmp_path, *student, model, training={}, onnx=True, widget_texts=["Zoë's"])
    assert "Transformers.js" in (tmp_path / "README.md").read_text()
    assert json.loads((tmp_path / "onnx" / "examples.json").read_text()) == ["Zoë's"]
    save_student(tmp_path, *student, model, training={})
    assert not list((tmp_path / "onnx").iterdir())
    assert "Transformers.js" not in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(("language", "widget"), [("de", False), ("en", True), (None, True)])
def test_an_english_example_is_for_english_models(teacher, tmp_path, language, widget):
    save_student(tmp_path, *build_student(*teacher), teacher[0], training={}, language=language)
    assert ("widget" in ModelCard.load(tmp_path / "README.md").data.to_dict()) is widget


def test_the_card_of_a_local_teacher_names_no_folder(teacher, tmp_path):
    model, processor = teacher
    model.config.name_or_path = str(tmp_path / "secret")
    save_student(tmp_path, *build_student(model, processor), model, training={})
    text = (tmp_path / "README.md").read_text()
    assert "secret" not in text
    assert "a model that is not on the Hub" in re.sub(r"\s+", " ", text)
    assert "## Evaluation" not in text
