from __future__ import annotations

import pytest
import torch

from bga_mner.modeling_bga.cross_modal_generator import CrossModalGenerator


@pytest.fixture
def generator() -> CrossModalGenerator:
    generator = CrossModalGenerator(
        source_width=6,
        target_width=8,
        max_target_length=10,
        num_heads=2,
        num_layers=2,
        ffn_ratio=2,
        dropout=0.1,
    )
    torch.nn.init.normal_(generator.modality_queries)
    return generator.eval()


@pytest.mark.parametrize("target_length", [1, 7, 10])
def test_any_target_length_up_to_the_number_of_queries(generator, target_length):
    assert generator(torch.randn(3, 5, 6), None, target_length).shape == (3, target_length, 8)


def test_longer_targets_are_refused(generator):
    with pytest.raises(ValueError, match="10 modality queries, but 11"):
        generator(torch.randn(3, 5, 6), None, 11)


def test_only_kept_source_states_are_read(generator):
    source = torch.randn(1, 4, 6)
    bias = torch.tensor([[0.0, torch.finfo(torch.float).min, 0.0, 0.0]])
    changed = source.clone()
    changed[0, 1] = torch.randn(6)
    assert torch.equal(generator(source, bias, 5), generator(changed, bias, 5))
    changed[0, 2] = torch.randn(6)
    assert not torch.allclose(generator(source, bias, 5), generator(changed, bias, 5), atol=1e-4)


def test_target_padding_does_not_change_real_positions(generator):
    source = torch.randn(2, 4, 6)
    bias = torch.zeros(2, 9)
    bias[:, 6:] = torch.finfo(torch.float).min
    padded = generator(source, None, 9, bias)[:, :6]
    assert torch.allclose(padded, generator(source, None, 6), atol=1e-6)
    # without the bias it would
    assert not torch.allclose(generator(source, None, 9)[:, :6], padded, atol=1e-4)


def test_batch_equals_single(generator):
    source = torch.randn(3, 4, 6)
    single = torch.cat([generator(row[None], None, 5) for row in source])
    assert torch.allclose(generator(source, None, 5), single, atol=1e-6)


def test_every_parameter_gets_a_gradient(generator):
    generator.train()
    (generator(torch.randn(3, 4, 6), torch.zeros(3, 4), 10) * torch.randn(3, 10, 8)).sum().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
