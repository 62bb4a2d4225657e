"""Looking after KV memories: which there are, whether their files are sound, dropping them. No torch is
needed to list or drop; `verify` reads the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mnemic.activation.kv_description import Description, is_kv
from mnemic.cube.errors import MnemicError, NotFound
from mnemic.cube.model import ANY, Kind, MemCube, ScopeField, Unset
from mnemic.vault.blobs import GRACE_S
from mnemic.vault.vault import Vault


@dataclass(frozen=True, slots=True)
class Kept:
    """A KV cube. why_not: why it is not served, None when it is current."""

    cube: MemCube
    described: Description
    why_not: str | None


@dataclass(frozen=True, slots=True)
class Checked:
    """What `verify` found out about one KV cube's file; wrong is None for a sound one."""

    kept: Kept
    wrong: str | None


def listing(vault: Vault, *, user: ScopeField = ANY) -> list[Kept]:
    """The KV cubes of a user (None: of no user), or of all, the oldest first, current or not. O(versions)."""
    out = []
    with vault.snapshot() as snapshot:
        spaces = [row for row in snapshot.spaces() if isinstance(user, Unset) or row.user == user]
        for row in spaces:
            for cube in snapshot.live_of_kind(row.space, Kind.activation):
                if is_kv(cube):
                    out.append(Kept(cube, Description.of(cube), snapshot.why_not_current(cube.id)))
    return out


def look(vault: Vault, id: str) -> Kept:
    """One KV cube. Raises NotFound, InvalidOption."""
    with vault.snapshot() as snapshot:
        cube = snapshot.head(id)
        if cube.deleted:
            raise NotFound(f"KV memory {id} was dropped")
        return Kept(cube, Description.of(cube), snapshot.why_not_current(id))


def verify(vault: Vault) -> Iterator[Checked]:
    """Read the file of every KV cube and check every byte. O(bytes)."""
    from mnemic.activation.kv_cube import load

    for kept in listing(vault):
        wrong = None
        try:
            load(vault, kept.cube)
        except MnemicError as error:  # damaged, gone, or sealed and not to be opened
            wrong = str(error)
        yield Checked(kept, wrong)


def sweep(vault: Vault, *, grace: float = GRACE_S) -> int:
    """Remove files that no cube names (a build that was killed left them) and that are older than `grace`
    seconds; how many. O(files).
    """
    return vault.blobs.sweep(grace=grace)


def drop(vault: Vault, id: str, *, reason: str | None = None) -> int:
    """Take a KV cube away and delete its file, which can be made again from its sources; bytes freed.

    Raises NotFound, InvalidOption when it is no KV.
    """
    kept = look(vault, id)
    vault.remove([id], reason=reason)
    blob = kept.cube.blob
    if blob is None or any(other.cube.blob == blob for other in listing(vault)):  # built twice from the same
        return 0
    vault.blobs.drop(blob)
    return blob.size


def drop_stale(vault: Vault) -> tuple[int, int]:
    """Drop every KV cube that is not served any more; how many, and bytes freed."""
    stale = [kept for kept in listing(vault) if kept.why_not is not None]
    return len(stale), sum(drop(vault, kept.cube.id, reason=kept.why_not) for kept in stale)
