"""Tokenizers that allow longer texts than the text encoder takes: beside a model they are mended, or it is said."""

import json
import warnings

import pytest
import torch
from slow_cases import mostly_slow
from transformers import AutoTokenizer, pipeline

from bga_mner import (
    BgaMnerConfig,
    BgaMnerForSequenceClassification,
    BgaMnerForTokenClassification,
    BgaMnerPipeline,
    BgaMnerProcessor,
    predict,
)
from bga_mner.examples.synthetic.tokenizer import build_tokenizer
from bga_mner.processing.annotation.annotator import AnnotatorOptions, TextAnnotator
from bga_mner.processing.annotation.chunks import InputRow, TextChunk


LONGEST = 24
TEXT = "ann saw oslo " * 40
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
# positions of RoBERTa's family begin behind the padding's
FAMILIES = {
    "bert": {"max_position_embeddings": LONGEST},
    "roberta": {"max_position_embeddings": LONGEST + 2, "pad_token_id": 1},
    "xlm-roberta": {"max_position_embeddings": LONGEST + 4, "pad_token_id": 3},
    "electra": {"max_position_embeddings": LONGEST, "embedding_size": 16},
}


def make(family="bert", limit=10**30, model_class=BgaMnerForTokenClassification):
    tokenizer = build_tokenizer([["ann", "saw", "oslo"]], limit)
    torch.manual_seed(0)
    config = BgaMnerConfig(
        text_config={"model_type": family, "vocab_size": len(tokenizer), **SIZES, **FAMILIES[family]},
        vision_config={"model_type": "vit", "image_size": 16, "patch_size": 8, **SIZES},
        id2label={0: "O", 1: "B-PER", 2: "I-PER"},
    )
    return model_class(config).eval(), BgaMnerProcessor(None, tokenizer, config.label2id)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("limit", mostly_slow([10**30, LONGEST + 1, 512], 10**30))
@pytest.mark.parametrize("order", ["model first", "processor first"])
def test_a_tokenizer_that_is_saved_beside_a_model_has_its_limit(family, limit, order, tmp_path):
    model, processor = make(family, limit)
    for part in (model, processor) if order == "model first" else (processor, model):
        part.save_pretrained(tmp_path)
    assert processor.tokenizer.model_max_length == limit  # the caller's own is left alone
    assert AutoTokenizer.from_pretrained(tmp_path).model_max_length == LONGEST
    assert BgaMnerProcessor.from_pretrained(tmp_path).tokenizer.model_max_length == LONGEST
    # the stock pipeline cuts, ours reads on
    stock = pipeline("token-classification", model=str(tmp_path), aggregation_strategy="simple")
    assert isinstance(stock(TEXT), list)
    ours = pipeline("multimodal-ner", model=str(tmp_path), pipeline_class=BgaMnerPipeline)
    assert ours(TEXT) == pipeline("multimodal-ner", model=model, processor=processor, pipeline_class=BgaMnerPipeline)(
        TEXT
    )
    annotate = TextAnnotator(AnnotatorOptions(str(tmp_path)))
    (found,) = annotate(TextChunk(0, [InputRow(None, TEXT)])).table["entities"].to_pylist()
    assert [entity["start"] for entity in found] == [entity["start"] for entity in predict(model, processor, TEXT)]


def test_a_lower_limit_stays(tmp_path):
    model, processor = make(limit=10)
    processor.save_pretrained(tmp_path)
    before = (tmp_path / "tokenizer_config.json").read_bytes()
    model.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer_config.json").read_bytes() == before
    processor.save_pretrained(tmp_path)
    assert BgaMnerProcessor.from_pretrained(tmp_path).tokenizer.model_max_length == 10


def test_a_processor_of_an_older_folder_cuts_where_the_encoder_ends(tmp_path):
    model, processor = make(limit=128)
    processor.save_pretrained(tmp_path / "alone")
    assert BgaMnerProcessor.from_pretrained(tmp_path / "alone").tokenizer.model_max_length == 128
    model.save_pretrained(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        (tmp_path / "model" / name).write_bytes((tmp_path / "alone" / name).read_bytes())
    loaded = BgaMnerProcessor.from_pretrained(tmp_path / "model")
    with pytest.warns(UserWarning, match=f"longer than {LONGEST - 2} tokens and were cut"):
        batch = loaded([TEXT.split()], word_labels=[["O"] * 120], return_tensors="pt")
    assert model(**batch).loss.isfinite()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", '{"model_type": "bert"}', '{"model_type": "bga_mner"}', "\udcff"]
)
def test_other_files_are_no_reason_to_fail(content, tmp_path):
    model, processor = make(limit=128)
    (tmp_path / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    processor.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "bga_mner"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("model_class", [BgaMnerForTokenClassification, BgaMnerForSequenceClassification])
def test_a_text_that_is_too_long_names_the_limit_to_set(family, model_class):
    model, processor = make(family, 512, model_class)
    task = "token-classification" if model_class is BgaMnerForTokenClassification else "text-classification"
    options = {"truncation": True} if task == "text-classification" else {}
    if task == "text-classification":
        model.config.problem_type = "single_label_classification"
    stock = pipeline(task, model=model, tokenizer=processor.tokenizer)
    with pytest.raises(
        ValueError, match=rf"at most {LONGEST} tokens.* got 122.*model_max_length = {LONGEST} "
    ) as error:
        stock(TEXT, **options)
    assert len(str(error.value)) < 1000
    # as it says
    processor.tokenizer.model_max_length = LONGEST
    assert isinstance(stock(TEXT, **options), list)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert model(**processor(TEXT, return_tensors="pt")).logits.isfinite().all()
