"""The benchmark of accelerators, on the CPU at sizes where only its machinery is tested."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch


SMALL = ["--device", "cpu", "--size", "tiny", "--repeats", "1", "--steps", "4", "--vision_steps", "4", "--images", "40"]
SMALL += ["--pairs", "40", "--test_sentences", "10", "--json"]
SHAPES = ["2x8", "2x12", "3x8", "3x12"]


def test_prints_all_parts_last(benchmark, capsys):
    found = benchmark.main([*SMALL, "--batches", "2,3", "--lengths", "8,12", "--no-compile"])
    output = capsys.readouterr().out
    assert json.loads(output.strip().splitlines()[-1]) == {"accelerator": found}
    assert (found["device"], found["left_out"]) == ("CPU", [])
    assert found["equality"]["emissions"] == found["equality"]["loss"] == 0 < found["equality"]["bf16_emissions"]
    assert found["equality"]["same_tags"] == 1
    assert {name: list(ratios) for name, ratios in found["speed"].items()} == {"inference": SHAPES, "training": SHAPES}
    assert min(ratio for ratios in found["speed"].values() for ratio in ratios.values()) > 0
    assert found["crf"].keys() == {"loss_2x8", "decode_2x8", "loss_3x12", "decode_3x12"}
    assert any("scaled_dot_product" in kernel for kernel in found["memory"]["attention_kernels"])
    assert found["training"]["same_seed_difference"] == 0
    assert 0 <= found["training"]["f1"] <= 1


def test_parts_that_do_not_fit_are_named(benchmark, monkeypatch):
    clock = iter([0.0, *[1000.0] * 20])
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(clock))
    found = benchmark.main([*SMALL, "--parts", "equality,crf"])
    assert found["left_out"] == ["equality", "crf"]


def test_shapes_that_do_not_fit_into_memory_have_no_ratio(benchmark, monkeypatch):
    def refuse(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(benchmark, "step", refuse)
    found = benchmark.main([*SMALL, "--parts", "speed", "--batches", "2", "--lengths", "8", "--no-compile"])
    assert found["speed"] == {"inference": {"2x8": None}, "training": {"2x8": None}}


def test_a_device_that_answers_otherwise_is_refused(benchmark, monkeypatch):
    options = benchmark._parse(SMALL)
    original = benchmark.make_model

    def broken(size):
        model = original(size)
        move = model.to

        def to(device):
            with torch.no_grad():
                model.classifier.bias.add_(torch.randn(model.num_labels))
            return move(device)

        model.to = to
        return model

    monkeypatch.setattr(benchmark, "make_model", broken)
    with pytest.raises(RuntimeError, match="the CPU's answers"):
        benchmark.measure_equality(benchmark.Device("cpu"), options)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of the compiler itself
def test_times_compiled_models(benchmark, monkeypatch):
    # the C++ of four graphs would take minutes: test_compilation.py has it made
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    found = benchmark.main([*SMALL, "--parts", "speed", "--batches", "2", "--lengths", "8"])
    torch.compiler.reset()
    assert found["speed"].keys() == {"inference", "inference_compiled", "training", "training_compiled"}
