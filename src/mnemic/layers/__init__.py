"""Sequence-memory layers: one protocol, one file a method, one table that names them (`table.py`)."""
