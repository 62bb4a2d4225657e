"""Looking after what models have computed or learned: cubes with a description in the payload and tensors in
a file. Which there are, whether they may be served, dropping them. Knows no kind of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from mnemic.cube.errors import InvalidOption, NotFound
from mnemic.cube.model import ANY, Kind, MemCube, ScopeField, Unset
from mnemic.vault.vault import Vault

D = TypeVar("D")
Describe = Callable[[MemCube], D]  # raises InvalidOption for a cube of another kind


@dataclass(frozen=True, slots=True)
class Kept(Generic[D]):
    """One of them. why_not: why it is not served, None when it is current."""

    cube: MemCube
    described: D
    why_not: str | None


def listing(vault: Vault, kind: Kind, describe: Describe[D], *, user: ScopeField = ANY) -> list[Kept[D]]:
    """Those of a user (None: of no user), or of all, that the vault's actor may see: the oldest first,
    current or not. O(versions).
    """
    out = []
    with vault.snapshot() as snapshot:
        spaces = [row for row in snapshot.spaces() if isinstance(user, Unset) or row.user == user]
        for row in spaces:
            for cube in snapshot.live_of_kind(row.space, kind):
                try:
                    described = describe(cube)
                except InvalidOption:
                    continue
                if snapshot.shows(cube.id):
                    out.append(Kept(cube, described, snapshot.why_not_current(cube.id)))
    return out


def look(vault: Vault, id: str, describe: Describe[D], *, what: str) -> Kept[D]:
    """One of them; what: its kind, for messages. Raises NotFound, InvalidOption. O(cubes it rests on)."""
    with vault.snapshot() as snapshot:
        cube = snapshot.head(id)
        if cube.deleted:
            raise NotFound(f"{what} {id} was dropped")
        return Kept(cube, describe(cube), snapshot.why_not_current(id))


def drop(vault: Vault, kept: Kept[D], *, reason: str | None = None) -> int:
    """Take one away and delete its file, unless another still needs that; bytes freed. O(1)."""
    vault.remove([kept.cube.id], reason=reason)
    blob = kept.cube.blob
    return blob.size if blob is not None and vault.blobs.drop(blob) else 0
