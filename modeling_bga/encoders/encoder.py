"""Build the supported encoders with hybrid attention, and find in them what the layer loop needs."""

from __future__ import annotations

import sys
from operator import attrgetter

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from ...configuration.configuration_conv_stages import CONV_STAGES
from ...configuration.encoder_families import TEXT_FAMILIES, VISION_FAMILIES
from ...configuration.errors import shown
from ..alignment.hybrid_attention import HYBRID_ATTENTION, register_hybrid_attention
from .conv_stages import ConvStages
from .relative_attention import make_attention_hybrid


# New layers on a convolutional encoder are ViT's, so they are found where ViT's are.
_FAMILIES = {**TEXT_FAMILIES, **VISION_FAMILIES, CONV_STAGES: VISION_FAMILIES["vit"]}


def build_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """Build an encoder of a supported family with random weights, hybrid attention and no pooler."""
    register_hybrid_attention()
    # not the one that a checkpoint's configuration remembers: the two encoders' may differ
    dtype = torch.get_default_dtype()
    if config.model_type == CONV_STAGES:
        return ConvStages._from_config(config, attn_implementation=HYBRID_ATTENTION, dtype=dtype)
    config._attn_implementation = HYBRID_ATTENTION
    encoder = AutoModel.from_config(config, dtype=dtype, **pooler_argument(config.model_type))
    if _FAMILIES[config.model_type].own_attention:
        make_attention_hybrid(encoder, encoder_layers(encoder))
    return encoder


def pooler_argument(model_type: str) -> dict[str, bool]:
    """Return the argument that leaves the pooler out, for encoders that have one."""
    return {"add_pooling_layer": False} if _FAMILIES[model_type].has_pooler else {}


def pretrained_part(encoder: PreTrainedModel) -> PreTrainedModel:
    """Return what a checkpoint has weights for: the encoder, or the backbone below new transformer layers."""
    return encoder.backbone if encoder.config.model_type == CONV_STAGES else encoder


def is_frozen(encoder: PreTrainedModel) -> bool:
    """Whether no parameter of an encoder is trained."""
    return not any(parameter.requires_grad for parameter in encoder.parameters())


def only_new_layers_trained(encoder: PreTrainedModel) -> bool:
    """Whether an encoder is a frozen convolutional one below new transformer layers that are trained."""
    return isinstance(encoder, ConvStages) and is_frozen(encoder.backbone) and not is_frozen(encoder)


def encoder_layers(encoder: PreTrainedModel) -> nn.ModuleList:
    """Return the list of layers of a supported encoder."""
    return attrgetter(_FAMILIES[encoder.config.model_type].layers)(encoder)


def refuse_other_attention(encoder: PreTrainedModel) -> None:
    """Raise ValueError if an encoder was given another attention function, which drops features or gets masks wrong."""
    found = encoder.config._attn_implementation
    if found != HYBRID_ATTENTION:
        raise ValueError(
            f"Expected hybrid attention ({HYBRID_ATTENTION!r}) in {type(encoder).__name__}, which no other function "
            f"replaces, but it was set to {shown(found)}. Run: encoder.set_attn_implementation({HYBRID_ATTENTION!r})."
        )


def final_norm_module(encoder: PreTrainedModel) -> nn.Module | None:
    """Return the encoder's norm of the last hidden states, or None where it has none."""
    path = _FAMILIES[encoder.config.model_type].final_norm
    return None if path is None else getattr(encoder, path)


def final_norm(encoder: PreTrainedModel, hidden_states: Tensor) -> Tensor:
    """Apply the encoder's norm of the last hidden states, where it has one; the shape stays."""
    norm = final_norm_module(encoder)
    return hidden_states if norm is None else norm(hidden_states)


def first_position(config: PreTrainedConfig) -> int:
    """Return the position id of a text's first token."""
    first = TEXT_FAMILIES[config.model_type].first_position
    return config.pad_token_id + 1 if first is None else first


def longest_text(config: PreTrainedConfig) -> int:
    """Return the number of tokens that a text encoder has positions for."""
    if config.model_type in TEXT_FAMILIES:
        return config.max_position_embeddings - first_position(config)
    positions = getattr(config, "max_position_embeddings", 0)
    # other families may count from their padding token on, as RoBERTa does, or need no positions
    return positions - (config.pad_token_id or 0) - 1 if positions > 0 else sys.maxsize


__all__ = [
    "build_encoder",
    "encoder_layers",
    "final_norm",
    "final_norm_module",
    "first_position",
    "is_frozen",
    "longest_text",
    "only_new_layers_trained",
    "pooler_argument",
    "pretrained_part",
    "refuse_other_attention",
]
