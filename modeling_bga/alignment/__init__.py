"""Bidirectional generative alignment: samplers, generators, hybrid attention and their losses."""
