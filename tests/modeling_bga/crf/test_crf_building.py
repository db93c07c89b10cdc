"""What the CRF is built of, how it is saved, and what it refuses."""

import pytest
import torch
from torch import Tensor

from bga_mner.modeling_bga.crf.crf import ConditionalRandomField, bio_constraints


BIO = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC"}


def test_parameters_and_state_dict() -> None:
    crf = ConditionalRandomField(4, *bio_constraints(BIO))
    assert set(crf.state_dict()) == {"transitions", "start_transitions", "end_transitions"}
    for parameter in crf.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.abs().max() <= 0.1
        assert parameter.unique().numel() == parameter.numel()


def test_building_under_meta_device_and_half_precision_default() -> None:
    with torch.device("meta"):
        crf = ConditionalRandomField(4, *bio_constraints(BIO))
    assert crf.transitions.is_meta
    crf.to_empty(device="cpu")
    crf.allowed_transitions.fill_(False)
    crf.reset_parameters()
    crf.reset_constraints()
    transitions, starts = bio_constraints(BIO)
    assert torch.equal(crf.allowed_transitions, transitions)
    assert torch.equal(crf.allowed_starts, starts)
    assert crf.transitions.abs().max() <= 0.1
    try:
        torch.set_default_dtype(torch.bfloat16)
        crf = ConditionalRandomField(4)
    finally:
        torch.set_default_dtype(torch.float32)
    assert crf.transitions.dtype == torch.float32
    assert crf.allowed_transitions.all()


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("tag", [-1, -99, -101, 4, 10**12])
def test_tag_out_of_range(tag: int) -> None:
    crf, emissions, mask = ConditionalRandomField(4), torch.randn(8, 5, 4), torch.ones(8, 5).bool()
    tags = torch.zeros(8, 5).long()
    tags[3, 2] = tag
    for call in (lambda: crf(emissions, tags, mask), lambda: crf.contradictory(tags, mask)):
        with pytest.raises(ValueError, match=rf"Expected tags to be 0 to 3.*got {tag} at \[3, 2\]\. Use"):
            call()


@pytest.mark.parametrize(
    ("name", "emissions", "tags", "mask"),
    [
        ("emissions", torch.zeros(2, 5, 3), torch.zeros(2, 5).long(), torch.ones(2, 5).bool()),
        ("emissions", torch.zeros(2, 5), torch.zeros(2, 5).long(), torch.ones(2, 5).bool()),
        ("emissions", torch.zeros(2, 5, 4).long(), torch.zeros(2, 5).long(), torch.ones(2, 5).bool()),
        ("mask", torch.zeros(2, 5, 4), torch.zeros(2, 5).long(), torch.ones(2, 4).bool()),
        ("mask", torch.zeros(2, 5, 4), torch.zeros(2, 5).long(), torch.ones(2, 1, 5).bool()),
        ("mask", torch.zeros(2, 5, 4), torch.zeros(2, 5).long(), torch.ones(2, 5)),
        ("mask", torch.zeros(2, 0, 4), torch.zeros(2, 0).long(), torch.ones(2, 0).bool()),
        ("tags", torch.zeros(2, 5, 4), torch.zeros(2, 4).long(), torch.ones(2, 5).bool()),
        ("tags", torch.zeros(2, 5, 4), torch.zeros(2, 5).int(), torch.ones(2, 5).bool()),
        ("tags", torch.zeros(2, 5, 4), torch.zeros(2, 5), torch.ones(2, 5).bool()),
    ],
)
def test_wrong_shapes_and_dtypes(name: str, emissions: Tensor, tags: Tensor, mask: Tensor) -> None:
    crf = ConditionalRandomField(4)
    with pytest.raises(ValueError, match=rf"^Expected {name} to be .*, got .*\. (Give|Use)"):
        crf(emissions, tags, mask)
    if name != "tags":
        for call in (crf.decode, crf.log_marginals, crf.log_partition):
            with pytest.raises(ValueError, match=rf"^Expected {name} to be"):
                call(emissions, mask)


def test_wrong_construction() -> None:
    with pytest.raises(ValueError, match="Expected num_tags to be at least 1, got 0"):
        ConditionalRandomField(0)
    with pytest.raises(ValueError, match=r"Expected allowed_transitions to be torch\.bool of shape \(4, 4\)"):
        ConditionalRandomField(4, torch.ones(3, 3).bool())
    with pytest.raises(ValueError, match=r"Expected allowed_starts to be torch\.bool"):
        ConditionalRandomField(4, None, torch.ones(4))
    with pytest.raises(ValueError, match="on meta"):
        ConditionalRandomField(4, torch.ones(4, 4, dtype=torch.bool, device="meta"))
    with pytest.raises(ValueError, match="Expected id2label to be a dict with the integer keys 0 to 1"):
        bio_constraints({0: "O", 2: "B-PER"})
