"""Erase, the only destroyer: rows of every table, older versions, what was made from it, files, free pages.

Two steps. One transaction deletes rows (`destroying`), leaves a marker for each cube, so that no merge brings
it back, an account without content, and a row in the audit log. Then bytes are overwritten: files of large
payloads go, and the database rewrites itself. Until that is done the account says so, durably, and `finish`
goes on with it: at the next open, flush or erase.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

import sqlalchemy as sa

from mnemic.cube.errors import VaultBusy, VaultError
from mnemic.cube.ids import id_bytes, id_text, new_ids
from mnemic.cube.times import to_datetime
from mnemic.vault import tables
from mnemic.vault.database import Deed, Statement, Transaction
from mnemic.vault.destroying import FINISH, Plan, destroy, hold, plan_of, with_merged
from mnemic.vault.vault import Vault

Status = Literal["done", "pending", "dry run"]
Still = Callable[[Transaction, Sequence[bytes]], list[bytes]]

_ATTEMPTS: Final = 5
_p = sa.bindparam
_unfinished = Statement(
    sa.select(tables.erasure.c.erasure, tables.erasure.c.blobs).where(
        tables.erasure.c.tenant == _p("t"), tables.erasure.c.finished_at.is_(None)
    )
)
_finish = Statement(
    sa.update(tables.erasure)
    .where(tables.erasure.c.tenant == _p("t"), tables.erasure.c.erasure == _p("e"))
    .values(finished_at=_p("at_"), blobs=b"")
)
_drop_job = Statement(
    sa.delete(tables.job).where(tables.job.c.tenant == _p("t"), tables.job.c.kind == _p("kind"))
)
_listed = Statement(
    sa.select(
        tables.erasure.c.erasure, tables.erasure.c.at, tables.erasure.c.finished_at, tables.erasure.c.counts
    )
    .where(tables.erasure.c.tenant == _p("t"))
    .order_by(tables.erasure.c.at, tables.erasure.c.erasure)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What an erase did: counts, without content.

    cubes: all that are gone, of which `derived` were made from what was asked for. rooms: rows by table, and
    files. spaces: whole memories of a user, gone with their names and keys. status: "done" when no byte of it
    is left in the vault's files; "pending" while somebody (`waits_for`) keeps the database from overwriting
    them, and `finish` goes on later. copies: dumps that hold some of it, which are yours to delete. removed:
    copies that mnemic had made itself. beyond: what no database can reach. reason is here only; the vault
    does not keep it, as it may say what was erased.
    """

    id: str
    at: datetime
    location: str
    tenant: str
    status: Status
    waits_for: str | None = None
    cubes: int = 0
    derived: int = 0
    versions: int = 0
    spaces: int = 0
    rooms: Mapping[str, int]
    copies: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """One line of the ledger of erasures: when, how much, and whether its bytes are overwritten."""

    id: str
    at: datetime
    finished_at: datetime | None
    rooms: Mapping[str, int]


def erase(
    vault: Vault,
    cubes: Collection[str],
    spaces: Collection[int] = (),
    *,
    reason: str | None = None,
    dry_run: bool = False,
    still: Still = lambda _, asked: list(asked),
) -> Certificate:
    """Destroy cubes, or whole spaces, with all that was made from them or merged into them.

    O(what goes), then O(vault).

    still: which of them are to go, asked in the transaction that destroys them; default: all.

    Raises NotFound for an id that is not here, before anything is erased; VaultBusy when others keep writing
    to what is being erased.
    """
    wanted = [id_bytes(cube) for cube in cubes]

    def planned(transaction: Transaction) -> Plan:
        asked = with_merged(transaction, vault.tenant, still(transaction, wanted))
        return plan_of(transaction, vault.tenant, asked, spaces)

    if dry_run:
        with vault.database.read() as transaction:
            plan = planned(transaction)
        return _certificate(vault, plan, new_ids(1)[0], vault.clock(), "dry run", reason=reason)
    for _ in range(_ATTEMPTS):
        with vault.database.write() as transaction:
            plan = planned(transaction)
            if not hold(transaction, vault.tenant, plan.touched):
                continue
            again = planned(transaction)
            if again.touched != plan.touched:
                continue  # somebody has made something from it in yet another space
            (id_,), at = new_ids(1), vault.clock()
            transaction.deeds.append(Deed("erase", id_))
            if not again.touched:
                return _certificate(vault, again, id_, at, "done", reason=reason)
            rooms = destroy(transaction, vault.tenant, vault._key, again, erasure=id_, at=at)
        for user in again.users:
            vault._interned.forget(user)
        vault.forget_keys(again.spaces)
        done = _certificate(vault, again, id_, at, "pending", rooms=rooms, reason=reason)
        removed, waits_for = finish(vault)
        return replace(
            done, status="pending" if waits_for else "done", waits_for=waits_for, removed=tuple(removed)
        )
    raise VaultBusy("what is being erased keeps growing; stop what writes to it and try again")


def finish(vault: Vault) -> tuple[list[str], str | None]:
    """Overwrite what erased rows left, if any is left: (copies that were removed, what it waits for).

    Called at open, flush and erase; safe to call at any time, from any process. O(vault) when there is
    something to do, one look otherwise.
    """
    with vault.database.read() as transaction:
        rows = transaction.rows(_unfinished, {"t": vault.tenant})
    if not rows:
        return [], None
    removed: list[str] = []
    try:
        names = b"".join(bytes(blobs) for _, blobs in rows)
        vault.blobs.remove([names[start : start + 32] for start in range(0, len(names), 32)])
        removed += map(str, vault.database.remove_backups())
        if (waits_for := vault.database.reclaim()) is not None:
            return removed, waits_for
        with vault.database.write() as transaction:
            transaction.many(
                _finish, [{"t": vault.tenant, "e": id_, "at_": vault.clock()} for id_, _ in rows]
            )
            transaction.run(_drop_job, {"t": vault.tenant, "kind": FINISH})
    except VaultError as error:
        return removed, str(error)
    return removed, None


def finish_or_raise(vault: Vault) -> None:
    """As a job: what is still pending is tried again later. Raises VaultBusy."""
    _, waits_for = finish(vault)
    if waits_for is not None:
        raise VaultBusy(f"an erase waits for {waits_for}")


def erasures(vault: Vault) -> list[Erasure]:
    """The ledger: every erase of this tenant, oldest first."""
    with vault.database.read() as transaction:
        rows = transaction.rows(_listed, {"t": vault.tenant})
    return [
        Erasure(
            id=id_text(bytes(id_)),
            at=to_datetime(at),
            finished_at=None if finished_at is None else to_datetime(finished_at),
            rooms=json.loads(bytes(counts)),
        )
        for id_, at, finished_at, counts in rows
    ]


def _certificate(
    vault: Vault,
    plan: Plan,
    id_: bytes,
    at: int,
    status: Status,
    *,
    rooms: Mapping[str, int] | None = None,
    reason: str | None,
) -> Certificate:
    return Certificate(
        id=id_text(id_),
        at=to_datetime(at),
        location=vault.database.location,
        tenant=vault.tenant,
        status=status,
        cubes=len(plan.cubes),
        derived=len(plan.cubes - plan.asked),
        versions=sum(map(len, plan.versions.values())),
        spaces=len(plan.spaces),
        rooms=rooms or {},
        copies=plan.dumps,
        beyond=vault.database.beyond_reach,
        reason=reason,
    )
