"""BIO tags: schemes, labels, and tags of words on tokens."""
