"""Vectors that come after the commit: what may happen between a text and its vector."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
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


def test_an_embedder_that_raises_anything_is_asked_again_and_health_says_what_it_said(tmp_path: Path) -> None:
    asked, answers = threading.Event(), threading.Event()

    def fail_once(_: Sequence[str]) -> None:
        if not asked.is_set():
            asked.set()
            raise RuntimeError("no route to the model")
        answers.wait(10)

    with mnemic.open(tmp_path / "ana.db", embedder=Remote(fail_once), derive=()) as memory:
        memory.add("The cat is called Mochi.", user="ana")
        assert asked.wait(5)
        wait_until(lambda: memory.health().last_error is not None)
        assert "no route to the model" in str(memory.health().last_error)
        answers.set()
        wait_until(lambda: not problems(memory))
        wait_until(lambda: memory.health().last_error is None)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_forked_while_the_embedder_answers_embeds_by_itself(tmp_path: Path) -> None:
    asked, answers = threading.Event(), threading.Event()
    parent = os.getpid()

    def slow(_: Sequence[str]) -> None:
        if os.getpid() == parent:
            asked.set()
            answers.wait(20)

    with mnemic.open(tmp_path / "ana.db", embedder=Remote(slow), derive=()) as memory:
        memory.add("The cat is called Mochi.", user="ana")
        assert asked.wait(5)
        child = os.fork()
        if child == 0:
            threading.Thread(target=lambda: (time.sleep(10), os._exit(1)), daemon=True).start()
            try:
                memory._parts.pending.flush()
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        answers.set()
    assert os.waitstatus_to_exitcode(status) == 0


def wait_until(holds: Callable[[], bool], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.02)
