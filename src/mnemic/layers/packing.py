"""Padding is moved out of the way before a layer sees it: real tokens first, in order, padding behind.

A causal layer that sees real tokens first is right about them whatever stands behind; only its final state
has to stop at each row's length. So left padding, holes and right padding are one case.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Packed:
    """`x` (batch, longest, dim); `valid` bool (batch, longest), None if all are; `counts` int32 (batch,)."""

    x: Tensor
    valid: Tensor | None
    counts: Tensor
    order: Tensor | None  # (batch, longest) where each came from; None when nothing moved
    time: int

    def along(self, other: Tensor) -> Tensor:
        """Another (batch, time) tensor, its real entries moved the same way."""
        return other[:, : self.x.shape[1]] if self.order is None else other.gather(1, self.order)

    def unpack(self, y: Tensor) -> Tensor:
        """(batch, longest, dim) back to (batch, time, dim), zero where there was padding."""
        if self.valid is not None:
            y = torch.where(self.valid.unsqueeze(-1), y, 0)
        if self.order is None:
            return y if y.shape[1] == self.time else nn.functional.pad(y, (0, 0, 0, self.time - y.shape[1]))
        index = self.order.unsqueeze(-1).expand(-1, -1, y.shape[2])
        return y.new_zeros(y.shape[0], self.time, y.shape[2]).scatter_add(1, index, y)


def pack(x: Tensor, mask: Tensor | None) -> Packed:
    """x (batch, time, dim), mask bool (batch, time), True for real tokens. O(batch · time · dim)."""
    batch, time, _ = x.shape
    if mask is None or bool(mask.all()):
        counts = torch.full((batch,), time, dtype=torch.int32, device=x.device)
        return Packed(x, None, counts, None, time)
    counts = mask.sum(1, dtype=torch.int32)
    longest = int(counts.max())
    ordered = bool((mask[:, 1:] <= mask[:, :-1]).all())
    order = None
    if not ordered:
        order = mask.int().argsort(dim=1, descending=True, stable=True)[:, :longest]
        x = x.gather(1, order.unsqueeze(-1).expand(-1, -1, x.shape[2]))
    else:
        x = x[:, :longest]
    valid = torch.arange(longest, device=x.device) < counts.unsqueeze(1)
    x = torch.where(valid.unsqueeze(-1), x, 0)  # whatever padding holds, NaN included, is gone
    return Packed(x, None if bool(valid.all()) else valid, counts, order, time)


def last_slots(x: Tensor, size: int, counts: Tensor | None) -> Tensor:
    """The last `size` of (batch, heads, size + time, ·), up to each row's count of real tokens."""
    if counts is None:
        return x[:, :, x.shape[2] - size :]
    index = counts.view(-1, 1, 1, 1) + torch.arange(size, device=x.device).view(1, 1, -1, 1)
    return x.gather(2, index.expand(-1, x.shape[1], -1, x.shape[3]))
