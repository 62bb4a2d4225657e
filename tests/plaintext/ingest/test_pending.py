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
from mnemic.cube.errors import TextsRefused
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
    answers = threading.Event()

    def fail(_: Sequence[str]) -> None:
        if not answers.is_set():
            raise RuntimeError("no route to the model")

    with mnemic.open(tmp_path / "ana.db", embedder=Remote(fail), derive=()) as memory:
        memory.add("The cat is called Mochi.", user="ana")
        wait_until(lambda: memory.health().last_error is not None)
        assert "no route to the model" in str(memory.health().last_error)
        answers.set()
        wait_until(lambda: not problems(memory))
        wait_until(lambda: memory.health().last_error is None)


def refuse_long(texts: Sequence[str]) -> None:
    if any(len(text) > 100 for text in texts):
        raise ValueError("maximum context length exceeded")


def test_a_text_that_the_embedder_refuses_does_not_keep_the_others_waiting(database: str) -> None:
    asked: list[int] = []

    def during(texts: Sequence[str]) -> None:
        asked.append(len(texts))
        refuse_long(texts)

    with mnemic.open(database, embedder=Remote(during), derive=()) as memory:
        memory._parts.pending.close()
        texts = [f"Note {i}." for i in range(20)]
        long = [memory.add("Tokyo, " * 30, user=user)[0] for user in ("ana", "ben")]
        memory.add(texts, user="ana")
        with pytest.raises(TextsRefused, match="maximum context length") as caught:
            memory.flush()
        assert set(caught.value.cubes) == {cube.id for cube in long}
        assert len(asked) < 25, "halves of what failed, not every text by itself"
        assert {problem.cube for problem in problems(memory)} <= {cube.id for cube in long}
        assert memory.search("Tokyo", user="ana")[0].cube.id == long[0].id
        memory.update(long[0].id, "Tokyo")
        memory.erase(long[1].id)
        assert memory.flush() == 1
        assert problems(memory) == []


def test_what_comes_after_a_refused_text_is_embedded_at_once_and_the_refused_one_not_asked_again(
    tmp_path: Path,
) -> None:
    asked: list[str] = []

    def during(texts: Sequence[str]) -> None:
        asked.extend(texts)
        refuse_long(texts)

    with mnemic.open(tmp_path / "ana.db", embedder=Remote(during), derive=()) as memory:
        (long,) = memory.add("Tokyo, " * 30, user="ana")
        wait_until(lambda: "fails on 1 of the texts" in str(memory.health().last_error))
        wait_until(lambda: sum("Tokyo" in text for text in asked) == 2)  # once more
        time.sleep(0.1)
        asked.clear()
        memory.add("It rains in Porto.", user="ana")
        wait_until(lambda: any("Porto" in text for text in asked))
        memory.update(long.id, "The long text, shortened.")
        wait_until(lambda: any("shortened" in text for text in asked))
        wait_until(lambda: not problems(memory))
        assert not any("Tokyo" in text for text in asked)


def test_a_question_whose_vector_is_of_no_use_is_answered_by_words(tmp_path: Path) -> None:
    class Broken(Remote):
        def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return np.full((len(texts), self.dim), np.nan, np.float32)

    with mnemic.open(tmp_path / "ana.db", embedder=Broken(), derive=()) as memory:
        (cube,) = memory.add("It rains in Porto.", user="ana")
        found = memory.search("Porto", user="ana")
        assert [hit.cube.id for hit in found] == [cube.id]
        assert "did not answer" in str(found.notes["dense"])


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
