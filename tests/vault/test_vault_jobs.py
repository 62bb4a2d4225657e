"""The outbox: what a change causes is asked for with it, done once it is, and kept when it fails."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from vaults import ANA, derive, tell

from mnemic.cube.errors import NotFound
from mnemic.cube.ids import id_text, new_ids
from mnemic.cube.times import now
from mnemic.vault import jobs
from mnemic.vault.jobs import LEASE, MOST_ATTEMPTS
from mnemic.vault.vault import Vault, open_vault
from mnemic.vault.writing import REBUILD


def ask(vault: Vault, kind: str = "sweep", *, at: int = 1, **args: int) -> None:
    with vault.database.write() as transaction:
        jobs.ask(transaction, vault.tenant, 1, kind, args, at=at)


def lease(vault: Vault, at: int, limit: int = 10) -> list[jobs.Job]:
    with vault.database.write() as transaction:
        return jobs.lease(transaction, vault.tenant, at, limit)


def listed(vault: Vault) -> list[jobs.Job]:
    with vault.database.read() as transaction:
        return jobs.listed(transaction, vault.tenant, now())


def test_what_was_asked_for_twice_is_one_job(vault: Vault) -> None:
    ask(vault, n=1)
    ask(vault, n=1)
    ask(vault, n=2)
    assert [(job.kind, dict(job.args), job.asked) for job in listed(vault)] == [
        ("sweep", {"n": 1}, 2),
        ("sweep", {"n": 2}, 1),
    ]


def test_a_leased_job_is_nobody_elses_until_the_lease_runs_out(vault: Vault) -> None:
    ask(vault)
    (job,) = lease(vault, 10)
    assert lease(vault, 10 + LEASE - 1) == []
    (again,) = lease(vault, 10 + LEASE)
    assert (again.id, again.attempts) == (job.id, 2)
    with vault.database.write() as transaction:
        jobs.done(transaction, vault.tenant, again)
    assert listed(vault) == []


def test_what_is_asked_for_while_it_runs_runs_again(vault: Vault) -> None:
    ask(vault)
    (job,) = lease(vault, 10)
    ask(vault, at=11)
    with vault.database.write() as transaction:
        jobs.done(transaction, vault.tenant, job)
    (again,) = lease(vault, 12)
    assert again.asked == 2
    with vault.database.write() as transaction:
        jobs.done(transaction, vault.tenant, again)
    assert listed(vault) == []


def test_what_is_asked_for_while_it_fails_for_the_last_time_is_tried_anew(vault: Vault) -> None:
    ask(vault)
    for attempt in range(MOST_ATTEMPTS):
        at = 10 + attempt * LEASE
        (job,) = lease(vault, at)  # and the process is killed
    ask(vault, at=at)
    with vault.database.write() as transaction:
        jobs.failed(transaction, vault.tenant, job, "no", at)
    (again,) = lease(vault, at)
    assert (again.asked, again.attempts, again.dead) == (2, 1, False)


def test_failures_wait_longer_and_longer_then_the_job_is_dead_until_somebody_runs_it(vault: Vault) -> None:
    ask(vault)
    at, waits = 10, []
    for attempt in range(1, MOST_ATTEMPTS + 1):
        (job,) = lease(vault, at)
        assert job.attempts == attempt
        with vault.database.write() as transaction:
            jobs.failed(transaction, vault.tenant, job, f"attempt {attempt}: ☂", at)
        with vault.database.read() as transaction:
            due = jobs.next_due(transaction, vault.tenant)
        if attempt < MOST_ATTEMPTS:
            assert due is not None
            assert lease(vault, due - 1) == []
            waits.append(due - at)
            at = due
    assert waits == sorted(set(waits))
    (dead,) = listed(vault)
    assert (dead.dead, dead.error) == (True, f"attempt {MOST_ATTEMPTS}: ☂")
    assert lease(vault, at + 10**12) == []
    assert due is None
    with vault.database.write() as transaction:
        assert jobs.rerun(transaction, vault.tenant, dead.id, at)
    (alive,) = lease(vault, at)
    assert alive.attempts == 1


def test_a_job_is_asked_for_with_the_change_that_makes_something_stale(vault: Vault) -> None:
    cube, other = tell(vault, ANA, "a", "b")
    derive(vault, ANA, "fact", [cube])
    vault.revise(other, {"payload": b"c"})
    assert listed(vault) == []
    with pytest.raises(NotFound):
        vault.remove([cube, id_text(new_ids(1)[0])])
    assert listed(vault) == []
    vault.revise(cube, {"payload": b"c"})
    assert [job.kind for job in listed(vault)] == [REBUILD]


def test_two_workers_never_get_the_same_job(database: str) -> None:
    vaults = [open_vault(database) for _ in range(3)]
    for n in range(60):
        ask(vaults[0], n=n)

    def take(vault: Vault) -> list[str]:
        got = []
        while found := lease(vault, 10, limit=7):
            got += [job.id for job in found]
        return got

    with ThreadPoolExecutor(3) as pool:
        taken = [id for one in pool.map(take, vaults) for id in one]
    assert len(taken) == len(set(taken)) == 60
    for vault in vaults:
        vault.close()


def test_who_catches_up_starts_over_in_a_new_epoch(vault: Vault) -> None:
    tell(vault, ANA, "a")
    with vault.database.write() as transaction:
        assert jobs.read_to(transaction, vault.tenant, 1, "facts", 0) == 0
        jobs.set_read_to(transaction, vault.tenant, 1, "facts", 0, 5)
        jobs.set_read_to(transaction, vault.tenant, 1, "facts", 0, 7)
        assert jobs.read_to(transaction, vault.tenant, 1, "facts", 0) == 7
        assert jobs.read_to(transaction, vault.tenant, 1, "other", 0) == 0
        assert jobs.read_to(transaction, vault.tenant, 1, "facts", 1) == 0
