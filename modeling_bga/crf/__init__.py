"""The conditional random field: loss, best path, marginals, and probabilities of spans."""
