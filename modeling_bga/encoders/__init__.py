"""The text and vision encoders that alignment is built on."""
