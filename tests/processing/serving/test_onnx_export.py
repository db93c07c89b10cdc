"""The exported graph gives what the model gives, for every text encoder, batch, length and padding."""

from __future__ import annotations

import copy
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from accelerate import cpu_offload
from onnx import TensorProto, helper
from peft import get_peft_model

from bga_mner import BgaMnerProcessor, ConditionalRandomField, OnnxPredictor, export_onnx, lora_config
from bga_mner.examples.synthetic.tokenizer import build_tokenizer
from bga_mner.modeling_bga.crf.crf import bio_constraints
from bga_mner.processing.serving.onnx_graph import add_best_path


# the tokens of each text; what the longest leaves is padding
LENGTHS = [[1], [38], [5, 3], [9, 1, 6, 3], [7, 7, 7]]


def make_inputs(model, lengths, side):
    generator = torch.Generator().manual_seed(sum(lengths))
    length = max(lengths)
    places = torch.arange(length) if side == "right" else length - 1 - torch.arange(length)
    attended = places < torch.tensor(lengths)[:, None]
    ids = torch.randint(5, 60, (len(lengths), length), generator=generator)
    return ids.masked_fill(~attended, model.config.text_config.pad_token_id), attended.long()


def compare(model, folder):
    """Return the largest difference between the emissions of a graph and of a model, and the share of same tags."""
    predictor = OnnxPredictor(folder, threads=1)
    largest, same = 0.0, []
    for lengths in LENGTHS:
        for side in ("right", "left"):
            input_ids, attention_mask = make_inputs(model, lengths, side)
            with torch.no_grad():
                expected = model(input_ids=input_ids, attention_mask=attention_mask)
            emissions, predictions = predictor.run(input_ids.numpy(), attention_mask.numpy())
            difference = np.abs(emissions - expected.emissions.numpy())[attention_mask.bool().numpy()]
            largest = max(largest, float(difference.max()))
            same.append(predictions == expected.predictions.numpy())
    return largest, np.concatenate([part.ravel() for part in same]).mean()


def check_equal(model, folder):
    largest, same = compare(model, folder)
    assert largest < 1e-4
    assert same == 1


@pytest.fixture
def export(tmp_path):
    def run(model, **options):
        # no words are needed here: what counts is which inputs the tokenizer makes
        tokenizer = build_tokenizer([["Kawhi", "wins"]])
        if model.config.text_config.model_type == "distilbert":
            tokenizer.model_input_names = ["input_ids", "attention_mask"]
        export_onnx(model, BgaMnerProcessor(None, tokenizer, model.config.label2id), tmp_path / "out", **options)
        return tmp_path / "out"

    return run


@pytest.fixture
def make_lively(make_model):
    """Make a small model whose layers heed what is generated, and whose tags differ from token to token."""

    def make(family="bert", **options):
        depth = "n_layers" if family == "distilbert" else "num_hidden_layers"
        text_options = {depth: 2} | options.pop("text_options", {})
        defaults = {"gate_initial_bias": 1.0, "num_bga_layers": 1, "text_only": True}
        model = make_model(family, "clip_vision_model", text_options=text_options, **(defaults | options))
        with torch.no_grad():
            # biases are zeros at first, and would hide errors in what is made of them
            for name, parameter in model.named_parameters():
                if name.endswith("bias") and "crf" not in name:
                    parameter.add_(0.1 * torch.randn_like(parameter))
            model.classifier.weight.mul_(20)
        return model

    return make


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "mpnet", "deberta-v2", "modernbert"])
def test_every_text_encoder(make_lively, export, family):
    model = make_lively(family)
    folder = export(model)
    check_equal(model, folder)
    # what is generated matters to the graph, or the comparison would say nothing about it
    with torch.no_grad():
        model.bga_mner.text_branch.generator.modality_queries.mul_(-3)
    assert compare(model, folder)[0] > 1e-3


@pytest.mark.parametrize(
    "options",
    [{"use_text_to_image": False}, {"hybrid_attention": "none"}, {"use_context_sampler": False, "text_only": False}],
    ids=str,
)
def test_models_that_lack_a_part(make_lively, export, options):
    model = make_lively(**options).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folder = export(model)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    check_equal(model.eval(), folder)


@pytest.mark.slow
def test_samplers_that_drop_and_deep_generators(make_lively, export):
    model = make_lively(sampler_initial_keep=0.4, num_bga_layers=2, generator_num_layers=2, constrain_transitions=False)
    input_ids, attention_mask = make_inputs(model, [9, 1, 6, 3], "right")
    keep = model(input_ids=input_ids, attention_mask=attention_mask).text_keep_masks[-1]
    assert 4 <= keep.sum() < attention_mask.sum()  # class tokens stay
    check_equal(model, export(model))


def test_int8_is_near_and_smaller(make_lively, export):
    model = make_lively(text_options={"hidden_size": 64, "intermediate_size": 128})
    folder = export(model, int8=True)
    kinds = [node.op_type for node in onnx.load(folder / "model.onnx").graph.node]
    assert kinds.count("MatMulInteger") > 10
    assert kinds.count("MatMul") == 1  # the tag scores
    size = 4 * sum(value.numel() for value in model.state_dict().values())
    assert (folder / "model.onnx.data").stat().st_size < 0.6 * size
    difference, same = compare(model, folder)
    assert 1e-4 < difference < 2
    assert same > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "int8"), [(torch.bfloat16, False), (torch.bfloat16, True), (torch.float16, False), (torch.float64, False)]
)
def test_other_precisions_are_exported_as_a_copy_in_float32(make_lively, export, dtype, int8):
    model = make_lively().to(dtype).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = {path.name: path.read_bytes() for path in export(model, int8=int8).iterdir()}
    assert model.training
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])
    folder = export(copy.deepcopy(model).float(), int8=int8)
    assert found == {path.name: path.read_bytes() for path in folder.iterdir()}
    if not int8:
        check_equal(model.float().eval(), folder)


@pytest.mark.slow
def test_adapters_are_exported_as_they_are_on(make_lively, export):
    model = make_lively()
    adapted = get_peft_model(model, lora_config(model, 2, task_type="TOKEN_CLS", init_lora_weights=False)).eval()
    folder = export(adapted)
    check_equal(adapted, folder)
    with adapted.disable_adapter():
        assert compare(adapted, folder)[0] > 1e-3


def test_weights_that_cannot_be_exported_are_named(make_model, export):
    model = make_model()
    with torch.device("meta"):
        empty = type(model)(model.config)
    with pytest.raises(ValueError, match="on one device, got 'meta'"):
        export(empty)
    with pytest.raises(ValueError, match="on one device, got 'cpu', 'meta'"):
        export(cpu_offload(copy.deepcopy(model), execution_device="cpu", offload_buffers=False))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(torch.ao.quantization|torch.quantize_per_tensor).* deprecated")
        quantised = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear})
    with pytest.raises(ValueError, match=r"quantised, got Linear.*int8=True"):
        export(quantised)


def test_says_what_to_mend(make_model, export, monkeypatch):
    with pytest.raises(ValueError, match='visual_source="real", which needs images'):
        export(make_model(visual_source="real"))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"'onnxscript' can't be imported.*bga-mner\[onnx\]"):
        export(make_model())


@pytest.mark.parametrize("mask", ["right", "left", "holes"])
def test_best_path_is_that_of_the_crf(mask):
    labels = {0: "O", 1: "B-LOC", 2: "I-LOC", 3: "B-PER", 4: "I-PER"}
    crf = ConditionalRandomField(5, *bio_constraints(labels))
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.uniform_(-2, 2)
    emissions = helper.make_tensor_value_info("given", TensorProto.FLOAT, ["batch", "length", 5])
    attention = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "length"])
    output = helper.make_tensor_value_info("emissions", TensorProto.FLOAT, ["batch", "length", 5])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["given"], ["emissions"])], "g", [emissions, attention], [output]
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    transitions, starts = crf.transitions.detach().double(), crf.start_transitions.detach().double()
    add_best_path(
        proto,
        transitions.masked_fill(~crf.allowed_transitions, -1e4).numpy(),
        starts.masked_fill(~crf.allowed_starts, -1e4).numpy(),
        crf.end_transitions.detach().double().numpy(),
    )
    onnx.checker.check_model(proto)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    for batch, length in ((1, 1), (3, 8), (5, 17)):
        kept = torch.rand(batch, length) < 0.6
        if mask != "holes":
            kept = kept.sort(dim=1, descending=mask == "right").values
        given = 2 * torch.randn(batch, length, 5)
        feed = {"given": given.numpy(), "attention_mask": kept.long().numpy()}
        (found,) = session.run(["predictions"], feed)
        assert found.tolist() == crf.decode(given, kept).tolist()
