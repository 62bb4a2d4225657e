"""Looking after what models have computed and learned, on whose behalf it may be."""

from __future__ import annotations

from pathlib import Path

import pytest

import mnemic
from mnemic import upkeep
from mnemic.activation.kv_description import Description
from mnemic.cube.errors import AccessDenied, InvalidOption, NotFound
from mnemic.cube.model import Kind, MemCube, Origin, Scope
from mnemic.vault.codec import Draft
from mnemic.vault.snapshot import Snapshot


def kv_of(memory: mnemic.Memory, cube: MemCube, *, content: bytes, title: str = "profile") -> str:
    """A KV cube as `kv build` leaves it, without a model."""
    vault, scope = memory._parts.vault, Scope("default", cube.header.scope.user)
    blob = vault.put_blob(scope, content)
    described = Description(
        model="tiny", tokens=1, storage="exact", label="exact", form="plain", fingerprint={}, stack="",
        made_with="", sha256=blob.sha256, size=blob.size, title=title,
    )  # fmt: skip
    with vault.snapshot() as snapshot:
        sources = tuple(snapshot.citations([cube.id]))
    draft = Draft(
        payload=described.payload(), kind=Kind.activation, origin=Origin.derived, sources=sources, blob=blob
    )
    (outcome,) = vault.append(scope, [draft], op="derive").outcomes
    assert outcome.row is not None
    return outcome.row.cube_in(scope).id


def test_kv_memories_are_those_the_principal_may_see_and_are_dropped_by_who_may_write(
    tmp_path: Path,
) -> None:
    with mnemic.open(tmp_path / "vault.db", derive=()) as owner:
        told = {user: owner.add(f"{user} lives in Porto.", user=user)[0] for user in ("ana", "bo")}
        kept = {user: kv_of(owner, cube, content=user.encode()) for user, cube in told.items()}
        owner.governance.add_principal("guest")
        owner.governance.grant("guest", "read", user="ana")
        guest = owner.as_principal("guest")
        assert [one.cube.id for one in upkeep.kv_memories(guest)] == [kept["ana"]]
        assert upkeep.kv_memories(guest, user="bo") == []
        with pytest.raises(NotFound):
            upkeep.kv_memory(guest, kept["bo"])
        with pytest.raises(NotFound):
            upkeep.drop_kv(guest, kept["bo"])
        with pytest.raises(AccessDenied):
            upkeep.drop_kv(guest, kept["ana"])
        with pytest.raises(AccessDenied):
            upkeep.sweep_kv(guest, stale=True)
        with pytest.raises(AccessDenied):
            upkeep.verify_kv(guest)
        refused = [one.verb for one in owner.audit.log(by="guest", denied=True)]
        assert refused == ["kv_memory", "drop_kv", "drop_kv", "sweep_kv", "verify_kv"]
        assert {one.cube.id for one in upkeep.kv_memories(owner)} == set(kept.values())
        assert upkeep.drop_kv(owner, kept["ana"]) == len(b"ana")


def test_learned_memories_are_on_record_when_they_are_refused(tmp_path: Path) -> None:
    with mnemic.open(tmp_path / "vault.db", derive=()) as owner:
        (cube,) = owner.add("x", user="ana")
        owner.governance.add_principal("guest")
        guest = owner.as_principal("guest")
        with pytest.raises(NotFound):
            upkeep.learned_memory(guest, cube.id)
        with pytest.raises(NotFound):
            upkeep.drop_learned(guest, cube.id)
        refused = [one.verb for one in owner.audit.log(by="guest", denied=True)]
        assert refused == ["learned_memory", "drop_learned"]


def test_the_ledger_of_erasures_is_for_who_may_rule(tmp_path: Path) -> None:
    with mnemic.open(tmp_path / "vault.db", derive=()) as owner:
        (cube,) = owner.add("x", user="ana")
        owner.erase(cube.id)
        owner.governance.add_principal("guest")
        with pytest.raises(AccessDenied):
            upkeep.erasures(owner.as_principal("guest"))
        assert len(upkeep.erasures(owner)) == 1


@pytest.mark.parametrize("kind", [Kind.activation, Kind.parametric])
def test_what_says_no_text_is_given_none(tmp_path: Path, kind: Kind) -> None:
    with mnemic.open(tmp_path / "vault.db", derive=()) as memory:
        scope, draft = Scope("default", "ana"), Draft(payload=b"{}", kind=kind, origin=Origin.trained)
        (outcome,) = memory._parts.vault.append(scope, [draft]).outcomes
        assert outcome.row is not None
        cube = outcome.row.cube_in(scope)
        with pytest.raises(InvalidOption, match="says no text"):
            memory.update(cube.id, "I live in Porto.")
        assert memory.get(cube.id) == cube


def test_dropping_what_is_stale_looks_at_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    why = Snapshot.why_not_current
    monkeypatch.setattr(
        Snapshot, "why_not_current", lambda self, cube: (looked.append(cube), why(self, cube))[1]
    )
    with mnemic.open(tmp_path / "vault.db", derive=()) as memory:
        (cube,) = memory.add("I live in Porto.", user="ana")
        kept = [kv_of(memory, cube, content=b"%d" % number) for number in range(20)]
        twin = kv_of(memory, memory.add("x", user="ana")[0], content=b"0")  # needs the file of the first
        memory.delete(cube.id)
        assert upkeep.sweep_kv(memory, stale=True) == (0, 20, sum(len(b"%d" % n) for n in range(1, 20)))
        assert sorted(looked) == sorted([*kept, twin])
        assert [one.cube.id for one in upkeep.kv_memories(memory)] == [twin]
        with memory.open_blob(twin) as file:
            assert file.read() == b"0"
