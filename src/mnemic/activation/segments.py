"""Where a layer's keys and values lie: segments of rows that hold equally many tokens, and a common tail.

A row r is sequence · H + head. Positions are those the tokens were given when they came; they are never
renumbered.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mnemic.activation.attention import Part, attend

SPARE = 64  # slots a growing tail gets at least


@dataclass(slots=True)
class Segment:
    """Rows that hold the same number n of tokens, in memory: k (r, n, D), v (r, n, Dv)."""

    rows: Tensor
    k: Tensor
    v: Tensor
    pos: Tensor

    def attend(self, q: Tensor, bias: Tensor | None, scale: float) -> Part:
        return attend(q, self.k, self.v, bias, scale)

    def tensors(self) -> list[Tensor]:
        return [self.rows, self.k, self.v, self.pos]

    def select(self, found: Tensor, rows: Tensor) -> Segment:
        return Segment(rows, self.k[found], self.v[found], self.pos[found])


class Tail:
    """The newest tokens, equally many in every row: k (B, H, capacity, D), of which `length` are in use.

    real: (B, capacity) bool, False at padding; None while there is none.
    """

    def __init__(self, k: Tensor, v: Tensor) -> None:
        self.k, self.v = (each.clone(memory_format=torch.contiguous_format) for each in (k, v))
        self.length = k.shape[2]
        self.real: Tensor | None = None

    @property
    def capacity(self) -> int:
        return self.k.shape[2]

    def append(self, k: Tensor, v: Tensor) -> None:
        """O(new tokens), and O(all) when the capacity is used up, which it then grows by an eighth."""
        end = self.length + k.shape[2]
        if end > self.capacity:
            self.resize(end + max(SPARE, end // 8) - 1)
        self.k[:, :, self.length : end] = k
        self.v[:, :, self.length : end] = v
        if self.real is not None:
            self.real[:, self.length : end] = True
        self.length = end

    def mark(self, real: Tensor) -> None:
        """The last real.shape[1] tokens are text where `real` (B, m) says so."""
        if self.real is None:
            self.real = torch.ones(self.k.shape[0], self.capacity, dtype=torch.bool, device=self.k.device)
        self.real[:, self.length - real.shape[1] : self.length] = real

    def resize(self, capacity: int) -> None:
        self.k, self.v = (_resized(tensor, self.length, capacity, 2) for tensor in (self.k, self.v))
        if self.real is not None:
            self.real = _resized(self.real, self.length, capacity, 1)

    def empty(self, capacity: int) -> None:
        """Forget all tokens, keeping the storage if it has this capacity."""
        self.length, self.real = 0, None
        if self.capacity != capacity:
            self.resize(capacity)

    def crop(self, tokens: int) -> None:
        self.length -= tokens

    def select(self, sequences: Tensor) -> None:
        self.k, self.v = self.k[sequences], self.v[sequences]
        self.real = None if self.real is None else self.real[sequences]

    def rows(self) -> tuple[Tensor, Tensor]:
        """k, v as (B·H, length, D): views where the storage allows."""
        return self.k[:, :, : self.length].flatten(0, 1), self.v[:, :, : self.length].flatten(0, 1)

    def tensors(self) -> list[Tensor]:
        return [self.k, self.v, *([] if self.real is None else [self.real])]


def _resized(tensor: Tensor, length: int, capacity: int, dim: int) -> Tensor:
    shape = list(tensor.shape)
    shape[dim] = capacity
    grown = tensor.new_empty(shape)
    grown.narrow(dim, 0, length).copy_(tensor.narrow(dim, 0, length))
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
