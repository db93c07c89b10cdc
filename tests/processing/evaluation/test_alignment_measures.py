"""The report, against a slow loop and on models whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers.utils import logging

from bga_mner.modeling_bga.training.collapse_alarm import spread
from bga_mner.processing.evaluation.alignment_measures import alignment_report, retrieval_ranks, sample_distractors


class PadOnly:
    """What the collator needs of a processor."""

    class tokenizer:  # noqa: N801 - an attribute
        padding_side, pad_token_id, pad_token_type_id = "right", 0, 0


@pytest.fixture
def rows(make_batch):
    batch = make_batch(lengths=(9, 6, 4, 7, 5))
    return [
        {
            "input_ids": batch["input_ids"][i][batch["attention_mask"][i].bool()],
            "pixel_values": batch["pixel_values"][i].numpy(),
        }
        for i in range(5)
    ]


def test_ranks_against_sorting():
    generator = torch.Generator().manual_seed(3)
    queries, candidates = torch.randn(7, 5, generator=generator), torch.randn(20, 5, generator=generator)
    right = [3, 0, 19, 4, 4, 11, 7]
    expected = []
    for query, own in zip(queries - queries.mean(0), right, strict=True):
        scores = [float(F.cosine_similarity(query, c, dim=0)) for c in candidates - candidates.mean(0)]
        expected.append(1 + sorted(scores, reverse=True).index(scores[own]))
    assert retrieval_ranks(queries, candidates, right).tolist() == expected


def test_only_competitors_count():
    queries, candidates = torch.tensor([[1.0, 0], [-1, 0]]), torch.tensor([[1.0, 1], [1, 0], [-1, -1], [-1, 0]])
    assert retrieval_ranks(queries, candidates, [0, 2]).tolist() == [2, 2]
    competing = torch.tensor([[False, False, True, True], [True, True, False, False]])
    assert retrieval_ranks(queries, candidates, [0, 2], competing).tolist() == [1, 1]


def test_distractors_are_of_other_groups_in_balance():
    groups = ["a"] * 10 + ["b"] * 10 + ["c"] * 3
    sampled = sample_distractors(groups, 8, seed=1)
    for row, own in zip(sampled, groups, strict=True):
        found = [groups[i] for i in row.nonzero().flatten().tolist()]
        assert len(found) == 8
        assert own not in found
    counts = [groups[i] for i in sampled[0].nonzero().flatten().tolist()]
    assert (counts.count("b"), counts.count("c")) == (5, 3)  # there are no more of c
    assert not torch.equal(sample_distractors(groups, 8, seed=2), sampled)
    # groups of one: any other pair is a distractor
    assert sample_distractors(range(4), 99, seed=0).sum() == 12


def test_features_that_say_nothing_rank_in_the_middle():
    ranks = retrieval_ranks(torch.ones(3, 4), torch.randn(99, 4), [0, 50, 98])
    assert ranks.tolist() == [50, 50, 50]


@pytest.mark.parametrize("visual_target", ["pooled", "last"])
def test_errors_against_a_slow_loop(make_model, rows, visual_target):
    model = make_model(use_context_sampler=False, num_bga_layers=1, visual_target=visual_target)
    report = alignment_report(model, PadOnly, rows, batch_size=5, show_progress=False)
    base = model.bga_mner
    matched, shuffled, cycle = [], [], []
    singles = []
    for row in rows:
        with torch.no_grad():
            singles.append(
                model(
                    input_ids=row["input_ids"][None],
                    pixel_values=torch.tensor(row["pixel_values"])[None],
                    output_hidden_states=True,
                )
            )
    targets = [F.layer_norm(output.vision_last_hidden_state[0], (24,)) for output in singles]
    if visual_target == "pooled":
        # no image was measured yet: the mean is 0, the variance 1
        targets = [torch.stack([target[0], target[1:].mean(dim=0)]) / (1 + 1e-6) ** 0.5 for target in targets]
    for i, output in enumerate(singles):
        matched.append(((output.generated_vision[0][0] - targets[i]) ** 2).mean())
        shuffled.append(((output.generated_vision[0][0] - targets[(i + 1) % 5]) ** 2).mean())
        states = output.hidden_states[2]
        with torch.no_grad():
            generator = base.vision_branch.generator
            back = generator(output.generated_vision[0], None, generator.prepare(states.shape[1]))
        cycle.append(((back - F.layer_norm(states, (16,))) ** 2).mean())
    assert report["text_to_image"] == pytest.approx(float(np.mean(matched)), rel=1e-4)
    assert report["text_to_image_shuffled"] == pytest.approx(float(np.mean(shuffled)), rel=1e-4)
    assert report["text_to_image_ratio"] == pytest.approx(float(np.mean(matched) / np.mean(shuffled)), rel=1e-4)
    assert report["text_to_image_to_text"] == pytest.approx(float(np.mean(cycle)), rel=1e-4)
    assert report["pairs"] == 5
    means = torch.stack([output.generated_vision[0][0].mean(dim=0) for output in singles])
    real = torch.stack([target.mean(dim=0) for target in targets])
    expected = means.var(dim=0, unbiased=False).sum() / real.var(dim=0, unbiased=False).sum()
    assert report["generated_spread"] == pytest.approx(float(expected), rel=1e-3)


def test_batches_change_no_matched_error_and_no_pair_stands_alone(make_model, rows):
    model = make_model()
    whole = alignment_report(model, PadOnly, rows, batch_size=5, show_progress=False)
    for batch_size in (2, 3, 4):  # 5 = 2 + 2 + 1, 3 + 2, 4 + 1
        parts = alignment_report(model, PadOnly, rows, batch_size=batch_size, show_progress=False)
        for name in ("text_to_image", "image_to_text", "text_to_image_to_text", "generated_spread"):
            assert parts[name] == pytest.approx(whole[name], rel=1e-4), name
        assert abs(parts["text_to_image_shuffled"] - parts["text_to_image"]) > 1e-6


def test_bars_that_transformers_hides_change_nothing(make_model, rows, capsys):
    model = make_model(seed=4).eval()
    expected = alignment_report(model, PadOnly, rows, show_progress=False)
    assert alignment_report(model, PadOnly, rows) == expected
    assert "100%" in capsys.readouterr().err
    logging.disable_progress_bar()
    assert alignment_report(model, PadOnly, rows) == expected
    assert "pairs" not in capsys.readouterr().err


def test_a_collapsed_generator_shows(make_model, rows):
    model = make_model()
    with torch.no_grad():
        model.bga_mner.text_branch.generator.layers[0].cross_attention.value.weight.zero_()
    report = alignment_report(model, PadOnly, rows, show_progress=False)
    assert report["generated_spread"] < 1e-6
    assert not model.training


def test_texts_do_not_read_the_image_that_they_are_scored_against(make_model, rows):
    model = make_model(gate_initial_bias=2.0)
    expected = alignment_report(model, PadOnly, rows, show_progress=False)
    for source in ("real", "none"):
        model.config.visual_source = source
        assert alignment_report(model, PadOnly, rows, show_progress=False) == expected


def test_cached_vision_states_are_images(make_model, rows):
    model = make_model()
    with torch.no_grad():
        states = model.bga_mner.encode_images(torch.tensor(np.stack([row["pixel_values"] for row in rows])))
    cached = [{"input_ids": row["input_ids"], "vision_states": s.numpy()} for row, s in zip(rows, states, strict=True)]
    cached.append({"input_ids": rows[0]["input_ids"], "vision_states": None})
    expected = alignment_report(model, PadOnly, rows, show_progress=False)
    assert alignment_report(model, PadOnly, cached, show_progress=False) == pytest.approx(expected, rel=1e-4)


def test_lengths_that_the_distance_leaves_free_do_not_count(make_model, rows):
    model = make_model(reconstruction_distance="cosine")
    expected = alignment_report(model, PadOnly, rows, show_progress=False)
    model.bga_mner.text_branch.generator.register_forward_hook(lambda module, given, output: output * 100)
    found = alignment_report(model, PadOnly, rows, show_progress=False)
    # what reads the features isn't the same any more, but for its norm
    for name in ("text_to_image", "generated_spread", "median_rank"):
        assert found[name] == pytest.approx(expected[name], rel=1e-3), name


def test_rows_without_an_image_are_left_out_and_the_mode_stays(make_model, rows):
    model = make_model().train()
    report = alignment_report(model, PadOnly, [*rows, rows[0] | {"pixel_values": None}], show_progress=False)
    assert report["pairs"] == 5
    assert model.training


def test_says_what_to_mend(make_model, rows):
    with pytest.raises(ValueError, match="trained with both"):
        alignment_report(make_model(use_image_to_text=False), PadOnly, rows)
    with pytest.raises(ValueError, match="other targets are not returned"):
        alignment_report(make_model(visual_target="layer"), PadOnly, rows)
    with pytest.raises(ValueError, match="got 1"):
        alignment_report(make_model(), PadOnly, rows[:1])
    with pytest.raises(ValueError, match="batch_size of at least 2"):
        alignment_report(make_model(), PadOnly, rows, batch_size=1)


def test_spread_is_the_variance_between_sentences():
    features = torch.tensor([[[0.0, 1], [2, 3]], [[4, 5], [6, 7]]])
    assert spread(features) == 8  # means (1, 2) and (5, 6): variance 4 in each dimension
