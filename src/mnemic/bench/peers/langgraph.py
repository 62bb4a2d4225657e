"""LangGraph's long-term store."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mnemic.bench.baselines import Ranked
from mnemic.bench.locomo import Turn
from mnemic.bench.vectors import best_here, embed

NAMESPACE = ("bench", "dialogue")


class LangGraph(Ranked):
    """`SqliteStore` where this Python's sqlite3 can load extensions, else `InMemoryStore`."""

    name = "langgraph"
    needs = ("langgraph",)
    install = "langgraph langgraph-checkpoint-sqlite sqlite-vec"

    def open(self, folder: Path) -> None:
        super().open(folder)
        self.embedder = best_here()
        index = {
            "dims": embed(self.embedder, ["x"]).shape[1],
            "embed": self._embed,
            # SqliteStore documents `fields` but reads `text_fields` (langchain-ai/langgraph#8808).
            "fields": ["text"],
            "text_fields": ["text"],
        }
        self.stack = ExitStack()
        self.kind = "SqliteStore" if _sqlite_store_works() else "InMemoryStore"
        self.store: Any
        if self.kind == "SqliteStore":
            from langgraph.store.sqlite import SqliteStore

            opened = SqliteStore.from_conn_string(str(folder / "store.db"), index=index)
            self.store = self.stack.enter_context(opened)
            self.store.setup()
        else:
            from langgraph.store.memory import InMemoryStore

            self.store = InMemoryStore(index=index)

    def add(self, turns: Sequence[Turn]) -> None:
        from langgraph.store.base import PutOp

        super().add(turns)
        self.store.batch([PutOp(NAMESPACE, turn.id, {"text": turn.line}) for turn in turns])

    def search(self, question: str, k: int) -> list[str]:
        return [item.key for item in self.store.search(NAMESPACE, query=question, limit=k)]

    def describe(self) -> str:
        return f"langgraph {version('langgraph')}, {self.kind}, {self.embedder} vectors"

    def close(self) -> None:
        super().close()
        self.stack.close()

    def _embed(self, texts: Sequence[str]) -> list[list[float]]:
        return [[float(x) for x in row] for row in embed(self.embedder, texts)]


def _sqlite_store_works() -> bool:
    return (
        hasattr(sqlite3.Connection, "enable_load_extension")
        and find_spec("sqlite_vec") is not None
        and find_spec("langgraph.store.sqlite") is not None
    )
