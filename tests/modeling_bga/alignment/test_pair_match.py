import pytest
import torch
from torch.nn import functional as F

from bga_mner.modeling_bga.alignment.losses import pair_match


def test_is_one_for_the_target_itself_whatever_its_scale():
    target = torch.randn(3, 5, 8)
    assert torch.allclose(pair_match(3 * target, 7 * target), torch.ones(3), atol=1e-6)
    assert torch.allclose(pair_match(-target, target), -torch.ones(3), atol=1e-6)


def test_compares_means_over_positions():
    generated, target = torch.randn(3, 5, 8), torch.randn(3, 4, 8)
    for row, match in enumerate(pair_match(generated, target)):
        expected = F.cosine_similarity(generated[row].mean(0), target[row].mean(0), dim=0)
        assert match == pytest.approx(expected.item(), abs=1e-6)


def test_no_gradient_reaches_what_is_generated():
    generated = torch.randn(2, 5, 8, requires_grad=True)
    assert not pair_match(generated, torch.randn(2, 5, 8)).requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_is_computed_in_float32(dtype):
    assert pair_match(torch.randn(2, 5, 8, dtype=dtype), torch.randn(2, 5, 8, dtype=dtype)).dtype == torch.float32


def test_pairs_that_match_keep_more(make_model, make_batch):
    model, batch = make_model(), make_batch()
    with torch.no_grad():
        for sampler in model.bga_mner.vision_branch.samplers:
            sampler.match_weight.fill_(1e4)
    output = model(**batch)
    assert output.pair_match.abs().min() > 1e-3
    for match, keep in zip(output.pair_match, output.vision_keep_masks[-1], strict=True):
        # the class token alone, or everything
        assert keep.sum() == (len(keep) if match > 0 else 1)


def test_a_missing_image_matches(make_model, make_batch):
    model, batch = make_model(), make_batch()
    before = model(**batch).pair_match
    batch["image_mask"][1] = False
    after = model(**batch).pair_match
    assert after[1] == 1
    assert torch.equal(after[[0, 2]], before[[0, 2]])


def test_no_match_is_read_where_images_come_first(make_model, make_batch):
    for options in ({"hybrid_attention": "both"}, {"use_text_to_image": False}, {"sampler_reads_match": False}):
        samplers = make_model(**options).bga_mner.vision_branch.samplers
        assert all(sampler.match_weight is None for sampler in samplers)
    assert make_model(use_text_to_image=False)(**make_batch()).pair_match is None


@pytest.mark.parametrize("halved", ["generated", "target"])
def test_half_precision_is_compared_in_single(halved):
    generator = torch.Generator().manual_seed(0)
    given = {name: torch.randn(3, 50, 4, generator=generator) for name in ("generated", "target")}
    given[halved] = given[halved].bfloat16()
    match = pair_match(**given)
    assert match.dtype == torch.float32
    # sums of bfloat16 would be off by more
    expected = pair_match(**{name: features.double() for name, features in given.items()})
    torch.testing.assert_close(match, expected.float(), rtol=0, atol=1e-6)
