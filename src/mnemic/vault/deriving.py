"""What derivers read and write: states with their digests, slots, and plans, stored whole or not at all.

A plan is made outside of any transaction, from what a snapshot showed. It is stored only if what it builds on
is still so: the heads it follows, and how far its deriver had read. Otherwise it is made again. A source that
has changed meanwhile needs no such check: what cites its past is stale from the start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import sqlalchemy as sa

from mnemic.cube.ids import id_bytes, id_text, named_id, new_ids
from mnemic.cube.model import MemCube, Scope, Source
from mnemic.vault import jobs, log, reading, tables, writing
from mnemic.vault.codec import Draft, digest, erased_key, erased_marker, mac, stored
from mnemic.vault.database import InStatement, Statement, Transaction
from mnemic.vault.finding import Finder
from mnemic.vault.writing import Parent, Written

if TYPE_CHECKING:
    from mnemic.vault.vault import Vault

_slot, _space, _progress = tables.slot, tables.space, tables.progress
_p = sa.bindparam
_in_slots = InStatement(
    lambda values: sa.select(_slot.c.slot_key, _slot.c.cube).where(
        _slot.c.tenant == _p("t"), _slot.c.space == _p("s"), _slot.c.slot_key.in_(values)
    )
)
_unmark = InStatement(  # one that was erased with a source, and is made anew from the sources that stay
    lambda values: sa.delete(tables.erased).where(
        tables.erased.c.tenant == _p("t"), tables.erased.c.cube_key.in_(values)
    )
)
_add_slot = Statement(
    sa.text("INSERT INTO slot (tenant, space, slot_key, cube) VALUES (:t, :s, :k, :c) ON CONFLICT DO NOTHING")
)
_behind = Statement(
    sa.select(_space.c.space, _space.c.last_seq, sa.func.coalesce(_progress.c.seq, 0), _space.c.last_time)
    .select_from(
        _space.outerjoin(
            _progress,
            sa.and_(
                _progress.c.tenant == _space.c.tenant,
                _progress.c.space == _space.c.space,
                _progress.c.reader == _p("r"),
                _progress.c.epoch == _space.c.epoch,
            ),
        )
    )
    .where(_space.c.tenant == _p("t"), _space.c.last_seq > sa.func.coalesce(_progress.c.seq, 0))
    .order_by(_space.c.space)
)


class Moved(Exception):
    """What a plan builds on is not there any more: make it again."""


@dataclass(frozen=True, slots=True)
class State:
    """The head of a cube, where it stands in its log, and its digest."""

    cube: MemCube
    seq: int
    digest: str

    def cite(self, start: int = 0, end: int | None = None) -> Source:
        """A citation of this state, and of the span of it that was used."""
        return Source(
            cube_id=self.cube.id, version_id=self.cube.version_id, digest=self.digest, start=start, end=end
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """The next version of a derived cube, or the first one of a new.

    follows: the version that is its head; None for a new cube. ended_by: the id of the cube of this plan, or
    of one that is there, which puts an end to it. slot: the slot it takes a place in.
    """

    id: str
    scope: Scope
    draft: Draft
    follows: str | None
    ended_by: str | None = None
    slot: bytes | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """How far a reader of a space's log had come, and how far it has come with this plan."""

    reader: str
    epoch: int
    start: int
    end: int


def behind(transaction: Transaction, tenant: str, reader: str) -> list[tuple[int, int, int, int]]:
    """(space, last seq, seq read, time of the last write) of the spaces whose log goes on. O(spaces)."""
    rows = transaction.rows(_behind, {"t": tenant, "r": reader})
    return [(int(space), int(last), int(read), int(at)) for space, last, read, at in rows]


def derived_id(method: str, *names: str | None) -> str:
    """The id of a derived cube, by what it is made from: the same in every vault.

    A merge of two vaults that derived the same finds it once.
    """
    return id_text(named_id(mac(b"mnemic derived id", method, *names)))


def slot_key(vault: Finder, scope: Scope, subject: str, attribute: str) -> bytes:
    """The keyed name of a slot: one attribute of one subject, as told by a user to an agent."""
    return mac(vault._key, "slot", scope.user, scope.agent, subject, attribute)


def states_of(vault: Finder, transaction: Transaction, cubes: Iterable[str]) -> dict[str, State]:
    """Heads by cube id, tombstones included; what is not there is left out. O(cubes / 256) round trips."""
    keys = list(dict.fromkeys(id_bytes(cube) for cube in cubes))
    out = {}
    for row in transaction.rows_in(reading.heads_of, {"t": vault.tenant}, keys):
        head = stored(row[1:])
        cube = head.cube_in(vault._scope_names(transaction, int(row[0]), head.scope))
        out[cube.id] = State(cube, head.seq, digest(vault._key, head.draft()).hex())
    return out


def states_after(vault: Finder, transaction: Transaction, space: int, seq: int, limit: int) -> list[State]:
    """Live heads of a space above a seq, in seq order."""
    params = {"t": vault.tenant, "s": space, "seq": seq, "n": limit}
    out = []
    for row in transaction.rows(reading.stored_after, params):
        head = stored(row)
        cube = head.cube_in(vault._scope_names(transaction, space, head.scope))
        out.append(State(cube, head.seq, digest(vault._key, head.draft()).hex()))
    return out


def cubes_in_slots(
    vault: Finder, transaction: Transaction, space: int, slots: Iterable[bytes]
) -> dict[bytes, list[str]]:
    """The cubes that ever took a place in each slot."""
    out: dict[bytes, list[str]] = {}
    params = {"t": vault.tenant, "s": space}
    for key, cube in transaction.rows_in(_in_slots, params, list(dict.fromkeys(slots))):
        out.setdefault(bytes(key), []).append(id_text(bytes(cube)))
    return out


def take_place(transaction: Transaction, tenant: str, space: int, slot: bytes, cube: bytes) -> None:
    """Register a cube as one that ever took a place in a slot."""
    transaction.run(_add_slot, {"t": tenant, "s": space, "k": slot, "c": cube})


def settle(vault: Vault, space: int, puts: Sequence[Put], read: Reading | None) -> list[Written]:
    """Store a plan in one transaction, as one change. Raises Moved; then nothing is stored. O(puts)."""
    with vault.database.write() as transaction:
        if not log.hold(transaction, vault.tenant, space):
            raise Moved
        position = log.position(transaction, vault.tenant, space)
        if read is not None:
            at = jobs.read_to(transaction, vault.tenant, space, read.reader, read.epoch)
            if position is None or position.epoch != read.epoch or at != read.start:
                raise Moved
        heads = states_of(vault, transaction, [put.id for put in puts])
        for put in puts:
            head = heads.get(put.id)
            if (None if head is None else head.cube.version_id) != put.follows:
                raise Moved
        anew = [
            erased_key(vault._key, erased_marker(id_bytes(put.id))) for put in puts if put.follows is None
        ]
        transaction.run_in(_unmark, {"t": vault.tenant}, anew)
        written = _store(vault, transaction, puts)
        for put in puts:
            if put.slot is not None:
                take_place(transaction, vault.tenant, space, put.slot, id_bytes(put.id))
        if read is not None:
            jobs.set_read_to(transaction, vault.tenant, space, read.reader, read.epoch, read.end)
    return written


def _store(vault: Vault, transaction: Transaction, puts: Sequence[Put]) -> list[Written]:
    """What puts an end to others first, so that they can cite it."""
    (change_id,) = new_ids(1)
    wanted = [put.ended_by for put in puts if put.ended_by is not None]
    ends = {id: state.cite() for id, state in states_of(vault, transaction, wanted).items()}
    written = []
    for level in _levels(puts):
        scopes: dict[Scope, list[Put]] = {}
        for put in level:
            scopes.setdefault(put.scope, []).append(put)
        for scope, mine in sorted(scopes.items(), key=lambda item: str(item[0])):
            if any(put.ended_by is not None and put.ended_by not in ends for put in mine):
                raise Moved
            drafts = [
                put.draft if put.ended_by is None else replace(put.draft, ended_by=ends[put.ended_by])
                for put in mine
            ]
            done = writing.insert(
                transaction,
                vault.find_target(transaction, scope),
                vault._key,
                drafts,
                op="derive",
                parents=[
                    Parent(id_bytes(put.id), None if put.follows is None else id_bytes(put.follows))
                    for put in mine
                ],
                change_id=change_id,
            )
            written.append(done)
            for put, draft, row in zip(mine, drafts, done.stored, strict=True):
                version, said = id_text(row.version), digest(vault._key, draft).hex()
                ends[put.id] = Source(cube_id=put.id, version_id=version, digest=said)
    return written


def _levels(puts: Sequence[Put]) -> list[list[Put]]:
    """Puts in groups: each is ended by nothing of the plan but what stands in a group before it."""
    by_id: Mapping[str, Put] = {put.id: put for put in puts}
    depth: dict[str, int] = {}

    def of(put: Put) -> int:
        chain = []
        at: Put | None = put
        while at is not None and at.id not in depth:
            chain.append(at)
            at = by_id.get(at.ended_by) if at.ended_by else None
        below = depth[at.id] + 1 if at is not None else 0
        for number, one in enumerate(reversed(chain)):
            depth[one.id] = below + number
        return depth[put.id]

    levels: dict[int, list[Put]] = {}
    for put in puts:
        levels.setdefault(of(put), []).append(put)
    return [levels[number] for number in sorted(levels)]
