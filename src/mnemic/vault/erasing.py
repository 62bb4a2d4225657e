"""Erase, the only destroyer: rows of every table, older versions, what was made from it, files, free pages.

Two steps. One transaction deletes rows, leaves a marker for each cube (so that no merge brings it back) and
an account without content. Then bytes are overwritten: files of large payloads go, and the database rewrites
itself. Until that is done the account says so, durably, and `finish` goes on with it: at the next open, flush
or erase. Which rows belong to a cube or a space is read from the shape of the tables, so that a new table is
erased without code of its own.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any, Final, Literal

import sqlalchemy as sa

from mnemic.cube.errors import NotFound, VaultBusy, VaultError
from mnemic.cube.ids import id_bytes, id_text, new_ids
from mnemic.cube.times import to_datetime
from mnemic.vault import governing, jobs, lineage, log, reading, tables
from mnemic.vault.codec import erased_key, erased_marker
from mnemic.vault.database import Deed, InStatement, Statement, Transaction
from mnemic.vault.vault import Vault
from mnemic.vault.writing import REBUILD, SpaceGone

Status = Literal["done", "pending", "dry run"]
Still = Callable[[Transaction, Sequence[bytes]], list[bytes]]

KEPT: Final = frozenset({"meta", "tenant", "model", "erased", "erasure"})  # no content, or what is gone
OF_SPACES: Final = frozenset({"space", "scope", "change", "dump", "progress"})  # go with the whole space
OF_NO_SPACE: Final = 0
FINISH: Final = "finish erase"  # the kind of job that goes on with what is pending
_ATTEMPTS: Final = 5
_p = sa.bindparam
_version, _edge, _change, _cube = tables.version, tables.edge, tables.change, tables.cube

_cubes_of_space = Statement(
    sa.select(_cube.c.cube).where(_cube.c.tenant == _p("t"), _cube.c.space == _p("s"))
)
_linked = InStatement(
    lambda values: sa.select(_edge.c.space, _edge.c.version, _edge.c.role).where(
        _edge.c.tenant == _p("t"), _edge.c.target_cube.in_(values)
    )
)
_cubes_of_versions = InStatement(
    lambda values: (
        sa.select(_version.c.cube)
        .distinct()
        .where(_version.c.tenant == _p("t"), _version.c.space == _p("s"), _version.c.version.in_(values))
    )
)
_versions_of = InStatement(
    lambda values: sa.select(
        _version.c.space,
        _version.c.seq,
        _version.c.version,
        _version.c.cube,
        _version.c.scope,
        _version.c.blob,
    ).where(_version.c.tenant == _p("t"), _version.c.cube.in_(values))
)
_changes = Statement(
    sa.select(_change.c.seq, _change.c.change_id)
    .where(_change.c.tenant == _p("t"), _change.c.space == _p("s"))
    .order_by(_change.c.seq)
)
_seqs = Statement(
    sa.select(_version.c.seq).where(
        _version.c.tenant == _p("t"),
        _version.c.space == _p("s"),
        _version.c.seq > _p("above"),
        _version.c.seq <= _p("upto"),
    )
)
_drop_changes = InStatement(
    lambda values: sa.delete(_change).where(
        _change.c.tenant == _p("t"), _change.c.space == _p("s"), _change.c.seq.in_(values)
    )
)
_drop_reasons = InStatement(
    lambda values: (
        sa.update(_change)
        .where(_change.c.tenant == _p("t"), _change.c.change_id.in_(values))
        .values(reason=sa.null())
    )
)
_add_change = Statement(sa.insert(_change))
_drop_empty_scopes = InStatement(
    lambda values: sa.delete(tables.scope).where(
        tables.scope.c.tenant == _p("t"),
        tables.scope.c.space == _p("s"),
        tables.scope.c.scope.in_(values),
        ~sa.exists(
            sa.select(sa.literal(1)).where(
                _version.c.tenant == tables.scope.c.tenant,
                _version.c.space == tables.scope.c.space,
                _version.c.scope == tables.scope.c.scope,
            )
        ),
    )
)
_raise_epoch = Statement(
    sa.update(tables.space)
    .where(tables.space.c.tenant == _p("t"), tables.space.c.space == _p("s"))
    .values(epoch=tables.space.c.epoch + 1)
)
_mark = Statement(sa.insert(tables.erased))
_add_erasure = Statement(sa.insert(tables.erasure))
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
_dumps = Statement(
    sa.select(tables.dump.c.place, tables.dump.c.at)
    .where(tables.dump.c.tenant == _p("t"), tables.dump.c.space == _p("s"))
    .order_by(tables.dump.c.at)
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
    """Destroy cubes, or whole spaces, with all that was made from them. O(what goes), then O(vault).

    still: which of them are to go, asked in the transaction that destroys them; default: all.

    Raises NotFound for an id that is not here, before anything is erased; VaultBusy when others keep writing
    to what is being erased.
    """
    wanted = [id_bytes(cube) for cube in cubes]
    if dry_run:
        with vault.database.read() as transaction:
            plan = plan_of(transaction, vault.tenant, still(transaction, wanted), spaces)
        return _certificate(vault, plan, new_ids(1)[0], vault.clock(), "dry run", reason=reason)
    for _ in range(_ATTEMPTS):
        with vault.database.write() as transaction:
            plan = plan_of(transaction, vault.tenant, still(transaction, wanted), spaces)
            if not _hold(transaction, vault.tenant, plan.touched):
                continue
            again = plan_of(transaction, vault.tenant, still(transaction, wanted), spaces)
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


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes: cubes by id with those asked for, whole spaces, versions by space."""

    asked: frozenset[bytes]
    cubes: frozenset[bytes]
    spaces: frozenset[int]
    versions: Mapping[
        int, list[tuple[int, bytes, bytes, int, bytes | None]]
    ]  # seq, version, cube, scope, blob
    citing: frozenset[bytes]  # cubes that stay and name one that goes, other than as their source
    users: tuple[str | None, ...]
    dumps: tuple[str, ...]

    @property
    def touched(self) -> list[int]:
        return sorted(self.spaces | self.versions.keys())


def plan_of(transaction: Transaction, tenant: str, asked: Iterable[bytes], spaces: Collection[int]) -> Plan:
    wanted = set(asked)
    known = {bytes(row[3]) for row in transaction.rows_in(_versions_of, {"t": tenant}, sorted(wanted))}
    if missing := sorted(wanted - known):
        raise NotFound(f"no cube {id_text(missing[0])} in this vault; nothing was erased")
    users: dict[int, str | None] = {}
    for space in spaces:
        if found := transaction.row(reading.user_of_space, {"t": tenant, "s": space}):
            users[space] = None if found[0] is None else bytes(found[0]).decode()
            rows = transaction.rows(_cubes_of_space, {"t": tenant, "s": space})
            wanted |= {bytes(row[0]) for row in rows}
    gone, citing = made_from_any(transaction, tenant, wanted)
    versions: dict[int, list[tuple[int, bytes, bytes, int, bytes | None]]] = {}
    for space, seq, version, cube, scope, blob in transaction.rows_in(
        _versions_of, {"t": tenant}, sorted(gone)
    ):
        row = (int(seq), bytes(version), bytes(cube), int(scope), None if blob is None else bytes(blob))
        versions.setdefault(int(space), []).append(row)
    return Plan(
        frozenset(wanted),
        frozenset(gone),
        frozenset(users),
        versions,
        frozenset(citing),
        tuple(users.values()),
        tuple(
            f"{bytes(place).decode()} ({to_datetime(at):%Y-%m-%d %H:%M})"
            for space in sorted(versions.keys() | users.keys())
            for place, at in transaction.rows(_dumps, {"t": tenant, "s": space})
        ),
    )


def made_from_any(
    transaction: Transaction, tenant: str, cubes: Collection[bytes]
) -> tuple[set[bytes], set[bytes]]:
    """These and all cubes of which any version was made from any of theirs; and cubes that only name them.

    Unlike `lineage.made_from` it looks at older versions too: they would still quote what is gone.
    """
    gone, naming, frontier = set(cubes), set[bytes](), set(cubes)
    while frontier:
        sources: dict[int, set[bytes]] = {}
        others: dict[int, set[bytes]] = {}
        for space, version, role in transaction.rows_in(_linked, {"t": tenant}, sorted(frontier)):
            kind = sources if role == lineage.SOURCE else others
            kind.setdefault(int(space), set()).add(bytes(version))
        frontier = set(_owners(transaction, tenant, sources)) - gone
        naming |= set(_owners(transaction, tenant, others))
        gone |= frontier
    return gone, naming - gone


def _owners(transaction: Transaction, tenant: str, by_space: Mapping[int, set[bytes]]) -> Iterator[bytes]:
    for space, versions in by_space.items():
        params = {"t": tenant, "s": space}
        for (cube,) in transaction.rows_in(_cubes_of_versions, params, sorted(versions)):
            yield bytes(cube)


def _hold(transaction: Transaction, tenant: str, spaces: Iterable[int]) -> bool:
    """Ascending, so that two cannot deadlock; False when one is gone."""
    return all(log.hold(transaction, tenant, space) for space in spaces)


def destroy(
    transaction: Transaction, tenant: str, key: bytes, plan: Plan, *, erasure: bytes, at: int
) -> dict[str, int]:
    """Delete every row of a plan and write markers and the account; rows by table. The spaces are held."""
    rooms: dict[str, int] = {}
    seq_of: dict[int, int] = {}
    for space, rows in plan.versions.items():
        if space in plan.spaces:
            continue
        seq_of[space] = _forget_changes(transaction, tenant, space, [row[0] for row in rows], erasure, at)
        for table, statement, place in _by_version():
            values: list[Any] = sorted({row[place] for row in rows})
            gone = transaction.run_in(statement, {"t": tenant, "s": space}, values)
            rooms[table] = rooms.get(table, 0) + gone
        scopes = sorted({row[3] for row in rows})
        gone = transaction.run_in(_drop_empty_scopes, {"t": tenant, "s": space}, scopes)
        rooms["scope"] = rooms.get("scope", 0) + gone
        for quoting in _may_quote():
            transaction.run(quoting, {"t": tenant, "s": space})
        transaction.run(_raise_epoch, {"t": tenant, "s": space})
    for space in sorted(plan.spaces):
        changes = transaction.rows(_changes, {"t": tenant, "s": space})
        _silence(transaction, tenant, [bytes(row[1]) for row in changes])
        for table, by_space in _by_space():
            rooms[table] = rooms.get(table, 0) + transaction.run(by_space, {"t": tenant, "s": space})
    for user in filter(None, plan.users):
        for table, count in governing.forget_user(transaction, tenant, user).items():
            rooms[table] = rooms.get(table, 0) + count
    cubes = {row[2]: space for space, rows in plan.versions.items() for row in rows}
    for cube, space in sorted(cubes.items()):
        mark(transaction, tenant, key, erased_marker(cube), space, seq_of.get(space, 0))
    if plan.citing and lineage.restate(transaction, tenant, plan.citing, at):
        for space in plan.touched:
            jobs.ask(transaction, tenant, space, REBUILD, at=at)
    jobs.ask(transaction, tenant, OF_NO_SPACE, FINISH, at=at)
    blobs = sorted({row[4] for rows in plan.versions.values() for row in rows if row[4] is not None})
    rooms = {table: count for table, count in sorted(rooms.items()) if count}
    transaction.many(_add_erasure, [
        {"tenant": tenant, "erasure": erasure, "at": at, "finished_at": None,
         "counts": json.dumps(rooms).encode(), "blobs": b"".join(blobs)}
    ])  # fmt: skip
    return rooms


def mark(transaction: Transaction, tenant: str, key: bytes, marker: bytes, space: int, seq: int) -> None:
    """From now on no merge and no import brings this cube back."""
    named = erased_key(key, marker)
    if not any(transaction.rows_in(reading.erased_of, {"t": tenant}, [named])):
        row = {"tenant": tenant, "cube_key": named, "space": space, "seq": seq, "marker": marker}
        transaction.run(_mark, row)


def _forget_changes(
    transaction: Transaction, tenant: str, space: int, gone: Iterable[int], erasure: bytes, at: int
) -> int:
    """Changes that made only what goes are dropped; a change without content says that something was erased.

    Its seq.
    """
    changes = transaction.rows(_changes, {"t": tenant, "s": space})
    ends = [int(row[0]) for row in changes]
    by_change: dict[int, set[int]] = {}
    for seq in gone:
        by_change.setdefault(bisect_left(ends, seq), set()).add(seq)
    by_change.pop(len(ends), None)  # no change accounts for it; doctor would say so
    dropped = []
    for place, seqs in by_change.items():
        above = ends[place - 1] if place else 0
        made = transaction.rows(_seqs, {"t": tenant, "s": space, "above": above, "upto": ends[place]})
        if not {int(row[0]) for row in made} - seqs:
            dropped.append(ends[place])
    _silence(transaction, tenant, [bytes(changes[place][1]) for place in by_change])
    transaction.run_in(_drop_changes, {"t": tenant, "s": space}, dropped)
    taken = log.allocate(transaction, tenant, space, 1, at)
    if taken is None:
        raise SpaceGone
    transaction.many(_add_change, [
        {"tenant": tenant, "space": space, "seq": taken.last_seq, "change_id": erasure, "op": "erase",
         "principal": None, "at": taken.last_time, "reason": None, "undoes": None}
    ])  # fmt: skip
    return taken.last_seq


def _silence(transaction: Transaction, tenant: str, changes: Iterable[bytes]) -> None:
    """A change has one reason, and it speaks of all that was changed, in every space."""
    transaction.run_in(_drop_reasons, {"t": tenant}, sorted(set(changes)))


@cache
def _by_version() -> list[tuple[str, InStatement, int]]:
    """How rows of single cubes go: (table, delete, which part of a version's row it asks for)."""
    out = []
    for table in reversed(tables.metadata.sorted_tables):
        columns = table.c.keys()
        if table.name in KEPT | OF_SPACES:
            continue
        if "seq" in columns:
            out.append((table.name, _delete(table, "seq"), 0))
        elif "version" in columns:
            out.append((table.name, _delete(table, "version"), 1))
        elif "cube" in columns:
            out.append((table.name, _delete(table, "cube"), 2))
    return out


@cache
def _by_space() -> list[tuple[str, Statement]]:
    """How all rows of a space go."""
    return [
        (
            table.name,
            Statement(sa.delete(table).where(table.c.tenant == _p("t"), table.c.space == _p("s"))),
        )
        for table in reversed(tables.metadata.sorted_tables)
        if table.name not in KEPT and "space" in table.c
    ]


@cache
def _may_quote() -> list[Statement]:
    """What was said about a space's work may quote any of its texts."""
    return [
        Statement(
            sa.update(table)
            .where(table.c.tenant == _p("t"), table.c.space == _p("s"))
            .values(error=sa.null())
        )
        for table in tables.metadata.sorted_tables
        if "error" in table.c and "space" in table.c
    ]


def _delete(table: sa.Table, column: str) -> InStatement:
    named = [table.c.tenant == _p("t")] + ([table.c.space == _p("s")] if "space" in table.c else [])
    return InStatement(lambda values: sa.delete(table).where(*named, table.c[column].in_(values)))


def finish(vault: Vault) -> tuple[list[str], str | None]:
    """Overwrite what erased rows left, if any is left: (copies that were removed, what it waits for).

    Called at open, flush and erase; safe to call at any time, from any process. O(vault) when there is
    something to do, one look otherwise.
    """
    with vault.database.read() as transaction:
        rows = transaction.rows(_unfinished, {"t": vault.tenant})
    if not rows:
        return [], None
    try:
        names = b"".join(bytes(blobs) for _, blobs in rows)
        vault.blobs.remove([names[start : start + 32] for start in range(0, len(names), 32)])
        removed = [str(path) for path in vault.database.remove_backups()]
        if (waits_for := vault.database.reclaim()) is not None:
            return removed, waits_for
        with vault.database.write() as transaction:
            transaction.many(
                _finish, [{"t": vault.tenant, "e": id_, "at_": vault.clock()} for id_, _ in rows]
            )
            transaction.run(_drop_job, {"t": vault.tenant, "kind": FINISH})
    except VaultError as error:
        return [], str(error)
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
