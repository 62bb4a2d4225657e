"""A question in, ranked cubes out."""
