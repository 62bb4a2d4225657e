"""Looking back and taking back: what it costs in a memory that has grown, and what is left out of it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

import mnemic
from mnemic.plaintext.ingest.versions import LEAST
from mnemic.vault.snapshot import Snapshot


def test_what_comes_back_gets_its_features_without_a_look_at_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    pending = Snapshot.pending

    def spy(self: Snapshot, space: int, model: int, *, after: int = 0, limit: int = 1000) -> Any:
        looked.append(after)
        return pending(self, space, model, after=after, limit=limit)

    monkeypatch.setattr(Snapshot, "pending", spy)
    with mnemic.open(tmp_path / "vault.db", derive=()) as memory:
        (cube,) = memory.add("I live in Lisbon.", user="ana")
        memory.add([f"Turn {number}." for number in range(50)], user="ana")
        memory.add("x", user="bo")
        moved = memory.update(cube.id, "I live in Porto.")
        memory.undo(moved.id or "")
        memory.restore(cube.id, 2)
        assert looked, "features are looked for"
        assert min(looked) >= 51, "what was told before is not looked at again"
        assert memory.search("Porto", user="ana", k=1)[0].cube.id == cube.id


def test_a_few_changes_of_a_long_log_are_read_without_the_others(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []
    shown = Snapshot.shown

    def spy(self: Snapshot, cubes: Collection[bytes]) -> set[str]:
        looked.extend(cubes)
        return shown(self, cubes)

    with mnemic.open(database, derive=()) as memory:
        for number in range(60):
            memory.add([f"Turn {number}, {part}." for part in range(4)], user="ana")
        everything = memory.changes(user="ana")
        assert [one.count for one in everything] == [4] * 60
        monkeypatch.setattr(Snapshot, "shown", spy)
        assert memory.changes(user="ana", limit=2) == everything[:2]
        assert len(looked) <= 4 * (2 + LEAST)
        assert memory.changes(user="ana", after=everything[9].seq, limit=45) == everything[10:55]


def test_changes_that_may_not_be_seen_hide_none_that_may(database: str) -> None:
    with mnemic.open(database, derive=()) as owner:
        for number in range(3 * LEAST):
            owner.add(f"secret {number}", user="ana", labels="secret")
        for number in range(3):
            owner.add(f"open {number}", user="ana", agent="coach")
        owner.governance.add_principal("guest")
        owner.governance.grant("guest", "read", user="ana", unless="secret")
        guest = owner.as_principal("guest")
        seen = guest.changes(user="ana", limit=2)
        assert [guest.get(one.cubes[0]).text for one in seen] == ["open 0", "open 1"]
        assert len(guest.changes(user="ana")) == 3
        assert len(guest.changes(agent="coach")) == 3
