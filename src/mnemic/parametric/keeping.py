"""Looking after parametric memories: which there are, whether they may be served, dropping them. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from mnemic.cube.errors import NotFound
from mnemic.cube.model import ANY, Kind, MemCube, ScopeField, Unset
from mnemic.parametric.description import Description, is_parametric
from mnemic.vault.vault import Vault


@dataclass(frozen=True, slots=True)
class Learned:
    """A parametric cube. why_not: why it is not served, None when it is current."""

    cube: MemCube
    described: Description
    why_not: str | None


def listing(vault: Vault, *, user: ScopeField = ANY) -> list[Learned]:
    """The parametric cubes of a user (None: of no user), or of all within reach, the oldest first, current
    or not. O(versions).
    """
    out = []
    with vault.snapshot() as snapshot:
        spaces = [row for row in snapshot.spaces() if isinstance(user, Unset) or row.user == user]
        for row in spaces:
            for cube in snapshot.live_of_kind(row.space, Kind.parametric):
                if is_parametric(cube) and snapshot.shows(cube.id):
                    out.append(Learned(cube, Description.of(cube), snapshot.why_not_current(cube.id)))
    return out


def look(vault: Vault, id: str) -> Learned:
    """One parametric cube. Raises NotFound, InvalidOption."""
    with vault.snapshot() as snapshot:
        cube = snapshot.head(id)
        if cube.deleted:
            raise NotFound(f"parametric memory {id} was dropped")
        return Learned(cube, Description.of(cube), snapshot.why_not_current(id))


def stale_share(vault: Vault, id: str) -> float:
    """What share of its sources has changed, or is gone, since it was made. O(sources)."""
    learned = look(vault, id)
    sources = learned.cube.header.sources
    with vault.snapshot() as snapshot:
        now = {}
        for one in sources:
            try:
                head = snapshot.citations([one.cube_id])[0]
            except NotFound:
                continue
            now[one.cube_id] = head.digest
    return sum(now.get(one.cube_id) != one.digest for one in sources) / max(1, len(sources))


def drop(vault: Vault, id: str, *, reason: str | None = None) -> int:
    """Take a parametric cube away and delete its file; bytes freed. Its sources stay.

    Raises NotFound, InvalidOption when it is none.
    """
    learned = look(vault, id)
    vault.remove([id], reason=reason)
    blob = learned.cube.blob
    if blob is None or any(other.cube.blob == blob for other in listing(vault)):
        return 0
    vault.blobs.drop(blob)
    return blob.size


def drop_stale(vault: Vault) -> tuple[int, int]:
    """Drop every parametric cube that is not served any more; how many, and bytes freed."""
    stale = [one for one in listing(vault) if one.why_not is not None]
    return len(stale), sum(drop(vault, one.cube.id, reason=one.why_not) for one in stale)
