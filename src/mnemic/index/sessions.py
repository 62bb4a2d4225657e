"""Who stands beside whom: rows of one exact scope in order of arrival, cut where time jumps.

Works on positions: rows ordered by session, then arrival, so that neighbours are one apart.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

GAP: Final = 6 * 3600 * 1_000_000  # µs of silence that end an episode
FARTHEST: Final = 5  # turns: what counts for its neighbours counts at most so far
FloatArray = NDArray[np.float32]


class Sessions:
    """order: (rows,) the row at each position; position: its inverse; number: (rows,) the session at each
    position, rising from 0; start: (sessions,) the first position of each. O(rows log rows) to make.

    apart: (rows,) a place for each row among `room` places, where `FARTHEST` free ones lie before, between
    and after sessions: what is written up to `FARTHEST` places away never meets another session.
    """

    def __init__(self, scope: NDArray[np.int64], at: NDArray[np.int64]) -> None:
        rows = len(scope)
        self.in_order = bool((scope[1:] >= scope[:-1]).all())
        self.order = self.position = np.arange(rows, dtype=np.int32)
        if not self.in_order:
            self.order = np.argsort(scope, kind="stable").astype(np.int32)
            self.position = np.empty(rows, np.int32)
            self.position[self.order] = np.arange(rows, dtype=np.int32)
            scope, at = scope[self.order], at[self.order]
        new = np.ones(rows, np.bool_)
        new[1:] = (scope[1:] != scope[:-1]) | (np.abs(np.diff(at)) > GAP)
        self.start = np.flatnonzero(new)
        self.number = (np.cumsum(new) - 1).astype(np.int32)
        self.apart = self.position + np.int32(FARTHEST) * (self.number[self.position] + np.int32(1))
        self.room = rows + FARTHEST * (len(self.start) + 1)

    @property
    def nbytes(self) -> int:
        arrays = (self.order, self.position, self.number, self.start, self.apart, self.depth)
        return sum(array.nbytes for array in arrays)

    def ordered(self, values: FloatArray) -> FloatArray:
        """Values by row to values by position."""
        return values if self.in_order else values[self.order]

    def by_row(self, values: FloatArray) -> FloatArray:
        """Values by position to values by row."""
        return values if self.in_order else values[self.position]

    def shifted(self, values: FloatArray, steps: int) -> FloatArray:
        """At each position the value `steps` earlier (later if negative) in its session, else 0."""
        out = np.zeros_like(values)
        size = len(values)
        if abs(steps) >= size:
            return out
        here, there = (
            (slice(steps, None), slice(None, -steps))
            if steps > 0
            else (slice(None, steps), slice(-steps, None))
        )
        np.multiply(values[there], self.number[here] == self.number[there], out=out[here])
        return out

    def best(self, values: FloatArray) -> FloatArray:
        """At each position, the best value of its session."""
        return np.maximum.reduceat(values, self.start)[self.number] if len(values) else values

    @cached_property
    def depth(self) -> FloatArray:
        """At each position, log(1 + how many of its session stand before it)."""
        before = np.arange(len(self.number)) - self.start[self.number]
        depth: FloatArray = np.log1p(before).astype(np.float32)
        return depth
