"""What goes with erased cubes or spaces, and deleting it: all within one transaction of the caller's.

Which rows belong to a cube or a space is read from the shape of the tables, so that a new table is erased
without code of its own.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import sqlalchemy as sa

from mnemic.cube.errors import NotFound
from mnemic.cube.ids import id_text
from mnemic.cube.times import to_datetime
from mnemic.vault import governing, heads, jobs, lineage, log, reading, tables
from mnemic.vault.codec import erased_key, erased_marker
from mnemic.vault.database import InStatement, Statement, Transaction
from mnemic.vault.writing import REBUILD, SpaceGone

KEPT: Final = frozenset({"meta", "tenant", "model", "erased", "erasure"})  # no content, or what is gone
OF_SPACES: Final = frozenset({"space", "scope", "change", "dump", "progress"})  # go with the whole space
OF_NO_SPACE: Final = 0
FINISH: Final = "finish erase"  # the kind of job that goes on with what is pending
_p = sa.bindparam
_version, _edge, _change, _cube = tables.version, tables.edge, tables.change, tables.cube

# Cubes whose head says that they are merged into one of these; and those of which some version does.


def _saying(table: sa.Table, version: sa.Column[bytes]) -> InStatement:
    same = (
        table.c.tenant == _edge.c.tenant,
        table.c.space == _edge.c.space,
        version == _edge.c.version,
    )
    return InStatement(
        lambda values: (
            sa.select(table.c.cube)
            .distinct()
            .select_from(_edge.join(table, sa.and_(*same)))
            .where(_edge.c.tenant == _p("t"), _edge.c.role == lineage.MERGED, _edge.c.target_cube.in_(values))
        )
    )


_merged, _merging = _saying(_cube, _cube.c.head), _saying(_version, _version.c.version)
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
drop_changes = InStatement(
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
_dumps = Statement(
    sa.select(tables.dump.c.place, tables.dump.c.at)
    .where(tables.dump.c.tenant == _p("t"), tables.dump.c.space == _p("s"))
    .order_by(tables.dump.c.at)
)


Row = tuple[int, bytes, bytes, int, bytes | None]  # seq, version, cube, scope, blob


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes: cubes by id with those asked for, whole spaces, versions by space.

    back: versions by space that say nothing but that their cube was fused into one that goes; they go too,
    and the cube says again what it said before.
    """

    asked: frozenset[bytes]
    cubes: frozenset[bytes]
    spaces: frozenset[int]
    versions: Mapping[int, list[Row]]
    citing: frozenset[bytes]  # cubes that stay and name one that goes, other than as their source
    users: tuple[str | None, ...]
    dumps: tuple[str, ...]
    back: Mapping[int, list[Row]]

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
    versions: dict[int, list[Row]] = {}
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
        {space: rows for space, rows in _fused_into(transaction, tenant, gone).items() if space not in users},
    )


def with_merged(transaction: Transaction, tenant: str, cubes: Iterable[bytes]) -> list[bytes]:
    """These, and what is merged into them, directly or through others: they are one memory."""
    known = frontier = set(cubes)
    while frontier:
        found = transaction.rows_in(_merged, {"t": tenant}, sorted(frontier))
        frontier = {bytes(cube) for (cube,) in found} - known
        known = known | frontier
    return sorted(known)


def _fused_into(transaction: Transaction, tenant: str, gone: Collection[bytes]) -> dict[int, list[Row]]:
    """By space, the last states of cubes that stay which say that they are merged into one that goes."""
    saying = {
        bytes(version)
        for _, version, role in transaction.rows_in(_linked, {"t": tenant}, sorted(gone))
        if role == lineage.MERGED
    }
    found = transaction.rows_in(_merging, {"t": tenant}, sorted(gone)) if saying else []
    cubes = {bytes(cube) for (cube,) in found} - set(gone)
    last = {one for head in heads.heads_of(transaction, tenant, cubes).values() for one in head.last}
    out: dict[int, list[Row]] = {}
    for space, seq, version, cube, scope, _ in transaction.rows_in(
        _versions_of, {"t": tenant}, sorted(cubes)
    ):
        if bytes(version) in saying & last:
            out.setdefault(int(space), []).append((int(seq), bytes(version), bytes(cube), int(scope), None))
    return out


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
            kind = sources if role in lineage.QUOTES else others
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


def hold(transaction: Transaction, tenant: str, spaces: Iterable[int]) -> bool:
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
        back = plan.back.get(space, [])
        seqs = [row[0] for row in (*rows, *back)]
        seq_of[space] = _forget_changes(transaction, tenant, space, seqs, erasure, at)
        for table, statement, place in rows_of_cubes():
            values: list[Any] = sorted({row[place] for row in rows})
            gone = transaction.run_in(statement, {"t": tenant, "s": space}, values)
            rooms[table] = rooms.get(table, 0) + gone
        scopes = sorted({row[3] for row in rows})
        gone = transaction.run_in(_drop_empty_scopes, {"t": tenant, "s": space}, scopes)
        rooms["scope"] = rooms.get("scope", 0) + gone
        bring_back(transaction, tenant, space, back)
        for quoting in _may_quote():
            transaction.run(quoting, {"t": tenant, "s": space})
        transaction.run(_raise_epoch, {"t": tenant, "s": space})
    for space in sorted(plan.spaces):
        changes = transaction.rows(_changes, {"t": tenant, "s": space})
        _silence(transaction, tenant, [bytes(row[1]) for row in changes])
        for table, by_space in rows_of_spaces():
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


def bring_back(transaction: Transaction, tenant: str, space: int, rows: Sequence[Row]) -> None:
    """Take out versions which say that their cube was fused; it says again what it said before. O(rows)."""
    cubes = {row[2] for row in rows}
    for _, statement, place in rows_of_cubes():
        if place < 2:
            transaction.run_in(statement, {"t": tenant, "s": space}, sorted({row[place] for row in rows}))
    found = heads.heads_of(transaction, tenant, cubes)
    heads.move(transaction, tenant, found)
    if alone := sorted(cubes - found.keys()):  # it came without its history
        for _, statement, place in rows_of_cubes():
            if place == 2:
                transaction.run_in(statement, {"t": tenant, "s": space}, alone)


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
    transaction.run_in(drop_changes, {"t": tenant, "s": space}, dropped)
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
def rows_of_cubes() -> list[tuple[str, InStatement, int]]:
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
def rows_of_spaces() -> list[tuple[str, Statement]]:
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
