"""Which state of a cube is served. A merge can leave several last ones; the next change joins them again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mnemic.cube.model import State
from mnemic.vault import lineage, tables
from mnemic.vault.database import InStatement, Statement, Transaction

_p = sa.bindparam
_version, _cube, _edge = tables.version, tables.cube, tables.edge

_states = InStatement(
    lambda values: sa.select(
        *(_version.c.cube, _version.c.version, _version.c.parent, _version.c.recorded_at),
        *(_version.c.deleted, _version.c.digest, _version.c.space, _version.c.seq, _version.c.scope),
    ).where(_version.c.tenant == _p("t"), _version.c.cube.in_(values))
)
_joined = InStatement(
    lambda values: sa.select(_edge.c.target).where(
        _edge.c.tenant == _p("t"), _edge.c.role == lineage.PARENT, _edge.c.target_cube.in_(values)
    )
)
_in_conflict = InStatement(
    lambda values: sa.select(_cube.c.cube).where(
        _cube.c.tenant == _p("t"), _cube.c.conflict == 1, _cube.c.cube.in_(values)
    )
)
AGREE = Statement(
    sa.update(_cube).where(_cube.c.tenant == _p("t"), _cube.c.cube == _p("c")).values(conflict=0)
)
_insert_edge = Statement(sa.insert(_edge))
# What had expired and says something again is there again (cube/lifecycle.py: expired, restore, activated).
RESTORED = sa.case(
    (
        sa.and_(_cube.c.state == int(State.expired), _p("deleted_", type_=sa.BigInteger) == 0),
        int(State.activated),
    ),
    else_=_cube.c.state,
)
_set_head = Statement(
    sa.update(_cube)
    .where(_cube.c.tenant == _p("t"), _cube.c.cube == _p("c"))
    .values(
        head=_p("head_"),
        head_seq=_p("seq_"),
        deleted=_p("deleted_", type_=sa.BigInteger),
        state=RESTORED,
        conflict=_p("conflict_"),
        scope=_p("sc_"),
    )
)


@dataclass(frozen=True, slots=True)
class Head:
    """The state of a cube that is served; `others` are last states too, in conflict when they differ."""

    version: bytes
    space: int
    seq: int
    scope: int
    deleted: int
    conflict: bool
    others: tuple[bytes, ...]

    @property
    def last(self) -> tuple[bytes, ...]:
        """All states that no other follows."""
        return (self.version, *self.others)


def heads_of(transaction: Transaction, tenant: str, cubes: Collection[bytes]) -> dict[bytes, Head]:
    """The head of each cube by its versions: the last recorded of those that no other follows."""
    states: dict[bytes, list[tuple[Any, ...]]] = {}
    followed: set[bytes] = set()
    for cube, version, parent, *rest in transaction.rows_in(_states, {"t": tenant}, sorted(cubes)):
        states.setdefault(bytes(cube), []).append((bytes(version), *rest))
        if parent is not None:
            followed.add(bytes(parent))
    followed |= {bytes(row[0]) for row in transaction.rows_in(_joined, {"t": tenant}, sorted(cubes))}
    out = {}
    for cube, known in states.items():
        last = [state for state in known if state[0] not in followed] or known
        version, _, deleted, _, space, seq, scope = max(last, key=lambda state: (state[1], state[0]))
        conflict = len({(state[2], bytes(state[3])) for state in last}) > 1
        others = tuple(sorted(state[0] for state in last if state[0] != version))
        out[cube] = Head(version, space, seq, scope, deleted, conflict, others)
    return out


def move(transaction: Transaction, tenant: str, heads: Mapping[bytes, Head]) -> None:
    """Let these be what is served of their cubes."""
    transaction.many(_set_head, [
        {"t": tenant, "c": cube, "head_": head.version, "seq_": head.seq, "sc_": head.scope,
         "deleted_": head.deleted, "conflict_": int(head.conflict)}
        for cube, head in heads.items()
    ])  # fmt: skip


def join(transaction: Transaction, tenant: str, space: int, newest: Mapping[bytes, bytes]) -> None:
    """A new version (by cube) of a cube in conflict follows all its last states: the conflict is settled."""
    conflicts = [bytes(row[0]) for row in transaction.rows_in(_in_conflict, {"t": tenant}, sorted(newest))]
    for cube, head in heads_of(transaction, tenant, conflicts).items() if conflicts else ():
        transaction.many(
            _insert_edge,
            [
                {
                    "tenant": tenant,
                    "space": space,
                    "version": newest[cube],
                    "role": lineage.PARENT,
                    "target": other,
                    "target_cube": cube,
                    "span_start": 0,
                    "span_end": None,
                    "target_digest": None,
                }
                for other in (*head.others, head.version)
                if other != newest[cube]
            ],
        )
        transaction.run(AGREE, {"t": tenant, "c": cube})
