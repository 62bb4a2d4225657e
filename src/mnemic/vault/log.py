"""The change log: every change has a `seq`, rising within its space in commit order; readers ask what came
after.

`seq` is allocated by updating the space's row, the first write of its transaction to that space, so whoever
writes next waits for this commit: a reader that has seen seq 7 can never miss a later-committed 6. (A
database sequence hands out 7 before 6 has committed.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from mnemic.vault import tables
from mnemic.vault.database import Row, Statement, Transaction

_space, _version, _feature = tables.space, tables.version, tables.feature
_p = sa.bindparam

_allocate = Statement(
    sa.update(_space)
    .where(_space.c.tenant == _p("t"), _space.c.space == _p("s"))
    .values(
        last_seq=_space.c.last_seq + _p("n", type_=sa.BigInteger),
        last_time=sa.case(
            (_space.c.last_time < _p("clock", type_=sa.BigInteger), _p("clock", type_=sa.BigInteger)),
            else_=_space.c.last_time,
        )
        + _p("n", type_=sa.BigInteger),
    )
    .returning(_space.c.last_seq, _space.c.last_time, _space.c.epoch, _space.c.last_scope)
)
_hold = Statement(
    sa.select(_space.c.space).where(_space.c.tenant == _p("t"), _space.c.space == _p("s")).with_for_update()
)
_position = Statement(
    sa.select(_space.c.last_seq, _space.c.epoch).where(_space.c.tenant == _p("t"), _space.c.space == _p("s"))
)
_after = Statement(
    sa.select(
        _version.c.seq,
        _version.c.cube,
        _version.c.version,
        _version.c.scope,
        _version.c.kind,
        _version.c.origin,
        _version.c.deleted,
        _version.c.at,
        _version.c.recorded_at,
        _version.c.valid_from,
        _version.c.valid_to,
        _version.c.expires_at,
    )
    .where(_version.c.tenant == _p("t"), _version.c.space == _p("s"), _version.c.seq > _p("seq"))
    .order_by(_version.c.seq)
)
_features_after = Statement(
    sa.select(_feature.c.seq, _feature.c.data)
    .where(
        _feature.c.tenant == _p("t"),
        _feature.c.space == _p("s"),
        _feature.c.model == _p("model"),
        _feature.c.seq > _p("seq"),
    )
    .order_by(_feature.c.seq)
)


class Position(NamedTuple):
    """Where a space's log stands. Another `epoch` means: drop every copy and reload."""

    seq: int
    epoch: int


class Allocation(NamedTuple):
    """`count` consecutive seqs and recorded times, each ending at `last_*`."""

    last_seq: int
    last_time: int
    epoch: int
    last_scope: int


class LogRow(NamedTuple):
    """One version as an index sees it: numbers, ids and write-time features, no text."""

    seq: int
    cube: bytes
    version: bytes
    scope: int
    kind: int
    origin: int
    deleted: int
    at: int
    recorded_at: int
    valid_from: int | None
    valid_to: int | None
    expires_at: int | None
    lexical: bytes
    dense: bytes | None


def allocate(transaction: Transaction, tenant: str, space: int, count: int, clock: int) -> Allocation | None:
    """Take the space's next `count` seqs and strictly rising times. None when the space is gone. O(1)."""
    found = transaction.row(_allocate, {"t": tenant, "s": space, "n": count, "clock": clock})
    return Allocation(*found) if found else None


def hold(transaction: Transaction, tenant: str, space: int) -> bool:
    """Let nobody else write to this space until the transaction ends; False when the space is gone. O(1).

    Whoever decides by what is there (a known id, the head of a cube) reads it after this: on PostgreSQL
    another transaction may write until a lock is taken. SQLite's write transaction holds all from its start.
    """
    return transaction.row(_hold, {"t": tenant, "s": space}) is not None


def position(transaction: Transaction, tenant: str, space: int) -> Position | None:
    """Where the log of a space stands; None when there is no such space. O(1)."""
    found = transaction.row(_position, {"t": tenant, "s": space})
    return Position(*found) if found else None


def since(
    transaction: Transaction, tenant: str, space: int, seq: int, *, lexical: int, dense: int | None
) -> list[LogRow]:
    """Every version after `seq`, in seq order, with its features of two models. Three range scans."""
    base: dict[str, Any] = {"t": tenant, "s": space, "seq": seq}
    versions = transaction.rows(_after, base)
    terms = features_after(transaction, tenant, space, seq, lexical)
    vectors = {} if dense is None else features_after(transaction, tenant, space, seq, dense)
    return [LogRow._make((*row, terms.get(row[0], b""), vectors.get(row[0]))) for row in versions]


def features_after(
    transaction: Transaction, tenant: str, space: int, seq: int, model: int
) -> dict[int, bytes]:
    """seq -> feature of one model, above `seq`. One range scan."""
    rows: Sequence[Row] = transaction.rows(
        _features_after, {"t": tenant, "s": space, "seq": seq, "model": model}
    )
    return dict(rows)
