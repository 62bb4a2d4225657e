"""What one reader may see at one moment, as arrays: rows of all spaces, in the order they were said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnemic.cube.model import Kind, MemCube, Scope
from mnemic.plaintext.recall.question import Question
from mnemic.plaintext.recall.search import Recall, Visible
from mnemic.vault.vault import Snapshot

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Evidence:
    """A row that the ranking found: its place in the order of relevance, from 0, and why it is there."""

    rank: int
    score: float
    signals: Mapping[str, float]


class Scene:
    """Texts within reach. Rows are numbered 0 to n - 1, session by session and by `at` within each.

    Made under the index's lock and independent of it afterwards; texts come from the same snapshot.
    """

    def __init__(self, snapshot: Snapshot, views: Sequence[Visible]) -> None:
        self._snapshot = snapshot
        self._spaces = [view.space for view in views]
        parts = [_columns(number, view) for number, view in enumerate(views)]
        table = np.concatenate(parts, axis=1) if parts else np.empty((5, 0), np.int64)
        table = table[:, np.lexsort((table[4], table[3], table[2], table[0]))]  # the last key counts first
        self.view, self.index_row, self._scope, self.at, self.seq = table
        self._names = [dict(view.scopes) for view in views]
        self._cubes: dict[int, MemCube] = {}

    @property
    def count(self) -> int:
        return len(self.seq)

    @cached_property
    def session(self) -> IntArray:
        """(rows,) the number of each row's session (exact scope), rising. O(rows)."""
        changes = (np.diff(self.view) != 0) | (np.diff(self._scope) != 0)
        return np.concatenate([np.zeros(min(1, self.count), np.int64), np.cumsum(changes)])

    @cached_property
    def session_starts(self) -> IntArray:
        """(sessions + 1,) where each session's rows begin, and the end."""
        sessions = int(self.session[-1]) + 1 if self.count else 0
        return np.searchsorted(self.session, np.arange(sessions + 1))

    def newest_first(self) -> IntArray:
        """(rows,) all rows, the last said first. O(rows log rows)."""
        return np.lexsort((self.seq, self.at))[::-1]

    def scope(self, row: int) -> Scope:
        return self._names[int(self.view[row])][int(self._scope[row])]

    def beside(self, row: int) -> list[int]:
        """The rows before and after in the same session, nearest first."""
        near = (row - 1, row + 1)
        return [
            other for other in near if 0 <= other < self.count and self.session[other] == self.session[row]
        ]

    def cubes(self, rows: Iterable[int]) -> list[MemCube]:
        """The cubes of rows, fetched once. O(rows asked for)."""
        wanted = list(rows)
        missing: dict[int, list[int]] = {}
        for row in dict.fromkeys(wanted):
            if row not in self._cubes:
                missing.setdefault(int(self.view[row]), []).append(row)
        for view, lacking in missing.items():
            seqs = [int(self.seq[row]) for row in lacking]
            found = self._snapshot.cubes(self._spaces[view], seqs)
            self._cubes.update(zip(lacking, found, strict=True))
        return [self._cubes[row] for row in wanted]


def look(
    recall: Recall, snapshot: Snapshot, question: Question, views: Sequence[Visible], *, k: int
) -> tuple[Scene, dict[int, Evidence]]:
    """The scene, and the k rows that answer best, best first. Call it under the index's lock. O(rows)."""
    scene = Scene(snapshot, views)
    places = [np.full(view.entry.index.size, -1, np.int64) for view in views]
    for number, place in enumerate(places):
        mine = np.flatnonzero(scene.view == number)
        place[scene.index_row[mine]] = mine
    ranked = recall.rank(question, views, k=k) if scene.count else []
    found: dict[int, Evidence] = {}
    for one in ranked:
        row = int(places[one.view][one.row])
        if row >= 0:
            found[row] = Evidence(len(found), float(one.score), one.signals)
    return scene, found


def _columns(number: int, view: Visible) -> NDArray[Any]:
    index = view.entry.index
    rows = np.flatnonzero(view.mask & (index.kind == int(Kind.plaintext)))
    return np.stack(
        [np.full(len(rows), number), rows, index.scope[rows], index.at[rows], index.seq[rows]]
    ).astype(np.int64)
