"""Where the host waits for the device: never between layers, and outside of them at few places, which are listed."""

from __future__ import annotations

import traceback
from collections import Counter

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from bga_mner import BgaMnerConfig, BgaMnerForTokenClassification
from bga_mner.modeling_bga.alignment.context_sampler import ContextSampler
from bga_mner.modeling_bga.crf import crf as crf_module
from bga_mner.modeling_bga.crf import recursions


# Operations whose result, or its shape, the host has to know: `.item()` and `if tensor`, `nonzero`, indexing by masks.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2", "equal", "is_nonzero"}
WAITING |= {"unique_consecutive", "repeat_interleave", "bincount", "allclose"}
# What a tensor of the CPU does without an operation.
WAITING_METHODS = {torch.Tensor.tolist, torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.__array__}
# Methods that run layers, generate and compute the losses.
LAYER_LOOP = {"_read", "_run_vision", "_align", "_look"}
# Whether a text needs its tags for its context to be hidden, which texts are read again with other names, and whether a
# sentence has to go through log space.
OUTSIDE = {"_hide_context: _local_scalar_dense", "_read_again: nonzero", "posterior: _local_scalar_dense"}
SHAPE = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}


class WaitingMethods(TorchFunctionMode):
    """Hands methods that wait to `count`."""

    def __init__(self, count) -> None:
        super().__init__()
        self.count = count

    def __torch_function__(self, func, types, args=(), kwargs=None):
        copied = func is torch.tensor and (kwargs or {}).get("device") is not None
        moved = func is torch.Tensor.to and "cpu" in map(str, [*args[1:], *(kwargs or {}).values()])
        if func in WAITING_METHODS or copied or moved:
            self.count(func.__name__)
        return func(*args, **(kwargs or {}))


class Waits(TorchDispatchMode):
    """Counts operations that wait, by the function of the package that asks for them."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: Counter[str] = Counter()
        self.outside: Counter[str] = Counter()
        self.methods = WaitingMethods(self.count)

    def __enter__(self):
        self.methods.__enter__()
        return super().__enter__()

    def __exit__(self, *raised):
        super().__exit__(*raised)
        self.methods.__exit__(*raised)

    def count(self, name: str) -> None:
        frames = [frame for frame in traceback.extract_stack() if frame.filename != __file__]
        stack = [frame.name for frame in frames if "modeling_bga" in frame.filename]
        found = self.inside if LAYER_LOOP & set(stack) else self.outside
        found[f"{stack[-1] if stack else '?'}: {name}"] += 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            part is not None and part.dtype == torch.bool for part in args[1]
        )
        copied = name == "_to_copy" and (kwargs or {}).get("device") not in (None, args[0].device)
        # `torch.tensor` without a device; a scalar is an argument of what reads it
        copied |= name == "lift_fresh" and args[0].ndim > 0
        if name in WAITING or by_mask or copied:
            self.count(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def _as_on_a_device(monkeypatch):
    """Let the CRF go the way of a device whose values are costly to read."""
    for module in (crf_module, recursions):
        monkeypatch.setattr(module, "is_cheap_to_read", lambda _: False)


def make_model(**options):
    torch.manual_seed(0)
    config = BgaMnerConfig(
        text_config={"model_type": "bert", "vocab_size": 50, **SHAPE},
        vision_config={"model_type": "clip_vision_model", "image_size": 32, "patch_size": 16, **SHAPE},
        id2label={0: "O", 1: "B-PER", 2: "I-PER"},
        num_bga_layers=2,
        **options,
    )
    return BgaMnerForTokenClassification(config)


def make_batch():
    mask = torch.ones(4, 7, dtype=torch.long)
    mask[1, 5:] = 0
    labels = torch.randint(3, (4, 7)).masked_fill(mask == 0, -100)
    labels[3] = -100
    return {
        "input_ids": torch.randint(5, 50, (4, 7)),
        "attention_mask": mask,
        "pixel_values": torch.randn(4, 3, 32, 32),
        "image_mask": torch.tensor([True, False, True, True]),
        "labels": labels,
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"entity_replacement_probability": 0.5},
        {"entity_replacement_probability": 0.5, "replaced_entities_read": "real"},
        {"hybrid_attention": "both"},
        {"visual_target": "last", "loss_stages": "all", "cycle_weight": 1.0},
        {"keep_budget": 0.5},
    ],
    ids=str,
)
@pytest.mark.parametrize("training", [False, True])
def test_nothing_waits_between_layers(options, training):
    model, batch = make_model(**options).train(training), make_batch()
    if not training:
        del batch["labels"]
    with Waits() as waits:
        output = model(**batch)
        if training:
            output.loss.backward()
    assert not waits.inside
    assert waits.outside.keys() <= OUTSIDE
    assert waits.outside["posterior: _local_scalar_dense"] == 1 == max(waits.outside.values())


@pytest.mark.parametrize(
    ("wait", "noticed"),
    [
        (lambda states: states.sum().item(), "_local_scalar_dense"),
        (lambda states: states.sum().tolist(), "tolist"),
        (lambda states: states.detach().cpu(), "cpu"),
        (lambda states: states.detach().numpy(), "numpy"),
        (lambda states: np.asarray(states.detach()), "__array__"),
        (lambda states: states.to("cpu"), "to"),
        (lambda states: torch.tensor([1.0]).to(states.device), "lift_fresh"),
        (lambda states: torch.tensor(1.0, device=states.device), "tensor"),
        (lambda states: states.flatten().unique_consecutive(), "unique_consecutive"),
        (lambda states: states[states > 0], "index"),
    ],
)
def test_waiting_between_layers_would_be_noticed(monkeypatch, wait, noticed):
    sample = ContextSampler.logits

    def impatient(sampler, states, keep):
        wait(states)
        return sample(sampler, states, keep)

    monkeypatch.setattr(ContextSampler, "logits", impatient)
    with Waits() as waits:
        make_model().eval()(**make_batch())
    assert waits.inside[f"forward: {noticed}"] == 4  # two stages of either branch
