"""The outbox: work that a change causes, written in the change's own transaction and deleted when it is done.

A job is leased, worked on outside of any transaction, and then done, put off (each time for longer) or, after
`MOST_ATTEMPTS`, dead: kept with what it said until somebody runs it again. A lease that runs out is taken
again, so a killed process loses nothing, and work may be done twice: it has to bear that. What only has to
catch up with the log needs no job, but remembers how far it has read (`progress`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from mnemic.cube.ids import id_bytes, id_text, named_id
from mnemic.cube.times import to_datetime
from mnemic.vault import tables
from mnemic.vault.database import Statement, Transaction

LEASE: Final = 60_000_000  # µs
FIRST_WAIT: Final = 1_000_000  # µs, doubled at each failure
LONGEST_WAIT: Final = 3_600_000_000
MOST_ATTEMPTS: Final = 6
MOST_ERROR_CHARS: Final = 2_000

_job, _progress = tables.job, tables.progress
_p = sa.bindparam
_ask = Statement(
    sa.text(
        "INSERT INTO job (tenant, job, space, kind, args, asked, asked_at, run_after, lease_until, attempts, "
        "dead) VALUES (:t, :j, :s, :kind, :args, 1, :at, :after, 0, 0, 0) "
        "ON CONFLICT (tenant, job) DO UPDATE SET asked = job.asked + 1, run_after = excluded.run_after, "
        "attempts = 0, dead = 0"
    )
)
_due = (
    sa.select(_job.c.job)
    .where(
        _job.c.tenant == _p("t"),
        _job.c.dead == 0,
        _job.c.run_after <= _p("now", type_=sa.BigInteger),
        _job.c.lease_until <= _p("now", type_=sa.BigInteger),
    )
    .order_by(_job.c.run_after)
    .limit(_p("n", type_=sa.BigInteger))
    .with_for_update(skip_locked=True)
)
_columns = (
    *(_job.c.job, _job.c.space, _job.c.kind, _job.c.args, _job.c.asked, _job.c.asked_at, _job.c.run_after),
    *(_job.c.lease_until, _job.c.attempts, _job.c.dead, _job.c.error),
)
_lease = Statement(
    sa.update(_job)
    .where(_job.c.tenant == _p("t"), _job.c.job.in_(_due.scalar_subquery()))
    .values(lease_until=_p("until", type_=sa.BigInteger), attempts=_job.c.attempts + 1)
    .returning(*_columns)
)
_named = (_job.c.tenant == _p("t"), _job.c.job == _p("j"))
_done = Statement(sa.delete(_job).where(*_named, _job.c.asked == _p("asked_")))
_release = Statement(
    sa.update(_job).where(*_named).values(lease_until=0, attempts=0)
)  # asked for again while it ran
_put_off = Statement(
    sa.update(_job)
    .where(*_named, _job.c.asked == _p("asked_"))
    .values(lease_until=0, run_after=_p("after"), dead=_p("dead_"), error=_p("error_"))
)
_revive = Statement(
    sa.update(_job).where(*_named).values(dead=0, attempts=0, run_after=_p("after"), asked=_job.c.asked + 1)
)
_all = Statement(sa.select(*_columns).where(_job.c.tenant == _p("t")).order_by(_job.c.asked_at, _job.c.job))
_next = Statement(
    sa.select(
        sa.func.min(
            sa.case((_job.c.lease_until > _job.c.run_after, _job.c.lease_until), else_=_job.c.run_after)
        )
    ).where(_job.c.tenant == _p("t"), _job.c.dead == 0)
)
_read_to = Statement(
    sa.select(_progress.c.epoch, _progress.c.seq).where(
        _progress.c.tenant == _p("t"), _progress.c.space == _p("s"), _progress.c.reader == _p("r")
    )
)
_set_read_to = Statement(
    sa.text(
        "INSERT INTO progress (tenant, space, reader, epoch, seq) VALUES (:t, :s, :r, :epoch, :seq) "
        "ON CONFLICT (tenant, space, reader) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq"
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One piece of work. `asked`: how often it was asked for; `error`: what the last attempt said."""

    id: str
    kind: str
    space: int
    args: Mapping[str, Any]
    asked: int
    asked_at: datetime
    run_after: datetime
    leased: bool
    attempts: int
    dead: bool
    error: str | None


def ask(
    transaction: Transaction,
    tenant: str,
    space: int,
    kind: str,
    args: Mapping[str, Any] | None = None,
    *,
    at: int,
    after: int | None = None,
) -> None:
    """Leave work to be done after the commit (not before `after`). Asked again, it is still one job. O(1).

    args: ids and numbers, never content: they stay in clear.
    """
    packed = json.dumps(args or {}, sort_keys=True).encode()
    name = named_id(b"job %d %s %s" % (space, kind.encode(), packed))
    params = {"t": tenant, "j": name, "s": space, "kind": kind, "args": packed, "at": at}
    transaction.run(_ask, {**params, "after": at if after is None else after})


def lease(transaction: Transaction, tenant: str, at: int, limit: int) -> list[Job]:
    """Take up to `limit` jobs that are due; nobody else gets them until the lease runs out."""
    params = {"t": tenant, "now": at, "until": at + LEASE, "n": limit}
    return [_job_of(row, at) for row in transaction.rows(_lease, params)]


def done(transaction: Transaction, tenant: str, job: Job) -> None:
    """It is done; one that was asked for again meanwhile stays."""
    named = {"t": tenant, "j": id_bytes(job.id)}
    if not transaction.run(_done, {**named, "asked_": job.asked}):
        transaction.run(_release, named)


def failed(transaction: Transaction, tenant: str, job: Job, error: str, at: int) -> None:
    """Put it off, or give it up after `MOST_ATTEMPTS`; one that was asked for again meanwhile starts anew."""
    wait = min(FIRST_WAIT << min(job.attempts - 1, 40), LONGEST_WAIT)
    dead = int(job.attempts >= MOST_ATTEMPTS)
    said = error[:MOST_ERROR_CHARS].encode("utf-8", "replace")
    named = {"t": tenant, "j": id_bytes(job.id)}
    told = {"asked_": job.asked, "after": at + wait, "dead_": dead, "error_": said}
    if not transaction.run(_put_off, {**named, **told}):
        transaction.run(_release, named)


def rerun(transaction: Transaction, tenant: str, job: str, at: int) -> bool:
    """Make a job due now, dead or put off; False where there is none."""
    return bool(transaction.run(_revive, {"t": tenant, "j": id_bytes(job), "after": at}))


def listed(transaction: Transaction, tenant: str, at: int) -> list[Job]:
    """All jobs that are not done, the oldest first."""
    return [_job_of(row, at) for row in transaction.rows(_all, {"t": tenant})]


def next_due(transaction: Transaction, tenant: str) -> int | None:
    """When the next living job may be taken; None where there is none."""
    found = transaction.row(_next, {"t": tenant})
    return None if found is None or found[0] is None else int(found[0])


def read_to(transaction: Transaction, tenant: str, space: int, reader: str, epoch: int) -> int:
    """The seq up to which `reader` has read the log of a space; 0 in a new epoch."""
    found = transaction.row(_read_to, {"t": tenant, "s": space, "r": reader})
    return int(found[1]) if found and found[0] == epoch else 0


def set_read_to(transaction: Transaction, tenant: str, space: int, reader: str, epoch: int, seq: int) -> None:
    transaction.run(_set_read_to, {"t": tenant, "s": space, "r": reader, "epoch": epoch, "seq": seq})


def _job_of(row: tuple[Any, ...], at: int) -> Job:
    id, space, kind, args, asked, asked_at, run_after, lease_until, attempts, dead, error = row
    return Job(
        id=id_text(bytes(id)),
        kind=kind,
        space=int(space),
        args=json.loads(bytes(args)),
        asked=int(asked),
        asked_at=to_datetime(asked_at),
        run_after=to_datetime(run_after),
        leased=lease_until > at,
        attempts=int(attempts),
        dead=bool(dead),
        error=None if error is None else bytes(error).decode(),
    )
