"""Where a layer's keys and values lie: segments of rows that hold equally many tokens, the newest included.

A row r is sequence · H + head. Positions are those the tokens were given when they came; they are never
renumbered. All rows get the same new tokens, the tail; each segment has room for it behind its own tokens, so
that a row's attention is one kernel over one tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SPARE = 64  # slots a growing tail gets at least


@dataclass(slots=True)
class Segment:
    """Rows that hold the same number n of tokens before the tail: pos (r, n), k (r, n + room, D), v."""

    rows: Tensor
    k: Tensor
    v: Tensor
    pos: Tensor

    @property
    def tokens(self) -> int:
        """Before the tail."""
        return self.pos.shape[1]

    def append(self, k: Tensor, v: Tensor, at: int) -> None:
        """New tokens k (r, q, D), `at` slots after the segment's own."""
        first = self.tokens + at
        self.k[:, first : first + k.shape[1]] = k
        self.v[:, first : first + k.shape[1]] = v

    def resize(self, used: int, room: int) -> None:
        """Room for a tail of `room` tokens, of which `used` are there."""
        own = self.tokens
        self.k, self.v = (_resized(each, own + used, own + room) for each in (self.k, self.v))

    def tensors(self) -> list[Tensor]:
        return [self.rows, self.k, self.v, self.pos]

    def select(self, found: Tensor, rows: Tensor) -> Segment:
        return Segment(rows, self.k[found], self.v[found], self.pos[found])


@dataclass(slots=True)
class Tail:
    """The newest tokens, equally many in every row: `length` of them, in room for `capacity`.

    real: (B, capacity) bool, False at padding; None while there is none.
    """

    length: int
    capacity: int
    real: Tensor | None = None

    def grown(self, count: int) -> int:
        """The capacity that `count` more tokens need: amortised, an eighth more than they take."""
        end = self.length + count
        return self.capacity if end <= self.capacity else end + max(SPARE, end // 8) - 1

    def add(self, count: int, capacity: int) -> None:
        """`count` tokens of text have come."""
        if self.real is not None:
            self.real = _resized(self.real, self.length, capacity)
            self.real[:, self.length : self.length + count] = True
        self.length, self.capacity = self.length + count, capacity

    def mark(self, real: Tensor) -> None:
        """The last real.shape[1] tokens are text where `real` (B, m) says so."""
        if self.real is None:
            self.real = torch.ones(len(real), self.capacity, dtype=torch.bool, device=real.device)
        self.real[:, self.length - real.shape[1] : self.length] = real

    def select(self, sequences: Tensor) -> None:
        self.real = None if self.real is None else self.real[sequences]


def _resized(tensor: Tensor, used: int, room: int) -> Tensor:
    """(r, room, …) with the first `used` as they are."""
    if tensor.shape[1] == room:
        return tensor
    grown = tensor.new_empty(len(tensor), room, *tensor.shape[2:])
    grown[:, :used] = tensor[:, :used]
    return grown


def select_rows(segment: Segment, wanted: Tensor, total: int) -> Segment | None:
    """The segment after a reorder: `wanted` (R',) int64 names for each new row the old row it copies.

    total: how many rows there were. None where no new row is in this segment.
    """
    place = torch.full((total,), -1, dtype=torch.int64, device=wanted.device)
    place[segment.rows] = torch.arange(len(segment.rows), device=wanted.device)
    found = place[wanted]
    rows = (found >= 0).nonzero()[:, 0]
    return segment.select(found[rows], rows) if len(rows) else None
