"""Configuration of the model."""

from .configuration_bga_mner import TEXT_ENCODERS, VISION_ENCODERS, BgaMnerConfig
from .configuration_conv_stages import ConvStagesConfig


__all__ = ["TEXT_ENCODERS", "VISION_ENCODERS", "BgaMnerConfig", "ConvStagesConfig"]
