"""What torch, transformers and accelerate offer for any model: entities come out as from the model itself."""

from __future__ import annotations

import copy
import multiprocessing
import warnings

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_model, save_model
from transformers import pipeline
from transformers.pipelines.token_classification import AggregationStrategy

from bga_mner import (
    BgaMnerForSequenceClassification,
    BgaMnerForTokenClassification,
    BgaMnerProcessor,
    predict,
)
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


TEXTS = ["ann saw oslo", "oslo", "ann ann saw today oslo ann"]


@pytest.fixture
def made(make_model):
    """Make a tagger whose tags differ from token to token, and its processor."""
    tokenizer = build_tokenizer([text.split() for text in TEXTS])
    model = make_model(text_options={"vocab_size": len(tokenizer), "max_position_embeddings": 64})
    with torch.no_grad():
        model.classifier.weight.mul_(40)
    return model, BgaMnerProcessor(None, tokenizer, model.config.label2id)


def spans(entities):
    return [[(entity["label"], entity["start"], entity["end"]) for entity in text] for text in entities]


def half(model):
    return model.half()


def brain_half(model):
    return model.bfloat16()


def double(model):
    return model.double()


def compiled(model):
    return torch.compile(model, backend="eager")


def shared(model):
    return model.share_memory()


def prepared(model):
    return Accelerator(cpu=True).prepare(model)


def quantised(model):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(torch.ao.quantization|torch.quantize_per_tensor).* deprecated")
        return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)


def saved_by_safetensors(model, path):
    save_model(model, str(path / "x.safetensors"))
    other = type(model)(model.config)
    load_model(other, str(path / "x.safetensors"))
    return other.eval()


def emptied_and_filled(model, path):
    """As large models are set up: on the device "meta", then without values, then with those of a checkpoint."""
    with torch.device("meta"):
        other = type(model)(model.config)
    other.to_empty(device="cpu")
    for buffers in (dict(other.named_buffers()), dict(other.crf.named_buffers())):
        for buffer in buffers.values():
            buffer.zero_()  # what memory may hold
    own = dict(model.bga_mner.named_buffers())
    for name, buffer in other.bga_mner.named_buffers():
        buffer.copy_(own[name])  # transformers' buffers are no part of its checkpoints either, and are its own matter
    other.load_state_dict(model.state_dict())
    return other.eval()


def resized(model, path):
    model.resize_token_embeddings(model.config.text_config.vocab_size + 7)
    model.save_pretrained(path)
    return type(model).from_pretrained(path)


@pytest.mark.parametrize(
    ("tool", "same"),
    [(tool, 1.0) for tool in (copy.deepcopy, shared, prepared, double)]
    + [pytest.param(compiled, 1.0, marks=pytest.mark.slow)]
    + [(tool, 0.8) for tool in (half, brain_half, quantised)],
)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_a_tool_leaves_the_entities_as_they_are(made, tool, same):
    model, processor = made
    expected = spans(predict(model, processor, TEXTS))
    assert sum(map(len, expected)) > 2
    changed = tool(copy.deepcopy(model))
    found = spans(predict(changed, processor, TEXTS))
    assert found == expected or same < 1
    agreeing = [one in row for row, rest in zip(found, expected, strict=True) for one in rest]
    assert sum(agreeing) >= same * len(agreeing)
    stock = pipeline("token-classification", model=changed, tokenizer=processor.tokenizer)
    assert all(0 <= entity["score"] <= 1 for entity in stock(TEXTS[0]))
    torch.compiler.reset()


@pytest.mark.parametrize("tool", [saved_by_safetensors, emptied_and_filled, resized])
def test_weights_on_another_way_give_the_same(made, tmp_path, tool):
    model, processor = made
    expected = predict(model, processor, TEXTS)
    assert predict(tool(copy.deepcopy(model), tmp_path), processor, TEXTS) == expected


def test_functional_calls_and_a_double_default(made):
    model, processor = made
    expected = predict(model, processor, TEXTS)
    inputs = processor.tokenizer(TEXTS, return_tensors="pt", padding=True)
    with torch.no_grad():
        called = torch.func.functional_call(model, model.state_dict(), kwargs=dict(inputs))
        assert torch.equal(called.logits, model(**inputs).logits)
    torch.set_default_dtype(torch.float64)
    try:
        assert predict(model, processor, TEXTS) == expected
        exact = BgaMnerForTokenClassification(model.config).eval()
        assert exact.dtype == torch.float64
        predict(exact, processor, TEXTS)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("strategy", AggregationStrategy)
def test_the_stock_tagging_pipeline_reads_the_marginals(made, strategy):
    model, processor = made
    inputs = processor.tokenizer(TEXTS[2], return_tensors="pt")
    with torch.no_grad():
        probabilities = model(**inputs).logits[0].softmax(dim=1)
    stock = pipeline("token-classification", model=model, tokenizer=processor.tokenizer)
    found = stock(TEXTS, aggregation_strategy=strategy, batch_size=2, ignore_labels=[])
    alone = [stock(text, aggregation_strategy=strategy, ignore_labels=[]) for text in TEXTS]
    assert [[entity["end"] for entity in text] for text in found] == [[e["end"] for e in text] for text in alone]
    for entity in found[2]:
        assert TEXTS[2][entity["start"] : entity["end"]] == entity["word"]
        if strategy is AggregationStrategy.NONE:
            row = probabilities[entity["index"]]
            assert entity["entity"] == model.config.id2label[int(row.argmax())]
            assert entity["score"] == pytest.approx(float(row.max()), abs=1e-5)


def test_the_stock_tagging_pipeline_reads_long_texts_in_windows(made):
    model, processor = made
    processor.tokenizer.model_max_length = 32
    stock = pipeline(
        "token-classification", model=model, tokenizer=processor.tokenizer, aggregation_strategy="first", stride=8
    )
    long = " ".join(TEXTS * 12)
    assert stock(long, ignore_labels=[])[-1]["end"] == len(long)


@pytest.mark.parametrize("function", ["none", "softmax", "sigmoid"])
def test_the_stock_classification_pipeline(made, function):
    tagger, processor = made
    model = BgaMnerForSequenceClassification(tagger.config).eval()
    stock = pipeline("text-classification", model=model, tokenizer=processor.tokenizer, function_to_apply=function)
    with torch.no_grad():
        logits = model(**processor.tokenizer(TEXTS[0], return_tensors="pt")).logits[0]
    expected = {"none": logits, "softmax": logits.softmax(0), "sigmoid": logits.sigmoid()}[function]
    found = stock(TEXTS[0], top_k=3)
    assert [entity["score"] for entity in found] == pytest.approx(expected.sort(descending=True).values[:3].tolist())
    assert len(stock(TEXTS[0], top_k=None)) == len(logits)


@pytest.mark.parametrize("options", [{"dtype": "auto"}, {"dtype": torch.bfloat16}, {"device_map": "cpu"}])
def test_pipelines_load_a_folder_in_any_precision(made, tmp_path, options):
    model, processor = made
    model.bfloat16().save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    loaded = pipeline("token-classification", model=str(tmp_path), **options)
    assert loaded.model.dtype == torch.bfloat16
    assert loaded.model.crf.transitions.dtype == torch.float32
    assert len(loaded(TEXTS[0], ignore_labels=[])) == 3


def _entities_of_a_folder(folder):
    torch.set_num_threads(1)
    tokenizer = build_tokenizer([text.split() for text in TEXTS])
    model = BgaMnerForTokenClassification.from_pretrained(folder)
    return predict(model, BgaMnerProcessor(None, tokenizer, model.config.label2id), TEXTS)


@pytest.mark.slow
def test_other_processes_find_the_same(made, tmp_path):
    model, processor = made
    model.save_pretrained(tmp_path)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(_entities_of_a_folder, (str(tmp_path),))
    assert found == predict(model, processor, TEXTS)
