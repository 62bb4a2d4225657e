"""Vectors that come after the commit: what may happen between a text and its vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import mnemic
from mnemic.vault import check


class Remote:
    """An embedder like one behind a network: not inline, and `during` happens while it answers."""

    name, dim, inline = "remote", 4, False

    def __init__(self, during: Callable[[Sequence[str]], object] = len) -> None:
        self.during = during

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.during(texts)
        return np.eye(self.dim, dtype=np.float32)[[len(text) % self.dim for text in texts]]


def problems(memory: mnemic.Memory) -> list[check.Problem]:
    with memory._parts.vault.database.read() as transaction:
        return check.problems(transaction, "default")


@pytest.mark.parametrize("whole", [False, True])
def test_a_vector_of_what_was_erased_meanwhile_is_not_kept(database: str, whole: bool) -> None:
    erased: list[Any] = []

    def erase(_: Sequence[str]) -> None:
        if not erased:
            erased.append(memory.erase(user="ana") if whole else memory.erase(cube.id))

    embedder = Remote()
    with mnemic.open(database, embedder=embedder, derive=()) as memory:
        memory._parts.pending.close()  # nobody but this thread embeds
        (cube,) = memory.add("The code is 4711.", user="ana")
        memory.add("It rains in Porto.", user="ana")
        embedder.during = erase
        memory.flush()
        assert erased
        assert problems(memory) == []
        assert memory.count(user="ana") == (0 if whole else 1)
        assert memory._parts.pending.flush() == 0, "what is left has its vector"
