"""What a call tells that is there already: the caller's ids, and histories told again from the start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mnemic.cube.errors import Expired, IdempotencyConflict
from mnemic.cube.ids import id_text
from mnemic.cube.model import Origin
from mnemic.vault import log, reading, writing
from mnemic.vault.codec import Draft, Stored, client_key, digest, erased_key, erased_marker
from mnemic.vault.database import Transaction
from mnemic.vault.finding import Finder
from mnemic.vault.writing import SpaceGone, Target


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one draft of an `append`: its stored row, and why it was not stored now (None:

    it was).
    """

    row: Stored | None
    reason: str | None = None


def already_told(
    vault: Finder, transaction: Transaction, target: Target, drafts: Sequence[Draft]
) -> dict[int, Outcome]:
    """Drafts that need not be stored, by position. Raises IdempotencyConflict, SpaceGone. O(drafts)."""
    keys = {
        i: client_key(vault._key, draft.client_id, draft.place.part if draft.place else 0)
        for i, draft in enumerate(drafts)
        if draft.client_id is not None
    }
    told = [draft for draft in drafts if draft.origin not in (Origin.derived, Origin.trained)]
    messages = sum(1 for draft in told if draft.place is None or draft.place.part == 0)
    if not keys and messages < 2:  # a lone message is new, however many pieces it has
        return {}
    if not log.hold(transaction, target.tenant, target.space):
        raise SpaceGone
    if keys:
        return _by_id(vault, transaction, target, drafts, keys)
    return _repeated_history(vault, transaction, target, drafts)


def _by_id(
    vault: Finder,
    transaction: Transaction,
    target: Target,
    drafts: Sequence[Draft],
    keys: Mapping[int, bytes],
) -> dict[int, Outcome]:
    if len(set(keys.values())) < len(keys):
        raise IdempotencyConflict(
            "one id stands for several messages of this call; ids are unique in a scope"
        )
    known: dict[bytes, tuple[int, bool, set[bytes]]] = {}
    params = {"t": target.tenant, "s": target.space, "sc": target.scope}
    for key, _, seq, deleted, said in transaction.rows_in(
        reading.clients_in_scope, params, list(keys.values())
    ):
        known.setdefault(bytes(key), (seq, bool(deleted), set()))[2].add(bytes(said))
    for i, key in keys.items():
        if key in known and digest(vault._key, drafts[i]) not in known[key][2]:
            raise IdempotencyConflict(
                f"id {drafts[i].client_id!r} is taken by other content in this scope. To change what it "
                "says use "
                "update(id, …); to keep both, give this one another id. Nothing was stored."
            )
    rows = vault._rows(transaction, target.space, [seq for seq, deleted, _ in known.values() if not deleted])
    out: dict[int, Outcome] = {}
    for i, key in keys.items():
        if key in known:
            seq, deleted, _ = known[key]
            out[i] = (
                Outcome(None, "was deleted; a deleted id stays deleted")
                if deleted
                else _there(vault, transaction, target.space, rows[seq], "already stored under this id")
            )
    fresh = {i: _erased_key(vault, target, drafts[i]) for i, key in keys.items() if key not in known}
    erased = transaction.rows_in(reading.erased_of, {"t": target.tenant}, list(fresh.values()))
    gone = {bytes(row[0]) for row in erased}
    out |= {
        i: Outcome(None, "was erased; an erased id stays erased, give it another to tell it anew")
        for i, key in fresh.items()
        if key in gone
    }
    return out


def _erased_key(vault: Finder, target: Target, draft: Draft) -> bytes:
    part = draft.place.part if draft.place else 0
    cube = writing.id_of_record(target, draft.client_id or "", part)
    return erased_key(vault._key, erased_marker(cube))


def _repeated_history(
    vault: Finder, transaction: Transaction, target: Target, drafts: Sequence[Draft]
) -> dict[int, Outcome]:
    """O(1) where the first message differs;

    O(versions since the scope began) where the history is repeated.
    """
    params = {"t": target.tenant, "s": target.space, "sc": target.scope, "seq": target.first_seq}
    first = transaction.row(reading.first_told, {**params, "n": 1})
    if first is None or bytes(first[0]) != digest(vault._key, drafts[0]):
        return {}
    told = transaction.rows(reading.first_told, {**params, "n": len(drafts) + 1})
    if len(told) > len(drafts) or any(
        bytes(row[0]) != digest(vault._key, draft) for row, draft in zip(told, drafts, strict=False)
    ):
        return {}
    heads = [vault._head(transaction, id_text(bytes(cube)))[1] for _, cube in told]
    return {
        i: Outcome(None, "repeats the session's history")
        if head.deleted
        else _there(vault, transaction, target.space, head, "repeats the session's history")
        for i, head in enumerate(heads)
    }


def _there(vault: Finder, transaction: Transaction, space: int, row: Stored, reason: str) -> Outcome:
    """What was told before; without its row where the actor may not see it."""
    try:
        return Outcome(row if vault._shows(transaction, space, row) else None, reason)
    except Expired:
        return Outcome(None, "has expired; an id that expired stays so")
