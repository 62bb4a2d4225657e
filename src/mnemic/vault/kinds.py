"""The live cubes of one kind, such as all KV memories of a user."""

from __future__ import annotations

import sqlalchemy as sa

from mnemic.cube.model import Kind
from mnemic.vault import tables
from mnemic.vault.database import Statement, Transaction

_p = sa.bindparam
_cube, _version = tables.cube, tables.version
_live = Statement(
    sa.select(_version.c.seq)
    .select_from(
        _cube.join(
            _version,
            sa.and_(
                _version.c.tenant == _cube.c.tenant,
                _version.c.space == _cube.c.space,
                _version.c.seq == _cube.c.head_seq,
            ),
        )
    )
    .where(
        _version.c.tenant == _p("t"),
        _version.c.space == _p("s"),
        _version.c.kind == _p("kind"),
        _cube.c.deleted == 0,
    )
    .order_by(_version.c.seq)
)


def live_of_kind(transaction: Transaction, tenant: str, space: int, kind: Kind) -> list[int]:
    """The seqs of the heads, in order. O(versions of the space), in the database."""
    rows = transaction.rows(_live, {"t": tenant, "s": space, "kind": int(kind)})
    return [int(row[0]) for row in rows]
