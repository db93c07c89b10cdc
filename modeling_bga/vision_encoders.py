"""Embed a batch of pictures, and make the layers of a vision encoder ready for it."""

from __future__ import annotations

from functools import partial

import torch
from transformers import PreTrainedModel

from ..configuration.configuration_conv_stages import CONV_STAGES
from ..configuration.encoder_families import VISION_FAMILIES
from .encoders import LayerCall, encoder_layers, refuse_other_attention


def embed_pictures(encoder: PreTrainedModel, pixel_values: torch.Tensor) -> tuple[torch.Tensor, list[LayerCall]]:
    """Embed a batch of pictures.

    Parameters
    ----------
    encoder : PreTrainedModel
        Vision encoder.
    pixel_values : torch.FloatTensor of shape (batch, channels, side, side)
        Pictures, normalised; other sizes than the encoder's own get interpolated positions. For `ConvStages` also
        (batch, cells, feature channels): what its backbone made of them.

    Returns
    -------
    states : torch.FloatTensor of shape (batch, vision tokens, hidden size)
        States that enter the first layer.
    layers : list of LayerCall
        The encoder's layers, ready for this batch.

    Raises
    ------
    ValueError
        If the encoder's attention was set to another than hybrid attention.
    """
    refuse_other_attention(encoder)
    pixel_values = pixel_values.to(encoder.dtype)
    layers = encoder_layers(encoder)
    kind = encoder.config.model_type
    if kind == CONV_STAGES:
        return encoder.embed(pixel_values), [LayerCall(layer, None) for layer in layers]
    if kind == "siglip2_vision_model":
        return _embed_patches(encoder, pixel_values), [LayerCall(layer, None) for layer in layers]
    family = VISION_FAMILIES[kind]
    # at the encoder's own size, interpolating returns the positions as they are
    fitted = {"interpolate_pos_encoding": True} if family.asks_to_interpolate else {}
    states = encoder.embeddings(pixel_values, **fitted)
    if family.input_norm is not None:
        states = getattr(encoder, family.input_norm)(states)
    if kind == "dinov3_vit":
        rotary = encoder.rope_embeddings(pixel_values)
        return states, [LayerCall(partial(layer, position_embeddings=rotary), None) for layer in layers]
    return states, [LayerCall(layer, None) for layer in layers]


def _embed_patches(encoder: PreTrainedModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """Cut square pictures into patches, as SigLIP2 NaFlex wants them: row by row, the channels of a pixel together."""
    patch = encoder.config.patch_size
    rows = pixel_values.shape[-1] // patch
    pixel_values = pixel_values[:, :, : rows * patch, : rows * patch]
    # (batch, channels, side, side) -> (batch, channels, rows, patch, columns, patch)
    cut = pixel_values.unflatten(3, (rows, patch)).unflatten(2, (rows, patch))
    # -> (batch, rows * columns, patch * patch * channels)
    patches = cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    shapes = torch.full((patches.shape[0], 2), rows, device=patches.device)
    return encoder.embeddings(patches, shapes)


__all__ = ["embed_pictures"]
