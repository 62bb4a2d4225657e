"""What takes a change back: for each cube it wrote, the version that stood there before, or a tombstone.

A cube is taken back only while it is as the change left it, in the same words: what came later and was not
taken back first would be lost otherwise. Undoing is a change like any other, and can be undone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from mnemic.cube.errors import ChangedSince, NotFound
from mnemic.cube.ids import id_bytes, id_text
from mnemic.vault import log, reading
from mnemic.vault.codec import Draft, Stored, stored, tombstone
from mnemic.vault.database import Transaction

NO_CHANGE: Final = "no change {} in this vault; changes(user=…) lists them"


@dataclass(frozen=True, slots=True)
class Step:
    """A head, and what is to follow it: what the cube said before (`to`), or nothing any more (`gone`)."""

    head: Stored
    to: Stored | None
    gone: Draft


def rows_of(transaction: Transaction, tenant: str, changes: Sequence[str]) -> list[tuple[int, int, bytes]]:
    """(space, seq, change id) of every row of these changes, spaces held, the latest first in each.

    Raises NotFound.
    """
    wanted = list(dict.fromkeys(id_bytes(change) for change in changes))
    found = [
        (int(row[0]), int(row[1]), bytes(row[2]))
        for row in transaction.rows_in(reading.change_rows, {"t": tenant}, wanted)
    ]
    found = list(dict.fromkeys(found))
    if missing := set(wanted) - {change for _, _, change in found}:
        raise NotFound(NO_CHANGE.format(id_text(min(missing))))
    for space in sorted({space for space, _, _ in found}):
        log.hold(transaction, tenant, space)
    return sorted(found, key=lambda row: (row[0], -row[1]))


def steps(
    transaction: Transaction,
    tenant: str,
    space: int,
    seq: int,
    change: bytes,
    *,
    shows: Callable[[Stored], bool],
) -> list[Step]:
    """What takes back the change that ends at `seq`, for who is shown all its cubes. O(versions of these).

    Raises ChangedSince, NotFound, and what `shows` raises.
    """
    found = transaction.row(reading.seq_before, {"t": tenant, "s": space, "seq": seq})
    low = int(found[0]) if found and found[0] is not None else 0
    params = {"t": tenant, "s": space, "low": low, "high": seq}
    left = [stored(row) for row in transaction.rows(reading.written_between, params)]
    cubes = [row.cube for row in left]
    found_heads = transaction.rows_in(reading.heads_of, {"t": tenant}, cubes)
    heads = {row.cube: row for row in (stored(one[1:]) for one in found_heads)}
    if not all(shows(head) for head in heads.values()):
        raise NotFound(NO_CHANGE.format(id_text(change)))
    past: dict[bytes, list[Stored]] = {}
    for one in transaction.rows_in(reading.histories_of, {"t": tenant}, cubes):
        past.setdefault(bytes(one[2]), []).append(stored(one[1:]))
    out = []
    for row in left:
        head = heads.get(row.cube)
        if head is None:
            raise NotFound(f"cube {id_text(row.cube)} was erased; what it said cannot come back")
        before = _before(past[row.cube], row)
        if head.deleted if before is None else before.says_the_same_as(head):
            continue  # it is as it was before
        if not head.says_the_same_as(row):
            raise ChangedSince(
                f"cube {id_text(row.cube)} was changed again since; undo the later change as well (all of "
                "them in one call), or restore one of its versions. Nothing was changed."
            )
        out.append(Step(head, before, tombstone(head)))
    return out


def _before(past: Sequence[Stored], row: Stored) -> Stored | None:
    """The version that `row` followed; None where it was the first."""
    earlier = [one for one in past if one.recorded_at < row.recorded_at]
    return earlier[-1] if earlier else None
