"""Rows of governance: principals, grants, policies, usage. What they mean is the governance room's affair.

`revision` rises in the transaction of each change, so that every process can tell by one row whether what it
knows still holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from mnemic.cube.reach import Reach
from mnemic.vault import tables
from mnemic.vault.database import InStatement, Row, Statement, Transaction

_governance, _principal, _grants, _policy, _usage, _cube, _version = (
    tables.governance,
    tables.principal,
    tables.grants,
    tables.policy,
    tables.usage,
    tables.cube,
    tables.version,
)
_p = sa.bindparam
_state = Statement(
    sa.select(_governance.c.revision, _governance.c.audit_n.is_not(None)).where(
        _governance.c.tenant == _p("t")
    )
)
_begin = Statement(
    sa.text(
        "INSERT INTO governance (tenant, revision, audit_n, audit_head) VALUES (:t, 0, NULL, NULL) "
        "ON CONFLICT DO NOTHING"
    )
)
_bump = Statement(
    sa.update(_governance)
    .where(_governance.c.tenant == _p("t"))
    .values(revision=_governance.c.revision + 1)
    .returning(_governance.c.revision)
)
_principals = Statement(
    sa.select(_principal.c.principal, _principal.c.name, _principal.c.kind, _principal.c.disabled)
    .where(_principal.c.tenant == _p("t"))
    .order_by(_principal.c.principal)
)
_add_principal = Statement(sa.insert(_principal))
_disable = Statement(
    sa.update(_principal)
    .where(_principal.c.tenant == _p("t"), _principal.c.principal == _p("p"))
    .values(disabled=_p("disabled_"))
)
_all_grants = Statement(
    sa.select(
        _grants.c.grant_id,
        _grants.c.principal,
        _grants.c.rights,
        _grants.c.reach,
        _grants.c.label,
        _grants.c.unless,
        _grants.c.until,
    )
    .where(_grants.c.tenant == _p("t"))
    .order_by(_grants.c.grant_id)
)
_add_grant = Statement(sa.insert(_grants))
_drop_grant = Statement(sa.delete(_grants).where(_grants.c.tenant == _p("t"), _grants.c.grant_id == _p("g")))
_policies = Statement(
    sa.select(_policy.c.policy, _policy.c.reach, _policy.c.label, _policy.c.rule)
    .where(_policy.c.tenant == _p("t"))
    .order_by(_policy.c.policy)
)
_add_policy = Statement(sa.insert(_policy))
_drop_policy = Statement(sa.delete(_policy).where(_policy.c.tenant == _p("t"), _policy.c.policy == _p("p")))
_headers = InStatement(
    lambda values: (
        sa.select(_cube.c.cube, _version.c.header)
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
        .where(_cube.c.tenant == _p("t"), _version.c.deleted == 0, _cube.c.cube.in_(values))
    )
)
_deleted_in = Statement(
    sa.select(_cube.c.cube, _cube.c.state).where(
        _cube.c.tenant == _p("t"), _cube.c.space == _p("s"), _cube.c.deleted == 1
    )
)
_space_of = Statement(sa.select(_cube.c.space).where(_cube.c.tenant == _p("t"), _cube.c.cube == _p("c")))
_used_in = Statement(
    sa.select(_usage.c.cube, _usage.c.uses, _usage.c.last_used).where(
        _usage.c.tenant == _p("t"), _usage.c.space == _p("s")
    )
)
_use_of = Statement(
    sa.select(_usage.c.uses, _usage.c.last_used)
    .select_from(
        _cube.join(
            _usage,
            sa.and_(
                _usage.c.tenant == _cube.c.tenant,
                _usage.c.space == _cube.c.space,
                _usage.c.cube == _cube.c.cube,
            ),
        )
    )
    .where(_cube.c.tenant == _p("t"), _cube.c.cube == _p("c"))
)
_use = Statement(
    sa.text(
        "INSERT INTO usage (tenant, space, cube, uses, last_used) VALUES (:t, :s, :c, :n, :at) "
        "ON CONFLICT (tenant, space, cube) DO UPDATE SET uses = usage.uses + :n, "
        "last_used = CASE WHEN usage.last_used < :at THEN :at ELSE usage.last_used END"
    )
)
_set_state = Statement(
    sa.update(_cube)
    .where(_cube.c.tenant == _p("t"), _cube.c.cube == _p("c"), _cube.c.state == _p("was"))
    .values(state=_p("state_"))
)


_REACH: Final = {"grants": 3, "policy": 1}  # where the reach stands in their rows


class Use(NamedTuple):
    """How often a cube was served, and when last (microseconds)."""

    uses: int
    last_used: int


def state(transaction: Transaction, tenant: str) -> tuple[int, bool] | None:
    """The version of a tenant's rules and whether it is audited; None where there never was a rule. O(1)."""
    found = transaction.row(_state, {"t": tenant})
    return None if found is None else (int(found[0]), bool(found[1]))


def bump(transaction: Transaction, tenant: str) -> None:
    """The rules are about to change. Holds the tenant's row, so that changes come one after the other."""
    transaction.run(_begin, {"t": tenant})
    transaction.row(_bump, {"t": tenant})


def principals(transaction: Transaction, tenant: str) -> list[Row]:
    return transaction.rows(_principals, {"t": tenant})


def add_principal(transaction: Transaction, tenant: str, row: Mapping[str, Any]) -> None:
    transaction.run(_add_principal, {"tenant": tenant, "disabled": 0, **row})


def disable_principal(transaction: Transaction, tenant: str, principal: bytes, disabled: bool) -> None:
    transaction.run(_disable, {"t": tenant, "p": principal, "disabled_": int(disabled)})


def grants(transaction: Transaction, tenant: str) -> list[Row]:
    return transaction.rows(_all_grants, {"t": tenant})


def add_grant(transaction: Transaction, tenant: str, row: Mapping[str, Any]) -> None:
    transaction.run(_add_grant, {"tenant": tenant, **row})


def drop_grant(transaction: Transaction, tenant: str, grant: bytes) -> int:
    return transaction.run(_drop_grant, {"t": tenant, "g": grant})


def policies(transaction: Transaction, tenant: str) -> list[Row]:
    return transaction.rows(_policies, {"t": tenant})


def add_policy(transaction: Transaction, tenant: str, row: Mapping[str, Any]) -> None:
    transaction.run(_add_policy, {"tenant": tenant, **row})


def drop_policy(transaction: Transaction, tenant: str, policy: bytes) -> int:
    return transaction.run(_drop_policy, {"t": tenant, "p": policy})


def forget_user(transaction: Transaction, tenant: str, user: str) -> dict[str, int]:
    """Take out the grants and policies that name a user whose memory is erased; rows by table. O(rules)."""
    held = {"grants": grants(transaction, tenant), "policy": policies(transaction, tenant)}
    named = [
        (table, bytes(row[0]))
        for table, rows in held.items()
        for row in rows
        if Reach.from_json(bytes(row[_REACH[table]])).user == user
    ]
    if not named:
        return {}
    bump(transaction, tenant)
    gone = {"grants": 0, "policy": 0}
    for table, raw in named:
        gone[table] += (drop_grant if table == "grants" else drop_policy)(transaction, tenant, raw)
    return gone


def headers_of(transaction: Transaction, tenant: str, cubes: Sequence[bytes]) -> list[bytes]:
    """The header JSON of the current versions of some cubes; of deleted ones none."""
    return [bytes(row[1]) for row in transaction.rows_in(_headers, {"t": tenant}, cubes)]


def deleted_in(transaction: Transaction, tenant: str, space: int) -> dict[bytes, int]:
    """The deleted cubes of a space, and the state of each. O(cubes of the tenant)."""
    rows = transaction.rows(_deleted_in, {"t": tenant, "s": space})
    return {bytes(cube): int(state) for cube, state in rows}


def used_in(transaction: Transaction, tenant: str, space: int) -> dict[bytes, Use]:
    """Every cube of a space that was used. O(those)."""
    rows = transaction.rows(_used_in, {"t": tenant, "s": space})
    return {bytes(cube): Use(uses, last) for cube, uses, last in rows}


def use_of(transaction: Transaction, tenant: str, cube: bytes) -> Use | None:
    """How one cube was used; None where it never was. O(1)."""
    found = transaction.row(_use_of, {"t": tenant, "c": cube})
    return None if found is None else Use(*found)


def space_of(transaction: Transaction, tenant: str, cube: bytes) -> int | None:
    found = transaction.row(_space_of, {"t": tenant, "c": cube})
    return None if found is None else int(found[0])


def use(transaction: Transaction, tenant: str, uses: Mapping[bytes, Use]) -> None:
    """Add uses. O(cubes)."""
    for cube in sorted(uses):  # in one order, so that two processes cannot wait for each other
        space = space_of(transaction, tenant, cube)
        if space is not None:
            times, last = uses[cube]
            transaction.run(_use, {"t": tenant, "s": space, "c": cube, "n": times, "at": last})


def set_state(transaction: Transaction, tenant: str, cubes: Sequence[bytes], was: int, now: int) -> None:
    """Move cubes from one state to another; those in a third stay in it."""
    transaction.many(_set_state, [{"t": tenant, "c": cube, "was": was, "state_": now} for cube in cubes])
