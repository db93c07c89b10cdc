"""Texts to words, and words to token ids."""
