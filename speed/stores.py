"""The stores under the clock, each through its own public calls. A write is acknowledged when add returns.

`bare` is no product: SQLite (WAL, synchronous=FULL) and an exact numpy scan. It is the limit.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from workload import DIM, SMALL_USER, USER, Cached

Items = list[tuple[str, str]]  # (user, text)


class Bare:
    needs, install, library = (), "", "sqlite3"

    def __init__(self, folder: Path, embedder: Cached) -> None:
        self.embedder = embedder
        self.db = sqlite3.connect(folder / "m.db", timeout=30, isolation_level=None)
        self.db.execute("pragma journal_mode=wal")
        self.db.execute("pragma synchronous=full")
        self.db.execute("create table if not exists m(id integer primary key, u text, t text, v blob)")
        self.db.execute("create index if not exists mu on m(u)")
        self.spaces: dict[str, tuple[Any, list[str]]] = {}

    def add(self, user: str, text: str) -> None:
        vector = self.embedder.embed([text])[0].tobytes()
        self.db.execute("insert into m(u, t, v) values (?, ?, ?)", (user, text, vector))

    def add_many(self, items: Items) -> None:
        made = self.embedder.embed([text for _, text in items])
        self.db.execute("begin immediate")
        rows = [(user, text, vector.tobytes()) for (user, text), vector in zip(items, made, strict=True)]
        self.db.executemany("insert into m(u, t, v) values (?, ?, ?)", rows)
        self.db.execute("commit")

    def search(self, user: str, question: str, k: int) -> list[str]:
        if user not in self.spaces:
            rows = self.db.execute("select t, v from m where u = ? order by id", (user,)).fetchall()
            matrix = np.frombuffer(b"".join(v for _, v in rows), np.float32).reshape(len(rows), DIM)
            self.spaces[user] = matrix, [t for t, _ in rows]
        matrix, said = self.spaces[user]
        if not said:
            return []
        scores = matrix @ self.embedder.embed([question])[0]
        top = np.argpartition(-scores, min(k, len(scores)) - 1)[:k]
        return [said[i] for i in top[np.argsort(-scores[top])]]

    def close(self) -> None:
        self.db.close()


class Mnemic:
    """Its defaults, but for the embedder that all stores share."""

    needs, install, library = ("mnemic",), "mnemic", "mnemic"
    own_embedder = False

    def __init__(self, folder: Path, embedder: Cached) -> None:
        import mnemic

        self.memory = mnemic.open(folder / "m.db", **({} if self.own_embedder else {"embedder": embedder}))

    def add(self, user: str, text: str) -> None:
        self.memory.add(text, user=user)

    def add_many(self, items: Items) -> None:
        for user in dict.fromkeys(user for user, _ in items):
            messages = [{"role": "user", "content": text} for u, text in items if u == user]
            self.memory.add(messages, user=user, session=uuid.uuid4().hex)

    def search(self, user: str, question: str, k: int) -> list[str]:
        return [hit.text for hit in self.memory.search(question, user=user, k=k)]

    def close(self) -> None:
        self.memory.close()


class MnemicStatic(Mnemic):
    """What a user gets without any option: the embedder's own time is inside."""

    own_embedder = True


class MnemicGoverned(Mnemic):
    """On behalf of a principal who owns one user's memory, with a grant and two rules about what is kept."""

    def __init__(self, folder: Path, embedder: Cached) -> None:
        super().__init__(folder, embedder)
        self.owner = self.memory
        if not self.owner.governance.principals():
            self.owner.governance.add_principal("agent")
            for user in (USER, SMALL_USER):
                self.owner.governance.grant("agent", "read, write", user=user)
            self.owner.policies.add("keep 4000 days", user=USER)
            self.owner.policies.add("keep 30 days", user=USER, session="chat")
        self.memory = self.owner.as_principal("agent")

    def close(self) -> None:
        self.memory.close()
        self.owner.close()


class Chroma:
    needs, install, library = ("chromadb",), "chromadb", "chromadb"

    def __init__(self, folder: Path, embedder: Cached) -> None:
        os.environ["ANONYMIZED_TELEMETRY"] = "False"
        import chromadb
        from chromadb.config import Settings

        client = chromadb.PersistentClient(path=str(folder), settings=Settings(anonymized_telemetry=False))
        self.collection = client.get_or_create_collection(
            "mem", embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
        )
        self.embedder = embedder

    def add(self, user: str, text: str) -> None:
        self.add_many([(user, text)])

    def add_many(self, items: Items) -> None:
        said = [text for _, text in items]
        self.collection.add(
            ids=[uuid.uuid4().hex for _ in items],
            documents=said,
            metadatas=[{"user": user} for user, _ in items],
            embeddings=self.embedder.embed(said),
        )

    def search(self, user: str, question: str, k: int) -> list[str]:
        asked = self.embedder.embed([question])
        found = self.collection.query(query_embeddings=asked, n_results=k, where={"user": user})
        return list(found["documents"][0])

    def close(self) -> None:
        pass


class Mem0:
    """infer=False, embedded Qdrant. It has no bulk write: an add of many messages is its widest call."""

    needs, install, library = ("mem0", "qdrant_client"), "mem0ai qdrant-client", "mem0"

    def __init__(self, folder: Path, embedder: Cached) -> None:
        os.environ |= {"MEM0_TELEMETRY": "False", "MEM0_DIR": str(folder)}
        os.environ.setdefault("OPENAI_API_KEY", "not-a-key")  # its constructor insists; nothing is called
        from mem0 import Memory

        store = {
            "collection_name": "m",
            "path": str(folder / "q"),
            "on_disk": True,
            "embedding_model_dims": DIM,
        }
        self.memory = Memory.from_config(
            {
                "vector_store": {"provider": "qdrant", "config": store},
                "history_db_path": str(folder / "history.db"),
            }
        )
        config = self.memory.embedding_model.config

        class Shared:
            def __init__(self) -> None:
                self.config = config

            def embed(self, text: str, memory_action: str | None = None) -> list[float]:  # noqa: ARG002
                return embedder.lists([text])[0]

            def embed_batch(self, said: list[str], memory_action: str | None = None) -> list[list[float]]:  # noqa: ARG002
                return embedder.lists(said)

        self.memory.embedding_model = Shared()

    def add(self, user: str, text: str) -> None:
        self.memory.add(text, user_id=user, infer=False)

    def add_many(self, items: Items) -> None:
        for user in dict.fromkeys(user for user, _ in items):
            messages = [{"role": "user", "content": text} for u, text in items if u == user]
            self.memory.add(messages, user_id=user, infer=False)

    def search(self, user: str, question: str, k: int) -> list[str]:
        found = self.memory.search(question, top_k=k, filters={"user_id": user}, threshold=0.0)
        return [result["memory"] for result in found["results"]]

    def close(self) -> None:
        self.memory.close()


class LangGraph:
    """SqliteStore; its Python must be able to load SQLite extensions."""

    needs = ("langgraph", "sqlite_vec")
    install, library = "langgraph langgraph-checkpoint-sqlite sqlite-vec", "langgraph.store.sqlite"

    def __init__(self, folder: Path, embedder: Cached) -> None:
        from langgraph.store.sqlite import SqliteStore

        # SqliteStore documents `fields` but reads `text_fields` (langchain-ai/langgraph#8808).
        index = {"dims": DIM, "embed": embedder.lists, "fields": ["text"], "text_fields": ["text"]}
        self.stack = ExitStack()
        self.store = self.stack.enter_context(SqliteStore.from_conn_string(str(folder / "s.db"), index=index))
        self.store.setup()

    def add(self, user: str, text: str) -> None:
        self.store.put(("m", user), uuid.uuid4().hex, {"text": text})

    def add_many(self, items: Items) -> None:
        from langgraph.store.base import PutOp

        self.store.batch([PutOp(("m", user), uuid.uuid4().hex, {"text": text}) for user, text in items])

    def search(self, user: str, question: str, k: int) -> list[str]:
        return [item.value["text"] for item in self.store.search(("m", user), query=question, limit=k)]

    def close(self) -> None:
        self.stack.close()


STORES: dict[str, Any] = {
    "bare": Bare, "mnemic": Mnemic, "mnemic-static": MnemicStatic,
    "mnemic-governed": MnemicGoverned, "chroma": Chroma, "mem0": Mem0,
    "langgraph": LangGraph,
}  # fmt: skip


def missing(name: str) -> str | None:
    """Why this store cannot run in this interpreter, or None."""
    store = STORES[name]
    if any(find_spec(module) is None for module in store.needs):
        return f"not installed: pip install {store.install}"
    if name == "langgraph" and not hasattr(sqlite3.Connection, "enable_load_extension"):
        return "cannot run: this Python's sqlite3 cannot load extensions; give one with --python langgraph=…"
    return None
