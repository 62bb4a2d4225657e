"""What was taken out of a text and sealed, put back in its place for who may see it."""

from __future__ import annotations

from mnemic.cube.errors import NotFound
from mnemic.cube.ids import id_bytes
from mnemic.governance.guard import Guard
from mnemic.vault import secrets
from mnemic.vault.database import Deed
from mnemic.vault.vault import Vault


def reveal(vault: Vault, guard: Guard, cube: str, version: int | None) -> str:
    """The text of a version as it was told. That it was shown is on record before it is. O(versions).

    Raises NotFound, also where nothing was sealed; AccessDenied.
    """
    with vault.database.write() as transaction:
        space, row = vault.visible_head(transaction, cube)
        past = vault._past(transaction, row.cube)
        if version is not None:
            if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= len(past):
                raise NotFound(f"cube {cube} has versions 1 to {len(past)}, not {version!r:.80}")
            row = past[version - 1]
        if row.deleted:
            raise NotFound(f"cube {cube} was deleted; name a version that said something")
        guard.require_reveal(transaction, vault._scope_names(transaction, space, row.scope), row)
        same = [
            one.seq for one in past if one.payload == row.payload
        ]  # frozen or restored, in the same words
        kept = secrets.at(transaction, vault.tenant, space, same)
        found = kept.get(row.seq) or next(iter(kept.values()), [])
        if not found:
            raise NotFound(
                f"cube {cube} holds nothing that was sealed. What a rule 'redact …' took out is kept nowhere"
            )
        transaction.deeds.append(Deed("reveal", id_bytes(cube)))
    text = row.payload.decode()
    for one in sorted(found, reverse=True):
        text = text[: one.start] + one.said + text[one.start + len(one.mark) :]
    return text
