"""Every way into a memory, tried by somebody who may not: nothing comes out, and the attempt is on record."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mnemic
from mnemic.cube.errors import AccessDenied, NotFound

SECRET = "the vault code is 4711"
Try = Callable[[mnemic.Memory, str, Path], Any]


def file_of(folder: Path) -> Path:
    path = folder / "told.jsonl"
    path.write_text('{"role": "user", "content": "slipped in"}\n')
    return path


def read_where(**names: Any) -> dict[str, Any]:
    return {"user": "ana", **names}


# Each verb of Memory, as somebody would use it to get at ana's memory; several where there are several ways.
ATTEMPTS: dict[str, list[Try]] = {
    "add": [
        lambda mem, _, __: mem.add("slipped in", user="ana"),
        lambda mem, _, __: mem.add(SECRET, user="ana", session="s1", id="known"),
        lambda mem, _, __: mem.add(["a", "b"], user="ana", session="s1"),
    ],
    "load_file": [lambda mem, _, folder: mem.load_file(file_of(folder), user="ana")],
    "update": [lambda mem, id, _: mem.update(id, "overwritten")],
    "delete": [
        lambda mem, id, _: mem.delete(id),
        lambda mem, id, _: mem.delete([id], dry_run=True),
        lambda mem, _, __: mem.delete(where={"role": "user"}, user="ana"),
    ],
    "restore": [lambda mem, id, _: mem.restore(id, 1), lambda mem, id, _: mem.restore(id, 99)],
    "undo": [lambda mem, _, folder: mem.undo((folder / "change").read_text())],
    "freeze": [lambda mem, id, _: mem.freeze(id)],
    "thaw": [lambda mem, id, _: mem.thaw([id])],
    "pin": [lambda mem, id, _: mem.pin(id)],
    "unpin": [lambda mem, id, _: mem.unpin([id])],
    "fuse": [
        lambda mem, id, _: mem.fuse([id, id], "slipped in"),
        lambda mem, id, _: mem.fuse([id, "00000000-0000-7000-8000-000000000000"], "slipped in"),
    ],
    "search": [
        lambda mem, _, __: mem.search("vault code", user="ana", as_of="2100-01-01"),
        lambda mem, _, __: mem.search("vault code", user="ana"),
        lambda mem, _, __: mem.search("vault code", agent="coach"),
        lambda mem, _, __: mem.search("vault code", everyone=True),
        lambda mem, _, __: mem.scope(user="ana").search("vault code"),
    ],
    "context": [
        lambda mem, _, __: mem.context("vault code", user="ana"),
        lambda mem, _, __: mem.context("vault code", everyone=True, strategy="full"),
    ],
    "ask": [lambda mem, _, __: mem.ask("What is the vault code?", user="ana")],
    "list": [
        lambda mem, _, __: mem.list(user="ana"),
        lambda mem, _, __: mem.list(everyone=True),
        lambda mem, _, __: mem.list(user="ana", after="1:0"),
    ],
    "count": [lambda mem, _, __: mem.count(user="ana"), lambda mem, _, __: mem.count(everyone=True)],
    "sessions": [
        lambda mem, _, __: mem.sessions(user="ana"),
        lambda mem, _, __: mem.sessions(everyone=True),
    ],
    "users": [lambda mem, _, __: mem.users()],
    "get": [lambda mem, id, _: mem.get(id), lambda mem, id, _: mem.get(id, version=1)],
    "reveal": [lambda mem, id, _: mem.reveal(id), lambda mem, id, _: mem.reveal(id, version=1)],
    "history": [lambda mem, id, _: mem.history(id)],
    "explain": [lambda mem, id, _: mem.explain(id)],
    "facts": [
        lambda mem, _, __: mem.facts(user="ana", past=True),
        lambda mem, _, __: mem.facts(everyone=True),
    ],
    "changes": [
        lambda mem, _, __: mem.changes(user="ana"),
        lambda mem, _, __: [one.scope for one in mem.changes(everyone=True)],
    ],
    "erase": [
        lambda mem, id, _: mem.erase(id),
        lambda mem, _, __: mem.erase(user="ana"),
        lambda mem, _, __: mem.erase(user="ana", dry_run=True),
    ],
    "dump": [
        lambda mem, _, folder: mem.dump(folder / "a.mnemic", user="ana"),
        lambda mem, _, folder: mem.dump(folder / "a.mnemic", everyone=True),
    ],
    "load": [lambda mem, _, folder: mem.load(folder / "a.mnemic")],
    "merge": [lambda mem, _, folder: mem.merge(folder / "a.mnemic")],
    "open_blob": [lambda mem, id, _: mem.open_blob(id)],
    "as_kv": [lambda mem, id, _: mem.as_kv([id], None)],
    "as_adapter": [lambda mem, id, _: mem.as_adapter([id], None)],
    "as_memory": [lambda mem, id, _: mem.as_memory([id], None)],
    "retrain": [lambda mem, id, _: mem.retrain(id, None)],
    "as_text": [lambda mem, id, _: mem.as_text(id)],
    "mount": [lambda mem, id, _: mem.mount(None, id), lambda mem, id, _: mem.mount(None, [id])],
    "keep_state": [
        lambda mem, id, _: mem.keep_state(None, None, user="bo", sources=[id]),
        lambda mem, _, __: mem.keep_state(None, None, user="ana"),
    ],
    "load_state": [lambda mem, id, _: mem.load_state(id, None)],
    "jobs": [lambda mem, _, __: mem.jobs()],
    "rerun": [lambda mem, id, _: mem.rerun(id)],
    "health": [lambda mem, _, __: mem.health()],
    "flush": [lambda mem, _, __: mem.flush()],
    "as_principal": [lambda mem, _, __: mem.as_principal("ana"), lambda mem, _, __: mem.as_principal(None)],
}
HARMLESS = {"where", "scope", "close"}  # they touch no memory
NOT_TOLD = {"flush"}  # allowed, and says nothing of others
CASES = [
    pytest.param(verb, attempt, id=f"{verb}-{number}")
    for verb, attempts in ATTEMPTS.items()
    for number, attempt in enumerate(attempts)
]


@pytest.fixture
def house(database: str, tmp_path: Path) -> Iterator[tuple[mnemic.Memory, str]]:
    """ana's secret, and bo who owns only his own memory; as the owner opened it."""
    with mnemic.open(database) as owner:
        (cube,) = owner.add(SECRET, user="ana", session="s1", id="known")
        owner.add("ana likes tea", user="ana", agent="coach", session="s2")
        owner.add("bo likes coffee", user="bo", session="b1")
        (tmp_path / "change").write_text(owner.changes(user="ana")[0].id)
        owner.governance.add_principal("ana", owns="ana")
        owner.governance.add_principal("bo", owns="bo")
        owner.governance.add_principal("nobody")
        yield owner, cube.id


def test_every_verb_is_tried() -> None:
    found = inspect.getmembers(mnemic.Memory, inspect.isfunction)
    verbs = {name for name, _ in found if name[0] != "_"}
    assert verbs == ATTEMPTS.keys() | HARMLESS, "a verb was added: try to get in by it"
    for name in verbs - HARMLESS:
        assert hasattr(getattr(mnemic.Memory, name), "__wrapped__"), f"{name} does not run through the guard"


@pytest.mark.parametrize(("verb", "attempt"), CASES)
def test_nothing_comes_out_and_the_attempt_is_on_record(
    house: tuple[mnemic.Memory, str], verb: str, attempt: Try, tmp_path: Path
) -> None:
    owner, id = house
    before = [cube.text for cube in owner.list(everyone=True)]
    for who in ("bo", "nobody"):
        denied = len(owner.audit.log(denied=True, limit=1000))
        memory = owner.as_principal(who)
        try:
            result: Any = attempt(memory, id, tmp_path)
        except (AccessDenied, NotFound) as error:
            said = str(error)
            assert len(owner.audit.log(denied=True, limit=1000)) == denied + 1, "a refusal is on record, once"
            (last,) = owner.audit.log(denied=True, limit=1)
            assert (last.by, last.verb) == (who, {"merge": "load", "open_blob": "get"}.get(verb, verb))
        else:
            said = f"{result!r} {getattr(result, 'text', '')} {getattr(result, 'omitted', '')}"
            assert "ana" not in said
            if isinstance(result, int):
                assert result == (0 if verb in NOT_TOLD else 1), "only what is bo's is counted"
        assert not any(secret in said for secret in ("4711", "tea"))
    assert [cube.text for cube in owner.list(everyone=True)] == before
    assert owner.audit.verify().sound


def test_what_is_not_there_and_what_is_not_theirs_look_the_same(house: tuple[mnemic.Memory, str]) -> None:
    owner, id = house
    bo = owner.as_principal("bo")
    other = "018f0000-0000-7000-8000-000000000000"
    for verb in (bo.get, bo.history, bo.explain, bo.delete, lambda one: bo.update(one, "x")):
        said = []
        for one in (id, other, id.upper()):
            with pytest.raises(NotFound) as caught:
                verb(one)
            said.append(str(caught.value).lower().replace(one.lower(), "ID"))
        assert said[0] == said[1] == said[2]


def test_a_stranger_and_who_is_disabled_are_not_let_in(database: str) -> None:
    with mnemic.open(database) as owner:
        owner.add(SECRET, user="ana")
        with pytest.raises(AccessDenied, match="there is no principal 'eve'"):
            owner.as_principal("eve")
        owner.governance.add_principal("ana", owns="ana")
        with pytest.raises(AccessDenied, match="mnemic principal add"):
            mnemic.open(database, principal="eve")
        with mnemic.open(database, principal="ana") as ana:
            assert ana.count(user="ana") == 1
            owner.governance.disable("ana")
            with pytest.raises(AccessDenied, match="disabled"):
                ana.count(user="ana")
            with pytest.raises(AccessDenied, match="disabled"):
                ana.add("x", user="ana")
            owner.governance.disable("ana", enable=True)
            assert ana.count(user="ana") == 1
        denied = [(one.by, one.verb) for one in owner.audit.log(denied=True)]
        assert denied == [("(nobody)", "open"), ("ana", "count"), ("ana", "add")]


def test_what_may_not_be_seen_changes_no_score(database: str) -> None:
    """Ranks, scores, signals and statistics of a guest are those of a memory of only what they see."""
    with mnemic.open(database) as owner:
        told = [(f"Porto has {n} bridges and dogs that bark", "open") for n in range(20)]
        owner.governance.add_principal("guest")
        owner.governance.grant("guest", "read", user="ana", label="open")
        owner.add([{"content": text, "labels": [label]} for text, label in told], user="ana", session="s")
        guest = owner.as_principal("guest")

        def answers() -> list[tuple[str, float, dict[str, float]]]:
            return [
                (hit.text, hit.score, dict(hit.signals))
                for hit in guest.search("Who barks in Porto?", user="ana")
            ]

        alone, shown = answers(), guest.context("Who barks?", user="ana", budget=200)
        owner.add(["Porto is full of dogs that bark."] * 50, user="ana", session="s")
        owner.add(["Dogs bark in the park."] * 50, user="ana", session="hidden")
        assert answers() == alone
        again = guest.context("Who barks?", user="ana", budget=200)
        assert (again.text, again.omitted, again.reason) == (shown.text, shown.omitted, shown.reason)
        assert [one.session for one in guest.sessions(user="ana")] == ["s"]
        assert guest.count(user="ana") == 20


def test_the_command_line_acts_for_a_principal(house: tuple[mnemic.Memory, str]) -> None:
    """What the commands use beside Memory is behind the same doors."""
    from mnemic.upkeep import full_id, stats

    owner, id = house
    assert full_id(owner, id[-8:]) == id
    bo = owner.as_principal("bo")
    with pytest.raises(NotFound):
        full_id(bo, id[-8:])
    with pytest.raises(AccessDenied):
        stats(bo)
    for attempt in (
        lambda: bo.governance.add_principal("eve"),
        lambda: bo.governance.grant("bo", "read", user="ana"),
        lambda: bo.governance.grant("bo", "admin"),
        lambda: bo.governance.principals(),
        lambda: bo.governance.disable("ana"),
        lambda: bo.policies.add("keep 1 second", user="ana"),
        lambda: bo.retention.due(user="ana"),
        lambda: bo.retention.due(),
        lambda: bo.retention.sweep(),
        lambda: bo.audit.log(),
        lambda: bo.audit.head(),
        lambda: bo.audit.verify(),
        lambda: bo.audit.start(),
    ):
        with pytest.raises(AccessDenied):
            attempt()
    assert bo.policies.list() == []
    assert {grant.principal for grant in bo.governance.grants()} == {
        next(one.id for one in owner.governance.principals() if one.name == "bo")
    }
