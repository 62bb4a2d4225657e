"""Benchmarks, and systems under test (ours and peers) behind one interface."""
