"""Erase: rows of every table, what was made from it, and every byte in every file."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text as sql
from vaults import ANA, derive, live, log, rows, say, stale, tell, texts, told

from mnemic.cube.errors import NotFound
from mnemic.cube.model import Kind, Scope
from mnemic.vault import tables
from mnemic.vault.codec import Draft
from mnemic.vault.database import Statement
from mnemic.vault.destroying import KEPT, OF_SPACES, rows_of_cubes, rows_of_spaces
from mnemic.vault.erasing import erase, erasures, finish
from mnemic.vault.vault import Vault, open_vault

BO = Scope("default", "bo")


def traces(folder: Path, *markers: bytes) -> set[tuple[str, bytes]]:
    """Where any of these bytes still is, in any file below a folder."""
    found = set()
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            found |= {(path.name, marker) for marker in markers if marker in data}
    return found


def space_of(vault: Vault, user: str) -> int:
    with vault.snapshot() as snapshot:
        return snapshot.space_of(user) or 0


def everything(vault: Vault) -> str:
    """Every value of every row, as text."""
    out = []
    with vault.database.read() as transaction:
        for table in tables.metadata.sorted_tables:
            for row in transaction.rows(Statement(sql(f"SELECT * FROM {table.name}")), {}):  # noqa: S608
                out += [
                    bytes(v).decode("latin-1") if isinstance(v, bytes | memoryview) else str(v) for v in row
                ]
    return "\n".join(out)


def test_a_table_is_erased_by_its_shape_or_says_why_not() -> None:
    of_cubes = {name for name, _, _ in rows_of_cubes()}
    of_spaces = {name for name, _ in rows_of_spaces()}
    waits = {"job"}  # ids only, and goes with its space; what it said is forgotten
    for table in tables.metadata.sorted_tables:
        if table.name in KEPT or "tenant" not in table.c:
            continue
        if {"cube", "version", "seq"} & set(table.c.keys()) and table.name not in OF_SPACES:
            assert table.name in of_cubes, f"rows of {table.name} would survive their cube"
        if "space" in table.c:
            assert table.name in of_spaces
            assert table.name in of_cubes | OF_SPACES | waits, f"does {table.name} hold something of a cube?"


def test_a_cube_goes_with_all_its_versions_and_all_that_was_made_from_it(vault: Vault) -> None:
    a, b, kept = tell(vault, ANA, "moved to Porto", "likes tea", "has a dog")
    fact = derive(vault, ANA, "lives in Porto", [a])
    summary = derive(vault, BO, "Porto, and a dog", [fact, kept])
    alone = derive(vault, ANA, "has a dog, too", [kept])
    vault.revise(a, {"payload": b"moved to Faro"})  # the fact is stale now, and quotes an older version
    vault.revise(fact, {"payload": b"lives in Faro", "sources": ()})  # and this version cites nothing
    done = erase(vault, [a], reason="asked to")
    assert (done.status, done.cubes, done.derived, done.versions) == ("done", 3, 2, 5)
    assert [cube.id for cube in live(vault, ANA)] == [b, kept, alone]
    assert live(vault, BO) == []
    assert stale(vault, alone) == [False]
    for cube in (a, fact, summary):
        with vault.snapshot() as snapshot, pytest.raises(NotFound):
            snapshot.history(cube)
    assert not {"Porto", "Faro", "asked to"} & set(everything(vault).split())
    assert all(word not in everything(vault) for word in ("Porto", "Faro", "asked to"))


def test_what_is_unknown_stops_it_before_anything_is_erased(vault: Vault) -> None:
    (a,) = tell(vault, ANA, "a")
    with pytest.raises(NotFound, match="nothing was erased"):
        erase(vault, [a, "0" * 32])
    erase(vault, [a])
    with pytest.raises(NotFound):
        erase(vault, [a])
    assert len(erasures(vault)) == 1


def test_a_dry_run_counts_and_does_nothing(vault: Vault) -> None:
    (a,) = tell(vault, ANA, "a")
    derive(vault, ANA, "b", [a])
    planned = erase(vault, [a], dry_run=True)
    assert (planned.status, planned.cubes, planned.derived, planned.versions) == ("dry run", 2, 1, 2)
    assert texts(vault, ANA) == ["a", "b"]
    assert erasures(vault) == []


def test_reasons_go_with_what_they_speak_of(vault: Vault) -> None:
    (a,) = tell(vault, ANA, "a")
    b, c = told(vault.append(ANA, [say("b", client_id="1"), say("c", client_id="2")], reason="both of them"))
    vault.revise(a, {"payload": b"aa"}, reason="only a")
    vault.revise(b, {"payload": b"bb"}, reason="only b")
    erase(vault, [b])
    found = rows(vault, "SELECT op, reason FROM change ORDER BY seq")
    said = [(op, None if reason is None else bytes(reason).decode()) for op, reason in found]
    assert said == [("add", None), ("add", None), ("update", "only a"), ("erase", None)]
    assert [cube.id for cube in live(vault, ANA)] == [c, a]


def test_names_of_a_session_go_with_its_last_cube_and_can_be_used_again(database: str) -> None:
    vault, other = open_vault(database), open_vault(database)
    secret = Scope("default", "ana", "therapist", "marriage")
    (a,) = tell(vault, secret, "a")
    tell(other, secret, "b")  # the other has interned the session's number
    cubes = [cube.id for cube in live(vault, secret)]
    tell(vault, ANA, "stays")
    erase(vault, cubes)
    assert "marriage" not in everything(vault)
    assert a in cubes
    for each, text in ((other, "c"), (vault, "d")):
        tell(each, secret, text)
    assert texts(vault, secret) == texts(other, secret) == ["c", "d"]
    assert rows(vault, "SELECT count(*) FROM scope") == [(2,)]
    vault.close()
    other.close()


def test_a_whole_user_goes_with_their_name_and_may_come_back(database: str) -> None:
    vault, other = open_vault(database), open_vault(database)
    tell(vault, ANA, "mine", "too")
    tell(other, Scope("default", "ana", "coach", "s"), "and this")
    tell(vault, BO, "bo stays")
    done = erase(vault, [], [space_of(other, "ana")])
    assert (done.spaces, done.cubes) == (1, 3)
    assert "ana" not in everything(vault).split("\n")
    for each in (vault, other):
        with each.snapshot() as snapshot:
            assert snapshot.space_of("ana") is None
    tell(other, ANA, "back again")
    assert texts(vault, ANA) == texts(other, ANA) == ["back again"]
    assert texts(other, BO) == ["bo stays"]
    vault.close()
    other.close()


def test_an_erased_id_is_not_told_again_by_an_import(vault: Vault) -> None:
    drafts = [say("a", client_id="1"), say("b", client_id="2")]
    first = told(vault.append(ANA, drafts))
    erase(vault, first[:1])
    again = vault.append(ANA, drafts)
    assert [outcome.reason for outcome in again.outcomes] == [
        "was erased; an erased id stays erased, give it another to tell it anew",
        "already stored under this id",
    ]
    erase(vault, [], [space_of(vault, "ana")])
    assert told(vault.append(ANA, drafts)) == []
    assert live(vault, ANA) == []


def test_payloads_go_unless_something_else_names_them(database: str, tmp_path: Path) -> None:
    vault = open_vault(database, blobs=tmp_path / "blobs")
    shared, own = vault.put_blob(ANA, b"shared" * 99), vault.put_blob(ANA, b"own" * 99)
    drafts = [Draft(payload=b"", kind=Kind.activation, blob=blob) for blob in (shared, own)]
    cubes = told(vault.append(ANA, [*drafts], op="x"))
    tell(vault, BO, "x", kind=Kind.activation, blob=shared)
    done = erase(vault, cubes)
    assert done.rooms["blob"] == 2
    assert traces(tmp_path / "blobs", b"ownown") == set()
    assert vault.blobs.path(shared)
    assert dict(vault.blobs.damaged()) == {shared.id: None}
    vault.close()


def test_other_open_vaults_see_another_epoch_and_no_gap_in_what_comes(vault: Vault) -> None:
    a, _ = tell(vault, ANA, "a", "b")
    with vault.snapshot() as snapshot:
        space = snapshot.space_of("ana") or 0
        before = snapshot.position(space)
    erase(vault, [a])
    with vault.snapshot() as snapshot:
        after = snapshot.position(space)
    assert before
    assert after
    assert after.epoch == before.epoch + 1
    assert log(vault, ANA) == [2]
    tell(vault, ANA, "c")
    assert log(vault, ANA) == [2, 4]


def test_a_tenant_cannot_erase_what_is_anothers(database: str) -> None:
    one, other = open_vault(database, tenant="one"), open_vault(database, tenant="other")
    (a,) = tell(one, Scope("one", "ana"), "a")
    with pytest.raises(NotFound):
        erase(other, [a])
    assert erase(other, [], [space_of(one, "ana")]).cubes == 0
    assert texts(one, Scope("one", "ana")) == ["a"]
    one.close()
    other.close()


# --- bytes


MARKERS = [f"mark{random.Random(i).getrandbits(64):016x}" for i in range(1000)]


def fill(vault: Vault) -> tuple[list[str], list[bytes]]:
    """1,000 unique markers in texts, older versions, reasons, labels, metadata, names, sessions and blobs."""
    rng = random.Random(5)
    cubes: list[str] = []
    for start in range(0, 1000, 10):
        m = MARKERS[start : start + 10]
        scope = Scope("default", "ana", None, m[0])
        blob = vault.put_blob(scope, m[1].encode() * 50) if start % 100 == 0 else None
        draft = Draft(
            payload=f"{m[2]} {'x' * rng.randrange(3000)}".encode(),
            labels=(m[3],),
            metadata={"key": m[4]},
            name=m[5],
            client_id=m[6],
            blob=blob,
            features={1: m[7].encode() * 4},
        )
        cube = told(vault.append(scope, [draft, say("between", client_id=f"b{start}")], reason=m[8]))[0]
        vault.revise(cube, {"payload": f"later {m[9]}".encode()}, reason=m[8])
        if start % 3 == 0:
            vault.remove([cube], reason=m[8])
        cubes.append(cube)
        tell(vault, BO, f"kept {start} {'y' * rng.randrange(500)}")
    return cubes, [marker.encode() for marker in MARKERS]


@pytest.mark.parametrize("whole", [False, True])
def test_no_byte_of_what_was_erased_is_in_any_file(tmp_path: Path, whole: bool) -> None:
    vault = open_vault(tmp_path / "v.db")
    cubes, markers = fill(vault)
    assert len(traces(tmp_path, *markers)) >= 900, "they were there"
    between = [cube.id for cube in live(vault, Scope("default", "ana")) if cube.text == "between"]
    done = erase(vault, [], [space_of(vault, "ana")]) if whole else erase(vault, cubes + between)
    assert done.status == "done"
    assert traces(tmp_path, *markers) == set()
    assert len(live(vault, BO)) == 100
    assert rows(vault, "PRAGMA integrity_check") == [("ok",)]
    vault.close()
    assert traces(tmp_path, *markers) == set()


def _read_until_told(path: str, key: str | None, started: Any, stop: Any) -> None:
    vault = open_vault(path, key=key)
    with vault.snapshot() as snapshot:
        assert snapshot.spaces()
        started.set()
        stop.wait(60)
    vault.close()


def sealed_values(path: str) -> set[bytes]:
    """What stands for ana's texts and key on disk."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT payload FROM version WHERE space = 1 AND length(payload) < 200")
        keys = connection.execute("SELECT wrapped_key FROM space WHERE space = 1")
        return {bytes(value)[-32:] for (value,) in (*found, *keys)}


@pytest.mark.parametrize("key", [None, "a passphrase"], ids=["in clear", "encrypted"])
def test_a_reader_elsewhere_makes_it_pending_and_it_is_finished_later(
    tmp_path: Path, key: str | None
) -> None:
    path = str(tmp_path / "v.db")
    vault = open_vault(path, key=key)
    _, markers = fill(vault)
    sealed: set[bytes] = set() if key is None else sealed_values(path)
    context = multiprocessing.get_context("spawn")
    started, stop = context.Event(), context.Event()
    reader = context.Process(target=_read_until_told, args=(path, key, started, stop))
    reader.start()
    assert started.wait(60)
    done = erase(vault, [], [space_of(vault, "ana")])
    assert done.status == "pending"
    assert done.waits_for
    assert "reads an older state" in done.waits_for
    assert [one.finished_at for one in erasures(vault)] == [None]
    assert live(vault, ANA) == []
    left = traces(tmp_path, *(markers if key is None else sealed))
    assert left, "the bytes are there: it was right to say so"
    assert key is None or traces(tmp_path, *markers) == set(), "and nothing of them in clear"
    stop.set()
    reader.join()
    assert finish(vault)[1] is None
    assert traces(tmp_path, *markers, *sealed) == set()
    assert [one.finished_at is None for one in erasures(vault)] == [False]
    vault.close()


def test_copies_that_a_migration_made_go_too(tmp_path: Path) -> None:
    vault = open_vault(tmp_path / "v.db")
    (a,) = tell(vault, ANA, "marked")
    copy = vault.database.backup("before-format-9")
    assert traces(tmp_path, b"marked")
    done = erase(vault, [a])
    assert done.removed == (copy,)
    assert traces(tmp_path, b"marked") == set()
    vault.close()


def test_a_server_keeps_nothing_in_its_tables(server) -> None:
    vault = open_vault(server(), blobs="/nonexistent")
    texts_ = [say(f"mark{i:05d} of ana", client_id=f"mark{i}") for i in range(200)]
    vault.append(ANA, texts_, reason="mark of a reason")
    tell(vault, BO, "stays")
    ((folder,),) = rows(vault, "SHOW data_directory")
    done = erase(vault, [], [space_of(vault, "ana")])
    assert done.status == "done", done.waits_for
    assert any("archive" in where for where in done.beyond)
    assert "mark" not in everything(vault)
    with vault.database.driven._pool.connection() as connection:  # type: ignore[attr-defined]
        connection.execute("CHECKPOINT")
    assert traces(Path(folder) / "base", b"mark00007 of ana") == set()
    vault.close()


def test_a_transaction_on_a_server_makes_it_pending(server) -> None:
    url = server()
    vault, other = open_vault(url), open_vault(url)
    (a,) = tell(vault, ANA, "a")
    with other.snapshot() as snapshot:
        snapshot.spaces()
        done = erase(vault, [a])
        assert (done.status, done.cubes) == ("pending", 1)
    assert finish(vault)[1] is None
    vault.close()
    other.close()


# --- crashes


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")
def test_a_reader_on_a_server_that_is_soon_done_is_waited_for(server) -> None:
    with closing(open_vault(server())) as vault, closing(open_vault(server())) as elsewhere:
        (cube, _) = tell(vault, ANA, "secret", "plain")
        reading = elsewhere.database.read()  # another schema of the same server
        reading.__enter__().rows(Statement(sql("SELECT count(*) FROM version")), {})
        ends = threading.Timer(0.3, lambda: reading.__exit__(None, None, None))
        ends.start()
        done = erase(vault, [cube])
        ends.join()
        assert (done.status, done.waits_for) == ("done", None)


def test_a_process_killed_while_it_erases_has_erased_all_or_nothing(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from mnemic.vault.erasing import erase\n"
        "from mnemic.vault.vault import open_vault\n"
        "vault = open_vault(sys.argv[1])\n"
        "with vault.snapshot() as snapshot:\n"
        "    space = snapshot.space_of('ana')\n"
        "print('ready', flush=True)\n"
        "erase(vault, [], [space])\n"
        "print('done', flush=True)\n"
    )
    outcomes = set()
    whole = 0.0  # seconds that it takes when it is let be: the first time
    for life in range(7):
        folder = tmp_path / str(life)
        folder.mkdir()
        vault = open_vault(folder / "v.db")
        vault.append(ANA, [say(f"marked {i} {'z' * 500}", client_id=str(i)) for i in range(800)])
        blob = vault.put_blob(ANA, b"marked" * 1000)
        tell(vault, ANA, "x", kind=Kind.activation, blob=blob)
        tell(vault, BO, "kept")
        vault.close()
        child = subprocess.Popen([sys.executable, "-c", code, str(folder / "v.db")], stdout=subprocess.PIPE)
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        started = time.monotonic()
        if life == 0:
            assert child.stdout.readline() == b"done\n"
            whole = time.monotonic() - started
        else:
            time.sleep(whole * (life - 1) / 5)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        vault = open_vault(folder / "v.db")
        left, ledger = len(live(vault, ANA)), erasures(vault)
        assert (left, len(ledger)) in {(801, 0), (0, 1)}
        outcomes.add((left, bool(ledger and ledger[0].finished_at)))
        assert finish(vault)[1] is None
        if ledger:
            assert traces(folder, b"marked") == set()
            assert erasures(vault)[0].finished_at
        else:
            assert dict(vault.blobs.damaged()) == {blob.id: None}
        assert texts(vault, BO) == ["kept"]
        vault.close()
    assert len(outcomes) > 1, "some were killed before, some after"
