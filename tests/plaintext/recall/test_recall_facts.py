"""Facts as they are listed: of several people, in order, and at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

import mnemic
from mnemic.cube.model import MemCube
from mnemic.vault.snapshot import Snapshot


def test_the_cubes_of_all_facts_are_fetched_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[int] = []
    cubes = Snapshot.cubes

    def spy(self: Snapshot, space: int, seqs: Sequence[int]) -> list[MemCube]:
        fetched.append(len(seqs))
        return cubes(self, space, seqs)

    with mnemic.open(tmp_path / "vault.db") as memory:
        for user in ("ana", "bo"):
            for pet in ("dog", "cat", "horse", "fish"):
                memory.add(f"My {pet}'s name is {pet.title()}y.", user=user)
            memory.add(f"I live in {user.title()}ville.", user=user)
        memory.flush()
        monkeypatch.setattr(Snapshot, "cubes", spy)
        found = memory.facts(everyone=True)
        assert len(found) >= 4
        assert fetched == [len(found) // 2] * 2, "once for each person"
        assert [one.subject for one in found] == sorted(one.subject for one in found)
        assert all(one.value in one.cube.text for one in found)
        assert memory.facts(everyone=True, limit=3) == found[:3]
