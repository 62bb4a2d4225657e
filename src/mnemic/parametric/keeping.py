"""Looking after parametric memories: which there are, whether they may be served, dropping them. No torch."""

from __future__ import annotations

from typing import TypeAlias

from mnemic.cube.errors import NotFound
from mnemic.cube.model import ANY, Kind, MemCube, ScopeField
from mnemic.parametric.description import Description
from mnemic.vault import kept
from mnemic.vault.vault import Vault

Learned: TypeAlias = kept.Kept[Description]


def listing(vault: Vault, *, user: ScopeField = ANY) -> list[Learned]:
    """The parametric cubes of a user (None: of no user), or of all within reach, the oldest first, current
    or not. O(versions).
    """
    return kept.listing(vault, Kind.parametric, Description.of, user=user)


def look(vault: Vault, id: str) -> Learned:
    """One parametric cube. Raises NotFound, InvalidOption."""
    return kept.look(vault, id, Description.of, what="parametric memory")


def stale_share(vault: Vault, cube: MemCube) -> float:
    """What share of a memory's sources has changed, or is gone, since it was made. O(sources)."""
    sources = cube.header.sources
    changed = 0
    with vault.snapshot() as snapshot:
        for one in sources:
            try:
                changed += snapshot.citations([one.cube_id])[0].digest != one.digest
            except NotFound:
                changed += 1
    return changed / max(1, len(sources))


def drop(vault: Vault, id: str, *, reason: str | None = None) -> int:
    """Take a parametric cube away and delete its file; bytes freed: 0 where another needs it. Its sources
    stay.

    Raises NotFound, InvalidOption when it is none. O(cubes it rests on).
    """
    return kept.drop(vault, look(vault, id), reason=reason)


def drop_stale(vault: Vault) -> tuple[int, int]:
    """Drop every parametric cube that is not served any more; how many, and bytes freed. O(versions)."""
    stale = [one for one in listing(vault) if one.why_not is not None]
    return len(stale), sum(kept.drop(vault, one, reason=one.why_not) for one in stale)
