"""A teacher's probabilities are those of its CRF, word by word, whatever the batch, the window and the tokenizer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value

from bga_mner import BgaMnerForSequenceClassification, BgaMnerProcessor, add_teacher_probabilities
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


WORDS = ["Kawhi", "Leonard", "wins", "the", "fan", "vote", "in", "Toronto", "again", "and", "again", "."]
TEXTS = [WORDS, WORDS[:1], WORDS[3:8], [], WORDS[::-1]]


@pytest.fixture
def teacher(make_model):
    """Make a tagger whose tags differ from word to word, and its processor."""
    tokenizer = build_tokenizer([WORDS], model_max_length=40)
    model = make_model(text_options={"vocab_size": len(tokenizer)})
    with torch.no_grad():
        model.classifier.weight.mul_(30)
        model.crf.transitions.normal_()
    return model, BgaMnerProcessor(None, tokenizer, model.config.label2id)


def by_hand(teacher, words):
    """Compute the marginals of words (words, tags) from one text, without padding."""
    model, processor = teacher
    batch = processor([words], return_tensors="pt", return_word_start_mask=True)
    starts = batch.pop("word_start_mask")[0]
    with torch.no_grad():
        return model(**batch).logits[0, starts].exp().numpy()


def probabilities(rows, teacher, **options):
    return add_teacher_probabilities(rows, *teacher, **options)["teacher_probabilities"]


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_tags_have_the_marginals_of_the_crf(teacher, batch_size):
    rows = add_teacher_probabilities(Dataset.from_dict({"tokens": TEXTS}), *teacher, batch_size=batch_size)
    assert rows["text"] == [" ".join(words) for words in TEXTS]
    for words, offsets, text, found in zip(
        TEXTS, rows["word_offsets"], rows["text"], rows["teacher_probabilities"], strict=True
    ):
        assert [text[start:end] for start, end in offsets] == words
        if words:
            np.testing.assert_allclose(found, by_hand(teacher, words), atol=1e-6)
            np.testing.assert_allclose(np.sum(found, axis=1), 1, atol=1e-5)
        else:
            assert found == []


def test_running_text_is_split_as_at_inference(teacher):
    text = "Kawhi Leonard wins in Toronto."
    rows = add_teacher_probabilities(Dataset.from_dict({"text": [text]}), *teacher)
    [words] = [[text[start:end] for start, end in offsets] for offsets in rows["word_offsets"]]
    assert words == ["Kawhi", "Leonard", "wins", "in", "Toronto", "."]
    np.testing.assert_allclose(rows["teacher_probabilities"][0], by_hand(teacher, words), atol=1e-6)
    assert rows["gold"] == [[-100] * 6]


def test_a_long_text_counts_where_a_word_has_the_most_context(teacher):
    words = WORDS * 6  # 72 words, and a window has room for 38
    [found] = probabilities(Dataset.from_dict({"tokens": [words]}), teacher)
    assert len(found) == len(words)
    # the first window holds the words up to the 38th, and shares its last nine with the next
    np.testing.assert_allclose(found[:30], by_hand(teacher, words[:38])[:30], atol=1e-6)
    np.testing.assert_allclose(np.sum(found, axis=1), 1, atol=1e-5)


def test_known_tags_come_along_as_numbers(teacher):
    tags = [["B-PER", "I-PER", "O", *[None] * 9], None, ["O"] * 5, [], None]
    rows = add_teacher_probabilities(Dataset.from_dict({"tokens": TEXTS, "ner_tags": tags}), *teacher)
    assert rows["gold"] == [[3, 4, 0, *[-100] * 9], [-100], [0] * 5, [], [-100] * 12]


def test_ids_of_a_data_set_are_read_by_their_names(teacher):
    tags = List(ClassLabel(names=["B-PER", "O", "I-PER"]))
    features = Features(tokens=List(Value("string")), ner_tags=tags)
    rows = Dataset.from_dict({"tokens": [WORDS[:3]], "ner_tags": [[0, 2, 1]]}, features=features)
    assert add_teacher_probabilities(rows, *teacher)["gold"] == [[3, 4, 0]]


def test_words_without_spaces_are_joined_as_the_model_reads_them(make_model):
    words = list("NBAは5人")
    tokenizer = build_tokenizer([words])
    model = make_model(text_options={"vocab_size": len(tokenizer)})
    processor = BgaMnerProcessor(None, tokenizer, model.config.label2id)
    tags = ["B-LOC", "I-LOC", "I-LOC", "O", "O", "O"]
    rows = add_teacher_probabilities(Dataset.from_dict({"tokens": [words], "ner_tags": [tags]}), model, processor)
    # the three letters are one word, and its tag is that of the first
    assert [len(found) for found in rows["teacher_probabilities"]] == [len(rows["word_offsets"][0])] == [4]
    assert rows["gold"] == [[1, 0, 0, 0]]


def test_a_stream_gives_the_same(teacher):
    rows = Dataset.from_dict({"tokens": TEXTS})
    streamed = list(add_teacher_probabilities(rows.to_iterable_dataset(), *teacher, batch_size=2))
    whole = add_teacher_probabilities(rows, *teacher)
    assert [row["text"] for row in streamed] == list(whole["text"])
    for row, found in zip(streamed, whole["teacher_probabilities"], strict=True):
        np.testing.assert_allclose(row["teacher_probabilities"], np.reshape(found, (-1, 5)), atol=1e-6)


def test_they_are_computed_once(teacher, tmp_path):
    model, _ = teacher
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    rows = Dataset.from_dict({"tokens": TEXTS})
    first = probabilities(rows, teacher, cache_dir=tmp_path)
    asked = len(calls)
    assert probabilities(rows, teacher, cache_dir=tmp_path) == first
    assert len(calls) == asked > 0
    with torch.no_grad():
        model.classifier.bias[0] += 1
    assert probabilities(rows, teacher, cache_dir=tmp_path) != first


def test_the_teacher_is_left_in_the_mode_it_was_in(teacher):
    teacher[0].train()
    first = probabilities(Dataset.from_dict({"tokens": TEXTS}), teacher)
    assert teacher[0].training
    # without dropout
    teacher[0].eval()
    assert probabilities(Dataset.from_dict({"tokens": TEXTS[:3]}), teacher) == first[:3]


@pytest.fixture
def classifier(make_config):
    tokenizer = build_tokenizer([WORDS, ["{", "}"]], model_max_length=40)
    config = make_config(text_options={"vocab_size": len(tokenizer)}, id2label=dict(enumerate("abc")))
    model = BgaMnerForSequenceClassification(config).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(30)
    return model, BgaMnerProcessor(None, tokenizer)


@pytest.mark.parametrize("column", ["tokens", "text"])
def test_a_classifier_gives_one_row_a_text(classifier, column):
    model, processor = classifier
    given = [WORDS, WORDS[:2]] if column == "tokens" else [" ".join(WORDS), "Kawhi Leonard"]
    target = [0, 1] if column == "tokens" else [0, 5]
    columns = {column: given, "target": [target, None], "label": [2, None]}
    rows = add_teacher_probabilities(Dataset.from_dict(columns), model, processor, batch_size=1)
    assert rows["text"] == ["{ Kawhi } " + " ".join(WORDS[1:]), "Kawhi Leonard"]
    assert rows["gold"] == [2, -100]
    for text, found in zip(rows["text"], rows["teacher_probabilities"], strict=True):
        expected = model(**processor(text, return_tensors="pt")).logits[0].softmax(dim=-1)
        np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-6)


def test_labels_of_texts_have_names_or_numbers(classifier):
    rows = Dataset.from_dict({"text": ["fan"] * 3, "label": ["c", None, "a"]})
    assert add_teacher_probabilities(rows, *classifier)["gold"] == [2, -100, 0]
    for wrong in (["d"], [3]):
        with pytest.raises(ValueError, match="one of the teacher's labels, 'a', 'b', 'c', or their numbers"):
            add_teacher_probabilities(Dataset.from_dict({"text": ["fan"], "label": wrong}), *classifier)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"words": [WORDS]}, "Expected a column 'tokens' or 'text', got \\['words'\\]"),
        ({"tokens": [WORDS], "ner_tags": [["O"]]}, "one label per word"),
    ],
)
def test_what_is_wrong_with_texts_is_said(teacher, columns, message):
    with pytest.raises(ValueError, match=message):
        add_teacher_probabilities(Dataset.from_dict(columns), *teacher)


@pytest.mark.parametrize(("kind", "labels"), [("regression", "a"), ("multi_label_classification", "abc"), (None, "a")])
def test_other_answers_than_one_label_are_refused(make_config, kind, labels):
    config = make_config(id2label=dict(enumerate(labels)), problem_type=kind)
    with pytest.raises(ValueError, match="Expected a classifier with one label a text"):
        add_teacher_probabilities(Dataset.from_dict({"text": ["x"]}), BgaMnerForSequenceClassification(config), None)


def test_another_class_and_broken_weights_are_refused(teacher):
    rows = Dataset.from_dict({"tokens": TEXTS})
    with pytest.raises(ValueError, match="as the teacher, got BgaMnerModel"):
        add_teacher_probabilities(rows, teacher[0].bga_mner, teacher[1])
    with torch.no_grad():
        teacher[0].classifier.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="finite"):
        add_teacher_probabilities(rows, *teacher)
