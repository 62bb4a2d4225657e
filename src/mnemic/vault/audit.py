"""The audit log: who did what to which opaque id, or was refused; each row sealed by a hash over the one
before.

One chain a tenant, rows are only ever added. Content never stands in it, so that erasing content breaks no
hash. Whoever can write the file could make the whole chain anew, so its head is worth keeping elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import sqlalchemy as sa

from mnemic.vault import tables
from mnemic.vault.database import Deed, Statement, Transaction

_governance, _audit = tables.governance, tables.audit
_p = sa.bindparam

_take = Statement(
    sa.update(_governance)
    .where(_governance.c.tenant == _p("t"), _governance.c.audit_n.is_not(None))
    .values(audit_n=_governance.c.audit_n + _p("n", type_=sa.BigInteger))
    .returning(_governance.c.audit_n, _governance.c.audit_head)
)
_set_head = Statement(
    sa.update(_governance).where(_governance.c.tenant == _p("t")).values(audit_head=_p("head"))
)
_add = Statement(sa.insert(_audit))
_start = Statement(
    sa.update(_governance)
    .where(_governance.c.tenant == _p("t"), _governance.c.audit_n.is_(None))
    .values(audit_n=0, audit_head=_p("head"))
)
_head = Statement(
    sa.select(_governance.c.audit_n, _governance.c.audit_head).where(_governance.c.tenant == _p("t"))
)
_columns = (
    _audit.c.n,
    _audit.c.at,
    _audit.c.principal,
    _audit.c.verb,
    _audit.c.target,
    _audit.c.allowed,
    _audit.c.hash,
)
_rows = Statement(
    sa.select(*_columns)
    .where(_audit.c.tenant == _p("t"), _audit.c.n > _p("n"))
    .order_by(_audit.c.n)
    .limit(_p("limit", type_=sa.BigInteger))
)
_last = Statement(
    sa.select(*_columns)
    .where(_audit.c.tenant == _p("t"))
    .order_by(_audit.c.n.desc())
    .limit(_p("limit", type_=sa.BigInteger))
)
BATCH: Final = 1000


class Line(NamedTuple):
    """One row of the log."""

    n: int
    at: int
    principal: bytes | None
    verb: str
    target: bytes
    allowed: int
    hash: bytes


class Head(NamedTuple):
    """The last row's number and hash."""

    n: int
    hash: bytes


def genesis(tenant: str) -> bytes:
    """What the first row is chained to."""
    return hashlib.sha256(b"mnemic audit\x00" + tenant.encode()).digest()


def link(
    prev: bytes, n: int, at: int, principal: bytes | None, verb: str, target: bytes, allowed: int
) -> bytes:
    """SHA-256 over the hash before and an unambiguous encoding of a row."""
    word, who = verb.encode(), b"-" if principal is None else principal
    head = b"%d %d %d %d %d %d\n" % (n, at, allowed, len(who), len(word), len(target))
    return hashlib.sha256(prev + head + who + word + target).digest()


def start(transaction: Transaction, tenant: str) -> None:
    """Begin the chain; nothing where it is begun. The tenant's row of `governance` must be there."""
    transaction.run(_start, {"t": tenant, "head": genesis(tenant)})


def append(transaction: Transaction, tenant: str, deeds: Sequence[Deed]) -> None:
    """Chain what was done, if this tenant's chain was begun. O(deeds); holds the tenant's row until the
    transaction ends, so it comes last in it.
    """
    found = transaction.row(_take, {"t": tenant, "n": len(deeds)})
    if found is None:
        return
    last, head = int(found[0]), bytes(found[1])
    actor = transaction.actor.principal if transaction.actor else None
    clock = transaction.clock()
    rows = []
    for n, deed in enumerate(deeds, start=last - len(deeds) + 1):
        at = clock if deed.at is None else deed.at
        principal = actor if deed.principal is None else deed.principal
        allowed = int(deed.allowed)
        head = link(head, n, at, principal, deed.verb, deed.target, allowed)
        rows.append(
            {
                "tenant": tenant,
                "n": n,
                "at": at,
                "principal": principal,
                "verb": deed.verb,
                "target": deed.target,
                "allowed": allowed,
                "hash": head,
            }
        )
    transaction.many(_add, rows)
    transaction.run(_set_head, {"t": tenant, "head": head})


def head(transaction: Transaction, tenant: str) -> Head | None:
    """Where the chain stands, as its tenant's row says; None where it was never begun."""
    found = transaction.row(_head, {"t": tenant})
    return None if found is None or found[0] is None else Head(int(found[0]), bytes(found[1]))


def lines(transaction: Transaction, tenant: str, *, after: int = 0, limit: int = BATCH) -> list[Line]:
    """Rows after number `after`, in order."""
    return [_line(row) for row in transaction.rows(_rows, {"t": tenant, "n": after, "limit": limit})]


def last_lines(transaction: Transaction, tenant: str, limit: int) -> list[Line]:
    """The last rows, in order."""
    return [_line(row) for row in transaction.rows(_last, {"t": tenant, "limit": limit})][::-1]


def _line(row: Sequence[object]) -> Line:
    n, at, principal, verb, target, allowed, mark = row
    who = None if principal is None else bytes(principal)  # type: ignore[call-overload]
    return Line(n, at, who, str(verb), bytes(target), allowed, bytes(mark))  # type: ignore[arg-type,call-overload]
