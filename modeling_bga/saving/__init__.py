"""Read and write checkpoints."""
