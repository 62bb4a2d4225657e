"""All that a layer stores, laid out in rows of one length: what eviction and recall sort anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mnemic.activation.policy import Keep
from mnemic.activation.segments import Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """k (R, S, D), v (R, S, Dv), pos (R, S) int32, valid (R, S) bool, and policy state (R, S) by name."""

    k: Tensor
    v: Tensor
    pos: Tensor
    valid: Tensor
    state: Mapping[str, Tensor]

    def segments(self, keep: Keep, room: int) -> list[Segment]:
        """Copies of what `keep` names, a segment for each number of tokens that rows keep, and behind them
        room for so many more.
        """
        counts, found = keep.row_splits.diff(), []
        for n in sorted(set(counts.tolist())):
            rows = (counts == n).nonzero()[:, 0]
            at = keep.index[keep.row_splits[rows][:, None] + torch.arange(n, device=rows.device)]
            k, v = (each.new_empty(len(rows), n + room, each.shape[2]) for each in (self.k, self.v))
            k[:, :n], v[:, :n] = self.k[rows[:, None], at], self.v[rows[:, None], at]
            found.append(Segment(rows, k, v, self.pos[rows[:, None], at]))
        return found

    def moved_state(self, keep: Keep) -> dict[str, Tensor]:
        """State of the slots that `keep` names: (R, longest row), zeros behind shorter ones."""
        owner, counts = keep.owner(), keep.row_splits.diff()
        place = torch.arange(len(keep.index), device=owner.device) - keep.row_splits[owner]
        moved = {}
        for name, state in self.state.items():
            moved[name] = state.new_zeros(len(state), int(counts.max()))
            moved[name][owner, place] = state[owner, keep.index]
        return moved

    def tokens(self, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Row, k, v, pos and state of the slots in `mask` (R, S), one token after the other: for a tier."""
        row, slot = mask.nonzero(as_tuple=True)
        k, v, pos = (each[row, slot] for each in (self.k, self.v, self.pos))
        return row, k, v, pos, {name: state[row, slot] for name, state in self.state.items()}

    def joined(self, tokens: Mapping[str, Tensor]) -> Held:
        """With these tokens (what `tokens` gives, by name), every row in the order of its positions."""
        row = tokens["row"]
        counts = torch.bincount(row, minlength=len(self.k))
        order = row.argsort(dim=0, stable=True)
        place = torch.empty_like(row)
        place[order] = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row[order]]

        def widened(held: Tensor, new: Tensor) -> Tensor:
            wide = held.new_zeros(len(held), int(counts.max()), *held.shape[2:])
            wide[row, place] = new.to(held.dtype)
            return torch.cat([held, wide], 1)

        valid = widened(self.valid, torch.ones_like(row, dtype=torch.bool))
        pos = widened(self.pos, tokens["pos"])
        by_age = torch.where(valid, pos, torch.iinfo(torch.int32).max).argsort(dim=1, stable=True)
        rows = torch.arange(len(pos), device=row.device)[:, None]
        return Held(
            k=widened(self.k, tokens["k"])[rows, by_age],
            v=widened(self.v, tokens["v"])[rows, by_age],
            pos=pos[rows, by_age],
            valid=valid[rows, by_age],
            state={name: widened(s, tokens[name])[rows, by_age] for name, s in self.state.items()},
        )
