"""Several processes on one vault, and processes that fork: nothing is lost, nobody gets an error."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vaults import ANA, log, say, tell, texts

from mnemic.cube.errors import VaultError
from mnemic.cube.model import Scope
from mnemic.vault import forking
from mnemic.vault.vault import Vault, open_vault

SOURCE = Path(__file__).parents[2] / "src"
can_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
SHARED = Scope("default", "shared", None, "s")


def work(url: str, me: int, seconds: float) -> dict[str, Any]:
    """Write and read without rest; what was acknowledged, and what one never should see."""
    rng = random.Random(me)
    vault = open_vault(url)
    mine: list[str] = []
    wrong: list[str] = []
    seen = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        said = [f"{me}:{len(mine) + i}" for i in range(rng.choice([1, 1, 1, 7]))]
        other = Scope("default", f"user {rng.randrange(3)}", None, f"s{rng.randrange(5)}")
        scope = SHARED if rng.random() < 0.7 else other
        vault.append(scope, [say(text) for text in said])
        if scope == SHARED:
            mine += said
        with vault.snapshot() as snapshot:
            space = snapshot.space_of(SHARED.user)
            if space is None:
                continue
            position = snapshot.position(space)
            rows = snapshot.since(space, seen, lexical=0, dense=None)
            seqs = [row.seq for row in rows]
            if seqs != list(range(seen + 1, seen + 1 + len(seqs))):
                wrong.append(f"after {seen} came {seqs[:5]}")
            if position is None or position.seq != seen + len(seqs):
                wrong.append(f"the position is {position}, the log ends at {seen + len(seqs)}")
            if scope == SHARED:
                tail = [cube.text for cube in snapshot.cubes(space, seqs)]
                if not set(said) <= set(tail):
                    wrong.append(f"does not see its own {said}")
            seen += len(seqs)
    vault.close()
    return {"mine": mine, "wrong": wrong}


def all_at_once(url: str, processes: int, seconds: float) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, url, str(number), str(seconds)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), str(Path(__file__).parent)])},
        )
        for number in range(processes)
    ]
    results = []
    for worker in workers:
        out, err = worker.communicate(timeout=seconds + 60)
        assert worker.returncode == 0, err
        results.append(json.loads(out))
    assert [result["wrong"] for result in results] == [[]] * processes
    vault = open_vault(url)
    stored = texts(vault, SHARED)
    assert sorted(stored) == sorted(text for result in results for text in result["mine"])
    by_writer = defaultdict(list)
    for text in stored:
        by_writer[text.split(":")[0]].append(text)
    assert list(by_writer.values())
    for number, result in enumerate(results):
        assert by_writer[str(number)] == result["mine"], "in the order it was told"
    for user in ("shared", "user 0", "user 1", "user 2"):
        seqs = log(vault, Scope("default", user))
        assert seqs == list(range(1, len(seqs) + 1))
    vault.close()


def test_processes_write_and_read_one_vault(database: str) -> None:
    all_at_once(database, 4, 2.0)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_processes_write_and_read_one_vault_for_a_minute(database: str) -> None:
    all_at_once(database, 4, 60.0)


def test_threads_write_and_read_one_vault(database: str) -> None:
    vault = open_vault(database)
    tell(vault, ANA, "first")
    told: dict[int, list[str]] = {number: [] for number in range(6)}
    wrong: list[object] = []

    def act(number: int) -> None:
        try:
            for i in range(30):
                tell(vault, ANA, f"{number}:{i}")
                told[number].append(f"{number}:{i}")
                if not set(told[number]) <= set(texts(vault, ANA)):
                    wrong.append((number, i))
        except Exception as error:  # noqa: BLE001 the test looks at it
            wrong.append(error)

    threads = [threading.Thread(target=act, args=(number,)) for number in told]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sorted(texts(vault, ANA)) == sorted(["first", *(text for said in told.values() for text in said)])
    vault.close()


# --- fork


def in_child(act: Callable[[], object], *, seconds: float = 60) -> str:
    """Fork, act in the child; what it said, or the error it got."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = repr(act())
        except BaseException as error:  # noqa: BLE001 the test looks at it
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode()[:4000])
        os._exit(0)
    os.close(writing)
    watch = threading.Timer(seconds, os.kill, (child, signal.SIGKILL))
    watch.start()
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    watch.cancel()
    return said


@can_fork
def test_parent_and_child_both_go_on(database: str) -> None:
    vault = open_vault(database)
    tell(vault, ANA, "before")

    def child() -> list[str]:
        tell(vault, ANA, "child")
        return texts(vault, ANA)

    for _ in range(3):
        assert "'child']" in in_child(child)
        tell(vault, ANA, "parent")
    assert texts(vault, ANA) == ["before", *["child", "parent"] * 3]
    vault.close()


@can_fork
def test_a_child_outlives_its_parents_vault(database: str) -> None:
    """The parent closes; what the child then acknowledges must still be there."""
    vault = open_vault(database)
    tell(vault, ANA, "before")
    go, closed = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            tell(vault, ANA, "child")
            os.read(go, 1)
            tell(vault, ANA, "child, later")
            status = 0
        finally:
            os._exit(status)
    while "child" not in texts(vault, ANA):
        time.sleep(0.01)
    vault.close()
    if "://" not in database:
        other = open_vault(database)
        tell(other, ANA, "other")
        other.close()
    os.write(closed, b"x")
    assert os.waitpid(child, 0)[1] == 0
    os.close(go)
    os.close(closed)
    again = open_vault(database)
    assert texts(again, ANA)[-1] == "child, later"
    assert texts(again, ANA)[:2] == ["before", "child"]
    again.close()


@can_fork
def test_a_fork_while_other_threads_write_and_read(database: str) -> None:
    vault = open_vault(database)
    tell(vault, ANA, "0")
    stop = threading.Event()
    wrong: list[BaseException] = []
    written: list[str] = ["0"]

    def write() -> None:
        while not stop.is_set():
            try:
                text = f"thread {len(written)}"
                tell(vault, ANA, text)
                written.append(text)
            except BaseException as error:  # noqa: BLE001 the test looks at it
                wrong.append(error)
                return

    def read() -> None:
        while not stop.is_set():
            try:
                texts(vault, ANA)
            except BaseException as error:  # noqa: BLE001 the test looks at it
                wrong.append(error)
                return

    threads = [threading.Thread(target=write), threading.Thread(target=read), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    children = []
    for number in range(8):
        time.sleep(0.01)
        said = in_child(lambda number=number: tell(vault, ANA, f"child {number}") and len(texts(vault, ANA)))
        children.append(f"child {number}")
        assert said.isdigit(), said
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sorted(texts(vault, ANA)) == sorted([*written, *children])
    vault.close()


@can_fork
def test_a_fork_in_the_middle_of_a_transaction_is_refused_in_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forking, "_WAIT_S", 0.05)
    vault = open_vault(tmp_path / "v.db")
    tell(vault, ANA, "before")
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with vault.database.write():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    for act in (lambda: tell(vault, ANA, "child"), lambda: texts(vault, ANA)):
        said = in_child(act, seconds=10)
        assert said.startswith("VaultError"), said
        assert "spawn" in said
    leave.set()
    thread.join()
    tell(vault, ANA, "after")
    assert texts(vault, ANA) == ["before", "after"]
    assert in_child(lambda: tell(vault, ANA, "child") and texts(vault, ANA)).endswith("'after', 'child']")
    vault.close()


@can_fork
def test_postgres_connections_are_not_shared_with_a_child(server) -> None:
    vault = open_vault(server())
    tell(vault, ANA, "before")
    with vault.snapshot() as snapshot:  # in use while forking
        assert in_child(lambda: tell(vault, ANA, "child") and texts(vault, ANA)) == "['before', 'child']"
        assert snapshot.space_of("ana") is not None
    tell(vault, ANA, "after")
    assert texts(vault, ANA) == ["before", "child", "after"]
    vault.close()


def _pooled(url: str, number: int) -> int:
    vault = open_vault(url)
    tell(vault, ANA, f"worker {number}")
    vault.close()
    return number


@can_fork
def test_a_pool_of_forked_workers(database: str) -> None:
    vault = open_vault(database)
    tell(vault, ANA, "before")
    with multiprocessing.get_context("fork").Pool(3) as pool:
        results = [pool.apply_async(_pooled, (database, number)) for number in range(9)]
        tell(vault, ANA, "meanwhile")
        assert sorted(result.get(timeout=60) for result in results) == list(range(9))
    assert len(texts(vault, ANA)) == 11
    vault.close()


# --- a server that goes away

END_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
    "AND backend_type = 'client backend'"
)


def test_a_connection_that_the_server_ended_is_replaced(server) -> None:
    """A restart of the server, an idle timeout, a failover: the next call finds a new connection."""
    import psycopg

    url = server()
    vault = open_vault(url)
    tell(vault, ANA, "before")
    with vault.snapshot(), vault.snapshot():
        pass
    with psycopg.connect(url, autocommit=True) as other:
        other.execute(END_OTHERS)
    tell(vault, ANA, "after")
    assert texts(vault, ANA) == ["before", "after"]
    vault.close()


def test_a_connection_that_ends_in_the_middle_is_an_error_and_the_next_call_works(server) -> None:
    import psycopg

    url = server()
    vault = open_vault(url)
    tell(vault, ANA, "before")
    with (  # noqa: PT012 it begins well
        psycopg.connect(url, autocommit=True) as other,
        pytest.raises(VaultError),
        vault.database.write() as transaction,
    ):
        transaction.script("DELETE FROM cube")
        other.execute(END_OTHERS)
        transaction.script("DELETE FROM version")
    assert texts(vault, ANA) == ["before"]
    vault.close()


def test_a_writer_on_postgres_that_waits_too_long_is_told_so(server) -> None:
    import psycopg

    from mnemic.cube.errors import VaultBusy

    url = server()
    vault: Vault = open_vault(url)
    tell(vault, ANA, "before")
    with vault.database.write() as transaction:
        transaction.script("SET LOCAL lock_timeout = 200")
    with psycopg.connect(url) as stuck:
        stuck.execute("SELECT * FROM space FOR UPDATE")
        with pytest.raises(VaultBusy), vault.database.write() as transaction:  # noqa: PT012
            transaction.script("SET LOCAL lock_timeout = 200")
            transaction.script("UPDATE space SET epoch = epoch + 1")
    tell(vault, ANA, "after")
    assert texts(vault, ANA) == ["before", "after"]
    vault.close()


if __name__ == "__main__":
    print(json.dumps(work(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
