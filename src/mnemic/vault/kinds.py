"""The cubes of one kind, such as all live KV memories of a user, and those of all other kinds."""

from __future__ import annotations

import sqlalchemy as sa

from mnemic.cube.model import Kind
from mnemic.vault import tables
from mnemic.vault.database import Statement, Transaction
from mnemic.vault.lineage import at_head_of

_p = sa.bindparam
_cube, _version = tables.cube, tables.version
_live = Statement(
    sa.select(_version.c.seq)
    .select_from(_cube.join(_version, at_head_of(_cube)))
    .where(
        _version.c.tenant == _p("t"),
        _version.c.space == _p("s"),
        _version.c.kind == _p("kind"),
        _cube.c.deleted == 0,
    )
    .order_by(_version.c.seq)
)
_other = Statement(
    sa.select(_version.c.cube)
    .distinct()
    .where(_version.c.tenant == _p("t"), _version.c.space == _p("s"), _version.c.kind != _p("kind"))
)


def live_of_kind(transaction: Transaction, tenant: str, space: int, kind: Kind) -> list[int]:
    """The seqs of the heads, in order. O(versions of the space), in the database."""
    rows = transaction.rows(_live, {"t": tenant, "s": space, "kind": int(kind)})
    return [int(row[0]) for row in rows]


def cubes_of_other_kinds(transaction: Transaction, tenant: str, space: int, kind: Kind) -> set[bytes]:
    """The ids of all cubes, live or not, that are of another kind. O(versions of the space)."""
    rows = transaction.rows(_other, {"t": tenant, "s": space, "kind": int(kind)})
    return {bytes(row[0]) for row in rows}
