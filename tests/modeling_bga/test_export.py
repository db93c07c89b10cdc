"""torch.export and torch.jit.trace record programs that give what the model gives, for other texts too."""

from __future__ import annotations

import pytest
import torch
from packaging.version import Version
from slow_cases import mostly_slow
from torch import nn

from bga_mner import (
    BgaMnerForSequenceClassification,
    BgaMnerForTokenClassification,
    BgaMnerModel,
    ConditionalRandomField,
)
from bga_mner.modeling_bga.crf.crf import bio_constraints


pytestmark = [
    pytest.mark.skipif(Version(torch.__version__) < Version("2.13"), reason="torch 2.6 doesn't say that it exports"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]
LENGTHS = [(5, 3), (1,), (9, 6, 4), (38, 2)]
TAGS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def make_inputs(model, lengths, side, images):
    generator = torch.Generator().manual_seed(sum(lengths))
    attended = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    attended = attended if side == "right" else attended.flip(1)
    ids = torch.randint(5, 60, attended.shape, generator=generator)
    batch = {
        "input_ids": ids.masked_fill(~attended, model.config.text_config.pad_token_id),
        "attention_mask": attended.long(),
    }
    if images:
        batch["pixel_values"] = torch.randn(len(lengths), 3, 16, 16, generator=generator)
        batch["image_mask"] = torch.arange(len(lengths)) % 2 == 0
    return batch


@pytest.mark.parametrize(
    ("model_class", "text", "vision", "images", "strict"),
    [
        (BgaMnerModel, "distilbert", "vit", False, False),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (BgaMnerForTokenClassification, "bert", "vit", False, True),
                (BgaMnerForTokenClassification, "modernbert", "vit", False, False),
                (BgaMnerForTokenClassification, "mpnet", "resnet", True, False),
                (BgaMnerForSequenceClassification, "deberta-v2", "siglip2_vision_model", True, False),
            )
        ),
    ],
)
def test_an_exported_program_gives_what_the_model_gives(make_config, model_class, text, vision, images, strict):
    model = model_class(make_config(text, vision)).eval()
    example = make_inputs(model, (5, 3), "right", images)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=38)
    shapes = {name: {0: batch, 1: length} if value.ndim == 2 else {0: batch} for name, value in example.items()}
    program = torch.export.export(model, (), example, dynamic_shapes=shapes, strict=strict).module()
    compared = set()
    for lengths in LENGTHS:
        for side in ("right", "left"):
            inputs = make_inputs(model, lengths, side, images)
            # as a user calls it, with gradients on
            expected, found = model(**inputs), program(**inputs)
            for name, value in expected.items():
                if isinstance(value, torch.Tensor):
                    torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5)
                    compared.add(name)
    assert compared & {"logits", "last_hidden_state"}
    assert ("predictions" in compared) == (model_class is BgaMnerForTokenClassification)


class _Outputs(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        output = self.model(input_ids, attention_mask)
        return output.logits, output.predictions


@pytest.mark.filterwarnings("ignore")  # the tracer tells of every shape that it records
def test_a_traced_model_holds_for_other_paddings_and_refuses_other_lengths(make_model):
    model = make_model()
    whole = make_inputs(model, (6, 6), "right", False)
    traced = torch.jit.trace(_Outputs(model), tuple(whole.values()))
    for lengths, side in (((6, 2), "right"), ((1, 6), "left")):
        inputs = make_inputs(model, lengths, side, False)
        with torch.no_grad():
            expected, (logits, predictions) = model(**inputs), traced(*inputs.values())
        torch.testing.assert_close(logits, expected.logits, rtol=1e-5, atol=1e-5)
        assert torch.equal(predictions, expected.predictions)
    with pytest.raises(RuntimeError, match="Expected 6 elements"):
        traced(*make_inputs(model, (5, 2), "right", False).values())


class _MarginalsAndPaths(nn.Module):
    def __init__(self, crf):
        super().__init__()
        self.crf = crf

    def forward(self, emissions, mask):
        return self.crf.log_marginals(emissions, mask), self.crf.decode(emissions, mask)


@pytest.mark.parametrize("constrained", mostly_slow([False, True], True))
def test_an_exported_crf_gives_what_the_crf_gives(constrained):
    crf = ConditionalRandomField(5, *(bio_constraints(dict(enumerate(TAGS))) if constrained else (None, None)))
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.normal_(std=2)
    generator = torch.Generator().manual_seed(1)
    emissions = torch.randn(60, 11, 5, generator=generator, dtype=torch.float64)
    mask = torch.rand(60, 11, generator=generator) < 0.7  # holes, and masks of every kind
    mask[0], mask[1] = True, False
    emissions[~mask] = torch.nan
    shapes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    example = (torch.randn(2, 3, 5, dtype=torch.float64), torch.ones(2, 3, dtype=torch.bool))
    program = torch.export.export(_MarginalsAndPaths(crf), example, dynamic_shapes=(shapes, shapes)).module()
    for scale in (0.1, 3.0, 300.0):  # the last underflows but in log space
        marginals, paths = program(scale * emissions, mask)
        expected = crf.log_marginals(scale * emissions, mask)
        torch.testing.assert_close(marginals.exp(), expected.exp(), rtol=1e-9, atol=1e-12)
        assert torch.equal(paths, crf.decode(scale * emissions, mask))
