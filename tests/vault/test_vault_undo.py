"""Any change can be taken back, and so can the taking back; what came later is never lost by it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vaults import ANA, cite, derive, live, rows, say, stale, tell, texts, told

from mnemic.cube.errors import ChangedSince, Frozen, InvalidOption, NotFound
from mnemic.cube.ids import id_text, new_ids
from mnemic.cube.model import Origin, Scope
from mnemic.vault.vault import Vault, open_vault


def undone(vault: Vault, *changes: str) -> str:
    done = vault.undo(changes, reason="told to")
    (change,) = {written.change_id for written, _ in done}
    assert change is not None
    return change


def states(vault: Vault, scope: Scope) -> dict[str, Any]:
    """All that a caller can see of each live cube, but when it was recorded and under which version."""
    return {
        cube.id: cube.model_copy(
            update={
                "version_id": "",
                "header": cube.header.model_copy(update={"recorded_at": cube.header.at}),
            }
        )
        for cube in live(vault, scope)
    }


def test_an_add_an_update_and_a_delete_are_taken_back(vault: Vault) -> None:
    added = vault.append(ANA, [say("Lisbon", at=7, labels=("home",)), say("tea", at=8)])
    lisbon, tea = told(added)
    before = states(vault, ANA)
    update, _ = vault.revise(lisbon, {"payload": b"Porto", "labels": ()})
    assert update.change_id
    undone(vault, update.change_id)
    assert states(vault, ANA) == before
    ((gone, _),) = vault.remove([lisbon, tea])
    assert gone.change_id
    undone(vault, gone.change_id)
    assert states(vault, ANA) == before
    assert added.change
    assert added.change.change_id
    undone(vault, added.change.change_id)
    assert live(vault, ANA) == []


def test_taking_back_can_be_taken_back_again_and_again(vault: Vault) -> None:
    cube = tell(vault, ANA, "1")[0]
    change = vault.revise(cube, {"payload": b"2"})[0].change_id
    assert change
    for expected in ("1", "2", "1", "2"):
        change = undone(vault, change)
        assert texts(vault, ANA) == [expected]
    ops = rows(vault, "SELECT op, undoes FROM change ORDER BY seq")
    assert [op for op, _ in ops] == ["add", "update", "undo", "undo", "undo", "undo"]
    assert [undoes is not None for _, undoes in ops] == [False, False, True, True, True, True]


def test_what_was_changed_again_is_not_taken_back_alone(vault: Vault) -> None:
    cube = tell(vault, ANA, "1")[0]
    first, second = (vault.revise(cube, {"payload": text})[0].change_id for text in (b"2", b"3"))
    assert first
    assert second
    with pytest.raises(ChangedSince):
        vault.undo([first])
    assert texts(vault, ANA) == ["3"]
    both = undone(vault, first, second)
    assert texts(vault, ANA) == ["1"]
    undone(vault, both)
    assert texts(vault, ANA) == ["3"]
    undone(vault, second)
    undone(vault, first)
    assert texts(vault, ANA) == ["1"], "one after the other, the later first"


def test_a_change_over_several_users_is_taken_back_whole(vault: Vault) -> None:
    scopes = [ANA, ANA._replace(session="s"), Scope("default", "bo"), Scope("default", None, "coach")]
    cubes = [tell(vault, scope, str(scope))[0] for scope in scopes]
    done = vault.remove(cubes)
    (change,) = {written.change_id for written, _ in done}
    assert change
    assert len(vault.undo([change])) == 4
    assert all(texts(vault, scope) == [str(scope)] for scope in scopes)


def test_what_is_already_as_before_needs_nothing(vault: Vault) -> None:
    added = vault.append(ANA, [say("a"), say("b")])
    assert added.change
    assert added.change.change_id
    vault.remove([told(added)[0]])
    undone(vault, added.change.change_id)
    assert live(vault, ANA) == []
    assert vault.undo([added.change.change_id]) == []


def test_what_is_no_change_is_refused(vault: Vault) -> None:
    with pytest.raises(NotFound, match="no change"):
        vault.undo([id_text(new_ids(1)[0])])
    with pytest.raises(InvalidOption):
        vault.undo(["x"])


def test_features_come_back_with_what_they_are_of(vault: Vault) -> None:
    words = vault.add_model("bm25", 0).number
    cube = told(vault.append(ANA, [say("a", features={words: b"w"})]))[0]
    change = vault.revise(cube, {"payload": b"b", "features": {words: b"x"}})[0].change_id
    assert change
    undone(vault, change)
    vault.restore(cube, 2)
    with vault.snapshot() as snapshot:
        found = snapshot.features_after(snapshot.space_of("ana") or 0, 0, words)
    assert found == {1: b"w", 2: b"x", 3: b"w", 4: b"x"}


def test_restore_says_again_what_an_older_version_said(vault: Vault) -> None:
    draft = say("1", at=5, role="user", labels=("x",), metadata={"k": 1}, client_id="mine")
    cube = told(vault.append(ANA, [draft]))[0]
    before = states(vault, ANA)
    vault.revise(cube, {"payload": b"2"})
    vault.remove([cube])
    vault.restore(cube, 1, reason="right after all")
    assert states(vault, ANA) == before
    assert vault.restore(cube, 1) == [], "it says so already"
    for wrong in (0, 5, True, "1", None):
        with pytest.raises(NotFound, match="versions 1 to 4"):
            vault.restore(cube, wrong)
    with pytest.raises(InvalidOption, match="deletion"):
        vault.restore(cube, 3)


def test_a_frozen_cube_stays_as_it_is(vault: Vault) -> None:
    cube, other = told(vault.append(ANA, [say("1", expires_at=2**51), say("2")]))
    change = vault.revise(cube, {"labels": ("l",)})[0].change_id
    assert change
    vault.freeze([cube])
    assert vault.freeze([cube]) == []
    with vault.snapshot() as snapshot:
        head = snapshot.head(cube)
    assert head.header.frozen
    assert head.header.expires_at is None, "time does not change it either"
    for act in (
        lambda: vault.revise(cube, {"payload": b"x"}),
        lambda: vault.remove([other, cube]),
        lambda: vault.restore(cube, 1),
        lambda: vault.undo([change]),
    ):
        with pytest.raises((Frozen, ChangedSince)):
            act()
    assert texts(vault, ANA) == ["2", "1"]
    vault.freeze([cube], thaw=True)
    with vault.snapshot() as snapshot:
        thawed = snapshot.head(cube).header
    assert (thawed.frozen, thawed.expires_at is not None) == (False, True)
    vault.revise(cube, {"payload": b"x"})


def test_freezing_makes_nothing_stale_and_is_taken_back(vault: Vault) -> None:
    cube = tell(vault, ANA, "a")[0]
    fact = derive(vault, ANA, "fact", [cube])
    ((frozen, _),) = vault.freeze([cube])
    assert stale(vault, fact) == [False]
    assert frozen.change_id
    undone(vault, frozen.change_id)
    vault.revise(cube, {"payload": b"b"})
    assert stale(vault, fact) == [True]


def test_five_hundred_chains_are_stale_and_current_again_with_their_sources(vault: Vault) -> None:
    """Facts from facts from turns: every one is marked with the change, and by the undo current again."""
    turns = told(vault.append(ANA, [say(f"turn {i}") for i in range(500)]))
    level = turns
    made: list[str] = []
    for depth in (1, 2):
        drafts = [
            say(f"{depth} from {i}", origin=Origin.derived, sources=(cite(vault, cube),))
            for i, cube in enumerate(level)
        ]
        level = told(vault.append(ANA, drafts, op="derive"))
        made += level
    assert not any(stale(vault, *made))
    ((gone, _),) = vault.remove(turns)
    assert all(stale(vault, *made))
    assert gone.change_id
    undone(vault, gone.change_id)
    assert not any(stale(vault, *made))
    vault.revise(turns[0], {"payload": b"another"})
    assert [number for number, flag in enumerate(stale(vault, *made)) if flag] == [0, 500]


@settings(max_examples=40)
@given(data=st.data())
@pytest.mark.parametrize("kind", ["sqlite"])
def test_undoing_all_that_was_done_leaves_what_was(fresh_database, kind: str, data: st.DataObject) -> None:
    vault = open_vault(fresh_database(kind))
    cubes = tell(vault, ANA, "a", "b", "c")
    before = states(vault, ANA)
    done: list[str] = []
    for _ in range(data.draw(st.integers(1, 8))):
        alive = [cube.id for cube in live(vault, ANA)]
        what = data.draw(st.sampled_from(["tell", "revise", "remove", "restore", "undo"]))
        change: str | None = None
        if what == "tell":
            added = vault.append(ANA, [say("new"), say("newer")]).change
            change = added.change_id if added else None
        elif what == "revise" and alive:
            text = data.draw(st.sampled_from([b"a", b"x", b"y"]))
            change = vault.revise(data.draw(st.sampled_from(alive)), {"payload": text})[0].change_id
        elif what == "remove" and alive:
            some = data.draw(st.lists(st.sampled_from(alive), min_size=1))
            change = vault.remove(some)[0][0].change_id
        elif what == "restore":
            written = vault.restore(data.draw(st.sampled_from(cubes)), 1)
            change = written[0][0].change_id if written else None
        elif what == "undo" and done:
            written = vault.undo([done[-1]])
            change = written[0][0].change_id if written else None
        if change:
            done.append(change)
    if done:
        vault.undo(done)
    assert states(vault, ANA) == before
    vault.close()
