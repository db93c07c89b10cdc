"""The encoders that the model takes: one entry per family. Adding a family begins here.

modeling_bga/encoders/ does what an entry can't say: other attention (`relative_attention.py`), and what layers need
beside their states (`embedding.py`). `docs/reference/encoders.md` is made of these entries.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class EncoderFamily:
    """Where an encoder family keeps what the layer loop needs; modules are named by their dotted paths."""

    name: str  # what people call it
    layers: str  # the list of layers
    final_norm: str | None = None  # the norm of the last hidden states
    has_pooler: bool = False  # whether the encoder builds a pooler unless told not to
    own_attention: bool = False  # whether its attention isn't built on transformers' interface, but a class of its own


@dataclass(frozen=True)
class TextFamily(EncoderFamily):
    """A family of text encoders."""

    # what the embeddings take
    takes_token_types: bool = False
    takes_positions: bool = True
    takes_mask: bool = False
    # position id of the first token; None for `pad_token_id + 1`. Where it isn't 0, padding has the one before.
    first_position: int | None = 0
    input_projection: str | None = None  # a module between embeddings and layers


@dataclass(frozen=True)
class VisionFamily(EncoderFamily):
    """A family of vision transformers."""

    tower_of: str | None = None  # `model_type` of the text-image model whose vision tower this is
    input_norm: str | None = None  # a norm between embeddings and layers
    asks_to_interpolate: bool = False  # whether embeddings must be asked to fit positions to other image sizes
    has_class_token: bool = True  # at position 0, before register tokens


TEXT_FAMILIES = {
    "bert": TextFamily("BERT", "encoder.layer", takes_token_types=True, has_pooler=True),
    "roberta": TextFamily("RoBERTa", "encoder.layer", takes_token_types=True, first_position=None, has_pooler=True),
    "xlm-roberta": TextFamily("XLM-R", "encoder.layer", takes_token_types=True, first_position=None, has_pooler=True),
    "distilbert": TextFamily("DistilBERT", "transformer.layer"),
    "electra": TextFamily("ELECTRA", "encoder.layer", takes_token_types=True, input_projection="embeddings_project"),
    "mpnet": TextFamily("MPNet", "encoder.layer", first_position=2, has_pooler=True, own_attention=True),
    "deberta-v2": TextFamily(
        "DeBERTa-v2, DeBERTa-v3", "encoder.layer", takes_token_types=True, takes_mask=True, own_attention=True
    ),
    "modernbert": TextFamily("ModernBERT", "layers", takes_positions=False, final_norm="final_norm"),
}

VISION_FAMILIES = {
    # CLIP norms only its pooled output, with a norm that nothing here uses
    "clip_vision_model": VisionFamily(
        "CLIP", "encoder.layers", tower_of="clip", input_norm="pre_layrnorm", asks_to_interpolate=True
    ),
    "vit": VisionFamily("ViT", "layers", final_norm="layernorm", has_pooler=True, asks_to_interpolate=True),
    "dinov2": VisionFamily("DINOv2", "encoder.layer", final_norm="layernorm"),
    "dinov2_with_registers": VisionFamily("DINOv2 with registers", "encoder.layer", final_norm="layernorm"),
    "dinov3_vit": VisionFamily("DINOv3 ViT", "model.layer", final_norm="norm"),
    "siglip_vision_model": VisionFamily(
        "SigLIP, SigLIP2 of a fixed size",
        "encoder.layers",
        final_norm="post_layernorm",
        tower_of="siglip",
        asks_to_interpolate=True,
        has_class_token=False,
    ),
    "siglip2_vision_model": VisionFamily(
        "SigLIP2 NaFlex", "encoder.layers", final_norm="post_layernorm", tower_of="siglip2", has_class_token=False
    ),
}

BACKBONE_FAMILIES = {
    "resnet": "ResNet",
    "regnet": "RegNet",
    "convnext": "ConvNeXt",
    "convnextv2": "ConvNeXt V2",
    "efficientnet": "EfficientNet",
    "timm_backbone": "timm, as a backbone",
    "timm_wrapper": "timm, from the Hub",
}
"""Convolutional encoders, whose last feature map new transformer layers read, and what people call them."""


__all__ = [
    "BACKBONE_FAMILIES",
    "TEXT_FAMILIES",
    "VISION_FAMILIES",
    "EncoderFamily",
    "TextFamily",
    "VisionFamily",
]
