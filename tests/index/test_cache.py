"""The indexes that are kept in memory: how many bytes they take, and what the account of that costs."""

from __future__ import annotations

from pathlib import Path

import pytest

import mnemic
from mnemic.index.cache import IndexCache
from mnemic.index.scope import ScopeIndex


def cache_of(memory: mnemic.Memory) -> IndexCache:
    return memory._parts.recall.cache


def test_a_search_weighs_no_other_persons_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weighed: list[ScopeIndex] = []
    bytes_of = ScopeIndex.memory_bytes.fget  # type: ignore[attr-defined]
    with mnemic.open(tmp_path / "vault.db", derive=()) as memory:
        for number in range(30):
            memory.add(f"I have {number} cats.", user=f"user {number}")
            memory.search("cats?", user=f"user {number}")
        assert cache_of(memory).stats()["spaces"] == 30

        def spy(index: ScopeIndex) -> int:
            weighed.append(index)
            return int(bytes_of(index))

        monkeypatch.setattr(ScopeIndex, "memory_bytes", property(spy))
        memory.search("cats?", user="user 7")
        assert 0 < len({id(index) for index in weighed}) <= 4, "its own two, and those of the search before"
        weighed.clear()
        assert memory.count(everyone=True) == 30
        assert len(weighed) <= 4 * 30, "each a few times, not each for each"


def test_the_account_is_what_the_indexes_hold(tmp_path: Path) -> None:
    with mnemic.open(tmp_path / "vault.db", derive=()) as memory:
        cache = cache_of(memory)
        for number in range(20):
            memory.add(
                [f"I have {number} cats, said {part}." for part in range(20)], user=f"user {number % 5}"
            )
            memory.search("cats?", user=f"user {number % 5}")
            if number % 4 == 0:
                memory.search("cats?", user="user 0", as_of="2999-01-01")
        memory.erase(memory.list(user="user 2", limit=1)[0].id)
        for user in range(5):
            memory.search("cats?", user=f"user {user}")
        memory.count(user="user 0")  # the last one that was searched is weighed
        memory.count(user="user 0")
        assert cache._bytes == cache.stats()["bytes"]


def test_indexes_of_the_past_count_and_go_first(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"
    with mnemic.open(path, derive=()) as memory:
        memory.add([f"I have {number} cats." for number in range(200)], user="ana")
        memory.search("cats?", user="ana")
        one = cache_of(memory).stats()["bytes"]
    with mnemic.open(path, derive=(), index_bytes=int(1.5 * one)) as memory:
        memory.search("cats?", user="ana")
        for year in range(2990, 2996):
            memory.search("cats?", user="ana", as_of=f"{year}-01-01")
            assert cache_of(memory).stats()["bytes"] <= 2.1 * one
        assert cache_of(memory).stats()["cubes"] == 400, "the present, and the past that was asked for last"
        assert cache_of(memory).stats()["spaces"] == 1


def test_nothing_of_what_was_erased_stays_in_memory(tmp_path: Path) -> None:
    with mnemic.open(tmp_path / "vault.db", derive=()) as memory:
        memory.add("The code is 4711.", user="ana")
        memory.search("code?", user="ana")
        memory.search("code?", user="ana", as_of="2999-01-01")
        assert cache_of(memory).stats()["cubes"] == 2
        memory.erase(user="ana")
        assert cache_of(memory).stats() == {"spaces": 0, "cubes": 0, "bytes": 0}
        assert not cache_of(memory)._past
