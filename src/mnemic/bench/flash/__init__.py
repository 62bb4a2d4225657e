"""Weights on disk: LLM in a flash's acceptance, on a file of gigabytes and on models that run."""
