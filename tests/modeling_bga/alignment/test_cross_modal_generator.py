"""The generator reads what is kept, generates any length, and knows its targets' padding from their beginning."""

from __future__ import annotations

import pytest
import torch

from bga_mner.modeling_bga.alignment.cross_modal_generator import CrossModalGenerator


def make_generator(causal: bool = False, num_layers: int = 2) -> CrossModalGenerator:
    generator = CrossModalGenerator(
        source_width=6,
        target_width=8,
        max_target_length=10,
        num_heads=2,
        num_layers=num_layers,
        ffn_ratio=2,
        dropout=0.1,
        causal=causal,
    )
    torch.nn.init.normal_(generator.modality_queries)
    return generator.eval()


@pytest.fixture(params=[False, True], ids=["any-order", "causal"])
def generator(request) -> CrossModalGenerator:
    return make_generator(request.param)


def generate(generator, source, bias, length, mask=None):
    return generator(source, bias, generator.prepare(length, mask))


def test_the_feed_forward_block_is_wider_by_its_ratio(generator):
    widths = {parameter.shape[0] for name, parameter in generator.named_parameters() if ".ffn." in name}
    assert widths == {2 * 8, 8}


@pytest.mark.parametrize("target_length", [1, 7, 10])
def test_any_target_length_up_to_the_number_of_queries(generator, target_length):
    assert generate(generator, torch.randn(3, 5, 6), None, target_length).shape == (3, target_length, 8)


def test_longer_targets_are_refused(generator):
    with pytest.raises(ValueError, match=r"at most 10 positions .*, got 11"):
        generator.prepare(11)


def test_only_kept_source_states_are_read(generator):
    source = torch.randn(1, 4, 6)
    bias = torch.tensor([[0.0, torch.finfo(torch.float).min, 0.0, 0.0]])
    changed = source.clone()
    changed[0, 1] = torch.randn(6)
    assert torch.equal(generate(generator, source, bias, 5), generate(generator, changed, bias, 5))
    changed[0, 2] = torch.randn(6)
    assert not torch.allclose(generate(generator, source, bias, 5), generate(generator, changed, bias, 5), atol=1e-4)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("side", ["right", "left", "both"])
def test_padding_of_a_causal_target_changes_nothing(num_layers, side):
    generator = make_generator(True, num_layers)
    source = torch.randn(2, 4, 6)
    mask = torch.zeros(2, 9, dtype=torch.bool)
    first = {"right": 0, "left": 3, "both": 2}[side]
    mask[0, first : first + 6] = True
    mask[1] = True
    padded = generate(generator, source, None, 9, mask)
    alone = generate(generator, source[:1], None, 6)
    torch.testing.assert_close(padded[:1, first : first + 6], alone)
    torch.testing.assert_close(padded[1:], generate(generator, source[1:], None, 9))
    assert torch.isfinite(padded).all()


def test_a_causal_query_sees_those_before_it_only():
    generator = make_generator(True)
    source = torch.randn(2, 4, 6)
    before = generate(generator, source, None, 9)
    torch.testing.assert_close(generate(generator, source, None, 4), before[:, :4])
    with torch.no_grad():
        generator.modality_queries[5] += torch.randn(8)
    after = generate(generator, source, None, 9)
    assert torch.equal(after[:, :5], before[:, :5])
    assert (after[:, 5:] - before[:, 5:]).abs().amax(dim=2).min() > 1e-4
    # without an order all see all
    generator.causal = False
    assert not torch.allclose(generate(generator, source, None, 4), generate(generator, source, None, 9)[:, :4])


@pytest.mark.parametrize("masked", [False, True])
def test_what_is_computed_again_in_the_backward_pass_has_the_same_gradients(generator, masked):
    for dropout in (module for module in generator.modules() if hasattr(module, "dropout")):
        if isinstance(dropout.dropout, float):
            dropout.dropout = 0.0
        else:
            dropout.dropout.p = 0.0
    bias = torch.randn(2, 4)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2]) if masked else None
    source, weight = torch.randn(2, 4, 6, requires_grad=True), torch.randn(2, 5, 8)
    found = []
    for training in (False, True):  # in evaluation nothing is computed again
        generator.train(training)
        loss = (generate(generator, source, bias, 5, mask) * weight).sum()
        found.append(torch.autograd.grad(loss, [source, *generator.parameters()]))
    torch.testing.assert_close(found[1], found[0])


def test_a_stage_leaves_only_its_source_for_the_backward_pass(generator):
    source, prepared = torch.randn(2, 4, 6, requires_grad=True), generator.prepare(5)
    saved = []

    def save(tensor):
        if tensor.numel() > 0:  # torch 2.6 saves an empty one to hang its hooks on
            saved.append(tensor.shape)

    with torch.autograd.graph.saved_tensors_hooks(save, lambda _: None):
        generator.train()(source, None, prepared)
        assert saved == [source.shape]
        generator.eval()(source, None, prepared)
        assert len(saved) > 10


def test_batch_equals_single(generator):
    source = torch.randn(3, 4, 6)
    single = torch.cat([generate(generator, row[None], None, 5) for row in source])
    assert torch.allclose(generate(generator, source, None, 5), single, atol=1e-6)


def test_every_parameter_gets_a_gradient(generator):
    generator.train()
    (generate(generator, torch.randn(3, 4, 6), torch.zeros(3, 4), 10) * torch.randn(3, 10, 8)).sum().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
