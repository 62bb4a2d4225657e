"""Writes: each is one transaction that allocates seqs, inserts versions, moves heads and marks what became
stale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from mnemic.cube.ids import id_text, named_id, new_ids
from mnemic.cube.model import Scope, State
from mnemic.vault import blobs, heads, jobs, lineage, log, secrets, tables
from mnemic.vault.codec import Draft, Stored, client_key, digest, encode_header, mac
from mnemic.vault.database import Deed, Statement, Transaction

REBUILD = "rebuild"  # the kind of job that looks after what became stale

_p = sa.bindparam
_cube = tables.cube
_insert_change = Statement(sa.insert(tables.change))
_insert_version = Statement(sa.insert(tables.version))
_insert_cube = Statement(sa.insert(_cube))
_insert_feature = Statement(sa.insert(tables.feature))
_drop_feature = Statement(
    sa.delete(tables.feature).where(
        tables.feature.c.tenant == _p("tenant"),
        tables.feature.c.space == _p("space"),
        tables.feature.c.model == _p("model"),
        tables.feature.c.seq == _p("seq"),
    )
)
_move_head = Statement(
    sa.update(_cube)
    .where(_cube.c.tenant == _p("t"), _cube.c.cube == _p("c"))
    .values(
        head=_p("head_"),
        head_seq=_p("head_seq_"),
        deleted=_p("deleted_", type_=sa.BigInteger),
        state=heads.RESTORED,
    )
)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a write goes: a space and an interned scope of it."""

    tenant: str
    space: int
    scope: int
    names: Scope
    first_seq: int = 0  # nothing was told in this scope before
    epoch: int | None = None  # of the space when the scope was looked up; in another the scope may be gone


@dataclass(frozen=True, slots=True)
class Parent:
    """The head that a new version follows; without a `version`, the id that a new cube is given."""

    cube: bytes
    version: bytes | None


@dataclass(frozen=True, slots=True)
class Written:
    """What a write did. `change_id` and `seq` are None when nothing had to be written."""

    change_id: str | None
    epoch: int
    seq: int | None
    stored: tuple[Stored, ...]


class SpaceGone(Exception):
    """The space, or a part of it, was erased since it was looked up: look again."""


def insert(
    transaction: Transaction,
    target: Target,
    key: bytes,
    drafts: Sequence[Draft],
    *,
    op: str,
    reason: str | None = None,
    parents: Sequence[Parent | None] | None = None,
    change_id: bytes | None = None,
    undoes: bytes | None = None,
) -> Written:
    """Store drafts as new cubes, or, where there is a parent, as the next versions of existing ones.

    What depends on them is marked stale, or current again, and a job is left for it. O(drafts).
    Raises SpaceGone before anything is written, and what the transaction's actor raises.
    """
    count = len(drafts)
    tenant, space = target.tenant, target.space
    if transaction.actor is not None:
        followed = [parent.cube for parent in parents or () if parent and parent.version]
        transaction.actor.permit(transaction, target.names, drafts, followed)
    taken = log.allocate(transaction, tenant, space, count, transaction.clock())
    if taken is None or target.epoch not in (None, taken.epoch):
        raise SpaceGone
    first_seq, first_time = taken.last_seq - count + 1, taken.last_time - count + 1
    ids = new_ids(1 + count if parents else 1 + 2 * count)
    versions, features, cubes, moved, stored = [], [], [], [], []
    for i, draft in enumerate(drafts):
        seq, recorded_at, version_id = first_seq + i, first_time + i, ids[1 + i]
        part = draft.place.part if draft.place else 0
        keyed = None if draft.client_id is None else client_key(key, draft.client_id, part)
        follows = parents[i] if parents else None
        if follows is not None:
            cube_id = follows.cube
        elif keyed is not None:
            cube_id = id_of_record(target, draft.client_id or "", part)
        else:
            cube_id = ids[1 + count + i] if not parents else new_ids(1)[0]
        at = recorded_at if draft.at is None else draft.at
        header = encode_header(draft)
        deleted = int(draft.deleted)
        versions.append(
            {
                "tenant": tenant,
                "space": space,
                "seq": seq,
                "cube": cube_id,
                "version": version_id,
                "parent": follows.version if follows else None,
                "scope": target.scope,
                "kind": int(draft.kind),
                "origin": int(draft.origin),
                "deleted": deleted,
                "at": at,
                "recorded_at": recorded_at,
                "valid_from": draft.valid_from,
                "valid_to": draft.valid_to,
                "expires_at": draft.expires_at,
                "digest": digest(key, draft),
                "header": header,
                "payload": draft.payload,
                "blob": None if draft.blob is None else bytes.fromhex(draft.blob.id),
            }
        )
        if follows is not None and follows.version is not None:
            moved.append(
                {"t": tenant, "c": cube_id, "head_": version_id, "head_seq_": seq, "deleted_": deleted}
            )
        else:
            cubes.append(
                {
                    "tenant": tenant,
                    "cube": cube_id,
                    "space": space,
                    "scope": target.scope,
                    "head": version_id,
                    "head_seq": seq,
                    "deleted": deleted,
                    "state": int(State.generated),
                    "stale_since": None,
                    "conflict": 0,
                    "client_key": keyed,
                }
            )
        for model, data in draft.features.items():
            features.append({"tenant": tenant, "space": space, "model": model, "seq": seq, "data": data})
        stored.append(
            Stored(
                seq, cube_id, version_id, target.scope, int(draft.kind), int(draft.origin), deleted, at,
                recorded_at, draft.valid_from, draft.valid_to, draft.expires_at, header, draft.payload,
                None if draft.blob is None else bytes.fromhex(draft.blob.id), int(State.generated),
            )
        )  # fmt: skip
    transaction.many(
        _insert_change,
        [
            {
                "tenant": tenant,
                "space": space,
                "seq": taken.last_seq,
                "change_id": change_id or ids[0],
                "op": op,
                "principal": transaction.actor.principal if transaction.actor else None,
                "at": first_time,
                "reason": None if reason is None else reason.encode(),
                "undoes": undoes,
            }
        ],
    )
    transaction.deeds.append(Deed(op, change_id or ids[0]))
    transaction.many(_insert_version, versions)
    transaction.many(_move_head, moved)
    transaction.many(_insert_cube, cubes)
    transaction.many(_insert_feature, features)
    if parents:
        heads.join(transaction, tenant, space, {row.cube: row.version for row in stored})
    named = zip(stored, [draft.blob for draft in drafts], strict=True)
    large = [(row.seq, blob) for row, blob in named if blob is not None]
    if large:
        blobs.name(transaction, tenant, space, large)
    if hidden := [
        (row.seq, draft.secrets) for row, draft in zip(stored, drafts, strict=True) if draft.secrets
    ]:
        secrets.keep(transaction, tenant, space, hidden)
    if parents or any(draft.sources for draft in drafts):
        _relate(transaction, tenant, space, drafts, stored, first_time)
    return Written(id_text(change_id or ids[0]), taken.epoch, taken.last_seq, tuple(stored))


def _relate(
    transaction: Transaction,
    tenant: str,
    space: int,
    drafts: Sequence[Draft],
    stored: Sequence[Stored],
    at: int,
) -> None:
    """Register citations, and say of all that rests on these cubes whether it is current."""
    for draft, row in zip(drafts, stored, strict=True):
        for role, cited in (
            (lineage.SOURCE, draft.sources),
            (lineage.ENDED, (draft.ended_by,) if draft.ended_by else ()),
        ):
            if cited:
                lineage.cite(transaction, tenant, space, row.version, cited, role=role)
    if lineage.restate(transaction, tenant, [row.cube for row in stored], at):
        # by the clock: recorded times may be ahead of it, after a merge by far, and the job would wait
        jobs.ask(transaction, tenant, space, REBUILD, at=transaction.clock())


def put_features(
    transaction: Transaction, tenant: str, space: int, model: int, rows: Mapping[int, bytes]
) -> None:
    """Store features of one model for these seqs, replacing what was there."""
    keys = [{"tenant": tenant, "space": space, "model": model, "seq": seq} for seq in rows]
    transaction.many(_drop_feature, keys)
    transaction.many(_insert_feature, [{**key, "data": rows[key["seq"]]} for key in keys])  # type: ignore[index]


def id_of_record(target: Target, client_id: str, part: int) -> bytes:
    """The id of a record that brought its own:

    the same in every vault that imports it into the same scope.
    """
    return named_id(mac(b"mnemic cube id", *target.names, client_id, part))
