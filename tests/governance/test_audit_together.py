"""What was done and the row that says so stand or fall together, wherever a process ends between them."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import mnemic
from mnemic.cube.errors import VaultError
from mnemic.vault import audit
from mnemic.vault.database import Transaction


class End(BaseException):
    """The process ends here."""


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A folder with a vault that is audited, and a dump of another."""
    folder = tmp_path / "template"
    folder.mkdir()
    with mnemic.open(folder / "b.db") as other:
        other.add("from elsewhere", user="bo")
        other.dump(folder / "b.mnemic", everyone=True)
    with mnemic.open(folder / "a.db") as owner:
        owner.audit.start()
        owner.add("one", user="ana", session="s")
        owner.add("two", user="ana", session="t")
    return folder


def rows(path: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def on_record(folder: Path, verb: str) -> int:
    (found,) = rows(folder / "a.db", f"SELECT count(*) FROM audit WHERE verb = '{verb}'")  # noqa: S608
    return int(found[0])


def erased(folder: Path) -> bool:
    return bool(rows(folder / "a.db", "SELECT 1 FROM erasure"))


def loaded(folder: Path) -> bool:
    return bool(rows(folder / "a.db", "SELECT 1 FROM version WHERE payload = CAST('from elsewhere' AS BLOB)"))


def left(folder: Path) -> bool:
    """A byte of a dump is outside of the vault."""
    return bool(list(folder.glob("out.mnemic*")))


DEEDS: dict[str, tuple[str, Callable[[mnemic.Memory, Path], Any], Callable[[Path], bool]]] = {
    "erase": ("erase", lambda mem, _: mem.erase(user="ana", session="s"), erased),
    "erase a user": ("erase", lambda mem, _: mem.erase(user="ana"), erased),
    "load": ("load", lambda mem, folder: mem.load(folder / "b.mnemic"), loaded),
    "dump": ("export", lambda mem, folder: mem.dump(folder / "out.mnemic", user="ana"), left),
}


@contextmanager
def ending_at(monkeypatch: pytest.MonkeyPatch, limit: int) -> Iterator[list[int]]:
    """The `limit`-th statement of this thread that may write is the last that is begun; what is left."""
    remaining, mine = [limit], threading.get_ident()

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Transaction, *args: Any) -> Any:
            if threading.get_ident() == mine:
                remaining[0] -= 1
                if remaining[0] <= 0:
                    raise End
            return method(self, *args)

        return call

    with monkeypatch.context() as patch:
        for name in ("run", "many", "row"):
            patch.setattr(Transaction, name, counted(getattr(Transaction, name)))
        yield remaining


@pytest.mark.parametrize("deed", DEEDS)
def test_no_end_falls_between_a_deed_and_its_row(
    template: Path, tmp_path: Path, deed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    verb, act, done = DEEDS[deed]
    outcomes = set()
    for limit in range(1, 500):
        folder = tmp_path / str(limit)
        shutil.copytree(template, folder)
        memory = mnemic.open(folder / "a.db", derive=())
        ended = False
        try:
            with ending_at(monkeypatch, limit):
                act(memory, folder)
        except End:
            ended = True
        finally:
            memory.close()
        recorded, happened = on_record(folder, verb) == 1, done(folder)
        assert recorded or not happened, f"ended at statement {limit}: done, and not on record"
        if verb != "export":  # a dump is on record before it is written, and may come to nothing
            assert happened or not recorded, f"ended at statement {limit}: on record, and not done"
        outcomes.add(happened)
        shutil.rmtree(folder)
        if not ended:
            break
    assert not ended, "it has more statements than were tried"
    assert outcomes == {True, False}, "some ends fell before, some after"


@pytest.mark.parametrize("deed", DEEDS)
def test_what_cannot_be_chained_is_not_done(
    template: Path, deed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    verb, act, done = DEEDS[deed]

    def refuse(*_: object) -> None:
        raise VaultError("no row can be added")

    with mnemic.open(template / "a.db", derive=()) as memory:
        with monkeypatch.context() as patch:
            patch.setattr(audit, "append", refuse)
            with pytest.raises(VaultError, match="no row"):
                act(memory, template)
        assert not done(template)
        assert on_record(template, verb) == 0
        assert memory.count(user="ana") == 2
        act(memory, template)
        assert done(template)
        assert on_record(template, verb) == 1
        assert memory.audit.verify().sound


def test_a_dump_is_on_record_before_its_first_byte(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mnemic.plaintext import porting

    def killed(*_: object, **__: object) -> None:
        assert on_record(template, "export") == 1
        assert rows(template / "a.db", "SELECT count(*) FROM dump") == [(1,)], "an erase would name it"
        raise OSError("the disk is full")

    with mnemic.open(template / "a.db", derive=()) as memory:
        monkeypatch.setattr(porting, "write", killed)
        with pytest.raises(OSError, match="full"):
            memory.dump(template / "out.mnemic", user="ana")
        assert [one.verb for one in memory.audit.log()[-2:]] == ["export", "export_failed"]
        assert rows(template / "a.db", "SELECT count(*) FROM dump") == [(0,)], "nothing is there to be named"
