"""Annotations in the formats of other tools: read, and written."""

from .reading import read_annotations
from .spans import tags_from_spans
from .writing import write_annotations


__all__ = ["read_annotations", "tags_from_spans", "write_annotations"]
