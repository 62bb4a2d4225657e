"""What the queries of one call may see: the caller's mask, or causality, looked up at true positions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Visible:
    """The mask of one attention call, at logical length T, whatever is still stored.

    mask: None, or (B, 1 | Hq, m, T), bool (True is seen) or a number added to the scores.
    causal: with no mask, query i of m sees positions up to T - m + i.
    """

    mask: Tensor | None
    causal: bool
    batch: int
    heads: int
    groups: int
    queries: int
    seen: int

    @property
    def sees_all(self) -> bool:
        """Whether there is nothing to hide from any query, whatever its position."""
        return self.mask is None and not self.causal

    def bias(self, rows: Tensor | None, positions: Tensor, first: int, count: int) -> Tensor | None:
        """What is added to the scores of queries [first, first + count) at `positions`; None: all is seen.

        rows: (r,) int64 (sequence · H + head), or None for all in order. positions: (r, n) int32.
        Result: (r, G·count, n) float32.
        """
        if self.mask is None:
            if not self.causal or positions.shape[1] == 0:
                return None
            own = torch.arange(first, first + count, device=positions.device) + self.seen - self.queries
            hidden = positions[:, None, :] > own[None, :, None]
            return _added(~hidden).repeat(1, self.groups, 1) if hidden.any() else None
        if rows is None:
            rows = torch.arange(self.batch * self.heads, device=positions.device)
        mask = self.mask[:, :, first : first + count]
        sequence = rows // self.heads if self.mask.shape[0] > 1 else torch.zeros_like(rows)
        if mask.shape[1] == 1:
            apart = mask[sequence, 0]  # (r, count, T)
        else:
            by_head = torch.unflatten(mask, 1, (self.heads, self.groups))
            apart = by_head[sequence, rows % self.heads].flatten(1, 2)
        index = positions.long()[:, None, :].expand(-1, apart.shape[1], -1)
        found = apart.gather(2, index)
        if found.dtype == torch.bool:
            if found.all():
                return None
            found = _added(found)
        return (found if mask.shape[1] > 1 else found.repeat(1, self.groups, 1)).float()

    def real(self) -> Tensor | None:
        """(B, m) bool: which of the call's own tokens are text, not padding; None: all of them.

        A token that no query of its call may see is padding.
        """
        if self.mask is None:
            return None
        own = self.mask[:, :, :, -self.queries :]
        seen = own if own.dtype == torch.bool else own > torch.finfo(own.dtype).min / 2
        real = seen.any(dim=2).any(dim=1).expand(self.batch, -1)
        return None if real.all() else real


def _added(seen: Tensor) -> Tensor:
    return torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, -torch.inf)
