"""Embed a batch of texts, and make the layers of a text encoder ready for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.masking_utils import create_bidirectional_sliding_window_mask

from ..configuration.encoder_families import TEXT_FAMILIES
from .encoders import LayerCall, encoder_layers, first_position, refuse_other_attention
from .hybrid_attention import HybridStates


class TextInputs(NamedTuple):
    """A batch of texts.

    Attributes
    ----------
    input_ids : torch.LongTensor of shape (batch, length) or None
        Token ids; either these or `inputs_embeds`.
    token_type_ids : torch.LongTensor of shape (batch, length) or None
        Segment ids; ignored by encoders that have none.
    position_ids : torch.LongTensor of shape (batch or 1, length) or None
        Positions; counted if there are none.
    inputs_embeds : torch.FloatTensor of shape (batch, length, embedding size) or None
        Token embeddings instead of ids.
    attended : torch.BoolTensor of shape (batch, length)
        False at padding.
    padding_mask : torch.BoolTensor of shape (batch, length) or None
        The same, but None where nothing is padding: attention is faster for knowing it.
    """

    input_ids: torch.Tensor | None
    token_type_ids: torch.Tensor | None
    position_ids: torch.Tensor | None
    inputs_embeds: torch.Tensor | None
    attended: torch.Tensor
    padding_mask: torch.Tensor | None

    def rows(self, rows: torch.Tensor) -> TextInputs:
        """Return some of the texts; `rows` are their numbers, of shape (chosen,)."""
        batch = len(self.attended)
        return TextInputs(*(field if field is None or len(field) != batch else field[rows] for field in self))


def embed_text(encoder: PreTrainedModel, inputs: TextInputs) -> tuple[torch.Tensor, list[LayerCall]]:
    """Embed a batch of texts.

    Positions are counted over attended tokens, so that padding on the left changes nothing.

    Parameters
    ----------
    encoder : PreTrainedModel
        Text encoder.
    inputs : TextInputs
        Texts.

    Returns
    -------
    states : torch.FloatTensor of shape (batch, length, hidden size)
        States that enter the first layer.
    layers : list of LayerCall
        The encoder's layers, ready for this batch.

    Raises
    ------
    ValueError
        If the encoder's attention was set to another than hybrid attention.
    """
    refuse_other_attention(encoder)
    family = TEXT_FAMILIES[encoder.config.model_type]
    positions = inputs.position_ids
    if positions is None:
        first = first_position(encoder.config)
        counted = inputs.attended.long().cumsum(dim=1) * inputs.attended  # 1, 2, ... and 0 at padding
        positions = (counted - 1).clamp(min=0 if first == 0 else -1) + first
    arguments: dict[str, Any] = {"input_ids": inputs.input_ids, "inputs_embeds": inputs.inputs_embeds}
    if family.takes_positions:
        arguments["position_ids"] = positions
    if family.takes_token_types:
        arguments["token_type_ids"] = inputs.token_type_ids
    if family.takes_mask:
        arguments["mask"] = inputs.attended
    states = encoder.embeddings(**arguments)
    # ELECTRA has the projection only where its embeddings are narrower than its layers
    if family.input_projection is not None and hasattr(encoder, family.input_projection):
        states = getattr(encoder, family.input_projection)(states)
    prepare = _PREPARE.get(encoder.config.model_type, _prepare_bert)
    return states, prepare(encoder, states, positions, inputs)


def _own_mask(inputs: TextInputs) -> torch.Tensor | None:
    # (batch, length) -> (batch, 1, 1, length)
    return None if inputs.padding_mask is None else inputs.padding_mask[:, None, None, :]


def _prepare_bert(
    encoder: PreTrainedModel, states: torch.Tensor, positions: torch.Tensor, inputs: TextInputs
) -> list[LayerCall]:
    own_mask = _own_mask(inputs)
    return [LayerCall(layer, own_mask) for layer in encoder_layers(encoder)]


def _prepare_mpnet(
    encoder: PreTrainedModel, states: torch.Tensor, positions: torch.Tensor, inputs: TextInputs
) -> list[LayerCall]:
    own_mask = _own_mask(inputs)
    # (1, heads, length, length): the same for all texts, since padding moves both ends of a distance
    position_bias = encoder.encoder.compute_position_bias(states[:1])
    return [
        LayerCall(partial(_run_first_of_several, layer, position_bias=position_bias), own_mask)
        for layer in encoder_layers(encoder)
    ]


def _prepare_deberta(
    encoder: PreTrainedModel, states: torch.Tensor, positions: torch.Tensor, inputs: TextInputs
) -> list[LayerCall]:
    own_mask = _own_mask(inputs)
    body = encoder.encoder
    arguments = {"relative_pos": body.get_rel_pos(states), "rel_embeddings": body.get_rel_embedding()}
    layers: list[Callable[..., torch.Tensor]] = [
        partial(_run_first_of_several, layer, **arguments) for layer in encoder_layers(encoder)
    ]
    if body.conv is not None:
        # the largest DeBERTa-v2 adds a convolution of the embeddings to what its first layer gives
        layers[0] = partial(_run_beside_convolution, layers[0], body.conv, inputs.attended.long())
    return [LayerCall(layer, own_mask) for layer in layers]


def _run_first_of_several(
    layer: nn.Module, states: torch.Tensor, mask: torch.Tensor | HybridStates | None, **arguments: Any
) -> torch.Tensor:
    return layer(states, mask, **arguments)[0]


def _run_beside_convolution(
    layer: Callable[..., torch.Tensor],
    convolution: nn.Module,
    attended: torch.Tensor,
    states: torch.Tensor,
    mask: torch.Tensor | HybridStates | None,
) -> torch.Tensor:
    return convolution(states, layer(states, mask), attended)


def _prepare_modernbert(
    encoder: PreTrainedModel, states: torch.Tensor, positions: torch.Tensor, inputs: TextInputs
) -> list[LayerCall]:
    masks = {
        "full_attention": _own_mask(inputs),
        "sliding_attention": create_bidirectional_sliding_window_mask(
            config=encoder.config, inputs_embeds=states, attention_mask=inputs.padding_mask
        ),
    }
    rotary = {kind: encoder.rotary_emb(states, positions, kind) for kind in set(encoder.config.layer_types)}
    return [
        LayerCall(partial(layer, position_embeddings=rotary[layer.attention_type]), masks[layer.attention_type])
        for layer in encoder_layers(encoder)
    ]


_PREPARE = {"mpnet": _prepare_mpnet, "deberta-v2": _prepare_deberta, "modernbert": _prepare_modernbert}


__all__ = ["TextInputs", "embed_text"]
