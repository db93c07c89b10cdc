"""Embed a batch of texts or images, and make the layers of its encoder ready to be run on it one by one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.masking_utils import create_bidirectional_sliding_window_mask

from ...configuration.configuration_conv_stages import CONV_STAGES
from ...configuration.encoder_families import TEXT_FAMILIES, VISION_FAMILIES
from ..alignment.hybrid_attention import LayerMask
from .encoder import encoder_layers, first_position, refuse_other_attention


class LayerCall(NamedTuple):
    """A layer of an encoder, ready to be run on states (batch, length, width) and a mask that holds its own one."""

    run: Callable[[Tensor, LayerMask], Tensor]
    own_mask: Tensor | None  # (batch, 1, 1 or length, length), True where it may attend; None for all


class TextInputs(NamedTuple):
    """A batch of texts, of token ids or of embeddings."""

    input_ids: Tensor | None  # (batch, length)
    token_type_ids: Tensor | None  # (batch, length), ignored by encoders that have none
    position_ids: Tensor | None  # (batch or 1, length); counted if there are none
    inputs_embeds: Tensor | None  # (batch, length, embedding size)
    attended: Tensor  # (batch, length), bool, False at padding
    padding_mask: Tensor | None  # the same; None where nothing is padding

    def rows(self, rows: Tensor) -> TextInputs:
        """Return the texts of some rows (chosen,)."""
        batch = len(self.attended)
        return TextInputs(*(field if field is None or len(field) != batch else field[rows] for field in self))


def embed_text(encoder: PreTrainedModel, inputs: TextInputs) -> tuple[Tensor, list[LayerCall]]:
    """Return the states (batch, length, width) that enter a text encoder's first layer, and its layers."""
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
    # (batch, length) -> (batch, 1, 1, length)
    own_mask = None if inputs.padding_mask is None else inputs.padding_mask[:, None, None, :]
    kind = encoder.config.model_type
    if kind == "mpnet":
        # (1, heads, length, length): the same for all texts, since padding moves both ends of a distance
        position_bias = encoder.encoder.compute_position_bias(states[:1])
        runs = [partial(_run_first, layer, position_bias=position_bias) for layer in encoder_layers(encoder)]
        return states, [LayerCall(run, own_mask) for run in runs]
    if kind == "deberta-v2":
        return states, [LayerCall(run, own_mask) for run in _deberta_layers(encoder, states, inputs)]
    if kind == "modernbert":
        return states, _modernbert_layers(encoder, states, positions, inputs, own_mask)
    return states, [LayerCall(layer, own_mask) for layer in encoder_layers(encoder)]


def _deberta_layers(encoder: PreTrainedModel, states: Tensor, inputs: TextInputs) -> list[Callable[..., Tensor]]:
    body = encoder.encoder
    relative = {"relative_pos": body.get_rel_pos(states), "rel_embeddings": body.get_rel_embedding()}
    runs: list[Callable[..., Tensor]] = [partial(_run_first, layer, **relative) for layer in encoder_layers(encoder)]
    if body.conv is not None:
        # the largest DeBERTa-v2 adds a convolution of the embeddings to what its first layer gives
        runs[0] = partial(_run_beside_convolution, runs[0], body.conv, inputs.attended.long())
    return runs


def _run_first(layer: nn.Module, states: Tensor, mask: LayerMask, **arguments: Any) -> Tensor:
    """Return the first of several outputs of a layer."""
    return layer(states, mask, **arguments)[0]


def _run_beside_convolution(
    run: Callable[..., Tensor],
    convolution: nn.Module,
    attended: Tensor,
    states: Tensor,
    mask: LayerMask,
) -> Tensor:
    return convolution(states, run(states, mask), attended)


def _modernbert_layers(
    encoder: PreTrainedModel,
    states: Tensor,
    positions: Tensor,
    inputs: TextInputs,
    own_mask: Tensor | None,
) -> list[LayerCall]:
    masks = {
        "full_attention": own_mask,
        "sliding_attention": create_bidirectional_sliding_window_mask(
            config=encoder.config, inputs_embeds=states, attention_mask=inputs.padding_mask
        ),
    }
    rotary = {kind: encoder.rotary_emb(states, positions, kind) for kind in set(encoder.config.layer_types)}
    return [
        LayerCall(partial(layer, position_embeddings=rotary[layer.attention_type]), masks[layer.attention_type])
        for layer in encoder_layers(encoder)
    ]


def embed_images(encoder: PreTrainedModel, pixel_values: Tensor) -> tuple[Tensor, list[LayerCall]]:
    """Return the states (batch, vision tokens, width) that enter a vision encoder's first layer, and its layers.

    `ConvStages` takes images, or what its backbone made of them: (batch, cells, feature channels).
    """
    refuse_other_attention(encoder)
    pixel_values = pixel_values.to(encoder.dtype)
    layers = encoder_layers(encoder)
    calls = [LayerCall(layer, None) for layer in layers]
    kind = encoder.config.model_type
    if kind == CONV_STAGES:
        return encoder.embed(pixel_values), calls
    if kind == "siglip2_vision_model":
        return _embed_patches(encoder, pixel_values), calls
    family = VISION_FAMILIES[kind]
    # at the encoder's own size, interpolating returns the positions as they are
    fitted = {"interpolate_pos_encoding": True} if family.asks_to_interpolate else {}
    states = encoder.embeddings(pixel_values, **fitted)
    if family.input_norm is not None:
        states = getattr(encoder, family.input_norm)(states)
    if kind == "dinov3_vit":
        rotary = encoder.rope_embeddings(pixel_values)
        calls = [LayerCall(partial(layer, position_embeddings=rotary), None) for layer in layers]
    return states, calls


def _embed_patches(encoder: PreTrainedModel, pixel_values: Tensor) -> Tensor:
    """Cut square images into patches, as SigLIP2 NaFlex wants them: row by row, the channels of a pixel together."""
    patch = encoder.config.patch_size
    rows = pixel_values.shape[-1] // patch
    pixel_values = pixel_values[:, :, : rows * patch, : rows * patch]
    # (batch, channels, side, side) -> (batch, channels, rows, patch, columns, patch)
    cut = pixel_values.unflatten(3, (rows, patch)).unflatten(2, (rows, patch))
    # -> (batch, rows * columns, patch * patch * channels)
    patches = cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    shapes = torch.full((patches.shape[0], 2), rows, device=patches.device)
    return encoder.embeddings(patches, shapes)


__all__ = ["LayerCall", "TextInputs", "embed_images", "embed_text"]
