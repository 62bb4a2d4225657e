"""What is there, without a question: lists, counts, sessions and users. In the order it was told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from mnemic.cube.checks import require_count
from mnemic.cube.errors import InvalidOption, ScopeRequired
from mnemic.cube.model import MemCube, ScopeField, Unset
from mnemic.cube.reach import EVERYWHERE, Reach
from mnemic.cube.times import to_datetime
from mnemic.plaintext.recall.filters import Filter, Where
from mnemic.plaintext.recall.search import Recall
from mnemic.plaintext.recall.visible import Visible


class Page(list[MemCube]):
    """Some cubes; `next` is the cursor of what follows, None at the end."""

    def __init__(self, cubes: Iterable[MemCube], next_cursor: str | None) -> None:
        super().__init__(cubes)
        self.next = next_cursor


@dataclass(frozen=True, slots=True)
class Session:
    """One exact scope in use: how many live cubes it holds and from when to when they were said."""

    user: str | None
    agent: str | None
    session: str | None
    count: int
    first_at: datetime
    last_at: datetime


def browse(recall: Recall, reach: Reach, *, where: Filter, limit: int, after: str | None) -> Page:
    """Live cubes in the order they were told. O(rows within reach + limit)."""
    require_count(limit=limit)
    start = _cursor(after)
    found: list[tuple[int, int]] = []
    cubes: list[MemCube] = []
    with recall.cache.lock, recall.vault.snapshot() as snapshot:
        for space, seqs in _seqs(recall.visible(snapshot, reach, where)):
            if space < start[0]:
                continue
            if space == start[0]:
                seqs = seqs[seqs > start[1]]
            wanted = seqs[: limit + 1 - len(found)].tolist()
            found += [(space, seq) for seq in wanted]
            cubes += snapshot.cubes(space, wanted)
            if len(found) > limit:
                break
    more = len(found) > limit
    return Page(cubes[:limit], f"{found[limit - 1][0]}:{found[limit - 1][1]}" if more else None)


def _seqs(views: Sequence[Visible]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each space once, with the seqs of what passes, rising."""
    spaces: dict[int, list[NDArray[np.int64]]] = {}
    for view in views:
        spaces.setdefault(view.space, []).append(view.index.seq[view.rows])
    for space, seqs in spaces.items():
        yield space, seqs[0] if len(seqs) == 1 else np.sort(np.concatenate(seqs))


def choose(
    recall: Recall,
    ids: str | Iterable[str] | None,
    *,
    where: Where | None,
    user: ScopeField,
    agent: ScopeField,
    session: ScopeField,
) -> list[str]:
    """The ids given, or those of all live cubes that pass `where`: exactly one of the two has to be said.

    Raises InvalidOption, ScopeRequired, InvalidFilter. O(rows within reach) for `where`.
    """
    if ids is not None:
        if where is not None or any(not isinstance(field, Unset) for field in (user, agent, session)):
            raise InvalidOption("ids say which cubes already: leave out where, user, agent and session")
        if not isinstance(ids, str | Iterable):
            raise InvalidOption(f"ids={ids!r:.80} must be the id of a cube, or several")
        return [ids] if isinstance(ids, str) else list(ids)
    if not where:
        raise InvalidOption(
            "say which cubes: their ids, or where={'session': 's1'} or another condition, with user or agent"
        )
    if not isinstance(user, str) and not isinstance(agent, str):
        raise ScopeRequired("say whose cubes may go: user='…' or agent='…'")
    reach, conditions = Reach.of(user, agent, session), Filter.of(where)
    found: list[str] = []
    with recall.cache.lock, recall.vault.snapshot() as snapshot:
        for view in recall.visible(snapshot, reach, conditions):
            cubes = snapshot.cubes(view.space, view.index.seq[view.rows].tolist())
            found += [cube.id for cube in cubes]
    return found


def count(recall: Recall, reach: Reach, *, where: Filter) -> int:
    """How many live cubes. O(rows within reach)."""
    with recall.cache.lock, recall.vault.snapshot() as snapshot:
        return sum(int(view.mask.sum()) for view in recall.visible(snapshot, reach, where))


def sessions(recall: Recall, reach: Reach) -> list[Session]:
    """Every exact scope in use, the one that was spoken in last first. O(rows within reach)."""
    out = []
    with recall.cache.lock, recall.vault.snapshot() as snapshot:
        for view in recall.visible(snapshot, reach, Filter()):
            index, rows = view.index, view.rows
            if not len(rows):
                continue
            order = np.argsort(index.scope[rows], kind="stable")
            numbers, starts = np.unique(index.scope[rows][order], return_index=True)
            at = index.at[rows][order]
            for number, said in zip(numbers.tolist(), np.split(at, starts[1:]), strict=True):
                names = view.scopes[number]
                first, last = to_datetime(int(said.min())), to_datetime(int(said.max()))
                out.append(Session(names.user, names.agent, names.session, len(said), first, last))
    return sorted(out, key=lambda one: (one.last_at, one.session or ""), reverse=True)


def users(recall: Recall) -> list[str]:
    """Every user that something was told about, by name; a principal gets those of whom they see something.

    O(users) for the owner, else O(rows).
    """
    if recall.guard.name is not None:
        return sorted({one.user for one in sessions(recall, EVERYWHERE) if one.user is not None})
    with recall.vault.snapshot() as snapshot:
        return sorted(row.user for row in snapshot.spaces() if row.user is not None and row.last_seq > 0)


def _cursor(after: str | None) -> tuple[int, int]:
    if after is None:
        return 0, 0
    try:
        space, seq = (int(number) for number in after.split(":"))
        if max(space, seq) >= 1 << 63 or min(space, seq) < 0:
            raise ValueError(after)
        return space, seq
    except (ValueError, AttributeError, TypeError) as error:
        raise InvalidOption(f"after={after!r:.80} is no cursor; use the `next` of the page before") from error
