"""Chroma's embedded client."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from mnemic.bench.baselines import Ranked
from mnemic.bench.locomo import Turn
from mnemic.bench.vectors import best_here, embed


class Chroma(Ranked):
    """`PersistentClient`, one collection, cosine HNSW."""

    name = "chroma"
    needs = ("chromadb",)
    install = "chromadb"

    def open(self, folder: Path) -> None:
        super().open(folder)
        os.environ["ANONYMIZED_TELEMETRY"] = "False"
        import chromadb
        from chromadb.config import Settings

        self.embedder = best_here()
        client = chromadb.PersistentClient(path=str(folder), settings=Settings(anonymized_telemetry=False))
        self.collection = client.create_collection(
            "bench", embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
        )

    def add(self, turns: Sequence[Turn]) -> None:
        super().add(turns)
        texts = [turn.line for turn in turns]
        self.collection.add(
            ids=[turn.id for turn in turns], documents=texts, embeddings=embed(self.embedder, texts)
        )

    def search(self, question: str, k: int) -> list[str]:
        found = self.collection.query(query_embeddings=embed(self.embedder, [question]), n_results=k)
        return list(found["ids"][0])

    def describe(self) -> str:
        return f"chromadb {version('chromadb')}, PersistentClient, cosine HNSW, {self.embedder} vectors"
