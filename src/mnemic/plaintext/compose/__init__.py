"""Ranked cubes in, a context that fits a token budget out."""
