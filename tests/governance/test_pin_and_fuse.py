"""Pinned: in use all the time. Fused: one text stands for several, and what it stands for can come back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clocks import DAY, FakeClock

import mnemic
from mnemic.cube.errors import (
    AccessDenied,
    ChangedSince,
    Expired,
    Frozen,
    InvalidFilter,
    InvalidOption,
    InvalidText,
    LegalHold,
    NotFound,
)
from mnemic.cube.model import State

NUTS, PENICILLIN = "Ana is allergic to nuts.", "Ana is allergic to penicillin."
BOTH = "Ana is allergic to nuts and to penicillin."


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def memory(database: str, clock: FakeClock) -> Iterator[mnemic.Memory]:
    with mnemic.open(database, clock=clock) as memory:
        yield memory


def told(memory: mnemic.Memory, *, everything: bool = False) -> set[str]:
    return {cube.text for cube in memory.list(everyone=True) if everything or "allergic" in cube.text}


def two(memory: mnemic.Memory) -> tuple[str, str]:
    (nuts,) = memory.add(NUTS, user="ana", session="s1", labels="health", at="2024-01-01")
    (penicillin,) = memory.add(PENICILLIN, user="ana", session="s2", labels=["drugs"], at="2025-01-01")
    return nuts.id, penicillin.id


# --- pinned


@pytest.mark.parametrize("rule", ["keep while used 10 days", "decay half-life 2 days below 0.1"])
def test_what_is_pinned_does_not_end_by_disuse(memory: mnemic.Memory, clock: FakeClock, rule: str) -> None:
    memory.policies.add(rule, user="ana")
    kept, left = (memory.add(text, user="ana")[0].id for text in ("the gate code is 4711", "rain today"))
    assert memory.pin(kept, reason="asked for daily").count == 1
    assert memory.pin(kept).count == 0, "it is already"
    clock.forward(20 * DAY)
    assert [cube.id for cube in memory.list(user="ana")] == [kept]
    assert memory.get(kept).header.pinned
    with pytest.raises(Expired):
        memory.get(left)
    assert memory.retention.sweep().expired == 1
    memory.unpin(kept)
    clock.forward(9 * DAY if rule.startswith("keep") else DAY)
    assert memory.list(user="ana"), "unpinning is a change: it counts from then"
    clock.forward(20 * DAY)
    assert not memory.list(user="ana")


def test_other_rules_end_what_is_pinned_all_the_same(memory: mnemic.Memory, clock: FakeClock) -> None:
    memory.policies.add("keep 30 days", user="ana")
    (cube,) = memory.add("the gate code is 4711", user="ana")
    memory.pin(cube.id)
    clock.forward(31 * DAY)
    with pytest.raises(Expired, match="keep 30 days"):
        memory.get(cube.id)


def test_a_pin_wakes_what_was_archived_and_keeps_it_awake(memory: mnemic.Memory, clock: FakeClock) -> None:
    memory.policies.add("archive after 10 days", user="ana")
    (cube,) = memory.add("the gate code is 4711", user="ana")
    memory.get(cube.id)
    clock.forward(11 * DAY)
    assert memory.retention.sweep().archived == 1
    assert memory.pin(cube.id).cubes[0].header.pinned
    with memory._vault.snapshot() as snapshot:
        assert snapshot.head(cube.id).header.state is State.activated
    clock.forward(11 * DAY)
    assert memory.retention.sweep().archived == 0
    change = memory.unpin(cube.id)
    clock.forward(11 * DAY)
    assert memory.retention.sweep().archived == 1
    memory.undo(change.id)
    assert memory.get(cube.id).header.pinned, "as before"


def test_pinned_and_frozen_can_be_asked_for(memory: mnemic.Memory) -> None:
    pinned, frozen, plain = (memory.add(text, user="ana")[0].id for text in ("one", "two", "three"))
    memory.pin(pinned)
    memory.freeze(frozen)
    for where, expected in (
        ({"pinned": True}, {pinned}),
        ({"pinned": False}, {frozen, plain}),
        ({"frozen": True}, {frozen}),
        ({"frozen": {"not": True}}, {pinned, plain}),
    ):
        assert {cube.id for cube in memory.list(user="ana", where=where)} == expected
    with pytest.raises(InvalidFilter, match="True or False"):
        memory.list(user="ana", where={"pinned": "yes"})
    with pytest.raises(Frozen):
        memory.pin(frozen)
    memory.delete(plain)
    with pytest.raises(NotFound, match="restore it before you pin"):
        memory.pin([pinned, plain])
    assert memory.get(frozen).header.state is State.frozen
    assert [one.change.op for one in memory.history(pinned).revisions] == ["add", "pin"]


# --- fused


def test_one_text_stands_for_several(memory: mnemic.Memory) -> None:
    nuts, penicillin = two(memory)
    change = memory.fuse([nuts, penicillin], BOTH, reason="said twice")
    fusion = change.cubes[0]
    assert change.count == 3
    assert told(memory) == {BOTH}
    assert [hit.text for hit in memory.search("what is ana allergic to?", user="ana")] == [BOTH]
    header = fusion.header
    assert (header.scope.session, set(header.labels), header.at.year) == ("s1", {"health", "drugs"}, 2025)
    assert [one.cube_id for one in header.fused] == [nuts, penicillin]
    with pytest.raises(NotFound, match=f"merged into {fusion.id}"):
        memory.get(nuts)
    merged = memory.history(nuts)
    assert [cube.text for cube in merged] == [NUTS, ""]
    assert (merged[-1].header.state, merged[-1].header.merged_into) == (State.merged, fusion.id)
    assert (merged.revisions[-1].change.op, merged.revisions[-1].change.reason) == ("fuse", "said twice")
    links = memory.explain(fusion.id).made_from
    assert [(one.role, one.quote, one.broken) for one in links] == [
        ("fused from", NUTS, None),
        ("fused from", PENICILLIN, None),
    ]
    assert [one.role for one in memory.explain(nuts).made_from] == ["merged into"]


def test_it_can_be_taken_back_whole_or_in_part(memory: mnemic.Memory) -> None:
    nuts, penicillin = two(memory)
    change = memory.fuse([nuts, penicillin], BOTH)
    undone = memory.undo(change.id)
    assert told(memory) == {NUTS, PENICILLIN}
    memory.undo(undone.id)
    assert told(memory) == {BOTH}
    memory.restore(nuts, 1)
    assert told(memory) == {BOTH, NUTS}
    assert memory.get(nuts).header.state is State.activated
    memory.update(change.cubes[0].id, BOTH + " And dust.")
    with pytest.raises(ChangedSince):
        memory.undo(change.id)


def test_facts_follow_the_fusion(memory: mnemic.Memory) -> None:
    one, two = (memory.add(text, user="ana")[0].id for text in ("I live in Lisbon.", "I live in Lisboa."))
    memory.flush()
    change = memory.fuse([one, two], "I live in Lisbon, near the river.")
    memory.flush()
    (fact,) = memory.facts(user="ana")
    assert fact.cube.header.sources[0].cube_id == change.cubes[0].id
    memory.undo(change.id)
    memory.flush()
    cited = {s.cube_id for one in memory.facts(user="ana", past=True) for s in one.cube.header.sources}
    assert cited == {one, two}


@pytest.mark.parametrize("which", ["fusion", "part"])
def test_erasing_leaves_no_byte_of_what_was_fused_and_takes_no_more(database: str, which: str) -> None:
    with mnemic.open(database) as memory:
        nuts, penicillin = two(memory)
        fusion = memory.fuse([nuts, penicillin], BOTH).cubes[0].id
        certificate = memory.erase(fusion if which == "fusion" else nuts)
        if which == "fusion":
            assert (certificate.cubes, told(memory)) == (3, set())
        else:
            assert (certificate.cubes, told(memory)) == (2, {PENICILLIN}), "the rest is there again"
            assert memory.search("penicillin", user="ana")[0].cube.id == penicillin
            assert [one.change.op for one in memory.history(penicillin).revisions] == ["add"]
        memory.flush()
        gone = b"allergic to nuts"
    if "://" not in database:
        files = [path for path in Path(database).parent.iterdir() if path.is_file()]
        assert not any(gone in path.read_bytes() for path in files)


def test_what_was_separated_is_not_erased_together(memory: mnemic.Memory) -> None:
    nuts, penicillin = two(memory)
    change = memory.fuse([nuts, penicillin], BOTH)
    memory.undo(change.id)
    assert memory.erase(nuts).cubes == 2  # it, and what quoted it
    assert told(memory) == {PENICILLIN}


def test_a_fusion_ends_as_one(memory: mnemic.Memory, clock: FakeClock) -> None:
    memory.policies.add("keep 30 days then erase after 5 days", user="ana")
    nuts, penicillin = two(memory)
    clock.forward(20 * DAY)
    fusion = memory.fuse([nuts, penicillin], BOTH).cubes[0].id
    clock.forward(20 * DAY)  # the parts alone would be over, and destroyed
    assert memory.retention.sweep().erased == 0
    assert memory.get(fusion).text == BOTH
    clock.forward(11 * DAY)
    for one in (fusion, nuts):
        with pytest.raises(Expired):
            memory.history(one)
    clock.forward(5 * DAY)
    memory.retention.sweep()
    for one in (fusion, nuts, penicillin):
        with pytest.raises(NotFound):
            memory.history(one)


def test_a_hold_on_a_part_holds_the_whole(memory: mnemic.Memory) -> None:
    nuts, penicillin = two(memory)
    fusion = memory.fuse([nuts, penicillin], BOTH).cubes[0].id
    memory.policies.add("legal hold", user="ana", session="s2")  # where only a part stands
    for one in (fusion, penicillin):
        with pytest.raises(LegalHold):
            memory.erase(one)
    (held,) = memory.add("more", user="ana", session="s2")
    with pytest.raises(LegalHold):
        memory.fuse([fusion, held.id], "all")
    assert told(memory, everything=True) == {BOTH, "more"}
    assert memory.erase(nuts).cubes == 2  # it and what quotes it; what is held says again what it said
    assert told(memory) == {PENICILLIN}


def test_what_cannot_be_fused_is_refused_and_nothing_changed(memory: mnemic.Memory) -> None:
    nuts, penicillin = two(memory)
    (other,) = memory.add("Bo likes tea.", user="bo")
    (home,) = memory.add("I live in Lisbon.", user="ana")
    memory.flush()
    (fact,) = memory.facts(user="ana")
    refused = [
        (NotFound, [nuts, "00000000-0000-7000-8000-000000000000"], BOTH, "no cube"),
        (InvalidOption, [nuts], BOTH, "at least two"),
        (InvalidOption, [nuts, nuts], BOTH, "at least two"),
        (InvalidOption, [], BOTH, "at least one"),
        (InvalidOption, [nuts, other.id], BOTH, "several users"),
        (InvalidOption, [nuts, fact.cube.id], BOTH, "only texts that were told"),
        (InvalidText, [nuts, penicillin], "", "empty"),
    ]
    before = memory.changes(everyone=True)
    for error, ids, text, said in refused:
        with pytest.raises(error, match=said):
            memory.fuse(ids, text)
    memory.freeze(home.id)
    with pytest.raises(Frozen):
        memory.fuse([nuts, home.id], BOTH)
    memory.fuse([nuts, penicillin], BOTH)
    with pytest.raises(NotFound, match="restore it before you fuse"):
        memory.fuse([nuts, penicillin], BOTH)
    assert len(memory.changes(everyone=True)) == len(before) + 3


def test_a_fusion_is_seen_by_who_may_see_all_its_parts(memory: mnemic.Memory) -> None:
    nuts, penicillin = two(memory)
    memory.governance.add_principal("nurse")
    memory.governance.grant("nurse", "read", user="ana", unless="drugs")
    memory.governance.grant("nurse", "write", user="ana", label="health")
    nurse = memory.as_principal("nurse")
    with pytest.raises(NotFound):
        nurse.fuse([nuts, penicillin], BOTH)
    (told_, other) = (memory.add(text, user="ana", labels=("health",))[0].id for text in ("a", "b"))
    memory.governance.grant("nurse", "read", user="ana")
    with pytest.raises(AccessDenied):
        nurse.fuse([told_, penicillin], "a and penicillin")
    nurse.fuse([told_, other], "a and b")
    memory.governance.add_principal("clerk")
    memory.governance.grant("clerk", "read", user="ana", unless="drugs")
    memory.fuse([nuts, penicillin], BOTH)
    assert {cube.text for cube in memory.as_principal("clerk").list(user="ana")} == {"a and b"}
    assert memory.audit.verify().problems == ()


def test_a_fusion_goes_along_with_a_dump_and_a_merge(database: str, tmp_path: Path) -> None:
    with mnemic.open(database) as memory, mnemic.open(tmp_path / "other.db") as other:
        nuts, penicillin = two(memory)
        fusion = memory.fuse([nuts, penicillin], BOTH).cubes[0].id
        memory.dump(tmp_path / "a.mnemic", everyone=True)
        other.load(tmp_path / "a.mnemic")
        assert told(other) == {BOTH}
        assert other.history(nuts)[-1].header.state is State.merged
        other.erase(nuts)
        assert told(other) == {PENICILLIN}
        other.dump(tmp_path / "b.mnemic", everyone=True)
        account = memory.load(tmp_path / "b.mnemic")
        assert account.gone == 2
        assert told(memory) == {PENICILLIN}, "erasing travels, and takes nothing else along"
        assert other.load(tmp_path / "a.mnemic").stored == 0
        assert told(other) == {PENICILLIN}
        with pytest.raises(NotFound):
            memory.history(fusion)
