"""A vault with something in it, and what makes a row of the table of bad input."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import mnemic
from mnemic.cube.errors import MnemicError

TOLD = ("I moved to Porto in March.", "My bike is green.", "Bo likes açaí.")


class Odd:
    """An embedder whose vectors are whatever it was told to give."""

    inline = True

    def __init__(self, give: Callable[[int], Any], *, name: str = "odd", dim: int = 4) -> None:
        self.give, self.name, self.dim = give, name, dim

    def embed(self, texts: Sequence[str]) -> Any:
        return self.give(len(texts))


def fine(count: int) -> Any:
    return np.ones((count, 4), np.float32)


@dataclass
class Desk:
    """An open memory, its file, and a folder for other files."""

    memory: mnemic.Memory
    folder: Path
    embedder: Odd

    @property
    def path(self) -> Path:
        return self.folder / "vault.db"

    def file(self, name: str, content: bytes | str) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode(errors="surrogateescape") if isinstance(content, str) else content)
        return path

    def load(self, name: str, content: bytes | str | None, **options: Any) -> Any:
        path = self.folder / name if content is None else self.file(name, content)
        return self.memory.load_file(path, user="ana", **options)

    def load_folder(self) -> Any:
        (self.folder / "empty").mkdir()
        return self.memory.load_file(self.folder / "empty", user="ana")

    def embed(self, give: Callable[[int], Any]) -> None:
        self.embedder.give = give
        try:
            self.memory.add("x", user="ana")
        finally:
            self.embedder.give = fine

    def state(self) -> Any:
        """All that is in the vault, and where its log stands."""
        with sqlite3.connect(f"file:{self.path}?mode=ro", uri=True) as connection:
            found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables = [row[0] for row in found]
            return {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables}  # noqa: S608


@contextmanager
def desk(folder: Path) -> Iterator[Desk]:
    """With `TOLD` in it, by ana in session s1."""
    embedder = Odd(fine)
    with mnemic.open(folder / "vault.db", embedder=embedder) as memory:
        for number, text in enumerate(TOLD):
            memory.add(text, user="ana", session="s1", id=str(number))
        memory.flush()  # what is done in the background would change the vault under a case
        yield Desk(memory, folder, embedder)


class Case(NamedTuple):
    """`says` are words of the message that show it is about this, and what to do (a regular expression)."""

    group: str
    what: str
    error: type[MnemicError]
    says: str
    attempt: Callable[[Desk], Any]


def on(verb: str, what: str, error: type[MnemicError], says: str, *args: Any, **options: Any) -> Case:
    """`memory.verb(*args, **options)`; an argument that is a function is called with the desk first."""

    def attempt(at: Desk) -> Any:
        given = [arg(at) if callable(arg) else arg for arg in args]
        return getattr(at.memory, verb)(*given, **options)

    return Case(verb, what, error, says, attempt)


def first_id(at: Desk) -> str:
    return at.memory.list(user="ana", limit=1)[0].id
