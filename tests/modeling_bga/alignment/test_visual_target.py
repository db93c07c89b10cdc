from __future__ import annotations

import pytest
import torch
from model_changes import open_gates

from bga_mner import BgaMnerForTokenClassification
from bga_mner.modeling_bga.alignment.visual_target import PooledTarget
from bga_mner.modeling_bga.encoders.encoder import is_frozen


def make_target(make_config, vision="vit", **options):
    return PooledTarget(make_config(vision=vision, visual_target="pooled", **options))


def test_class_token_and_mean_patch_are_left_of_an_image(make_config):
    target = make_target(make_config, normalize_targets=False)
    states = torch.randn(2, 5, 24)
    assert torch.equal(target(states)[:, 0], states[:, 0] / (1 + 1e-6) ** 0.5)
    torch.testing.assert_close(target.pool(states)[:, 1], states[:, 1:].mean(dim=1))


def test_registers_are_no_patches(make_config):
    config = make_config(vision="dinov2_with_registers", visual_target="pooled")
    prefix = config.num_vision_prefix_tokens
    assert prefix > 1
    states = torch.randn(2, config.num_vision_tokens, 24)
    changed = states.clone()
    changed[:, 1:prefix] = 7.0
    target = PooledTarget(config)
    assert torch.equal(target(changed), target(states))


@pytest.mark.parametrize("vision", ["siglip_vision_model", "resnet"])
def test_the_largest_values_stand_in_for_a_class_token(make_config, vision):
    target = make_target(make_config, vision, normalize_targets=False)
    states = torch.randn(2, 4, 24)
    torch.testing.assert_close(target.pool(states), torch.stack([states.amax(dim=1), states.mean(dim=1)], dim=1))


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1, 6), (5, 5), (10,)])
def test_statistics_of_batches_are_those_of_all_images(make_config, sizes):
    target, states = make_target(make_config), 3 + 2 * torch.randn(10, 5, 24)
    for batch in states.split(sizes):
        target.measure(batch, torch.ones(len(batch), dtype=torch.bool))
    pooled = target.pool(states)
    torch.testing.assert_close(target.mean, pooled.mean(dim=0))
    torch.testing.assert_close(target.variance, pooled.var(dim=0, unbiased=False))
    assert target.images_seen == 10
    made = target(states)
    assert made.mean(dim=0).abs().max() < 1e-5
    torch.testing.assert_close(made.var(dim=0, unbiased=False), torch.ones(2, 24), rtol=1e-2, atol=1e-2)


def test_missing_images_count_for_nothing(make_config):
    target, states = make_target(make_config), torch.randn(4, 5, 24)
    target.measure(states, torch.zeros(4, dtype=torch.bool))
    assert target.images_seen == 0
    assert torch.equal(target.variance, torch.ones(2, 24))
    states[[0, 2]] = torch.nan
    target.measure(states, torch.tensor([False, True, False, True]))
    torch.testing.assert_close(target.mean, target.pool(states[[1, 3]]).mean(dim=0))
    assert target.images_seen == 2


def test_statistics_are_constant_after_a_thousand_images(make_config):
    target = make_target(make_config)
    for _ in range(5):
        target.measure(torch.randn(300, 5, 24), torch.ones(300, dtype=torch.bool))
    assert target.images_seen == 1200
    before = target.mean.clone()
    target.measure(100 + torch.randn(300, 5, 24), torch.ones(300, dtype=torch.bool))
    assert torch.equal(target.mean, before)


def test_training_measures_and_evaluation_does_not(make_model, make_batch):
    model, batch = make_model(), make_batch()
    seen = model.bga_mner.pooled_target.images_seen
    seen.zero_()
    model(**batch)
    assert seen == 0
    batch["image_mask"][0] = False
    model.train()(**batch)
    assert seen == 2


def test_statistics_are_saved_with_the_model(make_model, make_batch, tmp_path):
    model, batch = make_model(), make_batch()
    model.bga_mner.pooled_target.images_seen.zero_()
    model.train()(**batch)
    model.eval().save_pretrained(tmp_path)
    loaded = BgaMnerForTokenClassification.from_pretrained(tmp_path)
    assert loaded.bga_mner.pooled_target.images_seen == 3
    assert torch.equal(loaded(**batch).reconstruction_loss, model(**batch).reconstruction_loss)


def test_the_loss_moves_no_real_feature_but_reading_does(make_model, make_batch):
    options = {"entity_replacement_probability": 1.0, "replaced_entities_read": "real", "use_image_to_text": False}
    model, batch = open_gates(make_model(**options)).train(), make_batch()
    assert not is_frozen(model.bga_mner.vision_encoder)
    first = model.bga_mner.vision_encoder.embeddings.patch_embeddings.projection.weight
    output = model(**batch)
    (gradient,) = torch.autograd.grad(output.crf_loss, first, retain_graph=True)
    assert gradient.abs().sum() > 0
    batch["labels"][:] = -100
    output = model(**batch)
    (gradient,) = torch.autograd.grad(output.reconstruction_loss, first)
    assert not gradient.any()


def test_patches_are_on_the_scale_of_their_mean(make_config):
    target, states = make_target(make_config), torch.randn(6, 5, 24)
    target.measure(states, torch.ones(6, dtype=torch.bool))
    torch.testing.assert_close(target.patches(states).mean(dim=1), target(states)[:, 1], rtol=1e-4, atol=1e-4)


def _measure_in_turn(rank, address, config, states, folder):
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    target = PooledTarget(config)
    target.measure(states[rank::2], torch.ones(len(states[rank::2]), dtype=torch.bool))
    # then the second process has no image
    more = None if rank else states[:3] + 1
    target.measure(more, None if rank else torch.ones(3, dtype=torch.bool))
    torch.save(target.state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_processes_share_what_they_see(make_config, tmp_path):
    config, states = make_config(visual_target="pooled"), torch.randn(10, 5, 24)
    address = f"file://{tmp_path}/rendezvous"
    torch.multiprocessing.spawn(_measure_in_turn, (address, config, states, str(tmp_path)), nprocs=2)
    alone = PooledTarget(config)
    for batch in (states, states[:3] + 1):
        alone.measure(batch, torch.ones(len(batch), dtype=torch.bool))
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found["images_seen"] == 13
        torch.testing.assert_close(found["mean"], alone.mean)
        torch.testing.assert_close(found["variance"], alone.variance)
