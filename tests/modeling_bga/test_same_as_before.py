"""Models keep the names of their weights and, with weights that are arithmetic alone, every number they gave before.

After a change that is meant to change outputs: `python tests/modeling_bga/test_same_as_before.py` writes
`recorded_outputs.json` anew.
"""

from __future__ import annotations

import json
import sys
import zlib
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from conftest import LABELS, TEXT_CONFIGS, VISION_CONFIGS

from bga_mner import BgaMnerConfig, BgaMnerForSequenceClassification, BgaMnerForTokenClassification


RECORD = Path(__file__).with_name("recorded_outputs.json")
# Defaults of release 0.1.
FORMER: dict[str, Any] = {"visual_target": "last", "context_hiding_probability": 0.0, "gate_initial_bias": -4.0}
FORMER |= {"reconstruction_weight": 1.0, "cycle_weight": 1.0, "loss_stages": "all"}
FORMER |= {"generators_learn_from_labels": True, "align_last_states": False}
# Families of the encoders, training or evaluation, and options of the configuration.
CASES: dict[str, tuple[str, str, bool, dict[str, Any]]] = {
    "default": ("bert", "clip_vision_model", False, {}),
    "default, training": ("bert", "clip_vision_model", True, {}),
    "BERT, ViT": ("bert", "vit", False, {}),
    "RoBERTa, CLIP": ("roberta", "clip_vision_model", False, {}),
    "hybrid attention in both": ("bert", "vit", True, {"hybrid_attention": "both"}),
    "no sampler": ("bert", "vit", True, {"use_context_sampler": False}),
    "layer as target": ("bert", "vit", True, {"visual_target": "layer"}),
    "stages sampled": ("bert", "vit", True, {"loss_stages": "sampled"}),
    "budget, match": ("bert", "vit", True, {"keep_budget": 0.3, "sampler_reads_match": True}),
    "replaced entities read generated features": (
        *("bert", "vit", True),
        {"entity_replacement_probability": 0.6, "replaced_entities_read": "generated"},
    ),
    "replaced entities read real features": (
        *("bert", "vit", True),
        {"entity_replacement_probability": 0.6, "replaced_entities_read": "real"},
    ),
    "last states aligned": ("bert", "vit", True, {"align_last_states": True}),
    "pooled target": ("bert", "vit", True, {"visual_target": "pooled"}),
    "pooled target, real features": (
        *("bert", "siglip_vision_model", False),
        {"visual_target": "pooled", "visual_source": "real"},
    ),
    "real features": ("bert", "vit", False, {"visual_source": "real"}),
    "text alone": ("bert", "vit", False, {"text_only": True}),
    "sequence classifier": ("bert", "vit", True, {}),
    "convolutional encoder": ("distilbert", "resnet", True, {}),
    "disentangled attention": ("deberta-v2", "siglip2_vision_model", False, {}),
}


def numbers(shape: tuple[int, ...] | torch.Size, name: str) -> torch.Tensor:
    """Make numbers between -1 and 1 of a shape and a name."""
    count = torch.Size(shape).numel()
    return torch.sin(torch.arange(count, dtype=torch.float64) * 0.7 + zlib.crc32(name.encode()) % 1000).view(shape)


def make(case: str) -> torch.nn.Module:
    """Build the model of a case, whose weights depend on their names and shapes alone."""
    text, vision, training, options = CASES[case]
    without_dropout = {"dropout", "attention_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob"}
    config = BgaMnerConfig(
        text_config=TEXT_CONFIGS[text] | dict.fromkeys(without_dropout, 0.0),
        vision_config=VISION_CONFIGS[vision],
        **{"id2label": dict(enumerate(LABELS)), "num_bga_layers": 2, "generator_dropout": 0.0},
        **{"classifier_dropout": 0.0, **FORMER, **options},
    )
    of_case = BgaMnerForSequenceClassification if case == "sequence classifier" else BgaMnerForTokenClassification
    # rounding differs from machine to machine; what is left of it is that of the losses, which are in float32
    model = of_case(config).double().train(training)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            sampled = numbers(parameter.shape, name)
            if parameter.ndim > 1 and "crf" not in name:
                # (outputs, inputs, ...): keeps the scale of what passes through
                parameter.copy_(sampled * (2 / parameter[0].numel()) ** 0.5)
            else:
                parameter.copy_(0.3 * sampled + (name.endswith("weight") and "crf" not in name))
        if (target := getattr(model.bga_mner, "pooled_target", None)) is not None:
            # two images, almost alike, are no measure of what images vary by
            target.images_seen.fill_(10**6)
            target.mean.copy_(0.3 * numbers(target.mean.shape, "mean"))
            target.variance.copy_(1 + 0.3 * numbers(target.variance.shape, "variance"))
    return model


def make_inputs(case: str) -> dict[str, torch.Tensor]:
    """Make three texts of a case, the last two padded, and images of the first and the last."""
    padding = 1 if CASES[case][0] == "roberta" else 0
    attention_mask = torch.arange(7) < torch.tensor([7, 5, 3])[:, None]
    inputs = {
        "input_ids": (5 + torch.arange(21).view(3, 7) * 11 % 50).masked_fill(~attention_mask, padding),
        "attention_mask": attention_mask,
        "labels": torch.tensor([3, 4, 0, 1, 2, 0, -100]).expand(3, 7).masked_fill(~attention_mask, -100),
    }
    if case == "sequence classifier":
        inputs["labels"] = torch.tensor([2, -100, 0])
    if not CASES[case][3].get("text_only"):
        inputs["pixel_values"] = numbers((3, 3, 16, 16), "images")
        inputs["image_mask"] = torch.tensor([True, False, True])
    return inputs


def summarise(case: str) -> dict[str, Any]:
    """Run a case, and reduce what comes out to a few numbers."""
    model = make(case)
    names = sorted(f"{name} {tuple(tensor.shape)}" for name, tensor in model.state_dict().items())
    with torch.no_grad():
        output = model(**make_inputs(case))
    summary: dict[str, Any] = {"weights": sha256("\n".join(names).encode()).hexdigest(), "fields": list(output)}
    for field, value in output.items():
        if field == "predictions":
            summary[field] = value.tolist()
        elif "keep_masks" in field:
            summary[field] = [keep.sum().item() for keep in value]
        else:
            parts = torch.cat([part.double().flatten() for part in (value if isinstance(value, tuple) else (value,))])
            # one number that each element has a say in
            summary[field] = (parts * (1 + numbers(parts.shape, field))).mean().item()
    loss = model.train()(**make_inputs(case)).loss
    loss.backward()
    gradients = [parameter.grad.norm().item() for parameter in model.parameters() if parameter.grad is not None]
    summary["gradients"] = [len(gradients), sum(gradients) / len(gradients)]
    return summary


def replace_chance(patch: pytest.MonkeyPatch) -> None:
    """Have everything that the models draw be arithmetic, the same on all machines and in all versions of torch."""

    def counted(size: Any, most: int) -> torch.Tensor:
        return (torch.arange(torch.Size(size).numel()) * 7 % most).view(size)

    patch.setattr(torch, "rand", lambda *size, **_: counted(size, 10) / 10)
    patch.setattr(torch, "randint", lambda most, size, **_: counted(size, most))
    patch.setattr(torch, "randint_like", lambda like, most: counted(like.shape, most))
    patch.setattr(
        torch.Tensor,
        "exponential_",
        lambda tensor: tensor.copy_(1.1 + numbers(tensor.shape, "noise")),
        raising=False,
    )


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_those_that_were_recorded(case, monkeypatch):
    replace_chance(monkeypatch)
    found, recorded = summarise(case), json.loads(RECORD.read_text(encoding="utf-8"))[case]
    assert found.keys() == recorded.keys()
    for field, value in recorded.items():
        if field == "gradients":
            assert found[field] == pytest.approx(value, rel=1e-4)
        elif isinstance(value, float):
            assert found[field] == pytest.approx(value, abs=1e-6, rel=1e-6), field
        else:
            assert found[field] == value, field


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as chance:
        replace_chance(chance)
        lines = [f"{json.dumps(case)}: {json.dumps(summarise(case))}" for case in CASES]
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
