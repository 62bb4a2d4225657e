"""What a grant gives: rights on scopes and labels, for a time; many rows at once get what one would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from clocks import DAY, FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st

import mnemic
from mnemic.cube.errors import AccessDenied, InvalidOption, LegalHold, NotFound
from mnemic.cube.model import ANY, Scope
from mnemic.cube.reach import Reach
from mnemic.governance.policy import Access, Grant, Principal, Right, check, read_rights

MUCH_LATER = "2999-01-01"


def texts(memory: mnemic.Memory, **reach: object) -> list[str]:
    return [cube.text for cube in memory.list(**reach)]  # type: ignore[arg-type]


def test_sharing_read_only_shared_and_private(database: str) -> None:
    with mnemic.open(database) as owner:
        owner.governance.add_principal("ana", owns="ana")
        owner.governance.add_principal("bo", owns="bo")
        ana, bo = owner.as_principal("ana"), owner.as_principal("bo")
        (cube,) = ana.add("The key is under the mat.", user="ana")
        with pytest.raises(AccessDenied):  # private: nobody else has a grant
            bo.list(user="ana")
        given = ana.governance.grant("bo", "read", user="ana")  # read-only: she may share what is hers
        assert texts(bo, user="ana") == ["The key is under the mat."]
        assert bo.search("key", user="ana")[0].cube.id == cube.id
        with pytest.raises(AccessDenied, match="bo has no grant to write"):
            bo.update(cube.id, "It is not.")
        with pytest.raises(AccessDenied):
            bo.add("x", user="ana")
        with pytest.raises(AccessDenied):
            bo.governance.grant("bo", "write", user="ana")
        more = ana.governance.grant("bo", "write", user="ana")  # shared
        assert bo.update(cube.id, "It is in the shed.").count == 1
        assert bo.delete(cube.id).count == 1
        ana.governance.revoke(given.id)
        ana.governance.revoke(more.id)
        with pytest.raises(AccessDenied):
            bo.list(user="ana")
        with pytest.raises(NotFound):
            bo.get(cube.id)
        with pytest.raises(NotFound):
            ana.governance.revoke(given.id)


def test_grants_on_labels_on_agents_for_a_time_and_for_everyone(database: str) -> None:
    clock = FakeClock()
    with mnemic.open(database, clock=clock) as owner:
        owner.add("plan: squats", user="ana", agent="coach", labels="training")
        owner.add("pulse 48", user="ana", agent="coach", labels=["training", "health"])
        owner.add("allergic to nuts", user="ana", labels="health")
        owner.governance.add_principal("coach", kind="agent")
        coach = owner.as_principal("coach")
        owner.governance.grant("coach", "read,write", user="ana", label="training", unless="health")
        assert texts(coach, user="ana") == ["plan: squats"]
        with pytest.raises(AccessDenied):
            coach.add("no label", user="ana")
        with pytest.raises(AccessDenied):
            coach.add("both", user="ana", labels=["training", "health"])
        assert coach.add("plan: rows", user="ana", labels="training")
        until = owner.governance.grant(
            "coach", "read", user="ana", label="health", until=(clock.at + DAY) / 1e6
        )
        assert set(texts(coach, user="ana")) == {"plan: squats", "pulse 48", "allergic to nuts", "plan: rows"}
        clock.forward(DAY)
        assert set(texts(coach, user="ana")) == {"plan: squats", "plan: rows"}
        assert until in owner.governance.grants("coach")
        owner.governance.add_principal("guest")
        owner.governance.grant("everyone", "read", agent="coach")
        assert set(texts(owner.as_principal("guest"), agent="coach")) == {"plan: squats", "pulse 48"}
        assert texts(owner.as_principal("guest"), everyone=True) == ["plan: squats", "pulse 48"]


def test_who_may_write_but_not_read_learns_nothing_by_writing(database: str) -> None:
    with mnemic.open(database) as owner:
        (cube,) = owner.add("first", user="ana", id="1")
        owner.update(cube.id, "a secret since")
        owner.governance.add_principal("sensor", kind="service")
        owner.governance.grant("sensor", "contributor", user="ana")
        sensor = owner.as_principal("sensor")
        assert sensor.add("21 degrees", user="ana").change_id
        again = sensor.add("first", user="ana", id="1")
        assert list(again) == []
        assert [one.reason for one in again.skipped] == ["already stored under this id"]
        with pytest.raises(AccessDenied):
            sensor.search("secret", user="ana")
        with pytest.raises(NotFound):
            sensor.update(cube.id, "x")


def test_the_past_of_what_was_deleted_is_for_who_could_bring_it_back(database: str) -> None:
    with mnemic.open(database) as owner:
        (cube,) = owner.add("told by mistake", user="ana", labels="private")
        owner.delete(cube.id)
        owner.governance.add_principal("reader")
        owner.governance.grant("reader", "read", user="ana")
        owner.governance.add_principal("editor")
        owner.governance.grant("editor", "editor", user="ana")
        owner.governance.add_principal("careful")
        owner.governance.grant("careful", "editor", user="ana", unless="private")
        for name in ("reader", "careful"):
            with pytest.raises(NotFound):
                owner.as_principal(name).history(cube.id)
            with pytest.raises(NotFound):
                owner.as_principal(name).explain(cube.id)
        assert owner.as_principal("editor").history(cube.id)[0].text == "told by mistake"
        with pytest.raises(NotFound):
            owner.as_principal("editor").get(cube.id)


def test_what_was_made_from_what_may_not_be_seen_is_not_seen(database: str) -> None:
    from vaults import derive

    with mnemic.open(database) as owner:
        (open_,) = owner.add("Ana runs.", user="ana", session="gym", labels="training")
        (hidden,) = owner.add("Ana has asthma.", user="ana", session="doctor")
        vault = owner._parts.vault
        scope = Scope("default", "ana", None, "gym")
        both = derive(vault, scope, "Ana runs with asthma.", [open_.id, hidden.id])
        further = derive(vault, scope, "Asthma is no hindrance.", [both])
        fine = derive(vault, scope, "Ana moves.", [open_.id])
        owner.governance.add_principal("gym")
        owner.governance.grant("gym", "read", user="ana", session="gym")
        gym = owner.as_principal("gym")
        every = {"where": {"origin": ["user", "derived"]}}
        assert set(texts(gym, user="ana", **every)) == {"Ana runs.", "Ana moves."}
        assert set(texts(gym, user="ana", as_of=MUCH_LATER, **every)) == {"Ana runs.", "Ana moves."}
        assert len(texts(owner, user="ana", **every)) == 5
        assert {hit.text for hit in gym.search("asthma", user="ana", **every)} <= {"Ana runs.", "Ana moves."}
        assert "asthma" not in gym.context("asthma", user="ana").text.lower()
        for id in (both, further):
            with pytest.raises(NotFound):
                gym.get(id)
        assert gym.get(fine).text == "Ana moves."
        assert gym.explain(open_.id).used_by == (fine,)
        assert set(owner.explain(open_.id).used_by) == {both, further, fine}


def test_rules_count_for_other_open_memories_at_once(database: str) -> None:
    with mnemic.open(database) as owner:
        owner.add("x", user="ana")
        owner.governance.add_principal("bo")
        grant = owner.governance.grant("bo", "read", user="ana")
        with mnemic.open(database, principal="bo") as bo:
            assert bo.count(user="ana") == 1
            owner.governance.revoke(grant.id)
            with pytest.raises(AccessDenied):
                bo.count(user="ana")
            owner.governance.grant("bo", "read", user="ana")
            assert bo.count(user="ana") == 1


def test_a_change_of_rules_that_fails_changes_nothing(tmp_path: Path) -> None:
    with mnemic.open(tmp_path / "a.db") as owner:
        owner.governance.add_principal("bo")
        for attempt, says in (
            (lambda: owner.governance.add_principal("bo"), "already"),
            (lambda: owner.governance.add_principal("everyone"), "cannot name"),
            (lambda: owner.governance.add_principal("x", kind="robot"), "user, agent, service"),
            (lambda: owner.governance.grant("bo", "fly"), "read, write, admin"),
            (lambda: owner.governance.grant("bo", "read", user="\x00"), "user="),
            (lambda: owner.policies.add("keep it short"), "keep 30 days"),
            (lambda: owner.policies.add("keep 0 days"), "not a span"),
            (lambda: owner.policies.add("redact everything"), "there are all, key"),
            (lambda: owner.policies.add("redact"), "say what to redact"),
        ):
            with pytest.raises(InvalidOption, match=says):
                attempt()
        with pytest.raises(NotFound):
            owner.governance.grant("eve", "read")
        assert [one.name for one in owner.governance.principals()] == ["bo"]
        assert list(owner.governance.grants()) == []
        assert list(owner.policies.list()) == []
        assert owner.audit.verify().rows == 1


def test_rights_by_name() -> None:
    assert read_rights("read, write") == Right.read | Right.write == read_rights("editor")
    assert read_rights(["owner"]) == Right.read | Right.write | Right.admin
    with pytest.raises(InvalidOption):
        read_rights("")


names = st.sampled_from(["ana", "bo", "%"]) | st.none()
fields = names | st.just(ANY)
reaches = st.builds(Reach, fields, fields, fields)
scopes = st.builds(Scope, st.just("t"), names, names, names)


@given(one=reaches, other=reaches, scope=scopes)
def test_meeting_and_covering_are_what_their_scopes_say(one: Reach, other: Reach, scope: Scope) -> None:
    if one.has(scope) and other.has(scope):
        assert one.meets(other)
    if one.covers(other) and other.has(scope):
        assert one.has(scope)
    assert Reach.from_json(one.to_json()) == one


labels = st.sampled_from(["red", "blue", None])
grants = st.builds(
    Grant,
    id=st.just("g"),
    principal=st.none(),
    rights=st.sampled_from([Right.read, Right.write, Right.read | Right.write, Right.admin]),
    reach=reaches,
    label=labels,
    unless=labels,
    until=st.sampled_from([None, 50, 150]),
)


@given(held=st.lists(grants, max_size=4), scope=scopes, has=st.sets(st.sampled_from(["red", "blue"])))
def test_default_deny_and_nothing_but_grants_allow(held: list[Grant], scope: Scope, has: set[str]) -> None:
    access = Access(principal=Principal(id="p", name="p", kind="user"), grants=tuple(held))
    expected = any(
        one.rights & Right.read
        and (one.until is None or one.until > 100)
        and all(
            want is ANY or want == have
            for want, have in zip(
                (one.reach.user, one.reach.agent, one.reach.session), scope[1:], strict=True
            )
        )
        and (one.label is None or one.label in has)
        and (one.unless is None or one.unless not in has)
        for one in held
    )
    assert check(access, Right.read, scope, has, now=100) == expected
    assert check(Access(), Right.admin, scope, has, now=100), "the owner may everything"
    assert not check(Access(principal=access.principal), Right.read, scope, has, now=100)


@settings(max_examples=15)
@given(data=st.data())
def test_many_rows_at_once_get_what_one_would(
    fresh_database: Callable[[str], str], data: st.DataObject
) -> None:
    """The mask over an index against `check` for each cube, with random grants."""
    clock = FakeClock(100)
    with mnemic.open(fresh_database("sqlite"), clock=clock) as owner:
        told = data.draw(
            st.lists(st.tuples(scopes, st.sets(st.sampled_from(["red", "blue"]))), min_size=1, max_size=8)
        )
        for number, (scope, has) in enumerate(told):
            if scope.user is not None or scope.agent is not None:
                owner.add(
                    f"text {number}",
                    user=scope.user,
                    agent=scope.agent,
                    session=scope.session,
                    labels=sorted(has),
                )
        owner.governance.add_principal("p")
        for one in data.draw(st.lists(grants, max_size=4)):
            until = None if one.until is None else one.until / 1e6
            owner.governance.grant(
                "p", [right.name for right in one.rights], **one.reach.given(),
                label=one.label, unless=one.unless, until=until,
            )  # fmt: skip
        everything = owner.list(everyone=True) if owner.count(everyone=True) else []
        held = tuple(owner.governance.grants("p")) + tuple(owner.governance.grants("everyone"))
        access = Access(principal=owner.governance.principals()[0], grants=held)
        expected = {
            cube.id
            for cube in everything
            if check(access, Right.read, cube.header.scope, cube.header.labels, now=clock())
        }
        guest = owner.as_principal("p")
        try:
            seen = {cube.id for cube in guest.list(everyone=True)}
        except AccessDenied:
            seen = set()
        assert seen == expected
        for cube in everything:
            try:
                assert guest.get(cube.id) == cube
                assert cube.id in expected
            except NotFound:
                assert cube.id not in expected


def test_an_erased_user_stands_in_no_grant_and_no_policy(database: str) -> None:
    with mnemic.open(database) as owner:
        owner.add("x", user="ZOE")
        owner.add("y", user="bo")
        owner.governance.add_principal("coach")
        owner.governance.grant("coach", "read", user="ZOE")
        kept = owner.governance.grant("coach", "read", user="bo")
        owner.policies.add("keep 30 days", user="ZOE", label="chat")
        rule = owner.policies.add("keep 60 days")
        hold = owner.policies.add("legal hold", user="ZOE", label="case")
        with pytest.raises(LegalHold):
            owner.erase(user="ZOE")
        owner.policies.drop(hold.id)
        done = owner.erase(user="ZOE")
        assert (done.rooms["grants"], done.rooms["policy"]) == (1, 1)
        assert [one.id for one in owner.governance.grants()] == [kept.id]
        assert [one.id for one in owner.policies.list()] == [rule.id]
        coach = owner.as_principal("coach")
        owner.add("told anew", user="ZOE")
        with pytest.raises(AccessDenied):
            coach.list(user="ZOE")


def test_no_byte_of_an_erased_users_name_is_left_in_the_rules(tmp_path: Path) -> None:
    with mnemic.open(tmp_path / "a.db") as owner:
        owner.add("x", user="ZAUBERWORT")
        owner.governance.add_principal("coach")
        owner.governance.grant("coach", "read", user="ZAUBERWORT")
        owner.policies.add("keep 30 days", user="ZAUBERWORT")
        owner.erase(user="ZAUBERWORT")
    assert b"ZAUBERWORT" not in b"".join(one.read_bytes() for one in tmp_path.iterdir())
