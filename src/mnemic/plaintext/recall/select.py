"""What an erase or a dump is about: cubes by id, by scope or by `where`, in whatever state they are.

Unlike a read it also finds what has expired, was deleted, or said so only in an older version.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mnemic.cube.errors import InvalidOption
from mnemic.cube.ids import id_text
from mnemic.cube.model import ScopeField, Unset
from mnemic.cube.reach import Reach
from mnemic.index.columns import HeaderColumns
from mnemic.index.scope import ScopeIndex
from mnemic.plaintext.recall.filters import Filter, Where
from mnemic.vault.snapshot import Snapshot
from mnemic.vault.vault import Vault


@dataclass(frozen=True, slots=True)
class Selection:
    """Whole spaces, and single cubes of others."""

    spaces: tuple[int, ...] = ()
    cubes: tuple[str, ...] = ()


def select(
    vault: Vault,
    ids: str | Iterable[str] | None = None,
    *,
    where: Where | None,
    user: ScopeField,
    agent: ScopeField,
    session: ScopeField,
    everyone: bool,
) -> Selection:
    """Ids, or all within a scope that passes `where`: exactly one of the two has to be said.

    A cube passes when any of its versions does. Raises InvalidOption, ScopeRequired, InvalidFilter.
    O(versions within reach) where a space is not taken whole.
    """
    if ids is not None:
        if where is not None or everyone or any(not isinstance(one, Unset) for one in (user, agent, session)):
            raise InvalidOption(
                "ids say which cubes already: leave out where, user, agent, session, everyone"
            )
        if not isinstance(ids, str | Iterable):
            raise InvalidOption(f"ids={ids!r:.80} must be the id of a cube, or several")
        return Selection(cubes=(ids,) if isinstance(ids, str) else tuple(ids))
    reach, conditions = Reach.of(user, agent, session, everyone=everyone), Filter.of(where)
    whole = isinstance(agent, Unset) and isinstance(session, Unset) and not conditions.tests
    with vault.snapshot() as snapshot:
        if isinstance(user, Unset):
            spaces = [row.space for row in snapshot.spaces()]
        else:
            found = snapshot.space_of(user)
            spaces = [] if found is None else [found]
        if whole:
            return Selection(spaces=tuple(spaces))
        return Selection(
            cubes=tuple(cube for space in spaces for cube in _within(snapshot, space, reach, conditions))
        )


def _within(snapshot: Snapshot, space: int, reach: Reach, where: Filter) -> list[str]:
    scopes = snapshot.scopes(space)
    if not any(reach.has(names) for names in scopes.values()):
        return []
    rows = [
        row for row in snapshot.since(space, 0, lexical=0, dense=None) if not (where.tests and row.deleted)
    ]  # a deletion says nothing that could pass
    index = ScopeIndex(table=None, dim=1)
    index.apply([row._replace(cube=row.version, deleted=0) for row in rows])  # every version is a row

    def columns() -> HeaderColumns:
        out, headers = HeaderColumns(), snapshot.headers(space)
        out.extend(index.seq, [headers[seq] for seq in index.seq.tolist()])
        return out

    mask = where.mask(index, scopes, reach, columns)
    return list(dict.fromkeys(id_text(row.cube) for row, passes in zip(rows, mask, strict=True) if passes))
