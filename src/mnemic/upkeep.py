"""Looking after a vault: what is in it, which id an ending means, another embedder. For the command line.

A sibling of `memory.py`, above the rooms.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mnemic.activation import kv_keeping
from mnemic.activation.kv_keeping import Checked, Kept
from mnemic.cube.checks import require_extra
from mnemic.cube.errors import InvalidOption, NotFound
from mnemic.cube.ids import id_text
from mnemic.cube.model import ANY, MemCube, ScopeField
from mnemic.governance.guard import governed
from mnemic.memory import Memory, default_place
from mnemic.models.base import Embedder
from mnemic.parametric import keeping
from mnemic.parametric.keeping import Learned
from mnemic.plaintext.ingest.checked import check_reason
from mnemic.plaintext.ingest.features import Progress
from mnemic.plaintext.parts import reembed
from mnemic.vault import erasing
from mnemic.vault.blobs import GRACE_S
from mnemic.vault.check import change_ids, cube_ids, disk, version_counts
from mnemic.vault.database import Transaction
from mnemic.vault.erasing import Erasure
from mnemic.vault.keys import KeyLike
from mnemic.vault.unlocking import change_master
from mnemic.vault.vault import connect, open_vault

if TYPE_CHECKING:
    from mnemic.models.local import LocalModel

SHORTEST_ENDING = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class UserStats:
    """What one user has: live cubes, exact scopes in use, and from when to when."""

    user: str | None
    cubes: int
    sessions: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What a vault holds and what it takes. Bytes are None where they are the server's affair."""

    location: str
    tenant: str
    cubes: int
    versions: int
    tombstones: int
    sessions: int
    users: tuple[UserStats, ...]
    embedder: str
    pending: int
    index_bytes: int
    bytes_on_disk: int | None
    bytes_free: int | None


@governed
def stats(memory: Memory) -> Stats:
    """Loads every index, to say how large they are. O(rows). Raises AccessDenied for who is no admin."""
    memory._guard.require_admin("see what the whole vault holds")
    parts = memory._parts
    groups: dict[str | None, list[tuple[int, datetime, datetime]]] = {}
    for one in memory.sessions(everyone=True):
        groups.setdefault(one.user, []).append((one.count, one.first_at, one.last_at))
    users = tuple(
        UserStats(
            user=user,
            cubes=sum(count for count, _, _ in held),
            sessions=len(held),
            first_at=min(first for _, first, _ in held),
            last_at=max(last for _, _, last in held),
        )
        for user, held in sorted(groups.items(), key=lambda item: item[0] or "")
    )
    with parts.vault.snapshot() as snapshot:
        pending = sum(
            snapshot.pending_count(row.space, parts.maker.dense.number) for row in snapshot.spaces()
        )
    with parts.vault.database.read() as transaction:
        versions, tombstones = version_counts(transaction, parts.vault.tenant)
    path = getattr(parts.vault.database, "path", None)
    size, free = disk(path) if isinstance(path, Path) else (None, None)
    return Stats(
        location=memory.where(),
        tenant=parts.vault.tenant,
        cubes=sum(one.cubes for one in users),
        versions=versions,
        tombstones=tombstones,
        sessions=sum(one.sessions for one in users),
        users=users,
        embedder=parts.maker.dense.name,
        pending=pending,
        index_bytes=parts.recall.cache.stats()["bytes"],
        bytes_on_disk=size,
        bytes_free=free,
    )


def full_id(memory: Memory, ending: str) -> str:
    """The id that ends so. Raises NotFound and, when several do, InvalidOption with their ids. O(cubes)."""
    return _full(memory, ending, cube_ids, "cube", "`mnemic search` and `mnemic list` show")


def full_change(memory: Memory, ending: str) -> str:
    """The id of the change that ends so. Raises as `full_id`. O(changes)."""
    return _full(memory, ending, change_ids, "change", "`mnemic changes` shows")


def _full(
    memory: Memory, ending: str, ids: Callable[[Transaction, str], list[bytes]], what: str, where: str
) -> str:
    wanted = ending.strip().lower().replace("-", "").removeprefix("…")
    if len(wanted) < SHORTEST_ENDING or len(wanted) > 32 or set(wanted) - set("0123456789abcdef"):
        raise InvalidOption(
            f"{ending!r} is not the id of a {what}, nor the ending of one ({SHORTEST_ENDING} to 32 of 0-9 "
            f"and a-f). {where} them"
        )
    with memory._vault.snapshot() as snapshot:
        every = dict.fromkeys(ids(snapshot.transaction, snapshot.tenant))
        found = [raw for raw in every if raw.hex().endswith(wanted)]
        if memory._guard.name is not None:
            found = [raw for raw in found if what == "change" or snapshot.shows(id_text(raw))]
    if memory._guard.name is not None and what == "change":
        seen = {one.id for one in memory.changes(everyone=True, limit=10**9)}
        found = [raw for raw in found if id_text(raw) in seen]
    if not found:
        raise NotFound(f"no {what} has an id that ends in {ending!r}. {where} ids")
    if len(found) > 1:
        some = ", ".join(id_text(raw) for raw in found[:3])
        raise InvalidOption(f"{len(found)} ids end in {ending!r}: {some}. Give more of the id")
    return id_text(found[0])


@governed
def erasures(memory: Memory) -> list[Erasure]:
    """Every erase there was, oldest first. For the owner or an admin of everything."""
    memory._guard.require_admin("see what was erased")
    return erasing.erasures(memory._parts.vault)


def finish_erasures(memory: Memory) -> str | None:
    """Overwrite what is still on disk of what was erased; None when it is gone, else what that waits for."""
    return erasing.finish(memory._parts.vault)[1]


def is_encrypted(
    vault: str | os.PathLike[str] | None, *, tenant: str = "default", key: KeyLike | None = None
) -> bool:
    """Raises KeyRequired and WrongKey for an encrypted vault that the key does not open."""
    place = default_place() if vault is None else vault
    try:
        opened = open_vault(place, tenant=tenant, key=key)
    except InvalidOption:
        opened = open_vault(place, tenant=tenant)  # it is not, and that is the answer
    try:
        return opened.database.sealing is not None
    finally:
        opened.close()


def change_key(vault: str | os.PathLike[str] | None, *, old: KeyLike | None, new: KeyLike) -> None:
    """Let another key open a vault, and the old one no more. Raises KeyRequired, WrongKey, InvalidOption."""
    database = connect(default_place() if vault is None else vault)
    try:
        change_master(database, old, new)
    finally:
        database.close()


def reembed_vault(
    vault: str | os.PathLike[str] | None,
    *,
    tenant: str = "default",
    key: KeyLike | None = None,
    embedder: str | Embedder | None = None,
    progress: Progress | None = None,
) -> int:
    """Give every cube features of another embedder; how many were made. Goes on where a run was stopped.

    The vault is opened without loading its present embedder, which may be gone. O(cubes).
    """
    opened = open_vault(default_place() if vault is None else vault, tenant=tenant, key=key)
    try:
        return reembed(opened, embedder, progress=progress)
    finally:
        opened.close()


def sweep_vault(
    vault: str | os.PathLike[str] | None, *, tenant: str = "default", key: KeyLike | None = None
) -> int:
    """Remove files of large payloads that no cube names and that are older than an hour; how many."""
    opened = open_vault(default_place() if vault is None else vault, tenant=tenant, key=key)
    try:
        return opened.blobs.sweep()
    finally:
        opened.close()


@governed
def kv_memories(memory: Memory, *, user: ScopeField = ANY) -> list[Kept]:
    """The KV cubes of a user, or of all, that the principal may see, the oldest first, each with why it is
    not served, if so.
    """
    return kv_keeping.listing(memory._vault, user=user)


@governed
def kv_memory(memory: Memory, id: str) -> Kept:
    """One KV cube. Raises NotFound, InvalidOption."""
    return kv_keeping.look(memory._vault, id)


@governed
def verify_kv(memory: Memory) -> Iterator[Checked]:
    """Check every byte of the file of every KV cube. Needs the extra [torch]. O(bytes).

    For the owner or an admin of everything.
    """
    require_extra("torch", extra="torch")
    memory._guard.require_admin("check the files of the whole vault")
    return kv_keeping.verify(memory._parts.vault)


@governed
def sweep_kv(memory: Memory, *, grace: float = GRACE_S, stale: bool = False) -> tuple[int, int, int]:
    """Remove files that no cube names and, with `stale`, KV cubes that are not served any more: files without
    a cube, cubes dropped, bytes that these freed. grace: seconds that a file without a cube may still be
    wanted. For the owner or an admin of everything.
    """
    memory._guard.require_admin("sweep the files of the whole vault")
    vault = memory._parts.vault
    dropped, freed = kv_keeping.drop_stale(vault) if stale else (0, 0)
    return vault.blobs.sweep(grace=grace), dropped, freed


@governed
def drop_kv(memory: Memory, id: str, *, reason: str | None = None) -> int:
    """Take a KV cube away and delete its file; bytes freed. Raises NotFound, InvalidOption, AccessDenied."""
    return kv_keeping.drop(memory._vault, id, reason=_reason(memory, reason))


@governed
def learned_memories(memory: Memory, *, user: ScopeField = ANY) -> list[Learned]:
    """The parametric cubes of a user, or of all, that the principal may see, the oldest first, each with why
    it is not served, if so.
    """
    return keeping.listing(memory._vault, user=user)


@governed
def learned_memory(memory: Memory, id: str) -> Learned:
    """One parametric cube. Raises NotFound, InvalidOption."""
    return keeping.look(memory._vault, id)


@governed
def stale_share(memory: Memory, learned: Learned) -> float:
    """What share of a parametric memory's sources has changed, or is gone, since it was made. O(sources)."""
    return keeping.stale_share(memory._vault, learned.cube)


@governed
def drop_learned(memory: Memory, id: str, *, reason: str | None = None) -> int:
    """Take a parametric cube away and delete its file; bytes freed. Raises NotFound, InvalidOption,
    AccessDenied.
    """
    return keeping.drop(memory._vault, id, reason=_reason(memory, reason))


@governed
def drop_stale_learned(memory: Memory) -> tuple[int, int]:
    """Drop every parametric cube that is not served any more; how many, and bytes freed."""
    return keeping.drop_stale(memory._vault)


@governed
def tune_memory(memory: Memory, id: str, model: LocalModel, text: str) -> MemCube:
    """Choose a kNN or MLP memory's weight beside the model on a text; the memory in its place."""
    require_extra("torch", extra="parametric")
    from mnemic.transform.text_to_memory import tune

    return tune(memory._vault, id, model, text)


@governed
def export_adapter(memory: Memory, id: str, folder: Path) -> None:
    """Write an adapter as PEFT reads it. What is written is out of the vault's reach: no erasure finds it."""
    require_extra("torch", extra="parametric")
    from mnemic.parametric.lora_cube import export

    export(memory._vault, keeping.look(memory._vault, id).cube, folder)


def _reason(memory: Memory, reason: str | None) -> str | None:
    return check_reason(memory._guard.clean_reason(reason))
