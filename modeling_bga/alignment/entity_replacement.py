"""Entity replacement: hide from the text what a name is, so that it has to read it in the features beside."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ...configuration.configuration_bga_mner import BgaMnerConfig


class ReplacedEntities(NamedTuple):
    """Sentences with replaced entity tokens.

    Attributes
    ----------
    input_ids : torch.LongTensor of shape (batch, length)
        Token ids, with random ones in the place of the chosen sentences' entities.
    chosen : torch.BoolTensor of shape (batch,)
        True for the sentences whose entities were replaced.
    """

    input_ids: torch.Tensor
    chosen: torch.Tensor


def replace_entities(
    config: BgaMnerConfig,
    input_ids: torch.Tensor | None,
    entity: torch.Tensor,
    has_images: bool,
    image_mask: torch.Tensor | None,
) -> ReplacedEntities | None:
    """Draw sentences and replace their entities, where `entity` (batch, length) is True, by random tokens.

    Random tokens, not a mask token: a mask token would give away where the entity is, and the tagger would learn to
    find mask tokens.
    If `config.replaced_entities_read` is "real", only sentences with an image are sampled; None if there are none.
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
