"""One layer's keys and values, and attention over them.

Knows nothing of policies, nor of transformers. R = B·H rows; slots are a row's own tokens, then the tail's,
and where rows hold differently many tokens the shorter ones are padded to the longest before the tail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mnemic.activation.attention import Part, attend, merge_attention
from mnemic.activation.held import Held
from mnemic.activation.segments import Segment, Tail, select_rows
from mnemic.activation.visible import Visible


class Store:
    """Made of the first call's k and v (B, H, n, D). `seen`: tokens ever given, whatever is still stored.

    Until something is evicted there is one segment, of the tail alone.
    """

    def __init__(self, k: Tensor, v: Tensor) -> None:
        self.batch, self.heads, self.seen = k.shape[:3]
        self.device = k.device
        own_k, own_v = (each.clone(memory_format=torch.contiguous_format).flatten(0, 1) for each in (k, v))
        rows = torch.arange(len(own_k), device=k.device)
        empty = torch.empty(len(own_k), 0, dtype=torch.int32, device=k.device)
        self.segments = [Segment(rows, own_k, own_v, empty)]
        self.tail = Tail(self.seen, self.seen)
        self.is_dense = True
        self.body_slots = 0
        self.order: Tensor | None = None  # where each row lies among the segments, if not in order

    def append(self, k: Tensor, v: Tensor) -> None:
        """New tokens (B, H, q, D). O(new tokens), and O(all) when the tail's room is used up."""
        count, room = k.shape[2], self.tail.grown(k.shape[2])
        k, v = k.flatten(0, 1), v.flatten(0, 1)
        for segment in self.segments:
            segment.resize(self.tail.length, room)
            mine = slice(None) if self.order is None else segment.rows
            segment.append(k[mine], v[mine], self.tail.length)
        self.tail.add(count, room)
        self.seen += count

    def crop(self, count: int) -> None:
        self.tail.length -= count
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
        """k and v (B, H / every, T, D) as the model gave them; only while nothing was evicted."""
        [segment] = self.segments
        k, v = (self.by_head(each) for each in (segment.k, segment.v))
        return k[:, ::every, : self.seen], v[:, ::every, : self.seen]

    def attend(self, q: Tensor, visible: Visible, scale: float) -> Part:
        """Attention of q (R, G·m, D) over all that is stored: one kernel a segment, if nothing is hidden."""
        found = []
        for segment in self.segments:
            mine = q if self.order is None else q[segment.rows]
            found.append(self._attend_segment(segment, mine, visible, scale))
        if self.order is None:
            return found[0]
        out, peak, total = (torch.cat(apart)[self.order] for apart in zip(*found, strict=True))
        return out, peak, total

    def _attend_segment(self, segment: Segment, q: Tensor, visible: Visible, scale: float) -> Part:
        """Where several queries hide their successors from one another, those lie in the tail, and what lies
        before it needs no mask: two parts, merged.
        """
        own, end = segment.tokens, segment.tokens + self.tail.length
        before, newest = self._biases(segment, visible, 0, visible.queries)
        if before is None and newest is None:
            return attend(q, segment.k[:, :end], segment.v[:, :end], None, scale)
        return merge_attention(
            attend(q, segment.k[:, :own], segment.v[:, :own], before, scale),
            attend(q, segment.k[:, own:end], segment.v[:, own:end], newest, scale),
        )

    def weights(self, rows: Tensor, visible: Visible, scale: float, first: int, count: int) -> Tensor:
        """(R, G·count, S) float32: attention of the call's queries [first, first + count), rows (R, G·m,
        D).
        """
        q = torch.unflatten(rows, 1, (visible.groups, -1))[:, :, first : first + count].flatten(1, 2).float()
        scores = q.new_full((*q.shape[:2], self.slots), -torch.inf)
        for segment in self.segments:
            own, end = segment.tokens, segment.tokens + self.tail.length
            mine = q if self.order is None else q[segment.rows]
            found = mine @ segment.k[:, :end].float().mT * scale
            before, newest = self._biases(segment, visible, first, count)
            for bias, part in ((before, found[..., :own]), (newest, found[..., own:])):
                if bias is not None:
                    part += bias
            if self.order is None:
                scores = found
            else:
                scores[segment.rows, :, :own] = found[..., :own]
                scores[segment.rows, :, self.body_slots :] = found[..., own:]
        peak = scores.amax(-1, keepdim=True)
        weights = torch.exp(scores - peak.masked_fill(peak.isinf(), 0.0))
        return weights / weights.sum(-1, keepdim=True).clamp_min(1e-38)

    def _biases(
        self, segment: Segment, visible: Visible, first: int, count: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """What hides a segment's own tokens, and the tail's."""
        if visible.sees_all:
            return None, None
        rows = None if self.order is None else segment.rows
        newest = self.tail_positions()[: len(segment.pos)]
        return visible.bias(rows, segment.pos, first, count), visible.bias(rows, newest, first, count)

    # what is stored, (B, H, S, …)

    def tail_positions(self) -> Tensor:
        """(R, tail) int32, one row seen from every row."""
        own = torch.arange(self.seen - self.tail.length, self.seen, dtype=torch.int32, device=self.device)
        return own.expand(self.batch * self.heads, -1)

    def positions(self) -> Tensor:
        return self._padded(lambda segment: segment.pos, self.tail_positions())

    def valid(self) -> Tensor:
        real = torch.ones(self.batch, self.tail.length, dtype=torch.bool, device=self.device)
        if self.tail.real is not None:
            real = self.tail.real[:, : self.tail.length]
        rows = real.repeat_interleave(self.heads, 0)
        return self._padded(lambda segment: torch.ones_like(segment.pos, dtype=torch.bool), rows)

    def keys(self) -> Tensor:
        return self._laid_out(lambda segment: segment.k)

    def values(self) -> Tensor:
        return self._laid_out(lambda segment: segment.v)

    def _laid_out(self, of: Callable[[Segment], Tensor]) -> Tensor:
        """Keys or values: a view where rows are equally long, else filled up with zeros."""
        if self.order is None:
            return self.by_head(of(self.segments[0])[:, : self.slots])
        some = of(self.segments[0])
        whole = some.new_zeros(self.batch * self.heads, self.slots, some.shape[2])
        for segment in self.segments:
            own, end = segment.tokens, segment.tokens + self.tail.length
            whole[segment.rows, :own] = of(segment)[:, :own]
            whole[segment.rows, self.body_slots :] = of(segment)[:, own:end]
        return self.by_head(whole)

    def _padded(self, of: Callable[[Segment], Tensor], tail: Tensor) -> Tensor:
        """What `of` says of each segment's own tokens, filled up with zeros, then the tail's (R, tail)."""
        if self.order is None:
            return self.by_head(torch.cat([of(self.segments[0]), tail], 1))
        whole = tail.new_zeros(len(tail), self.slots)
        whole[:, self.body_slots :] = tail
        for segment in self.segments:
            whole[segment.rows, : segment.tokens] = of(segment)
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

    def replace(self, segments: list[Segment], room: int) -> None:
        """These segments, made with room for a tail of `room` tokens, which begins anew."""
        self.is_dense, self.tail = False, Tail(0, room)
        self._set(segments, self.batch * self.heads)

    def select(self, sequences: Tensor, wanted: Tensor) -> None:
        """Sequence b becomes a copy of sequences[b]; wanted: the same for rows."""
        total = self.batch * self.heads
        moved = [select_rows(segment, wanted, total) for segment in self.segments]
        self.batch = len(sequences)
        self._set([segment for segment in moved if segment is not None], len(wanted))
        self.tail.select(sequences)

    def _set(self, segments: list[Segment], rows: int) -> None:
        self.segments = segments
        self.body_slots = max(segment.tokens for segment in segments)
        in_order = len(segments) == 1 and len(segments[0].rows) == rows
        self.order = None if in_order else torch.cat([segment.rows for segment in segments]).argsort()

    def tensors(self) -> list[Tensor]:
        if self.is_dense:
            kept = [self.segments[0].k, self.segments[0].v]
        else:
            kept = [tensor for segment in self.segments for tensor in segment.tensors()]
        kept += [] if self.tail.real is None else [self.tail.real]
        return kept if self.order is None else [*kept, self.order]


def fit(state: Tensor, room: int) -> Tensor:
    """(B, H, S) with room for so many slots, new ones zero."""
    return F.pad(state, (0, room - state.shape[2])) if state.shape[2] < room else state
