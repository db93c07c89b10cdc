"""Load a pretrained encoder from a checkpoint, to build a model from it; loading a model that was saved needs none."""

from __future__ import annotations

from transformers import (
    AutoModel,
    CLIPVisionModel,
    PreTrainedConfig,
    PreTrainedModel,
    Siglip2VisionModel,
    SiglipVisionModel,
)

from ..configuration.configuration_conv_stages import CONV_STAGES
from ..configuration.encoder_families import BACKBONE_FAMILIES
from .conv_stages import ConvStages
from .encoders import pooler_argument
from .hybrid_attention import HYBRID_ATTENTION, register_hybrid_attention
from .open_clip_encoders import is_open_clip_name, load_open_clip_encoder


# Their checkpoints hold a text tower too, and AutoModel would build both.
_VISION_TOWERS = {
    "clip_vision_model": CLIPVisionModel,
    "siglip_vision_model": SiglipVisionModel,
    "siglip2_vision_model": Siglip2VisionModel,
}


def load_encoder(checkpoint: str, config: PreTrainedConfig) -> PreTrainedModel:
    """Load an encoder, without a pooler, from a folder, the Hub or open_clip (`open_clip:<model>/<tag>`).

    `config` is the encoder's own: that of the vision tower, for CLIP and SigLIP.
    """
    if is_open_clip_name(checkpoint):
        return load_open_clip_encoder(checkpoint, config)
    if config.model_type in BACKBONE_FAMILIES:
        return AutoModel.from_pretrained(checkpoint, config=config)
    if config.model_type == CONV_STAGES:
        return ConvStages.from_pretrained(checkpoint, config=config)
    register_hybrid_attention()
    model_class = _VISION_TOWERS.get(config.model_type, AutoModel)
    options = {"config": config, "attn_implementation": HYBRID_ATTENTION, **pooler_argument(config.model_type)}
    return model_class.from_pretrained(checkpoint, **options)


__all__ = ["load_encoder"]
