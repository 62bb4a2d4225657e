"""The cubes that something is made from: their current texts, their citations, and whose the result is."""

from __future__ import annotations

from collections.abc import Sequence

from mnemic.cube.errors import InvalidOption, NotFound
from mnemic.cube.model import Kind, MemCube, Scope, Source
from mnemic.vault.vault import Vault


def read_sources(
    vault: Vault, cubes: Sequence[str | MemCube], *, made: str
) -> tuple[list[MemCube], list[Source], Scope]:
    """Current text cubes of one user, in the order given; their citations; the scope of what is `made`.

    Agent and session are those of the sources where all agree. Raises InvalidOption, NotFound, AccessDenied.
    """
    if isinstance(cubes, str | MemCube) or not isinstance(cubes, Sequence) or not cubes:
        raise InvalidOption("say which cubes the model should read: a list of cubes or of their ids")
    ids = list(dict.fromkeys(one.id if isinstance(one, MemCube) else one for one in cubes))
    with vault.snapshot() as snapshot:
        found = [snapshot.head(id) for id in ids]  # first of all: may they be seen?
        sources = snapshot.citations(ids)
    for cube in found:
        if cube.kind is not Kind.plaintext:
            raise InvalidOption(f"cube {cube.id} is {cube.kind.name}; {made} is made from text cubes")
    return found, sources, one_scope([cube.header.scope for cube in found])


def live_ids(vault: Vault, ids: Sequence[str]) -> list[str]:
    """Those that can still be read: not deleted, erased or expired. O(ids)."""
    out = []
    with vault.snapshot() as snapshot:
        for id in ids:
            try:
                snapshot.citations([id])
            except NotFound:
                continue
            out.append(id)
    return out


def one_scope(scopes: Sequence[Scope]) -> Scope:
    """The scope of what is made from cubes of these. Raises InvalidOption for those of two users."""
    if len({(one.tenant, one.user) for one in scopes}) > 1:
        raise InvalidOption(
            f"these cubes are of {len({one.user for one in scopes})} users; a memory is of one. Make one for "
            "each"
        )
    first = scopes[0]
    same = {field: len({getattr(one, field) for one in scopes}) == 1 for field in ("agent", "session")}
    return Scope(
        first.tenant,
        first.user,
        first.agent if same["agent"] else None,
        first.session if same["session"] else None,
    )
