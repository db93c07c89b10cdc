"""Configuration of new transformer layers on top of a convolutional encoder."""

from contextlib import suppress
from copy import deepcopy
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, AutoModel, PreTrainedConfig, ResNetConfig, ViTConfig

from .encoder_families import BACKBONE_FAMILIES
from .errors import mismatch


CONV_STAGES = "conv_stages"
"""`model_type` of these layers."""


@strict
class ConvStagesConfig(ViTConfig):
    r"""
    Configuration of `ConvStages`: a convolutional encoder, and transformer layers that read its last feature map.

    Its cells become tokens, for new ViT layers on top; these start untrained.

    Parameters
    ----------
    backbone_config : dict or PreTrainedConfig, optional
        The convolutional encoder; `model_type` one of `BACKBONE_FAMILIES`. Default: ResNet-50.
    hidden_size, num_hidden_layers, num_attention_heads, intermediate_size : int
        Of the new layers: ViT-S's width, and as many layers as are aligned by default.
    image_size : int, optional
        Side of the images in pixels. Default: the encoder's own, or 224.
    feature_channels, grid_side : int, optional
        Channels of the last feature map, and its side in cells; found by a dry run of the encoder.
    **kwargs
        Whatever else `ViTConfig` takes; `patch_size` has no meaning here.

    Raises
    ------
    ValueError
        If the encoder isn't of a supported family, or gives no square feature map.
    """

    model_type = CONV_STAGES

    backbone_config: Any = None
    hidden_size: int = 384
    num_hidden_layers: int = 4
    num_attention_heads: int = 6
    intermediate_size: int = 1536
    image_size: int | list[int] | tuple[int, int] | None = None
    feature_channels: int | None = None
    grid_side: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        backbone = ResNetConfig() if self.backbone_config is None else self.backbone_config
        if isinstance(backbone, dict):
            backbone = AutoConfig.for_model(**backbone)
        if not isinstance(backbone, PreTrainedConfig) or backbone.model_type not in BACKBONE_FAMILIES:
            found = backbone.model_type if isinstance(backbone, PreTrainedConfig) else type(backbone).__name__
            families = ", ".join(BACKBONE_FAMILIES)
            raise mismatch(f"backbone_config of one of {families}", found, "Pass a convolutional encoder's.")
        self.backbone_config = backbone
        if self.hidden_size % 4:
            # positions in two dimensions are sines and cosines
            raise mismatch("hidden_size as a multiple of 4", self.hidden_size, "Round it.")
        if self.image_size is None:
            self.image_size = _own_image_size(backbone)
        super().__post_init__(**kwargs)

    def fit_images(self, image_size: Any) -> None:
        """Find out what feature map the encoder makes of images of a size."""
        if self.grid_side is None or self.image_size != image_size:
            side = image_size if isinstance(image_size, int) else image_size[0]
            self.image_size = image_size
            self.feature_channels, self.grid_side = _feature_map_shape(self.backbone_config, side)


def last_feature_map(backbone: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """Run an encoder of transformers or timm: (batch, 3, side, side) -> (batch, channels, cells, cells)."""
    output = backbone(pixel_values, return_dict=True)
    return output.feature_maps[-1] if "feature_maps" in output else output.last_hidden_state


def _own_image_size(backbone: PreTrainedConfig) -> int:
    timm_says = (getattr(backbone, "pretrained_cfg", None) or {}).get("input_size", [3, 224, 224])[-1]
    size = getattr(backbone, "image_size", None) or timm_says
    return size if isinstance(size, int) else int(size[0])


def _feature_map_shape(config: PreTrainedConfig, side: int) -> tuple[int, int]:
    """Return the channels and the side of the last feature map, from a dry run without memory for weights."""
    shape: tuple[int, ...] = ()
    with torch.device("meta"), torch.no_grad():
        backbone = AutoModel.from_config(deepcopy(config)).eval()
        image = torch.empty(1, getattr(config, "num_channels", 3), side, side)
        with suppress(RuntimeError):  # torch's kernels don't fit into small images
            shape = tuple(last_feature_map(backbone, image).shape)
    if len(shape) != 4 or shape[2] != shape[3] or shape[2] == 0:
        expected = f"a feature map (batch, channels, cells, cells) of {config.model_type} and an image of {side} pixels"
        raise mismatch(expected, shape, "Pass a convolutional encoder, or larger images.")
    return int(shape[1]), int(shape[2])


__all__ = ["CONV_STAGES", "ConvStagesConfig", "last_feature_map"]
