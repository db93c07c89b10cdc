"""A student of a stock class that learns from a model's probabilities, and needs no code of this package."""
