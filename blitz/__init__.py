"""blitz: one PyTorch training loop, from a laptop to a Ray cluster."""
