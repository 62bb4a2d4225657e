"""What a model has learned, kept beside it: adapters, kNN and MLP memories. Imports torch, but for
descriptions and keeping.
"""
