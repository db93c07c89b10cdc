"""A student's graphs give what the student gives, for every batch, length and padding, without any code of ours."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from bga_mner import BgaMnerForSequenceClassification, BgaMnerProcessor, build_student, export_student
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


LENGTHS = [[1], [38], [5, 3], [9, 1, 6, 3]]


@pytest.fixture
def make_student(make_model, make_config):
    """Return a function that makes a student whose tags differ from token to token, and its tokenizer."""

    def make(family="bert", classifies=False):
        tokenizer = build_tokenizer([["Kawhi", "wins"]])
        if family in ("distilbert", "roberta", "xlm-roberta", "modernbert"):
            tokenizer.model_input_names = ["input_ids", "attention_mask"]
        options = {"text_options": {"vocab_size": len(tokenizer)}}
        if classifies:
            teacher = BgaMnerForSequenceClassification(make_config(family, id2label={0: "no", 1: "yes"}, **options))
        else:
            teacher = make_model(family, **options)
        student, tokenizer = build_student(teacher, BgaMnerProcessor(None, tokenizer, None))
        with torch.no_grad():
            for name, weight in student.named_parameters():
                if name.startswith("classifier") and weight.ndim > 1:
                    weight.mul_(30)
        return student, tokenizer

    return make


def largest_difference(student, file):
    """Compare probabilities at the attended tokens of batches, padded on the right."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = {one.name for one in session.get_inputs()}
    largest = 0.0
    for lengths in LENGTHS:
        shape = (len(lengths), max(lengths))
        mask = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
        pad = student.config.pad_token_id or 0
        ids = torch.randint(5, 60, shape, generator=torch.Generator().manual_seed(len(lengths))).masked_fill(~mask, pad)
        inputs = {"input_ids": ids, "attention_mask": mask.long(), "token_type_ids": torch.zeros_like(ids)}
        inputs = {name: value for name, value in inputs.items() if name in names}
        with torch.no_grad():
            expected = student(**inputs).logits.softmax(dim=-1).numpy()
        (logits,) = session.run(["logits"], {name: value.numpy() for name, value in inputs.items()})
        found = np.exp(logits - logits.max(axis=-1, keepdims=True))
        found /= found.sum(axis=-1, keepdims=True)
        kept = mask.numpy() if logits.ndim == 3 else slice(None)
        largest = max(largest, float(np.abs(found - expected)[kept].max()))
    return largest


@pytest.mark.parametrize(
    "family",
    ["bert", *(pytest.param(name, marks=pytest.mark.slow) for name in ("roberta", "distilbert", "electra", "mpnet"))],
)
def test_graphs_give_what_the_student_gives(make_student, tmp_path, family):
    student, tokenizer = make_student(family)
    files = export_student(student, tokenizer, tmp_path)
    assert sorted(path.name for path in (tmp_path / "onnx").iterdir()) == ["model.onnx", "model_quantized.onnx"]
    assert largest_difference(student, files["fp32"]) < 1e-5
    assert 1e-5 < largest_difference(student, files["q8"]) < 0.3
    assert files["q8"].stat().st_size < files["fp32"].stat().st_size
    # of what every build of ONNX Runtime knows
    opsets = {(one.domain, one.version) for one in onnx.load(files["fp32"]).opset_import}
    assert opsets == {("", 18)}


@pytest.mark.slow
def test_a_classifier_s_graph(make_student, tmp_path):
    student, tokenizer = make_student(classifies=True)
    files = export_student(student, tokenizer, tmp_path)
    assert largest_difference(student, files["fp32"]) < 1e-5


def test_the_student_stays_as_it_is_and_the_graph_is_exact(make_student, tmp_path):
    student, tokenizer = make_student()
    student.train().bfloat16()
    files = export_student(student, tokenizer, tmp_path)
    assert all(module.training for module in student.modules())
    assert student.dtype == torch.bfloat16
    assert largest_difference(student.eval().float(), files["fp32"]) < 1e-5
