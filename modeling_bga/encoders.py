"""Reach into the supported encoders: their embeddings, layers and final norm, so that the model owns the layer loop."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

import torch
from torch import nn
from transformers import AutoModel, CLIPVisionModel, PreTrainedConfig, PreTrainedModel, SiglipVisionModel

from .hybrid_attention import HYBRID_ATTENTION, register_hybrid_attention


@dataclass(frozen=True)
class EncoderFamily:
    """Where an encoder family keeps what the layer loop needs.

    Attributes
    ----------
    layers : str
        Dotted path of the list of layers.
    takes_token_types : bool
        Whether the text embeddings take token type ids.
    positions_start_after_padding_id : bool
        Whether position ids count from `pad_token_id + 1`, as RoBERTa's do, and not from 0.
    input_projection : str, optional
        Path of a module between embeddings and layers.
    input_norm : str, optional
        The same, for a norm.
    final_norm : str, optional
        Path of the norm of the last hidden states.
    has_pooler : bool
        Whether the encoder builds a pooler unless told not to.
    asks_to_interpolate : bool
        Whether the vision embeddings have to be asked to fit their positions to other picture sizes.
    """

    layers: str
    takes_token_types: bool = False
    positions_start_after_padding_id: bool = False
    input_projection: str | None = None
    input_norm: str | None = None
    final_norm: str | None = None
    has_pooler: bool = False
    asks_to_interpolate: bool = True


_FAMILIES = {
    "bert": EncoderFamily("encoder.layer", takes_token_types=True, has_pooler=True),
    "roberta": EncoderFamily(
        "encoder.layer", takes_token_types=True, positions_start_after_padding_id=True, has_pooler=True
    ),
    "xlm-roberta": EncoderFamily(
        "encoder.layer", takes_token_types=True, positions_start_after_padding_id=True, has_pooler=True
    ),
    "distilbert": EncoderFamily("transformer.layer"),
    "electra": EncoderFamily("encoder.layer", takes_token_types=True, input_projection="embeddings_project"),
    # CLIP norms only its pooled output, with a norm that nothing here uses
    "clip_vision_model": EncoderFamily("encoder.layers", input_norm="pre_layrnorm"),
    "vit": EncoderFamily("layers", final_norm="layernorm", has_pooler=True),
    "dinov2": EncoderFamily("encoder.layer", final_norm="layernorm", asks_to_interpolate=False),
    "siglip_vision_model": EncoderFamily("encoder.layers", final_norm="post_layernorm"),
}
# Their checkpoints hold a text tower too, and AutoModel would build both.
_VISION_TOWERS = {"clip_vision_model": CLIPVisionModel, "siglip_vision_model": SiglipVisionModel}


def build_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """Build an encoder with random weights whose attention is hybrid attention.

    Parameters
    ----------
    config : PreTrainedConfig
        Of a supported family; its attention implementation is set.

    Returns
    -------
    PreTrainedModel
        The encoder, without a pooler.
    """
    register_hybrid_attention()
    config._attn_implementation = HYBRID_ATTENTION
    # The model's dtype, and not the one that a checkpoint's configuration remembers: the two encoders' may differ.
    return AutoModel.from_config(config, dtype=torch.get_default_dtype(), **_pooler_argument(config.model_type))


def load_encoder(checkpoint: str, config: PreTrainedConfig) -> PreTrainedModel:
    """Load a pretrained encoder of a supported family from a folder or the Hub.

    Parameters
    ----------
    checkpoint : str
        Folder or Hub name.
    config : PreTrainedConfig
        The encoder's configuration (of its vision tower, for CLIP and SigLIP).

    Returns
    -------
    PreTrainedModel
        The encoder, without a pooler.
    """
    register_hybrid_attention()
    model_class = _VISION_TOWERS.get(config.model_type, AutoModel)
    options = {"config": config, "attn_implementation": HYBRID_ATTENTION, **_pooler_argument(config.model_type)}
    return model_class.from_pretrained(checkpoint, **options)


def _pooler_argument(model_type: str) -> dict[str, bool]:
    return {"add_pooling_layer": False} if _FAMILIES[model_type].has_pooler else {}


def encoder_layers(encoder: PreTrainedModel) -> nn.ModuleList:
    """Return the list of layers of a supported encoder."""
    return attrgetter(_FAMILIES[encoder.config.model_type].layers)(encoder)


def final_norm(encoder: PreTrainedModel, hidden_states: torch.Tensor) -> torch.Tensor:
    """Apply the encoder's norm of the last hidden states, where it has one; the shape stays."""
    path = _FAMILIES[encoder.config.model_type].final_norm
    return hidden_states if path is None else getattr(encoder, path)(hidden_states)


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


def embed_text(encoder: PreTrainedModel, inputs: TextInputs) -> torch.Tensor:
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
    torch.FloatTensor of shape (batch, length, hidden size)
        States that enter the first layer.
    """
    family = _FAMILIES[encoder.config.model_type]
    position_ids = inputs.position_ids
    if position_ids is None:
        positions = inputs.attended.long().cumsum(dim=1) * inputs.attended  # 1, 2, ... and 0 at padding
        first = encoder.config.pad_token_id + 1 if family.positions_start_after_padding_id else 0
        position_ids = (positions - 1).clamp(min=0 if first == 0 else -1) + first
    token_types = {"token_type_ids": inputs.token_type_ids} if family.takes_token_types else {}
    states = encoder.embeddings(
        input_ids=inputs.input_ids, position_ids=position_ids, inputs_embeds=inputs.inputs_embeds, **token_types
    )
    # ELECTRA has the projection only where its embeddings are narrower than its layers
    if family.input_projection is not None and hasattr(encoder, family.input_projection):
        states = getattr(encoder, family.input_projection)(states)
    return states


def longest_text(config: PreTrainedConfig) -> int:
    """Return the number of tokens that a text encoder has positions for."""
    offset = config.pad_token_id + 1 if _FAMILIES[config.model_type].positions_start_after_padding_id else 0
    return config.max_position_embeddings - offset


def embed_pictures(encoder: PreTrainedModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """Embed a batch of pictures.

    Parameters
    ----------
    encoder : PreTrainedModel
        Vision encoder.
    pixel_values : torch.FloatTensor of shape (batch, channels, side, side)
        Pictures, normalised; other sizes than the encoder's own get interpolated positions.

    Returns
    -------
    torch.FloatTensor of shape (batch, vision tokens, hidden size)
        States that enter the first layer.
    """
    family = _FAMILIES[encoder.config.model_type]
    # at the encoder's own size, interpolating returns the positions as they are
    fitted = {"interpolate_pos_encoding": True} if family.asks_to_interpolate else {}
    states = encoder.embeddings(pixel_values.to(encoder.dtype), **fitted)
    return states if family.input_norm is None else getattr(encoder, family.input_norm)(states)


__all__ = [
    "EncoderFamily",
    "TextInputs",
    "build_encoder",
    "embed_pictures",
    "embed_text",
    "encoder_layers",
    "final_norm",
    "load_encoder",
    "longest_text",
]
