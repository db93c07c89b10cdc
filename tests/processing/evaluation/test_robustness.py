import io
import json
import random
from types import SimpleNamespace

import datasets
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import ViTImageProcessorPil

from bga_mner import BgaMnerForTokenClassification
from bga_mner.processing.evaluation.bootstrap import bootstrap_interval, paired_bootstrap
from bga_mner.processing.evaluation.image_ablation import choose_images, mismatch_images, remove_images
from bga_mner.processing.evaluation.mner_metric import score_tags
from bga_mner.processing.evaluation.robustness import predict_tags, robustness_report
from bga_mner.processing.inference.prediction import predict
from bga_mner.processing.processing_bga_mner import BgaMnerProcessor
from bga_mner.processing.tags.tag_scheme import spans_from_tags


LONGEST = 20


class ImageTagger(nn.Module):
    """Tag every word of a sentence with a dark image as a person, with a light one as a location; else by the token."""

    def __init__(self, label2id):
        super().__init__()
        text_config = SimpleNamespace(
            model_type="bert", max_position_embeddings=LONGEST, pad_token_id=0, vocab_size=30_522
        )
        self.config = SimpleNamespace(
            id2label={number: label for label, number in label2id.items()},
            text_config=text_config,
            text_reads_features=True,
            text_only=False,
            visual_source="real",
        )
        self.label2id, self.weight = label2id, nn.Parameter(torch.zeros(1))
        self.calls = []

    def forward(
        self, input_ids, attention_mask, visual_source, token_type_ids=None, pixel_values=None, image_mask=None
    ):
        assert input_ids.shape[1] <= LONGEST
        self.calls.append((visual_source, pixel_values is not None))
        # (B, L)
        tags = torch.where(input_ids % 3 == 0, self.label2id["B-ORG"], self.label2id["O"])
        if visual_source == "real" and pixel_values is not None:
            light = pixel_values.mean(dim=(1, 2, 3)) > 0
            by_image = torch.where(light, self.label2id["B-LOC"], self.label2id["B-PER"])
            tags = torch.where(image_mask[:, None], by_image[:, None], tags)
        logits = nn.functional.one_hot(tags, len(self.label2id)).float().log()
        return SimpleNamespace(logits=logits, predictions=tags)


def image(light):
    Image.new("RGB", (8, 8), (250,) * 3 if light else (5,) * 3).save(buffer := io.BytesIO(), "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


@pytest.fixture
def tagger(label2id):
    return ImageTagger(label2id)


@pytest.fixture
def dataset():
    """Give sentences whose images tell their tags, but for two that have none."""
    rng = random.Random(0)
    words = ["Kawhi", "Leonard", "wins", "the", "fan", "vote", "in", "Seattle", "and", "NYC", "today", "!"]
    rows = {"tokens": [rng.choices(words, k=rng.randrange(1, 6)) for _ in range(42)]}
    kinds = [rng.choice(["PER", "LOC"]) for _ in range(42)]
    rows["ner_tags"] = [[f"B-{kind}"] * len(tokens) for kind, tokens in zip(kinds, rows["tokens"], strict=True)]
    rows["image"] = [None if row in (4, 30) else image(kind == "LOC") for row, kind in enumerate(kinds)]
    features = {"tokens": datasets.List(datasets.Value("string")), "image": datasets.Image(decode=False)}
    return datasets.Dataset.from_dict(rows, features=datasets.Features({**features, "ner_tags": features["tokens"]}))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_tags_are_one_a_word_in_the_order_of_the_dataset(tagger, bert_processor, dataset, batch_size):
    tags = predict_tags(tagger, bert_processor, dataset, "real", batch_size, show_progress=False)
    plain = predict_tags(tagger, bert_processor, dataset, batch_size=batch_size, show_progress=False)
    assert list(map(len, tags)) == list(map(len, dataset["tokens"]))
    for row in range(len(dataset)):
        expected = plain[row] if dataset[row]["image"] is None else dataset[row]["ner_tags"]
        assert tags[row] == expected


def test_images_are_given_to_models_that_read_them_only(tagger, bert_processor, dataset):
    predict_tags(tagger, bert_processor, dataset, show_progress=False)
    predict_tags(tagger, bert_processor, dataset, "none", show_progress=False)
    assert {source for source, _ in tagger.calls} == {"generated", "none"}
    assert not any(given for _, given in tagger.calls)
    predict_tags(tagger, bert_processor, dataset, "real", show_progress=False)
    assert ("real", True) in tagger.calls


def test_no_word_of_a_long_sentence_is_cut_off(tagger, bert_processor, dataset):
    words = ["wins"] * 300
    rows = {"tokens": [["Kawhi"], words, []], "image": [None, image(light=False), None]}
    rows = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    tags = predict_tags(tagger, bert_processor, rows, "real", show_progress=False)
    assert list(map(len, tags)) == [1, 300, 0]
    assert set(tags[1]) == {"B-PER"}


def test_entities_of_empty_words_have_their_place(tagger, bert_processor):
    rows = datasets.Dataset.from_dict({"tokens": [["", "wins", "", "a b", ""]], "image": [image(light=True)]})
    rows = rows.cast_column("image", datasets.Image())
    assert predict_tags(tagger, bert_processor, rows, "real", show_progress=False) == [["B-LOC"] * 5]


def test_broken_images_are_treated_as_missing_also_where_datasets_would_decode_them(tagger, bert_processor):
    rows = {"tokens": [["wins"], ["wins"]], "image": [{"bytes": b"broken", "path": None}, image(light=True)]}
    rows = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image(decode=True))
    with pytest.warns(UserWarning, match="1 of 2 images cannot be used"):
        tags = predict_tags(tagger, bert_processor, rows, "real", show_progress=False)
    assert tags == [predict_tags(tagger, bert_processor, rows, show_progress=False)[0], ["B-LOC"]]


def test_each_condition_is_scored_as_if_alone(tagger, bert_processor, dataset):
    report = robustness_report(tagger, bert_processor, dataset, samples=50, seed=3, show_progress=False)
    views = {
        "all images": dataset,
        "25% removed": remove_images(dataset, 0.25, 3),
        "50% removed": remove_images(dataset, 0.5, 3),
        "75% removed": remove_images(dataset, 0.75, 3),
        "100% removed: text only": remove_images(dataset, 1.0, 3),
        "mismatched images": mismatch_images(dataset, 1.0, 3),
    }
    assert [row["condition"] for row in report] == list(views)
    assert {row["sentences"] for row in report} == {42}
    assert [row["images"] for row in report] == [40, 30, 20, 10, 0, 40]
    tags = {
        name: predict_tags(tagger, bert_processor, view, "real", show_progress=False) for name, view in views.items()
    }
    references = dataset["ner_tags"]
    for row in report:
        ours = tags[row["condition"]]
        assert row["f1"] == score_tags(ours, references)["overall_f1"]
        scores = bootstrap_interval(ours, references, samples=50, seed=3)
        assert {name: row[name] for name in scores} == scores
        against = paired_bootstrap(ours, tags["all images"], references, samples=50, seed=3)
        assert row["compared"] == (None if row is report[0] else against)
    scores = [row["f1"] for row in report]
    assert scores[0] > 0.9
    assert scores[:5] == sorted(scores[:5], reverse=True)
    assert scores[4] == 0
    assert 0.2 < scores[5] < 0.8
    json.dumps(report)


def test_without_images_text_alone_is_scored(tagger, bert_processor, dataset):
    plain = dataset.remove_columns("image")
    for rows in (plain, remove_images(dataset, 1.0)):
        (row,) = robustness_report(tagger, bert_processor, rows, samples=10, show_progress=False)
        assert (row["condition"], row["images"], row["compared"]) == ("text only", 0, None)
    tagger.config.text_reads_features = False
    assert len(robustness_report(tagger, bert_processor, dataset, samples=10, show_progress=False)) == 1
    tagger.config.text_reads_features = True
    one = remove_images(dataset, 0.97)
    assert len(choose_images(one, 1.0)) == 1
    report = robustness_report(tagger, bert_processor, one, samples=10, show_progress=False)
    assert [row["condition"] for row in report][-1] == "100% removed: text only"


def test_a_model_without_its_vision_encoder_is_scored_on_text_alone(make_model, tokenizers, label2id, dataset):
    tokenizer = tokenizers["wordpiece"]
    labels = {number: label for label, number in label2id.items()}
    model = make_model(text_options={"vocab_size": len(tokenizer)}, id2label=labels, text_only=True)
    assert model.config.text_reads_features
    processor = BgaMnerProcessor(None, tokenizer, label2id)
    (row,) = robustness_report(model, processor, dataset, samples=10, show_progress=False)
    assert (row["condition"], row["images"]) == ("text only", 0)


def test_labels_are_renamed_in_what_is_predicted_and_expected(tagger, bert_processor, dataset):
    def report(rows, **label_map):
        return robustness_report(tagger, bert_processor, rows, label_map=label_map, samples=10, show_progress=False)[0]

    plain = report(dataset)
    other = [[tag.replace("LOC", "PLACE") for tag in tags] for tags in dataset["ner_tags"]]
    renamed = dataset.remove_columns("ner_tags").add_column("ner_tags", other)
    with pytest.warns(UserWarning, match="types that the model can't predict, which score 0: 'PLACE'"):
        assert report(renamed)["f1"] < plain["f1"]
    for label_map, name in (({"PLACE": "LOC"}, "LOC"), ({"LOC": "PLACE"}, "PLACE")):
        found = report(renamed, **label_map)
        assert found["f1"] == plain["f1"]
        assert found["types"][name] == plain["types"]["LOC"]
    assert "LOC" not in report(dataset, LOC=None)["types"]
    with pytest.raises(ValueError, match=r"or the data \('PER', 'PLACE'\).*got 'Place'"):
        report(renamed, Place="LOC")


def test_sentences_without_tags_are_left_out(tagger, bert_processor, dataset):
    tags = [None if row < 10 else [None] * len(tags) if row < 20 else tags
            for row, tags in enumerate(dataset["ner_tags"])]  # fmt: skip
    features = dataset.features["ner_tags"]
    partly = dataset.remove_columns("ner_tags").add_column("ner_tags", tags, feature=features)
    ours, theirs = (
        robustness_report(tagger, bert_processor, rows, samples=10, show_progress=False)
        for rows in (partly, dataset.select(range(20, 42)))
    )
    assert ours == theirs
    with pytest.raises(ValueError, match="known tags to score against, got none"):
        robustness_report(tagger, bert_processor, partly.select(range(20)))


def test_missing_columns_are_refused(tagger, bert_processor, dataset):
    for name in ("tokens", "ner_tags"):
        with pytest.raises(ValueError, match=f"a column '{name}'"):
            robustness_report(tagger, bert_processor, dataset.remove_columns(name))
    with pytest.raises(ValueError, match="lists of words"):
        predict_tags(tagger, bert_processor, datasets.Dataset.from_dict({"tokens": ["a b"]}))
    with pytest.raises(ValueError, match="a column 'image'"):
        predict_tags(tagger, bert_processor, dataset.remove_columns("image"), "real")


def test_a_real_model_reads_what_it_is_told_to(make_config, tokenizers, label2id, dataset):
    tokenizer = tokenizers["wordpiece"]
    config = make_config(
        text_options={"vocab_size": len(tokenizer)},
        id2label={number: label for label, number in label2id.items()},
        gate_initial_bias=2.0,
    )
    model = BgaMnerForTokenClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    processor = BgaMnerProcessor(ViTImageProcessorPil(size={"height": 16, "width": 16}), tokenizer, label2id)
    model.train()
    tags = {
        source: predict_tags(model, processor, dataset, source, show_progress=False)
        for source in ("generated", "real", "none")
    }
    assert all(module.training for module in model.modules())
    for trained_with, read in (("generated", "generated"), ("real", "generated"), ("none", "none")):
        config.visual_source = trained_with
        assert predict_tags(model, processor, dataset, show_progress=False) == tags[read]
        rows = robustness_report(
            model, processor, dataset.remove_columns("ner_tags").add_column("ner_tags", tags[read]), show_progress=False
        )
        assert [row["condition"] for row in rows if row["f1"] == 1][-1] == (
            "text only" if read == "none" else "100% removed: text only"
        )
    config.visual_source = "generated"
    assert tags["generated"] != tags["real"] != tags["none"] != tags["generated"]
    removed = remove_images(dataset, 1.0)
    assert predict_tags(model, processor, removed, "real", show_progress=False) == tags["generated"]
    found = predict(model, processor, dataset["tokens"][:], is_split_into_words=True)
    for entities, words in zip(found, tags["generated"], strict=True):
        assert [entity["label"] for entity in entities] == [kind for kind, _, _ in spans_from_tags(words)]
