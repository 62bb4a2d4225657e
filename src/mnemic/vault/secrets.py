"""What redaction took out of a text and sealed, beside the text and never in it.

Rows are written only where the vault is encrypted, with the key of their space. No index, digest, job or
dump sees them; an erase takes them with their version, as `erasing` goes by the shape of the tables.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from mnemic.cube.errors import InvalidOption
from mnemic.vault import tables
from mnemic.vault.codec import Secret, Stored
from mnemic.vault.database import InStatement, Statement, Transaction

if TYPE_CHECKING:
    from mnemic.vault.vault import Vault

_secret = tables.secret
_p = sa.bindparam
_add = Statement(sa.insert(_secret))
_at = InStatement(
    lambda values: sa.select(_secret.c.seq, _secret.c.spans).where(
        _secret.c.tenant == _p("t"), _secret.c.space == _p("s"), _secret.c.seq.in_(values)
    )
)
IN_CLEAR: Final = (
    "what is taken out can be sealed only in a vault that was made with a key; use 'redact …' here, which "
    "keeps it nowhere"
)


def require_seals(vault: Vault) -> None:
    """Raises InvalidOption where nothing can be sealed."""
    if vault.database.sealing is None:
        raise InvalidOption(IN_CLEAR)


def keep(
    transaction: Transaction, tenant: str, space: int, rows: Sequence[tuple[int, Sequence[Secret]]]
) -> None:
    """Seal what was taken out of some versions, by seq. O(rows)."""
    packed = [
        {"tenant": tenant, "space": space, "seq": seq, "spans": json.dumps(secrets).encode()}
        for seq, secrets in rows
        if secrets
    ]
    transaction.many(_add, packed)


def of_version(vault: Vault, transaction: Transaction, space: int, row: Stored) -> list[Secret]:
    """What was taken out of the text that a version says: its own, or of another version in the same words.

    O(versions of the cube).
    """
    past = vault._past(transaction, row.cube)
    seqs = [one.seq for one in past if one.payload == row.payload]
    rows = transaction.rows_in(_at, {"t": vault.tenant, "s": space}, seqs)
    found = {int(seq): bytes(spans) for seq, spans in rows}
    mine = found.get(row.seq) or next(iter(found.values()), b"[]")
    return [Secret(*one) for one in json.loads(mine)]
