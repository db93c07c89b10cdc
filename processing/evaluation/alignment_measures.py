"""Measure alignment without any label: reconstruction, cycle, retrieval, and whether the generators say anything."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers.utils.logging import tqdm

from ...configuration.errors import shown
from ...modeling_bga.alignment.losses import feature_distance
from ...modeling_bga.alignment.visual_target import reconstruction_target
from ...modeling_bga.training.collapse_alarm import comparable, spread
from ..data_collator import DataCollatorForMner
from ..images.vision_states import VISION_STATES
from ..inference.evaluation_mode import evaluating


if TYPE_CHECKING:
    from transformers.utils import ModelOutput

    from ...modeling_bga.alignment.cross_modal_generator import CrossModalGenerator
    from ...modeling_bga.modeling_bga_mner import BgaMnerModel
    from ...modeling_bga.token_classifier import BgaMnerForTokenClassification
    from ..processing_bga_mner import BgaMnerProcessor

_DIRECTIONS = ("text_to_image", "image_to_text", "text_to_image_to_text")


def retrieval_ranks(
    queries: torch.Tensor, candidates: torch.Tensor, right: Sequence[int], competing: torch.Tensor | None = None
) -> np.ndarray:
    """Rank each query's right candidate among those that compete with it, by cosine similarity.

    Of queries (queries, width), candidates (candidates, width), the right candidates' numbers, and bools which others
    compete (queries, candidates), all by default: ranks (queries,) from 1. Ties share their mean rank, so that features
    that say nothing rank in the middle. What all queries (and all candidates) share is subtracted first: it says
    nothing about which belongs to which.

    >>> retrieval_ranks(torch.tensor([[1.0, 0], [0, 1]]), torch.tensor([[2.0, 0], [0, 2]]), [0, 1]).tolist()
    [1.0, 1.0]
    """
    queries, candidates = queries.float(), candidates.float()
    queries, candidates = queries - queries.mean(dim=0), candidates - candidates.mean(dim=0)
    # (queries, candidates)
    similarity = F.normalize(queries, dim=-1) @ F.normalize(candidates, dim=-1).T
    others = torch.ones_like(similarity, dtype=torch.bool) if competing is None else competing.clone()
    chosen = torch.arange(len(queries)), torch.as_tensor(right)
    own = similarity[chosen].unsqueeze(1)  # (queries, 1)
    others[chosen] = False
    above, equal = ((similarity > own) & others).sum(dim=1), ((similarity == own) & others).sum(dim=1)
    return (1 + above + equal / 2).numpy()


def sample_distractors(groups: Sequence[Hashable], number: int, seed: int) -> torch.Tensor:
    """Sample up to `number` distractors for each pair, in turn from each other group: bools (pairs, pairs)."""
    generator = np.random.default_rng(seed)
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    sampled = torch.zeros(len(groups), len(groups), dtype=torch.bool)
    for index, own in enumerate(groups):
        # each group in an order of its own, then one of each in turn
        orders = [generator.permutation(found) for group, found in members.items() if group != own]
        turns = [
            order[turn] for turn in range(max(map(len, orders), default=0)) for order in orders if turn < len(order)
        ]
        sampled[index, turns[:number]] = True
    return sampled


def _batches(pairs: Sequence[Mapping[str, Any]], size: int) -> Iterator[list[tuple[int, Mapping[str, Any]]]]:
    """Yield rows that have an image, with their numbers; no row is left alone, with no other to be compared with."""
    waiting: list[tuple[int, Mapping[str, Any]]] = []
    for number in range(len(pairs)):
        row = pairs[number]
        if any(row.get(name) is not None for name in ("pixel_values", VISION_STATES)):
            waiting.append((number, row))
        if len(waiting) == size + 2:
            yield waiting[:size]
            waiting = waiting[size:]
    if len(waiting) < 2:
        raise ValueError(f"Expected at least two pairs with an image, got {len(waiting)}. Pass a dataset with images.")
    yield waiting


def alignment_report(
    model: BgaMnerForTokenClassification,
    processor: BgaMnerProcessor,
    pairs: Sequence[Mapping[str, Any]],
    groups: Sequence[Hashable] | None = None,
    distractors: int = 99,
    seed: int = 0,
    batch_size: int = 32,
    show_progress: bool = True,
) -> dict[str, float]:
    """Measure how well a model generates each modality from the other, on pairs that need no labels.

    Every error is a mean of what the loss weighs (all stages, all patches, all tokens but padding,
    `config.reconstruction_distance`). Beside it stands the same error against the *next* pair's features: a generator
    that only knows the average text or image has the same error on both, a ratio of 1. Texts read generated features,
    as in training, whatever `config.visual_source` is: had they read an image, they would know what to generate.

    Parameters
    ----------
    model : BgaMnerForTokenClassification
        A model with both generators, and the default targets.
    processor : BgaMnerProcessor
        The model's processor.
    pairs : sequence of mappings
        Rows as `DataCollatorForMner` takes them, such as a dataset with `processor.encode_examples`; rows without an
        image are left out.
    groups : sequence of hashable, of length pairs, optional
        What each image shows, where several show the same: distractors are of other groups then.
    distractors, seed : int, default 99 and 0
        How many images compete with the right one in retrieval, and the seed that chooses them.
    batch_size : int, default 32
        Pairs at a time, at least 2. A batch's last pair is compared with its first.
    show_progress : bool, default True
        Whether to show a progress bar.

    Returns
    -------
    dict of str to float
        `text_to_image`, `image_to_text` and `text_to_image_to_text` (a full cycle) with the error, the same with
        `_shuffled`, and with `_ratio`, matched over shuffled. `generated_spread`: variance over pairs of the
        generated visual features, over that of the real ones; near 0 the generator has collapsed. `median_rank`: of
        the right image among itself and the distractors, by the features that its text generates; `chance_rank` is
        what features give that say nothing. Spread and rank are of the features' directions with the distance "cosine",
        which leaves their lengths free. `pairs`: how many.

    Raises
    ------
    ValueError
        If the model lacks a generator or has other targets, `batch_size` is less than 2, or fewer
        than two rows have an image.
    """
    to_text = _check(model, pairs, groups, batch_size)
    collate, device = DataCollatorForMner(processor), next(model.parameters()).device
    errors: defaultdict[str, list[torch.Tensor]] = defaultdict(list)
    generated_means, real_means = [], []
    having: list[int] = []
    looked_at = 0  # rows without an image too
    with evaluating(model), tqdm(total=len(pairs), desc="pairs", disable=not show_progress) as progress:
        for numbered in _batches(pairs, batch_size):
            having += [number for number, _ in numbered]
            batch = {name: value.to(device) for name, value in collate([row for _, row in numbered]).items()}
            batch.pop("labels", None)
            output = model(**batch, visual_source="generated", output_hidden_states=True)
            for name, error in _errors(model.bga_mner, to_text, output, batch["attention_mask"].bool()):
                errors[name].append(error)
            made, real = comparable(model, output.generated_vision[-1], output.vision_last_hidden_state)
            # (batch, patches, width) -> (batch, 1, width)
            generated_means.append(made.mean(dim=1, keepdim=True))
            real_means.append(real.mean(dim=1, keepdim=True))
            progress.update(having[-1] + 1 - looked_at)
            looked_at = having[-1] + 1
    report = {name: float(torch.cat(values).mean()) for name, values in errors.items()}
    for name in _DIRECTIONS:
        report[f"{name}_ratio"] = report[name] / max(report[f"{name}_shuffled"], 1e-12)
    generated_mean, real_mean = torch.cat(generated_means).cpu(), torch.cat(real_means).cpu()
    report["generated_spread"] = float(spread(generated_mean) / spread(real_mean).clamp(1e-12))
    competing = sample_distractors(having if groups is None else [groups[i] for i in having], distractors, seed)
    ranks = retrieval_ranks(generated_mean[:, 0], real_mean[:, 0], range(len(having)), competing)
    report["median_rank"] = float(np.median(ranks))
    report["chance_rank"] = float(np.median(1 + competing.sum(dim=1).numpy() / 2))
    report["pairs"] = len(having)
    return report


def _check(
    model: BgaMnerForTokenClassification, pairs: Sized, groups: Sized | None, batch_size: int
) -> CrossModalGenerator:
    """Return the generator of text features, if the model and the rest can be reported on."""
    base, config = model.bga_mner, model.config
    to_text = None if base.vision_branch is None else base.vision_branch.generator
    if base.text_branch.generator is None or to_text is None:
        raise ValueError(
            f"Expected a model with both generators, got use_text_to_image={config.use_text_to_image}, "
            f"use_image_to_text={config.use_image_to_text}, text_only={config.text_only}. Report on a model that was "
            "trained with both."
        )
    if config.visual_target == "layer":
        raise ValueError(
            f'Expected visual_target="pooled" or "last", got {shown(config.visual_target)}. Train a model with one of '
            "them: other targets are not returned."
        )
    if groups is not None and len(groups) != len(pairs):
        raise ValueError(
            f"Expected a group for each of {len(pairs)} pairs, got {len(groups)}. Leave groups out for none."
        )
    if batch_size < 2:
        raise ValueError(
            f"Expected batch_size of at least 2, got {batch_size}. Pass a larger one: pairs of a batch are compared."
        )
    return to_text


def _errors(
    base: BgaMnerModel, to_text: CrossModalGenerator, output: ModelOutput, mask: torch.Tensor
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield what each stage's generated features are off the real ones, and off the next pair's, by name."""
    config = base.config
    first_stage = config.text_config.num_hidden_layers - config.num_stages
    real, queries = base.visual_target(output.vision_last_hidden_state), to_text.prepare(mask.shape[1], mask)
    for stage in range(config.num_stages):
        states = reconstruction_target(output.hidden_states[first_stage + stage], config.normalize_targets)
        back = to_text(output.generated_vision[stage], None, queries)
        sides = (
            (output.generated_vision[stage], real, real.new_ones(real.shape[:2])),
            (output.generated_text[stage], states, mask),
            (back, states, mask),
        )
        for name, (generated, target, weight) in zip(_DIRECTIONS, sides, strict=True):
            # where the other text is longer, nothing was generated
            weights = weight, weight.roll(-1, dims=0) * weight
            for suffix, other, shared in zip(
                ("", "_shuffled"), (target, target.roll(-1, dims=0)), weights, strict=True
            ):
                yield name + suffix, feature_distance(generated, other, shared, config.reconstruction_distance)


__all__ = ["alignment_report", "retrieval_ranks", "sample_distractors"]
