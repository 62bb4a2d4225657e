"""What one principal may see of a space at one moment, as masks over the rows of its indexes.

The same as asking `governance.policy.check` and `governance.retention.fate_of` for each row, in numpy; a test
compares both. Nothing that is masked here is ever ranked, counted or named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from mnemic.cube.ids import id_text
from mnemic.cube.model import Scope, State
from mnemic.cube.reach import EVERYWHERE, Reach
from mnemic.governance.guard import Sight
from mnemic.governance.policy import Grant, Right, allowing, gives
from mnemic.governance.retention import NEVER, ByUse, Ending, Hold
from mnemic.index.cache import Entry, Part
from mnemic.index.columns import HeaderColumns
from mnemic.index.scope import FAR, BoolArray, IntArray, ScopeIndex
from mnemic.vault import governing, lineage
from mnemic.vault.snapshot import Snapshot

Scopes = Mapping[int, Scope]
Read = Callable[[Part], HeaderColumns]  # the header columns of an index
Masks = dict[bool, BoolArray]  # of what was told (False) and of what was derived (True)


def masks(seen: Sight, snapshot: Snapshot, space: int, entry: Entry, scopes: Scopes, columns: Read) -> Masks:
    """(rows,) of both indexes, what may be seen and is not over.

    O(rows), and O(citations) where something is derived.
    """
    out = {}
    for derived, part in ((False, entry.told), (True, entry.made)):
        out[derived] = ends(seen, snapshot, space, part, scopes, columns) > seen.now
        if seen.access.principal is not None:
            out[derived] &= allowed(seen, part, scopes, columns)
    if entry.made.index.size:
        out[True] &= sources_stand(snapshot, space, entry, out)
    return out


def opens(seen: Sight, names: Scope) -> bool:
    """Could something of a scope be seen?"""
    return seen.access.principal is None or bool(allowing(seen.access, Right.read, names, now=seen.now))


def allowed(seen: Sight, part: Part, scopes: Scopes, columns: Read, right: Right = Right.read) -> BoolArray:
    """(rows,) what the grants give a right on."""
    index = part.index
    giving = [grant for grant in seen.access.grants if gives(grant, right, seen.now)]
    if any(grant.whole and grant.reach.covers(_all_of(scopes)) for grant in giving):
        return np.ones(index.size, np.bool_)  # no need to look at each of many sessions
    by_scope = {number: allowing(seen.access, right, names, now=seen.now) for number, names in scopes.items()}
    out = _in_scopes(index, [n for n, grants in by_scope.items() if any(one.whole for one in grants)])
    partly: dict[Grant, list[int]] = {}
    for number, grants in by_scope.items():
        if not any(one.whole for one in grants):
            for grant in grants:
                partly.setdefault(grant, []).append(number)
    for grant, numbers in partly.items():
        rows = _in_scopes(index, numbers)
        if grant.label is not None:
            rows &= _labelled(columns(part), grant.label)
        if grant.unless is not None:
            rows &= ~_labelled(columns(part), grant.unless)
        out |= rows
    return out


def ends(seen: Sight, snapshot: Snapshot, space: int, part: Part, scopes: Scopes, columns: Read) -> IntArray:
    """(rows,) when each one's time is over, in µs; NEVER for what is kept."""
    index, over = part.index, part.index.expires_at
    mine = [
        (policy, numbers)
        for policy in seen.rules.policies
        if isinstance(policy.rule, Ending | Hold) and (numbers := _covered(policy.reach, scopes))
    ]
    if not mine:
        return over
    over = over.copy()
    uses, last = _usage(seen, snapshot, space, index)
    held = np.zeros(index.size, np.bool_)
    for policy, numbers in mine:
        rows = _in_scopes(index, numbers)
        if policy.label is not None:
            rows &= _labelled(columns(part), policy.label)
        if isinstance(policy.rule, Hold):
            held |= rows
        elif isinstance(policy.rule, Ending):
            if isinstance(policy.rule, ByUse):
                rows &= ~columns(part).rows_where("pinned", partial(_is, True))
            by_rule = policy.rule.ends(index.recorded_at, uses, last)
            over[rows] = np.minimum(over[rows], by_rule[rows])
    if (over <= seen.now).any():
        held |= columns(part).rows_where("frozen", partial(_is, True))
    over[held] = NEVER
    return over


def sources_stand(snapshot: Snapshot, space: int, entry: Entry, seen: Masks) -> BoolArray:
    """(derived rows,) False for what rests on something that is not seen, directly or through others.

    O(citations) once the log has moved; else O(1) numpy passes a level of derivation, and a look at each
    source that is in neither index.
    """
    if entry.cited is None or entry.cited[0] != entry.position:
        entry.cited = (entry.position, _citations(snapshot, space, entry))
    on_told, on_made, elsewhere = entry.cited[1]
    out = seen[True].copy()
    out[on_told[0][~seen[False][on_told[1]]]] = False
    out[[row for row, source in elsewhere if not snapshot.shows(id_text(source))]] = False
    rows, sources = on_made
    while (gone := rows[out[rows] & ~out[sources]]).size:
        out[gone] = False
    return out


def still(seen: Sight, snapshot: Snapshot, space: int, present: Entry, shown: Masks, past: Entry) -> Masks:
    """(rows,) of a past entry, what may still be seen: it is live and seen now, or was deleted by hand.

    What was deleted is for the owner and for who could bring it back; what expired is for nobody.
    """
    deleted = governing.deleted_in(snapshot.transaction, snapshot.tenant, space)
    out = {}
    for derived, then, today in ((False, past.told, present.told), (True, past.made, present.made)):
        kept = []
        for cube in then.index.cubes():
            row = today.index.row_of(cube)
            if row is not None:
                kept.append(bool(shown[derived][row]))
            else:
                kept.append(deleted.get(cube) != State.expired and _restorable(seen, snapshot, cube))
        out[derived] = np.array(kept, np.bool_)
    return out


def _restorable(seen: Sight, snapshot: Snapshot, cube: bytes) -> bool:
    return (seen.access.principal is None and not seen.rules.policies) or snapshot.shows(id_text(cube))


def _citations(snapshot: Snapshot, space: int, entry: Entry) -> tuple[Any, Any, list[tuple[int, bytes]]]:
    """Derived rows beside the told rows, and beside the derived rows, that they cite; and those that cite
    something that is in neither index.
    """
    on_told, on_made, elsewhere = [], [], []
    for cube, source in lineage.sources_in(snapshot.transaction, snapshot.tenant, space):
        row = entry.made.index.row_of(cube)
        if row is None:
            continue
        if (place := entry.told.index.row_of(source)) is not None:
            on_told.append((row, place))
        elif (place := entry.made.index.row_of(source)) is not None:
            on_made.append((row, place))
        else:
            elsewhere.append((row, source))
    return _pairs(on_told), _pairs(on_made), elsewhere


def _pairs(found: list[tuple[int, int]]) -> tuple[IntArray, IntArray]:
    pairs = np.array(found, np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _usage(seen: Sight, snapshot: Snapshot, space: int, index: ScopeIndex) -> tuple[IntArray, IntArray]:
    uses, last = np.zeros(index.size, np.int64), np.full(index.size, FAR.min)
    if seen.rules.counts_uses:
        for cube, use in governing.used_in(snapshot.transaction, snapshot.tenant, space).items():
            row = index.row_of(cube)
            if row is not None:
                uses[row], last[row] = use
    return uses, last


def _all_of(scopes: Scopes) -> Reach:
    """All that the user of a space has."""
    return Reach(user=next(iter(scopes.values())).user) if scopes else EVERYWHERE


def _covered(reach: Reach, scopes: Scopes) -> list[int]:
    every = _all_of(scopes)
    if reach.covers(every):
        return list(scopes)
    return [number for number, names in scopes.items() if reach.has(names)] if reach.meets(every) else []


def _in_scopes(index: ScopeIndex, numbers: Iterable[int]) -> BoolArray:
    chosen = np.zeros(int(index.scope.max(initial=0)) + 1, np.bool_)
    wanted = np.fromiter(numbers, np.int64)
    chosen[wanted[wanted < len(chosen)]] = True
    return chosen[index.scope]


def _labelled(columns: HeaderColumns, label: str) -> BoolArray:
    return columns.rows_where("labels", partial(_is, label))


def _is(wanted: Any, value: Any) -> bool:
    return bool(value == wanted)
