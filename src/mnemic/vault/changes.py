"""The log as people read it: who changed what, when and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mnemic.cube.ids import id_text
from mnemic.cube.model import Scope
from mnemic.cube.times import to_datetime
from mnemic.vault import reading
from mnemic.vault.database import Row, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedChange:
    """One change of one scope. A call that reached several scopes is several rows of one `id`.

    op: add, update, delete, restore, undo, freeze, thaw, derive, …; by: the principal, None where none was
    named; undoes: the change that it took back; cubes: what it wrote, in order; seq: its place in the log.
    """

    id: str
    seq: int
    op: str
    at: datetime
    by: str | None
    reason: str | None
    undoes: str | None
    cubes: tuple[str, ...] = ()
    scope: Scope | None = None

    @property
    def count(self) -> int:
        return len(self.cubes)


def changes_of(transaction: Transaction, tenant: str, cube: bytes) -> list[LoggedChange]:
    """The change that made each version of a cube, oldest version first. O(versions)."""
    rows = transaction.rows(reading.changes_of_cube, {"t": tenant, "c": cube})
    return [_change(row, (id_text(cube),)) for row in rows]


def changes_after(
    transaction: Transaction, tenant: str, space: int, after: int, limit: int
) -> list[tuple[LoggedChange, int]]:
    """Changes of a space after a seq, in order, each with the number of its scope."""
    rows = transaction.rows(reading.changes_after, {"t": tenant, "s": space, "seq": after, "n": limit})
    if not rows:
        return []
    before = transaction.row(reading.seq_before, {"t": tenant, "s": space, "seq": rows[0][1]})
    low = int(before[0]) if before and before[0] is not None else 0
    written = transaction.rows(
        reading.seqs_between, {"t": tenant, "s": space, "low": low, "high": rows[-1][1]}
    )
    out, place = [], 0
    for row in rows:
        cubes, scope = [], 0
        while place < len(written) and written[place][0] <= row[1]:
            cubes.append(id_text(bytes(written[place][1])))
            scope = written[place][2]
            place += 1
        if cubes:  # nothing is left of a change whose cubes were erased
            out.append((_change(row, tuple(cubes)), scope))
    return out


def _change(row: Row, cubes: tuple[str, ...]) -> LoggedChange:
    _, seq, change_id, op, principal, at, reason, undoes = row
    return LoggedChange(
        id=id_text(bytes(change_id)),
        seq=int(seq),
        op=op,
        at=to_datetime(at),
        by=None if principal is None else id_text(bytes(principal)),
        reason=None if reason is None else bytes(reason).decode(),
        undoes=None if undoes is None else id_text(bytes(undoes)),
        cubes=cubes,
    )
