"""Entities of texts of any length."""
