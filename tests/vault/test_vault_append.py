"""What is told is kept verbatim, in exactly its scope, in order, once."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from vaults import ANA, live, log, reasons, rows, say, someone, tell, texts, told

from mnemic.cube.errors import IdempotencyConflict, InvalidOption
from mnemic.cube.ids import id_text
from mnemic.cube.model import Kind, Origin, Place, Scope
from mnemic.vault import codec
from mnemic.vault.codec import Draft
from mnemic.vault.vault import Vault, open_vault

texts_of_people = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
flat = st.dictionaries(
    names, st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | names
)

# --- verbatim


@settings(max_examples=60)
@given(said=st.lists(texts_of_people, min_size=1, max_size=5))
@example(said=["\x00", "a\x00b", "é", "é", "\u202e", "\ufeff", "👩‍👩‍👧", "\r\n", " ", ""])
def test_any_text_comes_back_as_it_was_told(vault: Vault, said: list[str]) -> None:
    scope = someone()
    vault.append(scope, [say(text) for text in said])
    assert texts(vault, scope) == said


@settings(max_examples=40)
@given(
    role=st.none() | names,
    name=st.none() | names,
    client=st.none() | names,
    labels=st.lists(names, unique=True, max_size=3),
    metadata=flat,
    times=st.lists(st.none() | st.integers(-(10**15), 10**15), min_size=4, max_size=4),
    kind=st.sampled_from(Kind),
    origin=st.sampled_from(Origin),
    place=st.none()
    | st.builds(Place, source=st.none() | names, start=st.just(2), end=st.just(5), total=st.just(9)),
)
def test_a_header_comes_back_as_it_was_told(
    vault: Vault, role, name, client, labels, metadata, times, kind, origin, place
) -> None:
    scope = someone()
    at, valid_from, valid_to, expires_at = times
    draft = Draft(
        payload=b"said",
        kind=kind,
        origin=origin,
        at=at,
        valid_from=valid_from,
        valid_to=valid_to,
        expires_at=expires_at,
        role=role,
        name=name,
        labels=tuple(labels),
        metadata=metadata,
        place=place,
        recalled=((1, 2), (3, 4)),
        client_id=client,
    )
    row = vault.append(scope, [draft]).outcomes[0].row
    assert row is not None
    with vault.snapshot() as snapshot:
        cube = snapshot.head(id_text(row.cube))
        read = vault._head(snapshot._transaction, cube.id)[1]
    assert read == row, "what append returns is what is stored"
    assert read.draft() == (draft if at is not None else replace(draft, at=row.recorded_at))
    assert (cube.client_id, cube.metadata, cube.header.scope) == (client, metadata, scope)
    assert (cube.kind, cube.header.origin, cube.header.role, cube.header.name) == (kind, origin, role, name)


def test_a_megabyte_comes_back(vault: Vault) -> None:
    said = "Ünïcode\x00🙂 " * 100_000
    tell(vault, ANA, said)
    assert texts(vault, ANA) == [said]


def test_what_was_told_is_there_when_it_is_opened_again(database: str) -> None:
    with_one = open_vault(database)
    tell(with_one, ANA, "I moved to Porto.")
    with_one.close()
    again = open_vault(database)
    assert texts(again, ANA) == ["I moved to Porto."]
    again.close()


# --- scopes

hostile = [
    None, "None", "none", "null", "", " ", "a", "ab",
    "a/b", "a%", "%", "_", "a_", "*", "'", '"', "a'; --", "a\\", "A",
    "é", "é", "а", "ａ", "ß", "ss", "\u200b", "a\u200b", "0", "[null]", "n", "1:a", "🙂",
]  # fmt: skip


def test_scopes_are_exact(vault: Vault) -> None:
    """One cube for each of these names as user, agent and session; each scope then holds only its own."""
    wanted = defaultdict(list)
    for field in ("user", "agent", "session"):
        for name in hostile:
            scope = Scope("default", "someone")._replace(**{field: name})
            wanted[scope].append(f"{field} {name!r}")
            tell(vault, scope, f"{field} {name!r}")
    for scope, said in wanted.items():
        assert texts(vault, scope) == said


@settings(max_examples=25)
@given(
    data=st.lists(
        st.tuples(st.sampled_from(hostile), st.sampled_from(hostile), st.sampled_from(hostile)),
        min_size=2,
        max_size=8,
        unique=True,
    )
)
def test_combined_names_never_meet(vault: Vault, data: list[tuple[str | None, ...]]) -> None:
    tenant_wide = someone().user
    scopes = [Scope("default", None if u is None else f"{tenant_wide}{u}", a, s) for u, a, s in data]
    for scope in scopes:
        tell(vault, scope, repr(scope))
    for scope in scopes:
        assert repr(scope) in texts(vault, scope)
        assert all(text == repr(scope) for text in texts(vault, scope))


def test_the_scope_of_another_tenant_is_refused(vault: Vault) -> None:
    with pytest.raises(InvalidOption, match="tenant"):
        vault.append(Scope("other", "ana"), [say("hello")])


def test_tenants_share_a_database_and_nothing_else(database: str) -> None:
    one, two = open_vault(database, tenant="one"), open_vault(database, tenant="two%")
    ours, theirs = Scope("one", "ana", None, "s"), Scope("two%", "ana", None, "s")
    mine = told(one.append(ours, [say("of one", client_id="x")]))[0]
    told(two.append(theirs, [say("of two", client_id="x")]))
    assert (texts(one, ours), texts(two, theirs)) == (["of one"], ["of two"])
    with pytest.raises(LookupError):
        two.revise(mine, {"payload": b"taken"})
    with pytest.raises(LookupError):
        two.remove([mine])
    with two.snapshot() as snapshot:
        for read in (snapshot.head, snapshot.history):
            with pytest.raises(LookupError):
                read(mine)
        assert [space.user for space in snapshot.spaces()] == ["ana"]
    assert one.add_model("m", 0).number == two.add_model("m", 0).number == 1
    one.close()
    two.close()


# --- order


def test_seq_rises_without_gaps_and_each_user_has_their_own(vault: Vault) -> None:
    bo = Scope("default", "bo")
    for i, scope in enumerate((ANA, bo, ANA, ANA._replace(session="s"), bo)):
        vault.append(scope, [say(f"{i} a"), say(f"{i} b")])
    cube = tell(vault, ANA, "c")[0]
    vault.revise(cube, {"payload": b"d"})
    vault.remove([cube])
    assert log(vault, ANA) == list(range(1, 10))
    assert log(vault, bo) == [1, 2, 3, 4]


@pytest.mark.parametrize("step", [-(10**15), -1, 0, 1])
def test_recorded_at_rises_even_when_the_clock_jumps(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    start = time.time_ns()
    clock = iter(
        range(start, start + 10**18, 1) if step > 0 else (max(0, start + i * step * 1000) for i in range(99))
    )
    monkeypatch.setattr(time, "time_ns", lambda: next(clock))
    cubes = tell(vault, ANA, "a", "b")
    vault.append(ANA, [say(str(i)) for i in range(5)])
    vault.revise(cubes[0], {"payload": b"c"})
    monkeypatch.undo()
    tell(vault, ANA, "d")
    when = [at for (at,) in rows(vault, "SELECT recorded_at FROM version ORDER BY seq")]
    assert when == sorted(set(when))
    assert len(when) == 9


def test_a_call_is_one_change(vault: Vault) -> None:
    added = vault.append(ANA, [say("a"), say("b")], op="import", reason="from a \x00 file")
    cubes = told(added)
    assert added.change is not None
    assert added.change.seq == 2
    done, scope = vault.revise(cubes[0], {"payload": b"c"}, reason="she moved")
    assert scope == ANA
    vault.remove(cubes, reason=None)
    said = rows(vault, "SELECT seq, op, reason FROM change ORDER BY seq")
    assert [(seq, op, reason and bytes(reason).decode()) for seq, op, reason in said] == [
        (2, "import", "from a \x00 file"),
        (3, "update", "she moved"),
        (5, "delete", None),
    ]
    assert len({added.change.change_id, done.change_id}) == 2


# --- the caller's id


def test_an_id_is_stored_once(vault: Vault) -> None:
    first = vault.append(ANA, [say("a", client_id="1")])
    again = vault.append(ANA, [say("a", client_id="1"), say("b", client_id="2")])
    assert told(again)[0] == told(first)[0]
    assert reasons(again)[0] is not None
    assert reasons(again)[1] is None
    assert vault.append(ANA, [say("a", client_id="1")]).change is None
    assert texts(vault, ANA) == ["a", "b"]
    assert log(vault, ANA) == [1, 2]


def test_other_content_under_an_id_is_a_conflict_and_nothing_is_stored(vault: Vault) -> None:
    vault.append(ANA, [say("a", client_id="1")])
    for other in (
        say("b", client_id="1"),
        say("a", client_id="1", role="x"),
        say("a", client_id="1", name="x"),
    ):
        with pytest.raises(IdempotencyConflict):
            vault.append(ANA, [say("new", client_id="2"), other, say("also new")])
    with pytest.raises(IdempotencyConflict):
        vault.append(ANA, [say("new", client_id="3"), say("newer", client_id="3")])
    assert texts(vault, ANA) == ["a"]
    assert log(vault, ANA) == [1]


def test_a_conflict_in_a_new_scope_leaves_no_trace(vault: Vault) -> None:
    scope = Scope("default", "nobody yet", None, "s")
    with pytest.raises(IdempotencyConflict):
        vault.append(scope, [say("a", client_id="1"), say("b", client_id="1")])
    with vault.snapshot() as snapshot:
        assert snapshot.space_of("nobody yet") is None
    vault.append(scope, [say("a", client_id="1")])
    assert texts(vault, scope) == ["a"]


def test_a_deleted_id_stays_deleted(vault: Vault) -> None:
    cube = told(vault.append(ANA, [say("a", client_id="1")]))[0]
    vault.remove([cube])
    again = vault.append(ANA, [say("a", client_id="1"), say("b", client_id="2")])
    assert again.outcomes[0].row is None
    assert "deleted" in (again.outcomes[0].reason or "")
    assert texts(vault, ANA) == ["b"]


def test_an_import_repeated_after_an_update_is_no_conflict(vault: Vault) -> None:
    cube = told(vault.append(ANA, [say("a", client_id="1")]))[0]
    vault.revise(cube, {"payload": b"corrected"})
    again = vault.append(ANA, [say("a", client_id="1")])
    assert told(again) == [cube]
    assert again.outcomes[0].row is not None
    assert again.outcomes[0].row.payload == b"corrected"
    assert texts(vault, ANA) == ["corrected"]


def test_an_id_belongs_to_its_exact_scope(vault: Vault) -> None:
    scopes = [ANA, ANA._replace(session="s"), ANA._replace(agent="s"), Scope("default", "bo")]
    cubes = [told(vault.append(scope, [say(str(scope), client_id="1")]))[0] for scope in scopes]
    assert len(set(cubes)) == len(scopes)


def test_an_id_names_the_same_cube_in_every_vault(tmp_path) -> None:
    one, two = open_vault(tmp_path / "1.db"), open_vault(tmp_path / "2.db")
    draft = say("a", client_id="1")
    assert told(one.append(ANA, [draft])) == told(two.append(ANA, [draft]))
    one.close()
    two.close()


def test_pieces_of_a_long_text_share_their_id(vault: Vault) -> None:
    pieces = [
        say(str(i) * 10, client_id="1", place=Place(start=10 * i, end=10 * i + 10, total=30, part=i))
        for i in range(3)
    ]
    first = vault.append(ANA, pieces)
    assert len(set(told(first))) == 3
    assert told(vault.append(ANA, pieces)) == told(first)
    longer = [
        replace(piece, place=piece.place.model_copy(update={"total": 31})) for piece in pieces if piece.place
    ]
    with pytest.raises(IdempotencyConflict):
        vault.append(ANA, longer)
    assert len(texts(vault, ANA)) == 3


def test_more_ids_than_one_query_takes(vault: Vault) -> None:
    drafts = [say(str(i), client_id=str(i)) for i in range(1000)]
    vault.append(ANA, drafts[::2])
    again = vault.append(ANA, drafts)
    assert len(told(again)) == len(set(told(again))) == 1000
    assert sum(reason is None for reason in reasons(again)) == 500


# --- repeated history


@settings(max_examples=60)
@given(
    history=st.lists(st.sampled_from("ab"), min_size=1, max_size=4),
    repeated=st.lists(st.sampled_from("ab"), min_size=2, max_size=6),
)
@example(history=["a", "a"], repeated=["a", "a"])
@example(history=["a", "b"], repeated=["a", "b", "b"])
def test_only_a_list_that_repeats_all_of_a_session_is_recognised(
    vault: Vault, history: list[str], repeated: list[str]
) -> None:
    scope = someone()
    for text in history:
        tell(vault, scope, text)
    added = vault.append(scope, [say(text) for text in repeated])
    if repeated[: len(history)] == history:
        assert texts(vault, scope) == repeated
        assert [reason is None for reason in reasons(added)] == [
            i >= len(history) for i in range(len(repeated))
        ]
    else:
        assert texts(vault, scope) == history + repeated


def test_a_lone_message_is_always_new(vault: Vault) -> None:
    tell(vault, ANA, "ok", "ok")
    vault.append(ANA._replace(session="s"), [say("ok")])
    vault.append(ANA._replace(session="s"), [say("ok")])
    assert len(live(vault, ANA)) == 4


def test_a_lone_long_message_in_pieces_is_always_new(vault: Vault) -> None:
    pieces = [say(str(i), place=Place(start=i, end=i + 1, total=2, part=i)) for i in range(2)]
    vault.append(ANA, pieces)
    vault.append(ANA, pieces)
    assert texts(vault, ANA) == ["0", "1", "0", "1"]


def test_history_is_that_of_one_session(vault: Vault) -> None:
    both = [say("a"), say("b")]
    vault.append(ANA, both)
    vault.append(ANA._replace(session="s"), both)
    assert len(live(vault, ANA)) == 4


def test_history_is_recognised_after_updates_deletions_and_derivations(vault: Vault) -> None:
    cubes = told(vault.append(ANA, [say("a"), say("b"), say("c")]))
    vault.revise(cubes[0], {"payload": b"A"})
    vault.remove([cubes[1]])
    vault.append(ANA, [say("a fact", origin=Origin.derived)], op="derive")
    added = vault.append(ANA, [say("a"), say("b"), say("c"), say("d")])
    assert [reason is None for reason in reasons(added)] == [False, False, False, True]
    assert added.outcomes[1].row is None
    assert texts(vault, ANA) == ["c", "A", "a fact", "d"]


def test_who_says_it_is_part_of_the_history(vault: Vault) -> None:
    vault.append(ANA, [say("a", role="user"), say("b", role="assistant")])
    vault.append(ANA, [say("a", role="assistant"), say("b", role="user")])
    assert len(live(vault, ANA)) == 4


# --- all or nothing


def test_a_batch_that_fails_leaves_nothing(vault: Vault) -> None:
    tell(vault, ANA, "before")
    bad = say("x", metadata={"not json": object()})
    with pytest.raises(TypeError):
        vault.append(ANA, [say("a"), bad])
    with pytest.raises(TypeError):
        vault.append(Scope("default", "new user"), [say("a"), bad])
    assert texts(vault, ANA) == ["before"]
    tell(vault, ANA, "after")
    assert log(vault, ANA) == [1, 2]
    assert len(rows(vault, "SELECT seq FROM change")) == 2


def test_the_digest_is_of_what_is_said_and_unambiguous() -> None:
    key = b"k"
    said = [
        say("ab"), say("a"),
        say("ab", role="a"), say("ab", name="a"), say("b", role="a"), say("", role="ab"),
        say("ab", kind=Kind.activation), say("ab", place=Place(start=1, end=2, total=3)),
        say("ab", role="None"), say("ab", role=""),
    ]  # fmt: skip
    assert len({codec.digest(key, draft) for draft in said}) == len(said)
    told_otherwise = say("ab", at=5, client_id="x", labels=("l",), metadata={"a": 1})
    assert codec.digest(key, told_otherwise) == codec.digest(key, said[0])
    assert codec.digest(b"other", said[0]) != codec.digest(key, said[0])
