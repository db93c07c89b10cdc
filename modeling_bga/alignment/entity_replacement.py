"""Entity replacement: hide from the text what a name is, so that it has to read it in the features beside."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...configuration.configuration_bga_mner import BgaMnerConfig


class ReplacedEntities(NamedTuple):
    """Token ids, with random ones in the place of the chosen sentences' entities."""

    input_ids: Tensor  # (batch, length)
    chosen: Tensor  # (batch,), bool


def replace_entities(
    config: BgaMnerConfig,
    input_ids: Tensor | None,
    entity: Tensor,
    has_images: bool,
    image_mask: Tensor | None,
) -> ReplacedEntities | None:
    """Sample sentences and replace their entities, where `entity` (batch, length) is True, by random tokens.

    A mask token would give away where the entity is. If the image is read instead, only sentences with one are sampled.
    """
    if input_ids is None:
        raise ValueError(
            "Expected input_ids, since entity replacement changes token ids, got inputs_embeds. Pass input_ids, or set "
            "config.entity_replacement_probability=0."
        )
    chosen = torch.rand(len(entity), device=entity.device) < config.entity_replacement_probability
    chosen = chosen & entity.any(dim=1)
    if config.replaced_entities_read == "real":
        if not has_images:
            return None
        if image_mask is not None:
            chosen = chosen & image_mask.to(torch.bool)
    random_ids = torch.randint_like(input_ids, config.text_config.vocab_size)
    return ReplacedEntities(torch.where(entity & chosen[:, None], random_ids, input_ids), chosen)


__all__ = ["ReplacedEntities", "replace_entities"]
