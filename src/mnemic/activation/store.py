"""One layer's keys and values: body segments and a tail, and attention over both.

Knows nothing of policies, nor of transformers. R = B·H rows; slots are the body's, then the tail's, and where
rows hold differently many tokens the shorter ones are padded to the longest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mnemic.activation.attention import Part, attend
from mnemic.activation.held import Held
from mnemic.activation.segments import Segment, Tail, select_rows
from mnemic.activation.visible import Visible


class Store:
    """Made of the first call's k and v (B, H, n, D). `seen`: tokens ever given, whatever is still stored."""

    def __init__(self, k: Tensor, v: Tensor) -> None:
        self.batch, self.heads, self.seen = k.shape[:3]
        self.device = k.device
        self.tail = Tail(k, v)
        self.body: list[Segment] = []
        self.body_slots = 0
        self.order: Tensor | None = None  # where each row lies among the segments, if not in order

    def append(self, k: Tensor, v: Tensor) -> None:
        self.tail.append(k, v)
        self.seen += k.shape[2]

    def crop(self, count: int) -> None:
        self.tail.crop(count)
        self.seen -= count

    @property
    def slots(self) -> int:
        """Of the fullest row."""
        return self.body_slots + self.tail.length

    @property
    def room(self) -> int:
        """Slots there is storage for."""
        return self.body_slots + self.tail.capacity

    # attention

    def dense(self, every: int) -> tuple[Tensor, Tensor]:
        """k and v (B, H / every, T, D) as the model gave them; only while there is no body."""
        return self.tail.k[:, ::every, : self.tail.length], self.tail.v[:, ::every, : self.tail.length]

    def parts(self, q: Tensor, visible: Visible, scale: float) -> list[Part]:
        """Attention of q (R, G·m, D) over body and tail, to be merged."""
        parts = [self._body_part(q, visible, scale)]
        if self.tail.length:
            bias = visible.bias(None, self.tail_positions(), 0, visible.queries)
            parts.append(attend(q, *self.tail.rows(), bias, scale))
        return parts

    def _body_part(self, q: Tensor, visible: Visible, scale: float) -> Part:
        count = visible.queries
        if self.order is None:
            segment = self.body[0]
            return segment.attend(q, visible.bias(None, segment.pos, 0, count), scale)
        found = [
            segment.attend(q[segment.rows], visible.bias(segment.rows, segment.pos, 0, count), scale)
            for segment in self.body
        ]
        out, peak, total = (torch.cat(apart)[self.order] for apart in zip(*found, strict=True))
        return out, peak, total

    def weights(self, rows: Tensor, visible: Visible, scale: float, first: int, count: int) -> Tensor:
        """(R, G·count, S) float32: attention of the call's queries [first, first + count), rows (R, G·m,
        D).
        """
        q = torch.unflatten(rows, 1, (visible.groups, -1))[:, :, first : first + count].flatten(1, 2).float()
        scores = q.new_full((*q.shape[:2], self.slots), -torch.inf)
        for segment in self.body:
            whole = self.order is None
            found = (q if whole else q[segment.rows]) @ segment.k.float().mT * scale
            bias = visible.bias(None if whole else segment.rows, segment.pos, first, count)
            found = found if bias is None else found + bias
            if whole:
                scores[:, :, : self.body_slots] = found
            else:
                scores[segment.rows, :, : found.shape[2]] = found
        if self.tail.length:
            found = q @ self.tail.rows()[0].float().mT * scale
            bias = visible.bias(None, self.tail_positions(), first, count)
            scores[:, :, self.body_slots :] = found if bias is None else found + bias
        peak = scores.amax(-1, keepdim=True)
        weights = torch.exp(scores - peak.masked_fill(peak.isinf(), 0.0))
        return weights / weights.sum(-1, keepdim=True).clamp_min(1e-38)

    # what is stored, (B, H, S, …)

    def tail_positions(self) -> Tensor:
        """(R, tail) int32, one row seen from every row."""
        own = torch.arange(self.seen - self.tail.length, self.seen, dtype=torch.int32, device=self.device)
        return own.expand(self.batch * self.heads, -1)

    def positions(self) -> Tensor:
        return self.padded(lambda segment: segment.pos, self.tail_positions())

    def valid(self) -> Tensor:
        real = torch.ones(self.batch, self.tail.length, dtype=torch.bool, device=self.device)
        if self.tail.real is not None:
            real = self.tail.real[:, : self.tail.length]
        rows = real.repeat_interleave(self.heads, 0)
        return self.padded(lambda segment: torch.ones_like(segment.pos, dtype=torch.bool), rows)

    def keys(self) -> Tensor:
        return self.padded(lambda segment: segment.k, self.tail.rows()[0])

    def values(self) -> Tensor:
        return self.padded(lambda segment: segment.v, self.tail.rows()[1])

    def padded(self, of: Callable[[Segment], Tensor], tail: Tensor) -> Tensor:
        """What `of` takes from each segment, filled up with zeros, then the tail's (R, tail, …)."""
        if not self.body:
            whole = tail
        elif self.order is None:
            whole = torch.cat([of(self.body[0]), tail], 1)
        else:
            whole = tail.new_zeros(len(tail), self.slots, *tail.shape[2:])
            whole[:, self.body_slots :] = tail
            for segment in self.body:
                whole[segment.rows, : segment.pos.shape[1]] = of(segment)
        return self.by_head(whole)

    def by_head(self, rows: Tensor) -> Tensor:
        """(R, …) to (B, H, …)"""
        return torch.unflatten(rows, 0, (self.batch, self.heads))

    def held(self, state: Mapping[str, Tensor]) -> Held:
        """Everything, with the policies' state (B, H, S)."""
        k, v, pos, valid = (
            each().flatten(0, 1) for each in (self.keys, self.values, self.positions, self.valid)
        )
        return Held(k=k, v=v, pos=pos, valid=valid, state={n: s.flatten(0, 1) for n, s in state.items()})

    # change

    def replace(self, body: list[Segment], headroom: int) -> None:
        """These segments, and an empty tail with room for `headroom` tokens."""
        self._set_body(body, self.batch * self.heads)
        self.tail.empty(headroom)

    def select(self, sequences: Tensor, wanted: Tensor) -> None:
        """Sequence b becomes a copy of sequences[b]; wanted: the same for rows."""
        total = self.batch * self.heads
        moved = [select_rows(segment, wanted, total) for segment in self.body]
        self.batch = len(sequences)
        self._set_body([segment for segment in moved if segment is not None], len(wanted))
        self.tail.select(sequences)

    def _set_body(self, body: list[Segment], rows: int) -> None:
        self.body = body
        self.body_slots = max((segment.pos.shape[1] for segment in body), default=0)
        in_order = not body or (len(body) == 1 and len(body[0].rows) == rows)
        self.order = None if in_order else torch.cat([segment.rows for segment in body]).argsort()

    def tensors(self) -> list[Tensor]:
        kept = [tensor for segment in self.body for tensor in segment.tensors()] + self.tail.tensors()
        return kept if self.order is None else [*kept, self.order]


def fit(state: Tensor, room: int) -> Tensor:
    """(B, H, S) with room for so many slots, new ones zero."""
    return F.pad(state, (0, room - state.shape[2])) if state.shape[2] < room else state
