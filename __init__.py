"""Multimodal named entity recognition with bidirectional generative alignment."""

__version__ = "0.1.0"
