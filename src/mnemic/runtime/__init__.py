"""A model with memories mounted. Imports torch."""
