"""What one reader may see at one moment, as arrays: rows of all spaces, in the order they were said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mnemic.cube.model import Kind, MemCube, Scope
from mnemic.index.sessions import GAP
from mnemic.plaintext.recall.question import Question
from mnemic.plaintext.recall.search import Recall
from mnemic.plaintext.recall.visible import Visible
from mnemic.vault.snapshot import Snapshot

IntArray = NDArray[np.int64]
LEAST_LINE: Final = 12  # tokens; a line costs hardly less, with its reference and its speaker
FEWEST: Final = 16  # rows that are ranked, however small the budget


@dataclass(frozen=True, slots=True)
class Evidence:
    """A row that the ranking found: its place in the order of relevance, from 0, and why it is there."""

    rank: int
    score: float
    signals: Mapping[str, float]


class Scene:
    """Texts within reach. Rows are numbered 0 to n - 1, session by session and by `at` within each.

    words: (rows,) how many each holds. Made under the index's lock and independent of it afterwards; texts
    come from the same snapshot.
    """

    def __init__(self, snapshot: Snapshot, views: Sequence[Visible]) -> None:
        self._snapshot = snapshot
        self._spaces = [view.space for view in views]
        parts = [_columns(number, view) for number, view in enumerate(views)]
        table: IntArray = np.concatenate(parts, axis=1) if parts else np.empty((6, 0), np.int64)
        self.view, self.index_row, self._scope, self.at, self.seq, self.words = table
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

    def newest_first(self, most: int) -> list[int]:
        """The `most` rows said last, the very last first. O(rows)."""
        rows = np.arange(self.count)
        if 0 < most < self.count:
            rows = np.flatnonzero(self.at >= np.partition(self.at, self.count - most)[self.count - most])
        latest: list[int] = rows[np.lexsort((self.seq[rows], self.at[rows]))][::-1][:most].tolist()
        return latest

    def scope(self, row: int) -> Scope:
        return self._names[int(self.view[row])][int(self._scope[row])]

    def beside(self, row: int) -> list[int]:
        """The rows before and after in the same session, unless hours lie between."""
        return [
            other
            for other in (row - 1, row + 1)
            if 0 <= other < self.count
            and self.session[other] == self.session[row]
            and abs(int(self.at[other]) - int(self.at[row])) <= GAP
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
    recall: Recall,
    snapshot: Snapshot,
    question: Question,
    views: Sequence[Visible],
    *,
    budget: int,
    valid_at: int | None = None,
) -> tuple[Scene, dict[int, Evidence]]:
    """The scene, and the rows that answer best, best first, about twice as many as fit `budget` tokens.

    Call it under the index's lock. O(rows).
    """
    scene = Scene(snapshot, views)
    places = [np.full(view.index.size, -1, np.int64) for view in views]
    for number, place in enumerate(places):
        mine = np.flatnonzero(scene.view == number)
        place[scene.index_row[mine]] = mine
    line = LEAST_LINE + float(scene.words.mean()) if scene.count else 1
    k = FEWEST + int(2 * budget / line)
    ranked = recall.rank(question, views, k=k, valid_at=valid_at) if scene.count else []
    found: dict[int, Evidence] = {}
    for one in ranked:
        row = int(places[one.view][one.row])
        if row >= 0:
            found[row] = Evidence(len(found), float(one.score), one.signals)
    return scene, found


def _columns(number: int, view: Visible) -> IntArray:
    """(6, rows) the columns of a `Scene`, for one space."""
    index = view.index
    rows = np.flatnonzero(view.mask & (index.kind == int(Kind.plaintext)))  # in the order of the log
    for column in (index.at, index.scope):  # the last one sorted by counts first
        if (np.diff(column[rows]) < 0).any():
            rows = rows[np.argsort(column[rows], kind="stable")]
    columns = (index.scope, index.at, index.seq, index.lengths)
    return np.stack([np.full(len(rows), number), rows, *(column[rows] for column in columns)]).astype(
        np.int64
    )
