"""Annotate many texts, in parts that survive a kill."""
