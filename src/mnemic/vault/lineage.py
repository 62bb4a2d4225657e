"""What was made from what. Stale marking, rebuilding and erasing are one walk forward over citations.

A derived cube is current iff every version it cites is the live head of its cube, or the head says the same
(equal digest). The flag `stale_since` is set and cleared in the transaction that changes a source, so undo
clears it too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from mnemic.cube.ids import id_bytes
from mnemic.cube.model import Source
from mnemic.vault import tables
from mnemic.vault.database import InStatement, Statement, Transaction

SOURCE, PARENT, SUPERSEDES, CONTRADICTS = range(4)

_edge, _version, _cube = tables.edge, tables.version, tables.cube
_p = sa.bindparam
_insert = Statement(sa.insert(_edge))


# Cubes whose head cites any version of a cube: one step of the walk forward.
_citing = InStatement(
    lambda values: (
        sa.select(_cube.c.cube)
        .distinct()
        .select_from(
            _version.join(
                _edge, sa.and_(_edge.c.tenant == _version.c.tenant, _edge.c.target == _version.c.version)
            ).join(_cube, sa.and_(_cube.c.tenant == _edge.c.tenant, _cube.c.head == _edge.c.version))
        )
        .where(_version.c.tenant == _p("t"), _edge.c.role == SOURCE, _version.c.cube.in_(values))
    )
)

_cited, _cited_cube, _head = _version.alias("cited"), _cube.alias("cited_cube"), _version.alias("head")
# Of these cubes, those with a citation that does not hold: its cube is deleted or stale, or its head says
# otherwise.
_broken = InStatement(
    lambda values: (
        sa.select(_cube.c.cube)
        .distinct()
        .select_from(
            _cube.join(_edge, sa.and_(_edge.c.tenant == _cube.c.tenant, _edge.c.version == _cube.c.head))
            .outerjoin(_cited, sa.and_(_cited.c.tenant == _edge.c.tenant, _cited.c.version == _edge.c.target))
            .outerjoin(
                _cited_cube,
                sa.and_(_cited_cube.c.tenant == _cited.c.tenant, _cited_cube.c.cube == _cited.c.cube),
            )
            .outerjoin(
                _head, sa.and_(_head.c.tenant == _cited_cube.c.tenant, _head.c.version == _cited_cube.c.head)
            )
        )
        .where(
            _cube.c.tenant == _p("t"),
            _edge.c.role == SOURCE,
            sa.or_(
                _head.c.version.is_(None),
                _cited_cube.c.deleted == 1,
                _cited_cube.c.stale_since.is_not(None),
                _head.c.digest != _edge.c.target_digest,
            ),
            _cube.c.cube.in_(values),
        )
    )
)
_mark = Statement(
    sa.update(_cube)
    .where(_cube.c.tenant == _p("t"), _cube.c.cube == _p("c"), _cube.c.stale_since.is_(None))
    .values(stale_since=_p("at"))
)
_clear = Statement(
    sa.update(_cube)
    .where(_cube.c.tenant == _p("t"), _cube.c.cube == _p("c"), _cube.c.stale_since.is_not(None))
    .values(stale_since=None)
)


def cite(
    transaction: Transaction, tenant: str, space: int, version: bytes, sources: Sequence[Source]
) -> None:
    """Register a version as made from `sources`."""
    transaction.many(
        _insert,
        [
            {
                "tenant": tenant,
                "space": space,
                "version": version,
                "role": SOURCE,
                "target": id_bytes(source.version_id),
                "span_start": source.start,
                "span_end": source.end,
                "target_digest": bytes.fromhex(source.digest),
            }
            for source in sources
        ],
    )


def made_from(transaction: Transaction, tenant: str, cubes: Collection[bytes]) -> set[bytes]:
    """All cubes made from these, directly or through others, without them.

    One query a level of derivation.
    """
    seen: set[bytes] = set(cubes)
    frontier = set(cubes)
    while frontier:
        found = {bytes(row[0]) for row in transaction.rows_in(_citing, {"t": tenant}, sorted(frontier))}
        frontier = found - seen
        seen |= frontier
    return seen - set(cubes)


def restate(transaction: Transaction, tenant: str, cubes: Collection[bytes], at: int) -> None:
    """After these cubes changed: mark what depends on them as stale, or current again. O(citations followed).

    Level by level, because a cube made from a stale cube is stale.
    """
    seen: set[bytes] = set()
    frontier = set(cubes)
    while frontier:
        seen |= frontier
        derived = {bytes(row[0]) for row in transaction.rows_in(_citing, {"t": tenant}, sorted(frontier))}
        broken = {bytes(row[0]) for row in transaction.rows_in(_broken, {"t": tenant}, sorted(derived))}
        changed = set()
        for cube in derived:
            params = {"t": tenant, "c": cube, "at": at} if cube in broken else {"t": tenant, "c": cube}
            if transaction.run(_mark if cube in broken else _clear, params):
                changed.add(cube)
        frontier = changed - seen
