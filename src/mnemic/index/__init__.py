"""Derived, rebuildable structures over the vault."""
