"""Texts, images and tags to tensors, and tensors to entities."""
