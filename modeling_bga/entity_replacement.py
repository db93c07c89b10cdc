"""Entity replacement: hide from the text what a name is, so that it has to read it in the features beside."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..configuration.configuration_bga_mner import BgaMnerConfig


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
    has_pictures: bool,
    picture_mask: torch.Tensor | None,
) -> ReplacedEntities | None:
    """Draw sentences and replace their entities by random tokens.

    Random tokens, not a mask token: a mask token would give away where the entity is, and the tagger would learn to
    find mask tokens.

    Parameters
    ----------
    config : BgaMnerConfig
        Its `entity_replacement_probability`, and `replaced_entities_read`: if that is "real", only pairs are drawn.
    input_ids : torch.LongTensor of shape (batch, length) or None
        Token ids.
    entity : torch.BoolTensor of shape (batch, length)
        True at the tokens of what may be replaced: the entities of labelled sentences.
    has_pictures : bool
        Whether the batch has pictures.
    picture_mask : torch.BoolTensor of shape (batch,) or None
        False for sentences without a picture.

    Returns
    -------
    ReplacedEntities or None
        None if no sentence can be drawn.

    Raises
    ------
    ValueError
        If there are no token ids to replace.
    """
    if input_ids is None:
        raise ValueError(
            "Entity replacement changes token ids, but the batch has inputs_embeds. "
            "Pass input_ids, or set config.entity_replacement_probability=0."
        )
    chosen = torch.rand(len(entity), device=entity.device) < config.entity_replacement_probability
    chosen = chosen & entity.any(dim=1)
    if config.replaced_entities_read == "real":
        if not has_pictures:
            return None
        if picture_mask is not None:
            chosen = chosen & picture_mask.to(torch.bool)
    random_ids = torch.randint_like(input_ids, config.text_config.vocab_size)
    return ReplacedEntities(torch.where(entity & chosen[:, None], random_ids, input_ids), chosen)


__all__ = ["ReplacedEntities", "replace_entities"]
