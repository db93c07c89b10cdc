"""Checkpoints of a training, and the summary that the model card shows."""
