"""What a process remembers of names and numbers is bounded, and may be asked while it changes."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vaults import say, tell, texts

from mnemic.cube.model import Scope
from mnemic.vault import finding
from mnemic.vault.interned import Interned
from mnemic.vault.vault import open_vault


def scope(number: int) -> Scope:
    return Scope("default", f"user {number}", None, f"session {number}")


def test_the_oldest_are_forgotten_first_and_no_more_than_the_limit_is_held() -> None:
    interned = Interned(limit=10)
    for number in range(1000):
        interned.remember(scope(number), number, 1, 0)
        assert interned.scope(scope(number)) == (1, 0, 0)
        assert interned.space(f"user {number}") == number
        assert interned.names(number, 1) == scope(number)
        held = [n for n in range(number + 1) if interned.names(n, 1)]
        assert len(held) <= 10
        assert held[-1] == number
    interned.remember_names({(0, number): scope(number) for number in range(50)})
    assert sum(interned.names(0, number) is not None for number in range(50)) <= 10


def test_a_space_that_is_gone_takes_its_scopes_along() -> None:
    interned = Interned()
    interned.remember(Scope("t", "ana", None, "a"), 1, 1, 0)
    interned.remember(Scope("t", "ana", None, "b"), 1, 2, 0)
    interned.remember(Scope("t", "bo", None, "a"), 2, 1, 0)
    interned.forget("ana")
    assert (interned.space("ana"), interned.scope(Scope("t", "ana", None, "a")), interned.names(1, 2)) == (
        None,
    ) * 3
    assert interned.space("bo") == 2


def test_threads_may_remember_and_forget_at_once() -> None:
    interned = Interned(limit=100)
    failed: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for number in range(first, first + 2000):
                interned.remember(scope(number % 300), number % 300, 1, 0)
                interned.forget(f"user {(number * 7) % 300}")
        except BaseException as error:  # noqa: BLE001  shown below
            failed.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 4000, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_a_vault_that_remembers_little_is_still_right(tmp_path: Path) -> None:
    vault = open_vault(tmp_path / "v.db")
    vault._interned = Interned(limit=3)
    for turn in range(2):
        for number in range(20):
            vault.append(scope(number), [say(f"{number} {turn}")])
    assert [texts(vault, scope(number)) for number in range(20)] == [[f"{n} 0", f"{n} 1"] for n in range(20)]
    vault.close()


def test_the_name_of_one_scope_does_not_cost_reading_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a user has more sessions than are remembered, such as one for each chat."""
    read = 0

    def counted(names: str | bytes) -> Any:
        nonlocal read
        read += 1
        return json.loads(names)

    vault = open_vault(tmp_path / "v.db")
    sessions = [Scope("default", "ana", None, f"session {number}") for number in range(100)]
    cubes = [tell(vault, session, "hello")[0] for session in sessions]
    monkeypatch.setattr(finding, "NEIGHBOURS", 10, raising=False)
    monkeypatch.setattr(finding, "json", SimpleNamespace(loads=counted))
    vault._interned = Interned(limit=20)
    for number in (99, 98, 97):
        with vault.snapshot() as snapshot:
            assert snapshot.head(cubes[number]).header.scope == sessions[number]
    assert 0 < read <= 20
    vault.close()
