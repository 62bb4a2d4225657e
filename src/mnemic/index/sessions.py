"""Who stands beside whom: rows of one exact scope in order of arrival, cut where time jumps.

Works on positions: rows ordered by session, then arrival, so that neighbours are one apart.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

GAP: Final = 6 * 3600 * 1_000_000  # µs of silence that end an episode
FloatArray = NDArray[np.float32]


class Sessions:
    """order: (rows,) the row at each position; position: its inverse; number: (rows,) the session at each
    position, rising from 0; start: (sessions,) the first position of each. O(rows log rows) to make.
    """

    def __init__(self, scope: NDArray[np.int64], at: NDArray[np.int64]) -> None:
        rows = len(scope)
        self.order = np.argsort(scope, kind="stable").astype(np.int32)
        self.in_order = bool((self.order == np.arange(rows)).all())
        self.position = np.empty(rows, np.int32)
        self.position[self.order] = np.arange(rows, dtype=np.int32)
        new = np.ones(rows, np.bool_)
        new[1:] = (np.diff(scope[self.order]) != 0) | (np.abs(np.diff(at[self.order])) > GAP)
        self.start = np.flatnonzero(new)
        self.number = (np.cumsum(new) - 1).astype(np.int32)

    @property
    def nbytes(self) -> int:
        return self.order.nbytes + self.position.nbytes + self.number.nbytes + self.start.nbytes

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

    def best(self, values: FloatArray, count: int) -> FloatArray:
        """At each position, the mean of its session's `count` best values (of all, where there are fewer)."""
        left = values.copy()
        total = np.zeros(len(self.start), np.float32)
        found = np.zeros(len(self.start), np.float32)
        for _ in range(count):
            top = np.maximum.reduceat(left, self.start)
            real = np.isfinite(top)
            total[real] += top[real]
            found += real
            left[left == top[self.number]] = -np.inf
        return (total / np.maximum(found, 1)).astype(np.float32)[self.number]

    def depth(self) -> NDArray[np.int64]:
        """At each position, how many of its session stand before it."""
        return np.arange(len(self.number)) - self.start[self.number]
