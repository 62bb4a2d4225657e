"""Looking after KV memories: which there are, whether their files are sound, dropping them. No torch is
needed to list or drop; `verify` reads the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from mnemic.activation.kv_description import Description
from mnemic.cube.errors import MnemicError
from mnemic.cube.model import ANY, Kind, ScopeField
from mnemic.vault import kept
from mnemic.vault.vault import Vault

Kept: TypeAlias = kept.Kept[Description]


@dataclass(frozen=True, slots=True)
class Checked:
    """What `verify` found out about one KV cube's file; wrong is None for a sound one."""

    kept: Kept
    wrong: str | None


def listing(vault: Vault, *, user: ScopeField = ANY) -> list[Kept]:
    """The KV cubes of a user (None: of no user), or of all, the oldest first, current or not. O(versions)."""
    return kept.listing(vault, Kind.activation, Description.of, user=user)


def look(vault: Vault, id: str) -> Kept:
    """One KV cube. Raises NotFound, InvalidOption."""
    return kept.look(vault, id, Description.of, what="KV memory")


def verify(vault: Vault) -> Iterator[Checked]:
    """Read the file of every KV cube and check every byte. O(bytes)."""
    from mnemic.activation.kv_cube import load

    for one in listing(vault):
        wrong = None
        try:
            load(vault, one.cube)
        except MnemicError as error:  # damaged, gone, or sealed and not to be opened
            wrong = str(error)
        yield Checked(one, wrong)


def drop(vault: Vault, id: str, *, reason: str | None = None) -> int:
    """Take a KV cube away and delete its file, which can be made again from its sources; bytes freed: 0 where
    another cube, built from the same, needs the file.

    Raises NotFound, InvalidOption when it is no KV. O(cubes it rests on).
    """
    return kept.drop(vault, look(vault, id), reason=reason)


def drop_stale(vault: Vault) -> tuple[int, int]:
    """Drop every KV cube that is not served any more; how many, and bytes freed. O(versions)."""
    stale = [one for one in listing(vault) if one.why_not is not None]
    return len(stale), sum(kept.drop(vault, one, reason=one.why_not) for one in stale)
