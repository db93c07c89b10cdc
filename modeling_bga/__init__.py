"""The model: a `PreTrainedModel` with two heads."""
