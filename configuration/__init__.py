"""Configuration of the model."""

from .configuration_bga_mner import TEXT_ENCODERS, VISION_ENCODERS, BgaMnerConfig


__all__ = ["TEXT_ENCODERS", "VISION_ENCODERS", "BgaMnerConfig"]
