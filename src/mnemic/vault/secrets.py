"""What redaction took out of a text and sealed, beside the text and never in it.

Rows are written only where the vault is encrypted, with the key of their space. No index, digest, job or
dump sees them; an erase takes them with their version, as `erasing` goes by the shape of the tables.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import sqlalchemy as sa

from mnemic.vault import tables
from mnemic.vault.codec import Secret
from mnemic.vault.database import InStatement, Statement, Transaction

_sealed = tables.sealed
_p = sa.bindparam
_add = Statement(sa.insert(_sealed))
_at = InStatement(
    lambda values: sa.select(_sealed.c.seq, _sealed.c.spans).where(
        _sealed.c.tenant == _p("t"), _sealed.c.space == _p("s"), _sealed.c.seq.in_(values)
    )
)


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


def at(transaction: Transaction, tenant: str, space: int, seqs: Sequence[int]) -> dict[int, list[Secret]]:
    """What was taken out of the texts of some versions, by seq; of most, nothing. O(seqs)."""
    rows = transaction.rows_in(_at, {"t": tenant, "s": space}, seqs)
    return {int(seq): [Secret(*one) for one in json.loads(bytes(spans))] for seq, spans in rows}
