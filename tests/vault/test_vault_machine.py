"""The vault against a dictionary: whatever is done in whatever order, both say the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from vaults import say, told

from mnemic.cube.errors import IdempotencyConflict, NotFound
from mnemic.cube.model import Scope
from mnemic.vault.vault import open_vault

scopes = st.builds(
    Scope,
    st.just("default"),
    st.sampled_from(["ana", "bo", "ana/x", "%", None]),
    st.sampled_from([None, "coach"]),
    st.sampled_from([None, "s"]),
)
said = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
clients = st.sampled_from("12345")


class Told(RuleBasedStateMachine):
    """The model: for each user what is live, in order of its head's seq; for each cube what it said."""

    url = ""
    cubes = Bundle("cubes")

    def __init__(self) -> None:
        super().__init__()
        self.vault = open_vault(self.url)
        self.other = open_vault(self.url)
        self.heads: dict[str, tuple[Scope, str | None]] = {}
        self.order: dict[str | None, list[str]] = {}
        self.history: dict[str, list[str | None]] = {}
        self.clients: dict[tuple[Scope, str], str] = {}
        self.told: dict[Scope, list[str]] = {}

    def teardown(self) -> None:
        self.vault.close()
        self.other.close()

    def note(self, cube: str, scope: Scope, text: str | None) -> None:
        self.heads[cube] = (scope, text)
        self.history.setdefault(cube, []).append(text)
        order = self.order.setdefault(scope.user, [])
        if cube in order:
            order.remove(cube)
        if text is not None:
            order.append(cube)

    def note_first(self, cube: str, scope: Scope, text: str) -> None:
        self.note(cube, scope, text)
        self.told.setdefault(scope, []).append(text)

    @rule(target=cubes, scope=scopes, text=said)
    def tell_one(self, scope: Scope, text: str) -> Any:
        (cube,) = told(self.vault.append(scope, [say(text)]))
        assert cube not in self.heads
        self.note_first(cube, scope, text)
        return cube

    @rule(target=cubes, scope=scopes, texts=st.lists(said, min_size=2, max_size=4), again=st.booleans())
    def tell_several(self, scope: Scope, texts: list[str], again: bool) -> Any:
        before = self.told.get(scope, [])
        texts = before + texts if again else texts
        known = len(before) if texts[: len(before)] == before else 0
        added = self.other.append(scope, [say(text) for text in texts])
        assert [outcome.reason is None for outcome in added.outcomes] == [
            i >= known for i in range(len(texts))
        ]
        new = told(added)[len(told(added)) - (len(texts) - known) :]
        for cube, text in zip(new, texts[known:], strict=True):
            assert cube not in self.heads
            self.note_first(cube, scope, text)
        return multiple(*new)

    @rule(target=cubes, scope=scopes, client=clients, text=said)
    def tell_with_an_id(self, scope: Scope, client: str, text: str) -> Any:
        cube = self.clients.get((scope, client))
        draft = say(text, client_id=client)
        if cube is None:
            (cube,) = told(self.vault.append(scope, [draft]))
            self.clients[scope, client] = cube
            self.note_first(cube, scope, text)
            return cube
        deleted = self.heads[cube][1] is None
        if text in self.history[cube] or (deleted and text == ""):
            (outcome,) = self.vault.append(scope, [draft]).outcomes
            assert (outcome.row is None) == deleted
            assert outcome.reason
        else:
            with pytest.raises(IdempotencyConflict):
                self.vault.append(scope, [say("never stored"), draft])
        return multiple()

    @rule(cube=cubes, text=said)
    def update(self, cube: str, text: str) -> None:
        scope, now = self.heads[cube]
        if now is None:
            with pytest.raises(NotFound):
                self.other.revise(cube, {"payload": text.encode()})
        else:
            _, got = self.other.revise(cube, {"payload": text.encode()})
            assert got == scope
            self.note(cube, scope, text)

    @rule(gone=st.lists(consumes(cubes), min_size=1, max_size=3))
    def remove(self, gone: list[str]) -> None:
        self.vault.remove(gone)
        live = [cube for cube in dict.fromkeys(gone) if self.heads[cube][1] is not None]
        for cube in live:
            self.note(cube, self.heads[cube][0], None)

    @invariant()
    def both_say_the_same(self) -> None:
        for vault in (self.vault, self.other):
            with vault.snapshot() as snapshot:
                for user, order in self.order.items():
                    space = snapshot.space_of(user)
                    assert space is not None
                    live = snapshot.live_after(space, 0, 1000)
                    assert [cube.id for _, cube in live] == order
                    assert [(cube.header.scope, cube.text) for _, cube in live] == [
                        self.heads[c] for c in order
                    ]
                    entries = snapshot.since(space, 0, lexical=0, dense=None)
                    assert [row.seq for row in entries] == list(range(1, len(entries) + 1))
                    assert [row.recorded_at for row in entries] == sorted(
                        {row.recorded_at for row in entries}
                    )

    @invariant()
    def history_is_kept(self) -> None:
        with self.vault.snapshot() as snapshot:
            for cube, states in self.history.items():
                versions = snapshot.history(cube)
                assert [None if version.deleted else version.text for version in versions] == states


@pytest.mark.parametrize(("kind", "examples"), [("sqlite", 30), ("postgresql", 5)])
def test_the_vault_is_a_dictionary_with_a_past(fresh_database, kind: str, examples: int) -> None:
    class Fresh(Told):
        def __init__(self) -> None:
            self.url = fresh_database(kind)
            super().__init__()

    run_state_machine_as_test(
        Fresh, settings=settings(max_examples=examples, stateful_step_count=20, deadline=None)
    )
