"""Is a derived cube current, and if not, why? Read at every use, so that none is served after its source.

`stale_since` is set by `lineage` in the transaction that changes a source. Expiry is a moment, not a
transaction: it is looked up here, in the cube and in everything it rests on.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from mnemic.cube.errors import NotFound, StaleMemory
from mnemic.cube.ids import id_bytes, id_text
from mnemic.cube.model import Source
from mnemic.cube.times import to_datetime
from mnemic.vault import tables
from mnemic.vault.database import InStatement, Statement, Transaction
from mnemic.vault.lineage import SOURCE, WITH_CITED, at_head_of, cited

Citation = Source
_p = sa.bindparam
_cube, _version, _edge = tables.cube, tables.version, tables.edge
_state = Statement(
    sa.select(_cube.c.deleted, _cube.c.stale_since, _version.c.expires_at)
    .select_from(_cube.outerjoin(_version, at_head_of(_cube)))
    .where(_cube.c.tenant == _p("t"), _cube.c.cube == _p("c"))
)
_heads = InStatement(
    lambda values: (
        sa.select(_cube.c.cube, _version.c.version, _version.c.digest, _cube.c.deleted, _version.c.expires_at)
        .select_from(_cube.join(_version, at_head_of(_cube)))
        .where(_cube.c.tenant == _p("t"), _cube.c.cube.in_(values))
    )
)
_sources = InStatement(
    lambda values: (
        sa.select(
            _edge.c.target_cube,
            _edge.c.target_digest,
            cited.c.cube,
            cited.c.deleted,
            _version.c.digest,
            _version.c.expires_at,
        )
        .select_from(WITH_CITED)
        .where(_cube.c.tenant == _p("t"), _edge.c.role == SOURCE, _cube.c.cube.in_(values))
    )
)


def citations(transaction: Transaction, tenant: str, cubes: Sequence[str]) -> list[Source]:
    """The current states of these cubes, as a derived cube cites them. Raises NotFound for one that is not
    live. O(cubes).
    """
    wanted = [id_bytes(cube) for cube in dict.fromkeys(cubes)]
    found = {bytes(row[0]): row for row in transaction.rows_in(_heads, {"t": tenant}, wanted)}
    moment, out = transaction.clock(), []
    for cube in wanted:
        row = found.get(cube)
        if row is None or row[3] or (row[4] is not None and row[4] <= moment):
            what = "is not in this vault" if row is None else "was deleted" if row[3] else "has expired"
            raise NotFound(f"cube {id_text(cube)} {what}; nothing can be made from it")
        out.append(
            Source(cube_id=id_text(cube), version_id=id_text(bytes(row[1])), digest=bytes(row[2]).hex())
        )
    return out


def why_not_current(transaction: Transaction, tenant: str, cube: str) -> str | None:
    """Why this cube may not be served, in a clause; None: it may. O(cubes it rests on).

    A cube that is not there counts as erased.
    """
    key, moment = id_bytes(cube), transaction.clock()
    found = transaction.row(_state, {"t": tenant, "c": key})
    if found is None:
        return "it was erased, or never was in this vault"
    deleted, stale_since, expires_at = found
    if deleted:
        return "it was dropped"
    if expires_at is not None and expires_at <= moment:
        return f"it expired at {to_datetime(expires_at):%Y-%m-%d %H:%M:%S} UTC"
    reason = _in_what_it_rests_on(transaction, tenant, key, moment)
    if reason is None and stale_since is not None:
        reason = "what it was made from has changed"
    if reason is not None and stale_since is not None:
        reason += f" (stale since {to_datetime(stale_since):%Y-%m-%d %H:%M:%S} UTC)"
    return reason


def stale(cube: str, reason: str) -> StaleMemory:
    """The refusal, in words."""
    return StaleMemory(
        f"cube {cube} is not current: {reason}. It is not served. Make it again from what holds now: "
        "mnemic kv build for a KV memory, mnemic memory tune for what was learned"
    )


def _in_what_it_rests_on(transaction: Transaction, tenant: str, cube: bytes, moment: int) -> str | None:
    seen, frontier = {cube}, {cube}
    while frontier:
        following: set[bytes] = set()
        for target, cited_digest, there, deleted, digest, expires_at in transaction.rows_in(
            _sources, {"t": tenant}, sorted(frontier)
        ):
            name = f"its source {id_text(bytes(target))}"
            if there is None or digest is None:
                return f"{name} was erased"
            if deleted:
                return f"{name} was deleted"
            if cited_digest is None:
                return f"{name} is not here as it was when this was made"
            if bytes(digest) != bytes(cited_digest):
                return f"{name} was updated"
            if expires_at is not None and expires_at <= moment:
                return f"{name} expired at {to_datetime(expires_at):%Y-%m-%d %H:%M:%S} UTC"
            following.add(bytes(target))
        frontier = following - seen
        seen |= frontier
    return None
