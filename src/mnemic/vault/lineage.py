"""What was made from what. Stale marking, rebuilding and erasing are one walk forward over citations.

A derived cube is current iff every version it cites is the live head of its cube, or the head says the same
(equal digest); and what put an end to it is still there. The flag `stale_since` is set and cleared in the
transaction that changes a source, so undo clears it too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

import sqlalchemy as sa

from mnemic.cube.ids import id_bytes
from mnemic.cube.model import Source
from mnemic.vault import tables
from mnemic.vault.database import InStatement, Statement, Transaction

SOURCE, PARENT, SUPERSEDES, CONTRADICTS, ENDED, FUSED, MERGED = range(7)
QUOTES: Final = (SOURCE, FUSED)  # roles of a citation whose text may hold that of what it cites

_edge, _version, _cube = tables.edge, tables.version, tables.cube
_p = sa.bindparam
_insert = Statement(sa.insert(_edge))
_rests_on = sa.or_(_edge.c.role == SOURCE, _edge.c.role == ENDED)  # what a cube cannot do without


# Cubes whose head cites any version of a cube: one step of the walk forward.
_citing = InStatement(
    lambda values: (
        sa.select(_cube.c.cube)
        .distinct()
        .select_from(
            _edge.join(_cube, sa.and_(_cube.c.tenant == _edge.c.tenant, _cube.c.head == _edge.c.version))
        )
        .where(
            _edge.c.tenant == _p("t"),
            _rests_on,
            _cube.c.space == _edge.c.space,
            _edge.c.target_cube.in_(values),
        )
    )
)

_resting = Statement(
    sa.select(_cube.c.cube, _edge.c.target_cube)
    .distinct()
    .select_from(
        _edge.join(_cube, sa.and_(_cube.c.tenant == _edge.c.tenant, _cube.c.head == _edge.c.version))
    )
    .where(
        _edge.c.tenant == _p("t"),
        _edge.c.space == _p("s"),
        _rests_on,
        _cube.c.space == _edge.c.space,
    )
)

cited = _cube.alias("cited")


def at_head_of(cube: Any) -> Any:
    """The version that a row of `cube` (the table or an alias) names as its head."""
    return sa.and_(
        _version.c.tenant == cube.c.tenant,
        _version.c.space == cube.c.space,
        _version.c.seq == cube.c.head_seq,
    )


# Cubes, the citations of their heads, the cubes that are `cited` (NULL: erased) and the heads of those.
WITH_CITED: Final = (
    _cube.join(
        _edge,
        sa.and_(
            _edge.c.tenant == _cube.c.tenant,
            _edge.c.space == _cube.c.space,
            _edge.c.version == _cube.c.head,
        ),
    )
    .outerjoin(cited, sa.and_(cited.c.tenant == _edge.c.tenant, cited.c.cube == _edge.c.target_cube))
    .outerjoin(_version, at_head_of(cited))
)
# The citations of these cubes: does one fail by itself (its cube is gone or deleted, or its head says
# otherwise), and is what it cites stale?
_links = InStatement(
    lambda values: (
        sa.select(
            _cube.c.cube,
            _edge.c.target_cube,
            sa.or_(
                _version.c.version.is_(None),
                cited.c.deleted == 1,
                # What ended a fact may end itself: the first is over all the same. No digest: the state that
                # is cited never came into this vault.
                sa.and_(
                    _edge.c.role == SOURCE,
                    sa.or_(_edge.c.target_digest.is_(None), _version.c.digest != _edge.c.target_digest),
                ),
            ),
            cited.c.stale_since.is_not(None),
        )
        .select_from(WITH_CITED)
        .where(_cube.c.tenant == _p("t"), _rests_on, _cube.c.cube.in_(values))
    )
)
_stale_in = Statement(
    sa.select(_cube.c.cube).where(
        _cube.c.tenant == _p("t"), _cube.c.space == _p("s"), _cube.c.stale_since.is_not(None)
    )
)
_edges_in = Statement(
    sa.select(_edge.c.version, _edge.c.role, _edge.c.target_cube, _edge.c.target_digest).where(
        _edge.c.tenant == _p("t"), _edge.c.space == _p("s"), _rests_on
    )
)
_states_until = Statement(
    sa.select(_version.c.cube, _version.c.version, _version.c.deleted, _version.c.digest)
    .where(_version.c.tenant == _p("t"), _version.c.space == _p("s"), _version.c.recorded_at <= _p("at"))
    .order_by(_version.c.recorded_at, _version.c.version)
)
_digest_of = Statement(
    sa.select(_version.c.digest).where(
        _version.c.tenant == _p("t"), _version.c.cube == _p("c"), _version.c.version == _p("v")
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
    .values(stale_since=sa.null())
)


def cite(
    transaction: Transaction,
    tenant: str,
    space: int,
    version: bytes,
    sources: Sequence[Source],
    *,
    role: int = SOURCE,
) -> None:
    """Register a version as made from `sources`, or as what `role` says.

    A digest that is not given is looked up.
    """
    transaction.many(
        _insert,
        [
            {
                "tenant": tenant,
                "space": space,
                "version": version,
                "role": role,
                "target": id_bytes(source.version_id),
                "target_cube": id_bytes(source.cube_id),
                "span_start": source.start,
                "span_end": source.end,
                "target_digest": bytes.fromhex(source.digest) or _digest(transaction, tenant, source),
            }
            for source in sources
        ],
    )


def _digest(transaction: Transaction, tenant: str, source: Source) -> bytes | None:
    named = {"t": tenant, "c": id_bytes(source.cube_id), "v": id_bytes(source.version_id)}
    found = transaction.row(_digest_of, named)
    return None if found is None else bytes(found[0])


def sources_in(transaction: Transaction, tenant: str, space: int) -> list[tuple[bytes, bytes]]:
    """(cube, cube it cannot do without) for the current cubes of a space. One query, O(citations)."""
    rows = transaction.rows(_resting, {"t": tenant, "s": space})
    return [(bytes(cube), bytes(source)) for cube, source in rows]


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


def restate(transaction: Transaction, tenant: str, cubes: Collection[bytes], at: int) -> set[bytes]:
    """After these cubes changed: mark them and what depends on them as stale, or current again.

    What fails by itself is stale, and so is what cites something stale. Returns those that are stale.
    O(cubes that depend on these).
    """
    reached = set(cubes) | made_from(transaction, tenant, cubes)
    links = [
        (bytes(cube), bytes(source), fails, source_stale)
        for cube, source, fails, source_stale in transaction.rows_in(_links, {"t": tenant}, sorted(reached))
    ]
    stale = {
        cube
        for cube, source, fails, source_stale in links
        if fails or (source_stale and source not in reached)  # flags of those within reach are what is sought
    }
    while more := {cube for cube, source, _, _ in links if source in stale} - stale:
        stale |= more
    transaction.many(_mark, [{"t": tenant, "c": cube, "at": at} for cube in sorted(stale)])
    transaction.many(_clear, [{"t": tenant, "c": cube} for cube in sorted(reached - stale)])
    return stale


def stale_in(transaction: Transaction, tenant: str, space: int) -> set[bytes]:
    """The cubes of a space that are flagged as stale. O(those)."""
    return {bytes(row[0]) for row in transaction.rows(_stale_in, {"t": tenant, "s": space})}


def stale_at(transaction: Transaction, tenant: str, space: int, moment: int) -> set[bytes]:
    """The cubes of a space that were stale at a moment: the same rule, on the versions recorded by then.

    O(versions and citations of the space).
    """
    params = {"t": tenant, "s": space}
    heads: dict[bytes, tuple[bytes, bool, bytes]] = {}
    for cube, version, deleted, digest in transaction.rows(_states_until, {**params, "at": moment}):
        heads[bytes(cube)] = (bytes(version), bool(deleted), bytes(digest))
    cube_of = {version: cube for cube, (version, deleted, _) in heads.items() if not deleted}
    rests: dict[bytes, set[bytes]] = {}
    stale = set()
    for version, role, target, digest in transaction.rows(_edges_in, params):
        cube, target = cube_of.get(bytes(version)), bytes(target)
        if cube is None:
            continue
        _, gone, says = heads.get(target, (b"", True, b""))
        if gone or (role == SOURCE and (digest is None or says != bytes(digest))):
            stale.add(cube)
        rests.setdefault(target, set()).add(cube)
    frontier = set(stale)
    while frontier:
        frontier = {cube for target in frontier for cube in rests.get(target, ())} - stale
        stale |= frontier
    return stale
