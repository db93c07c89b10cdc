"""A convolutional encoder, and new transformer layers that read its last feature map, so that stages have a place."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import AutoModel
from transformers import initialization as init
from transformers.models.vit.modeling_vit import ViTLayer, ViTPreTrainedModel

from ...configuration.configuration_conv_stages import ConvStagesConfig, last_feature_map


class ConvStages(ViTPreTrainedModel):
    """Vision encoder of a convolutional backbone and new transformer layers.

    Batch normalisation runs on the statistics that it was loaded with, and never changes them: batches are small, and
    half of one may be blanks for missing images. Its scale and shift are trained unless they are frozen.
    """

    config_class = ConvStagesConfig
    config: ConvStagesConfig
    base_model_prefix = "conv_stages"
    _no_split_modules = ["ViTLayer"]  # noqa: RUF012 - transformers' convention

    def __init__(self, config: ConvStagesConfig) -> None:
        config.fit_images(config.image_size)
        super().__init__(config)
        self.backbone = AutoModel.from_config(config.backbone_config, dtype=torch.get_default_dtype())
        self.projection_norm = nn.LayerNorm(config.feature_channels, eps=config.layer_norm_eps)
        self.projection = nn.Linear(config.feature_channels, config.hidden_size)
        self.layers = nn.ModuleList(ViTLayer(config) for _ in range(config.num_hidden_layers))
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()
        # new modules are in training mode without having been told, batch normalisation too
        self.train(self.training)

    def train(self, mode: bool = True) -> ConvStages:
        """Set training mode, but for batch normalisation, and for a backbone of which no parameter is trained."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.backbone.parameters()):
            self.backbone.eval()
        for module in self.backbone.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self.projection:
            # keeps the scale at any width; with 0.02 the positions would drown what narrow feature maps show
            init.xavier_uniform_(module.weight)

    def get_input_embeddings(self) -> nn.Module:
        """Return the module that makes tokens of the feature map."""
        return self.projection

    def read_cells(self, pixel_values: Tensor) -> Tensor:
        """Run the backbone alone: (batch, channels, side, side) to (batch, cells, feature channels), row by row."""
        return last_feature_map(self.backbone, pixel_values).flatten(2).transpose(1, 2)

    def embed(self, images: Tensor) -> Tensor:
        """Make tokens (batch, cells, hidden size), one for each cell of the last feature map, row by row.

        From images (batch, channels, side, side), or from what `read_cells` makes of them.
        """
        cells = self.read_cells(images) if images.ndim == 4 else images
        tokens = self.projection(self.projection_norm(cells))
        return tokens + _positions(math.isqrt(cells.shape[1]), self.config.hidden_size, tokens)

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> Tensor:
        """Encode images: (batch, channels, side, side) to (batch, cells, hidden size)."""
        states = self.embed(pixel_values)
        for layer in self.layers:
            states = layer(states)
        return self.layernorm(states)


def _positions(side: int, width: int, like: Tensor) -> Tensor:
    """Make sines and cosines of rows and columns: (1, side * side, width). They fit any size, and need no training."""
    rates = torch.arange(width // 4, device=like.device) / max(width // 4, 1)
    angles = torch.arange(side, device=like.device)[:, None] * torch.exp(-math.log(10_000) * rates)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, width / 2)
    rows = waves[:, None].expand(-1, side, -1)
    columns = waves[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)[None].to(like.dtype)


__all__ = ["ConvStages"]
