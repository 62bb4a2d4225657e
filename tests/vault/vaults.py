"""What the tests of the vault share: how to tell it something, read it back and cite it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from sqlalchemy import text as sql

from mnemic.cube.ids import id_bytes, id_text
from mnemic.cube.model import MemCube, Origin, Scope, Source
from mnemic.vault import codec
from mnemic.vault.codec import Draft
from mnemic.vault.database import Row, Statement
from mnemic.vault.vault import Appended, Vault

ANA = Scope("default", "ana")
_users = itertools.count()


def someone() -> Scope:
    """A user that no other example of a test has."""
    return Scope("default", f"user {next(_users)}")


def say(text: str, **fields: Any) -> Draft:
    return Draft(payload=text.encode(), **fields)


def tell(vault: Vault, scope: Scope, *texts: str, **fields: Any) -> list[str]:
    """Ids of new cubes, told one by one."""
    return [told(vault.append(scope, [say(text, **fields)]))[0] for text in texts]


def told(appended: Appended) -> list[str]:
    return [id_text(outcome.row.cube) for outcome in appended.outcomes if outcome.row]


def reasons(appended: Appended) -> list[str | None]:
    return [outcome.reason for outcome in appended.outcomes]


def live(vault: Vault, scope: Scope) -> list[MemCube]:
    """All live cubes of a user, in the order told."""
    with vault.snapshot() as snapshot:
        space = snapshot.space_of(scope.user)
        return [] if space is None else [cube for _, cube in snapshot.live_after(space, 0, 10**6)]


def texts(vault: Vault, scope: Scope) -> list[str]:
    """What is live in exactly this scope, in the order told."""
    return [cube.text for cube in live(vault, scope) if cube.header.scope == scope]


def log(vault: Vault, scope: Scope) -> list[int]:
    """Every seq of a user's log."""
    with vault.snapshot() as snapshot:
        space = snapshot.space_of(scope.user)
        return [] if space is None else [row.seq for row in snapshot.since(space, 0, lexical=0, dense=None)]


def rows(vault: Vault, query: str, **params: Any) -> list[Row]:
    with vault.database.read() as transaction:
        return transaction.rows(Statement(sql(query)), params)


def cite(vault: Vault, cube: str, **span: int) -> Source:
    """A citation of a cube's current state."""
    with vault.snapshot() as snapshot:
        _, row = vault._head(snapshot._transaction, cube)
    said = codec.digest(vault._key, row.draft()).hex()
    known = {"cube_id": id_text(row.cube)} if "cube_id" in Source.model_fields else {}
    return Source(version_id=id_text(row.version), digest=said, **known, **span)


def derive(vault: Vault, scope: Scope, text: str, sources: Sequence[str]) -> str:
    """A cube made from others as they are now."""
    draft = say(text, origin=Origin.derived, sources=tuple(cite(vault, one) for one in sources))
    return told(vault.append(scope, [draft], op="derive"))[0]


def stale(vault: Vault, *cubes: str) -> list[bool]:
    found = {
        id_text(bytes(cube)): since is not None
        for cube, since in rows(vault, "SELECT cube, stale_since FROM cube WHERE tenant = :t", t=vault.tenant)
    }
    return [found[cube] for cube in cubes]


def raw(cube: str) -> bytes:
    return id_bytes(cube)
