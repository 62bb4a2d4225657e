"""Background work is done, said to be done, and kept when it fails."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mnemic
from mnemic.cube.errors import NotFound
from mnemic.cube.times import now
from mnemic.plaintext.derive.facts import Facts
from mnemic.scheduler import health as health_module
from mnemic.scheduler.worker import LEASED, Worker
from mnemic.vault import jobs
from mnemic.vault.vault import open_vault


def until(true: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it was not done in time"
        time.sleep(0.02)


def test_what_is_told_is_derived_without_waiting_for_it(database: str) -> None:
    with mnemic.open(database) as memory:
        memory.add("I live in Lisbon.", user="ana")
        until(lambda: memory.facts(user="ana"))
        until(lambda: memory.health().unread == 0)
        assert memory.health().ok


def test_what_was_not_done_is_done_by_who_opens_next(database: str) -> None:
    with mnemic.open(database, derive=()) as memory:
        memory.add("I live in Lisbon.", user="ana")
        memory.flush()
        assert memory.facts(user="ana") == []
    with mnemic.open(database) as memory:
        memory.flush()
        assert [one.value for one in memory.facts(user="ana")] == ["Lisbon"]


def test_several_workers_on_one_vault_derive_each_fact_once(database: str) -> None:
    memories = [mnemic.open(database) for _ in range(3)]
    for number in range(20):
        memories[number % 3].add(f"My number {number} is Seven{number}.", user="ana")
        memories[number % 3].add("I live in Lisbon.", user="ana")
    threads = [threading.Thread(target=memory.flush) for memory in memories]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    memories[0].flush()
    home = memories[0].facts(user="ana", attribute="home")
    assert [one.value for one in home] == ["Lisbon"]
    assert memories[0].jobs() == []
    for memory in memories:
        memory.close()


class Failing(Facts):
    """Facts that cannot be rebuilt, until they can."""

    broken = True

    def derive(self, fresh: Any, stale: Any, look: Any) -> Any:
        if stale and Failing.broken:
            raise RuntimeError("no luck")
        return super().derive(fresh, stale, look)


def test_a_job_that_fails_is_listed_retried_and_can_be_run_again(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "FIRST_WAIT", 1)
    Failing.broken = True
    with mnemic.open(database, derive=[Failing()]) as memory:
        told = memory.add("I live in Lisbon.", user="ana")
        memory.flush()
        memory.delete(told[0].id)
        assert memory.facts(user="ana") == []

        def is_dead() -> bool:
            memory.flush()
            return memory.health().dead == 1

        until(is_dead)
        (dead,) = memory.jobs()
        assert (dead.kind, dead.dead, dead.attempts) == ("rebuild", True, jobs.MOST_ATTEMPTS)
        assert dead.error == "RuntimeError: no luck"
        sick = memory.health()
        assert (sick.ok, sick.waiting, sick.last_error) == (False, 1, "RuntimeError: no luck")
        Failing.broken = False
        memory.rerun(dead.id)
        memory.flush()
        assert memory.jobs() == []
        assert memory.health().ok
        assert memory.list(user="ana", where={"origin": "derived"}) == []
        with pytest.raises(NotFound):
            memory.rerun(dead.id)


def test_work_that_waits_too_long_is_no_health(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "OVERDUE", 1)
    with mnemic.open(tmp_path / "v.db") as memory:
        memory._worker.close()
        memory.add("I live in Lisbon.", user="ana")
        waiting = memory.health()
        assert (waiting.ok, waiting.unread) == (False, 1)
        assert waiting.oldest_s > 0
        memory.flush()
        assert memory.health().ok


def test_a_kind_that_nobody_does_here_is_said(tmp_path: Path) -> None:
    vault = open_vault(tmp_path / "v.db")
    worker = Worker(vault, catch_up=lambda: 0, handlers={})
    with vault.database.write() as transaction:
        jobs.ask(transaction, vault.tenant, 1, "dance", at=now())
    worker.flush()
    with vault.database.read() as transaction:
        (job,) = jobs.listed(transaction, vault.tenant, now())
    assert "dance" in (job.error or "")
    worker.close()
    vault.close()


def test_one_flush_tries_all_that_is_due_though_the_first_fail(tmp_path: Path) -> None:
    vault, begun = open_vault(tmp_path / "v.db"), now()
    worker = Worker(vault, catch_up=lambda: 0, handlers={"sing": lambda _: None})
    with vault.database.write() as transaction:
        for number in range(2 * LEASED):
            jobs.ask(transaction, vault.tenant, 1, "dance", {"n": number}, at=begun, after=begun - 1_000)
        jobs.ask(transaction, vault.tenant, 1, "sing", at=begun)
    assert worker.flush() == 2 * LEASED + 1
    with vault.database.read() as transaction:
        left = jobs.listed(transaction, vault.tenant, now())
    assert [one.kind for one in left] == ["dance"] * 2 * LEASED, "the one that can be done is done"
    assert {one.attempts for one in left} == {1}
    worker.close()
    vault.close()


def test_a_thread_with_nothing_to_do_ends_and_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnemic.scheduler.worker.IDLE_S", 0.01)
    with mnemic.open(tmp_path / "v.db") as memory:
        for number in range(3):
            memory.add(f"My number is Seven{number}.", user="ana")
            until(lambda: memory._worker._thread is None)
            assert memory.health().unread == 0


def test_what_a_deriver_raises_is_said_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clumsy(Facts):
        fails = True

        def derive(self, fresh: Any, stale: Any, look: Any) -> Any:
            if Clumsy.fails:
                raise ZeroDivisionError("dropped it")
            return super().derive(fresh, stale, look)

    monkeypatch.setattr("mnemic.scheduler.worker.LONGEST_PAUSE_S", 0.05)
    with mnemic.open(tmp_path / "v.db", derive=[Clumsy()]) as memory:
        memory.add("I live in Lisbon.", user="ana")
        until(lambda: memory.health().last_error == "ZeroDivisionError: dropped it")
        with pytest.raises(ZeroDivisionError):
            memory.flush()
        Clumsy.fails = False
        until(lambda: memory.facts(user="ana"))
        until(lambda: memory.health().last_error is None)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_does_its_own_work(tmp_path: Path) -> None:
    memory = mnemic.open(tmp_path / "v.db")
    memory.add("I live in Lisbon.", user="ana")
    until(lambda: memory.facts(user="ana"))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            memory.add("I work at Acme.", user="ana")
            until(lambda: len(memory.facts(user="ana")) == 2)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(memory.facts(user="ana")) == 2
    memory.close()
