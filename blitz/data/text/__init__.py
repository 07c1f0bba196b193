"""Pairs of sentences: where they are read from, and the tokens that a model takes them as."""
