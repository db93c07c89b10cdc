"""The configuration, its checks, and the families of encoders that it may name."""
