"""How long things are kept: what is over is served by no way in, swept or not; a legal hold keeps it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clocks import DAY, HOUR, START, FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st

import mnemic
from mnemic.cube.errors import AccessDenied, Expired, InvalidOption, LegalHold, NotFound, StaleMemory
from mnemic.cube.ids import id_text
from mnemic.cube.model import Kind, Origin, Scope, State
from mnemic.governance.retention import (
    NEVER,
    Archive,
    Decay,
    Hold,
    Keep,
    Policy,
    Reclaim,
    WhileUsed,
    fate_of,
    read_rule,
    read_span,
)
from mnemic.vault.codec import Draft
from mnemic.vault.governing import Use

RANKED = ("search", "context", "ask")  # what has no features is not ranked


def served(
    memory: mnemic.Memory, id: str, *, text: str = "ripe pears", user: str = "ana", where: Any = None
) -> dict[str, bool]:
    """By which ways in a cube comes out."""

    def by_id(verb: Callable[[str], Any]) -> bool:
        try:
            return bool(verb(id))
        except Expired as error:
            return text in str(error)

    return {
        "search": any(hit.cube.id == id for hit in memory.search(text, user=user, k=100)),
        "context": any(cube.id == id for cube in memory.context(text, user=user, where=where).cubes),
        "ask": any(cube.id == id for cube in memory.ask(text, user=user, where=where).cubes),
        "list": any(cube.id == id for cube in memory.list(user=user, where=where)),
        "as of": any(cube.id == id for cube in memory.list(user=user, where=where, as_of="2999-01-01")),
        "count": memory.count(user=user, where=where) > 0,
        "changes": any(id in one.cubes for one in memory.changes(user=user)),
        "get": by_id(memory.get),
        "version": by_id(lambda one: memory.get(one, version=1)),
        "history": by_id(memory.history),
        "explain": by_id(memory.explain),
    }


@pytest.mark.parametrize(
    "reach", [{"user": "ana"}, {"agent": "coach"}, {"session": "s"}, {"label": "chat"}, {}]
)
def test_what_is_over_comes_out_by_no_way_in(database: str, reach: dict[str, str]) -> None:
    clock = FakeClock()
    with mnemic.open(database, clock=clock) as memory, mnemic.open(database, clock=clock) as other:
        policy = memory.policies.add("keep 30 days", **reach)
        (cube,) = memory.add("ripe pears", user="ana", agent="coach", session="s", labels="chat", id="1")
        clock.to(cube.header.recorded_at, 30 * DAY - 1)
        assert all(served(memory, cube.id).values())
        clock.forward(1)
        for one in (memory, other):
            assert not any(served(one, cube.id).values())
        with pytest.raises(Expired, match=r"was kept until .* \(keep 30 days\)"):
            memory.update(cube.id, "longer")
        with pytest.raises(Expired):
            memory.delete(cube.id)
        assert memory.delete(where={"role": "user"}, user="ana").count == 0
        again = memory.add("ripe pears", user="ana", agent="coach", session="s", labels="chat", id="1")
        assert (list(again), again.skipped[0].reason) == ([], "has expired; an id that expired stays so")
        memory.policies.drop(policy.id)
        assert all(served(other, cube.id).values()), "nothing was removed: the rule is gone, it is there"
        memory.policies.add("keep 30 days", **reach)
        assert memory.retention.sweep().expired == 1
        memory.policies.drop(memory.policies.list()[0].id)
        assert not any(served(other, cube.id).values()), "what was taken out stays out"
        assert memory.retention.sweep().expired == 0


def test_an_update_begins_its_time_anew(database: str) -> None:
    clock = FakeClock()
    with mnemic.open(database, clock=clock) as memory:
        memory.policies.add("keep 2 days", user="ana")
        (cube,) = memory.add("ripe pears", user="ana")
        clock.forward(DAY)
        (again,) = memory.update(cube.id, "ripe pears and plums").cubes
        clock.to(again.header.recorded_at, 2 * DAY - 1)
        assert memory.get(cube.id).text == "ripe pears and plums"
        clock.forward(1)
        with pytest.raises(Expired):
            memory.get(cube.id)


def test_a_legal_hold_keeps_what_others_would_take(database: str) -> None:
    clock = FakeClock()
    with mnemic.open(database, clock=clock) as memory:
        memory.policies.add("keep 1 hour")
        hold = memory.policies.add("legal hold", user="ana", label="case 7")
        (held,) = memory.add("ripe pears", user="ana", labels="case 7")
        (free,) = memory.add("ripe plums", user="ana")
        clock.forward(DAY)
        assert memory.get(held.id)
        with pytest.raises(Expired):
            memory.get(free.id)
        with pytest.raises(LegalHold, match="may not be deleted"):
            memory.delete(held.id)
        with pytest.raises(LegalHold):
            memory.delete(where={"labels": "case 7"}, user="ana")
        assert [one.id for one in memory.retention.due()] == [free.id]
        assert memory.retention.sweep().expired == 1
        memory.policies.drop(hold.id)
        with pytest.raises(Expired):
            memory.get(held.id)


def test_kept_while_used_and_decay(database: str) -> None:
    clock = FakeClock()
    with mnemic.open(database, clock=clock) as memory:
        memory.policies.add("keep while used 10 days", user="ana")
        memory.policies.add("decay half-life 5 days below 0.25", user="bo")
        used, idle = memory.add(["green tea", "black coffee"], user="ana")
        (often, once) = memory.add(["red wine", "white milk"], user="bo")
        for _ in range(4):
            clock.forward(3 * DAY)
            memory.search("green tea", user="ana", k=1)
            if clock.at < START + 8 * DAY:
                memory.get(often.id)
            memory.flush()
        assert memory.get(used.id)
        for gone in (idle, once):  # once: 0.25 is reached after two half-lives
            with pytest.raises(Expired):
                memory.get(gone.id)
        assert memory.get(often.id), "1 + 2 uses, last on day 6: 3 · 2^-(6/5) > 0.25"
        with mnemic.open(database, clock=clock) as other:
            assert other.get(used.id), "uses are the vault's, not a process's"
        clock.forward(13 * DAY)
        with pytest.raises(Expired):
            memory.get(used.id)


def test_uses_are_counted_only_where_a_rule_needs_them(database: str) -> None:
    from vaults import rows

    with mnemic.open(database) as memory:
        memory.add("x", user="ana")
        memory.search("x", user="ana")
        memory.flush()
        assert rows(memory._parts.vault, "SELECT * FROM usage") == []
        memory.policies.add("keep while used")
        memory.search("x", user="ana")
        memory.search("x", user="ana")
        memory.flush()
        ((uses,),) = rows(memory._parts.vault, "SELECT uses FROM usage")
        assert uses == 2


def test_use_activates_and_idleness_archives(database: str) -> None:
    clock = FakeClock()
    with mnemic.open(database, clock=clock) as memory:
        memory.policies.add("archive after 90 days", user="ana")
        (cube,) = memory.add("ripe pears", user="ana")

        def state() -> State:
            return memory.list(user="ana")[0].header.state

        assert state() is State.generated
        memory.get(cube.id)
        memory.flush()
        assert state() is State.activated
        clock.forward(90 * DAY)
        assert memory.retention.sweep().archived == 0
        clock.forward(HOUR)
        assert memory.retention.sweep().archived == 1
        assert state() is State.archived
        assert memory.search("ripe pears", user="ana"), "what is archived is still found"
        memory.flush()
        assert state() is State.activated


def test_what_retention_will_remove_next_is_listed(database: str) -> None:
    clock = FakeClock()
    with mnemic.open(database, clock=clock) as memory:
        memory.policies.add("keep 10 days", user="ana")
        memory.policies.add("keep 2 days", user="ana", label="chat")
        (chat,) = memory.add("ripe pears", user="ana", labels="chat")
        clock.forward(DAY)
        (note,) = memory.add("ripe pears", user="ana")
        memory.add("ripe pears", user="bo")
        assert memory.retention.due() == []
        soon = memory.retention.due("2 days")
        assert [(one.id, one.rule, one.over) for one in soon] == [(chat.id, "keep 2 days", False)]
        clock.to(chat.header.recorded_at, 2 * DAY)
        listed = memory.retention.due("30 days")
        assert [(one.id, one.rule, one.over) for one in listed] == [
            (chat.id, "keep 2 days", True),
            (note.id, "keep 10 days", False),
        ]
        assert listed[0].scope == Scope("default", "ana")
        assert memory.retention.due("30 days", user="bo") == []
        assert memory.retention.sweep().expired == 1
        assert [one.id for one in memory.retention.due("30 days")] == [note.id]
        memory.governance.add_principal("ana", owns="ana")
        ana = memory.as_principal("ana")
        assert [one.id for one in ana.retention.due("30 days", user="ana")] == [note.id]
        with pytest.raises(AccessDenied):
            ana.retention.due("30 days")
        with pytest.raises(InvalidOption, match="30 days"):
            memory.retention.due("soon")


def test_what_was_made_from_what_is_over_is_over_too(database: str) -> None:
    from vaults import derive

    clock = FakeClock()
    with mnemic.open(database, clock=clock) as memory:
        memory.policies.add("keep 1 hour", user="ana", label="chat")
        (chat,) = memory.add("Ana has asthma.", user="ana", labels="chat")
        vault, scope = memory._parts.vault, Scope("default", "ana")
        fact = derive(vault, scope, "asthma: yes", [chat.id])
        further = derive(vault, scope, "needs an inhaler", [fact])
        elsewhere = derive(vault, Scope("default", "ward"), "one asthma patient", [chat.id])
        made = {"origin": ["derived", "user"]}
        for id, user in ((fact, "ana"), (further, "ana"), (elsewhere, "ward")):
            ways = served(memory, id, text="asthma inhaler patient", user=user, where=made)
            unseen = {"as of"} if user == "ward" else set()  # what rests on another's memory has no past
            assert {way for way, comes in ways.items() if not comes and way not in RANKED} == unseen
        clock.to(chat.header.recorded_at, HOUR)
        for id, user in ((chat.id, "ana"), (fact, "ana"), (further, "ana"), (elsewhere, "ward")):
            assert not any(served(memory, id, text="asthma inhaler patient", user=user, where=made).values())


def test_a_sweep_asks_again_before_it_removes(database: str) -> None:
    from mnemic.vault.expiring import expire

    with mnemic.open(database) as memory:
        one, other = memory.add(["one", "two"], user="ana")
        vault = memory._parts.vault
        gone = expire(vault, [one.id, other.id], lambda _, __, row: row.payload == b"one", reason="test")
        assert gone == 1
        assert [cube.text for cube in memory.list(user="ana")] == ["two"]
        with pytest.raises(Expired, match="has expired"):
            memory.get(one.id)
        with pytest.raises(NotFound):
            memory.get(one.id)


@pytest.mark.parametrize(
    ("said", "rule"),
    [
        ("keep 30 days", Keep(30 * DAY)),
        ("Keep 1 HOUR", Keep(HOUR)),
        ("keep while used", WhileUsed(30 * DAY)),
        ("keep while used 2 weeks", WhileUsed(14 * DAY)),
        ("keep while used within 14 days", WhileUsed(14 * DAY)),
        ("decay half-life 7 days", Decay(7 * DAY, 0.1)),
        ("decay half-life 7 days below 0.05", Decay(7 * DAY, 0.05)),
        ("archive after 90 days", Archive(90 * DAY)),
        ("legal hold", Hold()),
    ],
)
def test_rules_in_words(said: str, rule: object) -> None:
    read = read_rule(said)
    assert read == rule
    assert read_rule(str(read)) == read, "what is printed can be read"


@pytest.mark.parametrize(
    "said", ["", "keep", "keep 30", "keep -1 days", "hold", "keep 30 dogs", "keep 1e3 days"]
)
def test_what_is_no_rule(said: str) -> None:
    assert read_rule(said) is None


@pytest.mark.parametrize("said", ["keep 0 days", "keep 999999999 years", "decay half-life 1 day below 0.0"])
def test_rules_that_cannot_be_kept(said: str) -> None:
    with pytest.raises(InvalidOption):
        read_rule(said)


def test_spans() -> None:
    assert read_span("12 hours") == 12 * HOUR
    with pytest.raises(InvalidOption):
        read_span("12")


@pytest.mark.parametrize("deleted", [False, True])
def test_what_a_rule_says_is_destroyed_by_the_sweep_after_its_grace(tmp_path: Path, *, deleted: bool) -> None:
    """Listed beforehand, restorable until then, and then no byte of it is left."""
    path, clock = tmp_path / "a.db", FakeClock()
    with mnemic.open(path, clock=clock) as memory:
        memory.audit.start()
        memory.policies.add("keep 2 days then erase after 3 days", user="ana", label="chat")
        (chat,) = memory.add("the word is ZAUBERWORT", user="ana", labels="chat")
        (kept,) = memory.add("kept for good", user="ana")
        if deleted:
            memory.delete(chat.id)
        listed = memory.retention.due("6 days")
        deeds = ["erase"] if deleted else ["expire", "erase"]
        assert [(one.id, one.deed) for one in listed] == [(chat.id, deed) for deed in deeds]
        assert {one.rule for one in listed} == {"keep 2 days then erase after 3 days"}
        assert listed[-1].at - chat.header.recorded_at == timedelta(days=5)
        assert not any(one.over for one in listed)
        clock.forward(2 * DAY + HOUR)
        swept = memory.retention.sweep()
        assert (swept.expired, swept.erased) == (0 if deleted else 1, 0)
        with pytest.raises(Expired, match="restore") as caught:
            memory.get(chat.id)
        assert caught.value.restorable
        assert b"ZAUBERWORT" in path.read_bytes() + Path(f"{path}-wal").read_bytes()
        clock.forward(3 * DAY)
        (due,) = memory.retention.due()
        assert (due.id, due.deed, due.over) == (chat.id, "erase", True)
        for attempt in (memory.get, lambda id: memory.restore(id, 1)):
            with pytest.raises(Expired) as caught:
                attempt(chat.id)
            assert not caught.value.restorable, "its grace is over, swept or not"
        swept = memory.retention.sweep()
        assert (swept.erased, swept.waits_for) == (1, None)
        with pytest.raises(NotFound, match="no cube"):
            memory.history(chat.id)
        assert memory.get(kept.id).text == "kept for good"
        assert memory.audit.log()[-1].verb == "erase"
    assert b"ZAUBERWORT" not in b"".join(one.read_bytes() for one in tmp_path.iterdir())


def test_what_is_over_by_its_own_time_can_be_destroyed_too(database: str) -> None:
    clock = FakeClock()
    with mnemic.open(database, clock=clock) as memory:
        memory.policies.add("erase expired after 1 day")
        memory.policies.add("keep 5 days", label="short")
        gone, held, changed = memory.add(
            [{"content": str(n), "labels": ["short", *more]} for n, more in enumerate([[], ["case"], []])],
            user="ana",
        )
        memory.policies.add("legal hold", label="case")
        clock.forward(5 * DAY + HOUR)
        assert [one.id for one in memory.retention.due() if one.deed == "expire"] == [gone.id, changed.id]
        assert memory.retention.sweep().expired == 2
        memory.restore(changed.id, 1)
        clock.forward(DAY)
        assert [(one.id, one.deed) for one in memory.retention.due()] == [(gone.id, "erase")]
        assert memory.retention.sweep().erased == 1
        assert {cube.id for cube in memory.list(user="ana")} == {held.id, changed.id}


def test_what_was_computed_is_over_with_what_it_was_computed_from(database: str) -> None:
    """By a rule, by a hold and by a grant, not by `expires_at` alone."""
    clock = FakeClock()
    with mnemic.open(database, clock=clock) as owner:
        (raw,) = owner.add("x", user="ana", labels="chat")
        kept = _computed_from(owner, raw.id)
        owner.governance.add_principal("bo")
        owner.governance.grant("bo", "read", user="ana", unless="chat")
        bo = owner.as_principal("bo")

        def why(memory: mnemic.Memory) -> str | None:
            with memory._vault.snapshot() as snapshot:
                return snapshot.why_not_current(kept)

        assert why(owner) is None
        assert "not there for who asks" in str(why(bo))
        owner.policies.add("keep 1 day", label="chat")
        clock.forward(DAY + HOUR)
        assert "keep 1 day" in str(why(owner))
        with owner._vault.snapshot() as snapshot, pytest.raises(StaleMemory, match="keep 1 day"):
            snapshot.require_current(kept)
        owner.policies.add("legal hold", label="chat")
        assert why(owner) is None


def _computed_from(memory: mnemic.Memory, cube: str) -> str:
    """A derived cube as `as_kv` stores it, without a model."""
    vault = memory._vault
    with vault.snapshot() as snapshot:
        cited = tuple(snapshot.citations([cube]))
        scope = snapshot.head(cube).header.scope
    made = Draft(payload=b"kv", kind=Kind.activation, origin=Origin.derived, sources=cited)
    (outcome,) = vault.append(scope, [made]).outcomes
    assert outcome.row is not None
    return id_text(outcome.row.cube)


def test_what_is_used_or_held_after_it_was_listed_is_not_destroyed(tmp_path: Path) -> None:
    clock = FakeClock()
    with mnemic.open(tmp_path / "a.db", clock=clock) as memory:
        memory.policies.add("keep 1 day then erase after 1 day", label="chat")
        (cube,) = memory.add("x", user="ana", labels="chat")
        clock.forward(3 * DAY)
        parts = memory.retention._parts

        def held_meanwhile(deed: str) -> Any:
            listed = list(parts(deed))
            if deed == "erase":
                memory.policies.add("legal hold", label="chat")
            return listed

        sweeper = memory.retention
        sweeper._parts = held_meanwhile  # type: ignore[method-assign]
        assert sweeper.sweep().erased == 0
        assert memory.restore(cube.id, 1).cubes[0].text == "x"


rules = st.sampled_from(
    [
        *(Keep(3 * HOUR), Keep(DAY), WhileUsed(5 * HOUR), Decay(HOUR, 0.2), Archive(HOUR), Hold()),
        *(Keep(DAY, HOUR), WhileUsed(2 * HOUR, DAY), Decay(HOUR, 0.5, 3 * HOUR), Reclaim(5 * HOUR)),
    ]
)


@settings(max_examples=40)
@given(
    chosen=st.lists(st.tuples(rules, st.sampled_from([None, "red"])), max_size=4),
    labels=st.lists(st.sampled_from(["red", "blue"]), max_size=2, unique=True),
    expires_at=st.none() | st.integers(0, 2 * DAY),
    use=st.none() | st.builds(Use, st.integers(1, 9), st.integers(0, DAY)),
    recorded_at=st.integers(0, DAY),
)
def test_the_earliest_end_counts_and_a_hold_counts_most(
    chosen: list[tuple[Any, str | None]],
    labels: list[str],
    expires_at: int | None,
    use: Use | None,
    recorded_at: int,
) -> None:
    policies = [Policy(id=str(n), rule=rule, label=label) for n, (rule, label) in enumerate(chosen)]
    mine = [one.rule for one in policies if one.label is None or one.label in labels]
    fate = fate_of(
        policies, Scope("t", "ana"), labels, recorded_at=recorded_at, expires_at=expires_at, use=use
    )
    if any(isinstance(rule, Hold) for rule in mine):
        assert (fate.end, fate.gone) == (NEVER, NEVER)
        return
    uses, last = use or Use(0, recorded_at)
    ends = [expires_at] if expires_at is not None else []
    destroyed = []
    for rule in mine:
        if isinstance(rule, Keep):
            ends.append(recorded_at + rule.span)
        elif isinstance(rule, WhileUsed):
            ends.append(max(recorded_at, last) + rule.span)
        elif isinstance(rule, Decay):
            ends.append(max(recorded_at, last) + int(rule.half_life * np.log2((1 + uses) / rule.floor)))
        else:
            continue
        if rule.then is not None:
            destroyed.append(ends[-1] + rule.then)
    destroyed += [min(ends) + rule.span for rule in mine if isinstance(rule, Reclaim) and ends]
    assert fate.end == min(ends, default=NEVER)
    assert fate.gone == min(destroyed, default=NEVER)


@settings(max_examples=8)
@given(data=st.data())
def test_many_rows_at_once_end_when_one_would(
    fresh_database: Callable[[str], str], data: st.DataObject
) -> None:
    clock = FakeClock()
    with mnemic.open(fresh_database("sqlite"), clock=clock) as memory:
        cubes = []
        for number in range(6):
            has = data.draw(st.lists(st.sampled_from(["red", "blue"]), max_size=2, unique=True))
            session = data.draw(st.sampled_from([None, "s"]))
            cubes += memory.add(f"text {number}", user="ana", session=session, labels=has)
            clock.forward(HOUR)
        held = []
        for rule, label in data.draw(st.lists(st.tuples(rules, st.sampled_from([None, "red"])), max_size=3)):
            reach = data.draw(st.sampled_from([{}, {"session": "s"}, {"session": None}, {"user": "bo"}]))
            made = memory.policies.add(str(rule), **reach, label=label)
            held.append(replace(made))
        clock.forward(data.draw(st.integers(0, DAY)))
        expected = {
            cube.id
            for cube in cubes
            if fate_of(
                held,
                cube.header.scope,
                cube.header.labels,
                recorded_at=round(cube.header.recorded_at.timestamp() * 1e6),
                expires_at=None,
            ).end
            > clock()
        }
        assert {cube.id for cube in memory.list(user="ana")} == expected
        for cube in cubes:
            try:
                assert list(memory.history(cube.id)) == [cube]
                assert cube.id in expected
            except Expired:
                assert cube.id not in expected


@pytest.mark.parametrize("how", ["vault", "dump"])
def test_a_merge_takes_in_nothing_that_is_over_there(database: str, tmp_path: Path, how: str) -> None:
    clock = FakeClock()
    with mnemic.open(database, clock=clock) as here, mnemic.open(tmp_path / "there.db", clock=clock) as there:
        there.policies.add("keep 30 days", user="ana", label="chat")
        ripe = there.add("ripe pears", user="ana", labels="chat")[0]
        home = there.add("I live in Lisbon.", user="ana", labels="chat")[0]
        kept = there.add("I live in Porto.", user="ana")[0]
        there.flush()
        there.update(kept.id, "I live in Porto, by the river.", reason="by itself")
        both = there.freeze([ripe.id, kept.id], reason="the pears were ripe")
        there.undo(both.id)
        there.flush()
        clock.forward(31 * DAY)
        swept = there.add("soon over", user="bo", labels="x")[0]
        there.policies.add("keep 1 second", user="bo")
        clock.forward(DAY)
        there.retention.sweep()
        late = there.add("late", user="ana", labels="chat")[0]
        source: Path = tmp_path / "there.db"
        if how == "dump":
            source = tmp_path / "there.mnemic"
            there.dump(source, everyone=True)
        here.merge(source)
        here.flush()
        assert {cube.text for cube in here.list(everyone=True)} == {"I live in Porto, by the river.", "late"}
        assert [fact.value for fact in here.facts(user="ana", past=True)] == ["Porto"]
        for gone in (ripe, home, swept):
            with pytest.raises(NotFound):
                here.history(gone.id)
        reasons = {one.change.reason for one in here.history(kept.id).revisions}
        assert reasons == {None, "by itself"}, "the other reason speaks of what stayed behind too"
        assert [cube.id for cube in here.list(user="ana", where={"labels": "chat"})] == [late.id]


def test_a_merge_back_does_not_bring_back_what_was_swept(tmp_path: Path) -> None:
    clock = FakeClock()
    paths = tmp_path / "here.db", tmp_path / "there.db"
    with mnemic.open(paths[0], clock=clock) as here, mnemic.open(paths[1], clock=clock) as there:
        (pears,) = here.add("ripe pears", user="ana")
        there.merge(paths[0])
        here.policies.add("keep 30 days", user="ana")
        clock.forward(31 * DAY)
        assert here.retention.sweep().expired == 1
        assert here.merge(paths[1]).stored == 0
        assert not here.list(user="ana"), "the rules here count here"
        there.merge(paths[0])
        assert there.get(pears.id).text == "ripe pears", "and there those there"
