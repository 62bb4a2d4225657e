"""mem0 without a language model: `infer=False`, its default embedded Qdrant."""

# ruff: noqa: ARG002 - the signatures are mem0's

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mnemic.bench.baselines import Ranked
from mnemic.bench.locomo import Turn
from mnemic.bench.vectors import best_here, embed

USER = "dialogue"


class Mem0(Ranked):
    """`Memory.add(..., infer=False)`: each turn is stored as it is, no model extracts facts."""

    name = "mem0"
    needs = ("mem0", "qdrant_client")
    install = "mem0ai qdrant-client"

    def open(self, folder: Path) -> None:
        super().open(folder)
        os.environ |= {"MEM0_TELEMETRY": "False", "MEM0_DIR": str(folder)}
        os.environ.setdefault(
            "OPENAI_API_KEY", "not-a-key"
        )  # the constructor insists; nothing is ever called
        from mem0 import Memory

        self.embedder = best_here()
        store = {
            "collection_name": "bench",
            "path": str(folder / "qdrant"),
            "on_disk": True,
            "embedding_model_dims": embed(self.embedder, ["x"]).shape[1],
        }
        self.memory = Memory.from_config(
            {
                "vector_store": {"provider": "qdrant", "config": store},
                "history_db_path": str(folder / "history.db"),
            }
        )
        self.memory.embedding_model = _Local(self.embedder, self.memory.embedding_model.config)

    def add(self, turns: Sequence[Turn]) -> None:
        super().add(turns)
        for turn in turns:
            self.memory.add(turn.line, user_id=USER, infer=False, metadata={"turn": turn.id})

    def search(self, question: str, k: int) -> list[str]:
        found = self.memory.search(question, top_k=k, filters={"user_id": USER}, threshold=0.0)["results"]
        return [result["metadata"]["turn"] for result in found]

    def describe(self) -> str:
        return f"mem0ai {version('mem0ai')}, infer=False, embedded Qdrant, {self.embedder} vectors"

    def close(self) -> None:
        super().close()
        self.memory.close()


class _Local:
    """mem0's embedder interface over a local model."""

    def __init__(self, name: str, config: Any) -> None:
        self.name, self.config = name, config

    def embed(self, text: str, memory_action: str | None = None) -> list[float]:
        return self.embed_batch([text])[0]

    def embed_batch(self, texts: Sequence[str], memory_action: str | None = None) -> list[list[float]]:
        return [[float(x) for x in row] for row in embed(self.name, texts)]
