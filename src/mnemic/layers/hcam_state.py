"""What a hierarchical chunk memory is told, what it keeps, and how chunks come and go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from mnemic.layers.heads import COUNTER_BYTES, accumulator_bytes
from mnemic.layers.options import LayerOptions, option, require_divisible
from mnemic.layers.state import LayerState

Summary = Literal["mean", "max", "last"]
NO_LIMIT: Final = 2**31 - 1
NUMBER_BYTES: Final = 4  # of `numbers`, a chunk


@dataclass(frozen=True, kw_only=True)
class HCAMOptions(LayerOptions):
    """The paper gives no chunk length, topk or size for its tasks: these are the public port's and ours.

    Small chunks of one subject each summarise well; a long chunk of many subjects is a blur.
    """

    heads: int = 1
    """Of the attention inside a chunk. Relevance has one, `dim` wide."""
    chunk: int = 32
    """Tokens of a chunk: cut by the clock, not by what they say."""
    topk: int = 8
    """Chunks a token looks into. 1 trains no relevance: a softmax over one is 1, whatever the logit."""
    max_chunks: int | None = 256
    """Whole chunks kept, the oldest overwritten beyond; None keeps all."""
    summary: Summary = "mean"
    """What stands for a chunk when relevance is judged: mean (the paper), largest numbers, or last vector."""
    unfinished: bool = True
    """Whether the chunk that is being filled can be chosen too; the released module does not read it."""
    relevance: float = 1.0
    """Multiplies the relevance logits: above 1 makes the choice sharper from the start."""
    stop_gradient: bool = option(True, meaning=False)
    """No gradient into what is stored (the paper). False trains what writes, and keeps the stream's graph."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_divisible(dim=self.dim, heads=self.heads)

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def limit(self) -> int:
        return self.max_chunks or NO_LIMIT

    def state_bytes(self, tokens: int, *, batch: int = 1, element_bytes: int = 4) -> int:
        """Grows by a chunk every `chunk` tokens, up to `max_chunks`."""
        stored = min(tokens // self.chunk, self.limit)
        contents = (stored + 1) * self.chunk * self.dim * element_bytes
        summaries = stored * (self.dim * accumulator_bytes(element_bytes) + NUMBER_BYTES)
        return batch * (contents + summaries + COUNTER_BYTES)


@dataclass(frozen=True, kw_only=True)
class HCAMState(LayerState):
    """Whole chunks, in as many slots as the longest row fills, and the one being filled.

    `contents` (batch, slots, chunk, dim); `summaries` (batch, slots, dim), float32 or float64; `numbers`
    int32 (batch, slots): which chunk of its stream a slot holds, -1 none; `partial` (batch, chunk, dim): the
    last seen % chunk inputs, zero beyond. Chunk n is in slot n, or, once max_chunks are full, in
    n % max_chunks.
    """

    contents: Tensor
    summaries: Tensor
    numbers: Tensor
    partial: Tensor

    @property
    def slots(self) -> int:
        return self.contents.shape[1]

    @property
    def chunk(self) -> int:
        return self.partial.shape[1]

    def filled(self) -> Tensor:
        """Inputs in the unfinished chunk, int (batch,)."""
        return self.seen % self.chunk

    def select(self, index: Tensor) -> HCAMState:
        chosen = super().select(index)
        needed = int(chosen.seen.max()) // chosen.chunk if index.numel() else 0
        return chosen._fit(min(needed, self.slots)).owned()

    def where(self, rows: Tensor, other: HCAMState) -> HCAMState:
        longest = int(torch.where(rows, self.seen, other.seen).max()) // self.chunk
        slots = min(longest, max(self.slots, other.slots))
        chosen: HCAMState = super(HCAMState, self._fit(slots)).where(rows, other._fit(slots))
        return chosen

    def _fit(self, slots: int) -> HCAMState:
        """With that many slots: empty ones added, or the last left out."""
        if slots == self.slots:
            return self
        return HCAMState(
            spec=self.spec,
            seen=self.seen,
            contents=fit(self.contents, slots),
            summaries=fit(self.summaries, slots),
            numbers=fit(self.numbers, slots, -1),
            partial=self.partial,
        )


def fit(tensor: Tensor, slots: int, empty: int = 0) -> Tensor:
    """(batch, slots, …) with more or fewer of them."""
    missing = slots - tensor.shape[1]
    return (
        tensor[:, :slots]
        if missing <= 0
        else pad(tensor, (0, 0) * (tensor.dim() - 2) + (0, missing), value=empty)
    )


def running_mean(vectors: Tensor) -> Tensor:
    count = torch.arange(1, vectors.shape[-2] + 1, device=vectors.device, dtype=vectors.dtype)
    return vectors.cumsum(-2) / count.unsqueeze(1)


SUMMARIES: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "mean": running_mean,
    "max": lambda vectors: vectors.cummax(-2).values,
    "last": lambda vectors: vectors,
}
"""Summaries of a chunk so far, at each of its vectors: (…, chunk, dim) to the same."""


class Tape(NamedTuple):
    """What can be read: the chunks that were stored, then those of the tokens being read, whole or not.

    `stored` (batch, stored, chunk, dim) and `fresh` (batch, new, chunk, dim): their contents, never joined,
    so that one token more costs no copy of the past. Of both: `summaries` (batch, stored + new, dim),
    `numbers` int64 (batch, stored + new). `running` (batch, new, chunk, dim): summaries so far in the fresh
    chunks; `whole` int64 (batch,): chunks that were whole before.
    """

    stored: Tensor
    fresh: Tensor
    summaries: Tensor
    numbers: Tensor
    running: Tensor
    whole: Tensor

    @property
    def first(self) -> int:
        """The place of the first fresh chunk."""
        return self.stored.shape[1]

    def detach(self) -> Tape:
        """Without its history."""
        return Tape(*(tensor.detach() for tensor in self))

    def contents(self, start: Tensor) -> Tensor:
        """`chunk` vectors from each place on: start int (batch, time, k), in vectors along the tape."""
        steps = torch.arange(self.fresh.shape[2], device=start.device)
        new = self.first * len(steps)
        token = start.unsqueeze(-1) + steps
        fresh = _vectors(self.fresh, (token - new).clamp(min=0))
        if not self.first:
            return fresh
        # an unfinished chunk begins before its first vector: what stands there is hidden by whoever reads it
        is_new = (start > new - len(steps)).unsqueeze(-1).unsqueeze(-1)
        return torch.where(is_new, fresh, _vectors(self.stored, token.clamp(min=0, max=new - 1)))


def _vectors(chunks: Tensor, token: Tensor) -> Tensor:
    """(batch, n, chunk, dim) at token int (batch, …): (batch, …, dim)."""
    flat = chunks.flatten(1, 2)
    rows = torch.arange(flat.shape[0], device=flat.device).view(-1, *[1] * (token.dim() - 1)) * flat.shape[1]
    found: Tensor = flat.flatten(0, 1)[token + rows]
    return found


def record(state: HCAMState, x: Tensor, summary: Summary) -> Tape:
    """The tape of a state and the tokens after it, x (batch, time, dim). O(summaries + time)."""
    kept, filled = state.partial, state.filled().long()
    size, time = state.chunk, x.shape[1]
    new = -(-(int(filled.max()) + time) // size) if time else 1
    vectors = pad(kept, (0, 0, 0, (new - 1) * size))
    if time:
        places = filled.unsqueeze(1) + torch.arange(time, device=x.device)
        vectors = vectors.scatter(1, places.unsqueeze(-1).expand_as(x), x.to(kept.dtype))
    chunks = vectors.unflatten(1, (new, size))
    running = SUMMARIES[summary](chunks.to(state.summaries.dtype))
    whole = state.seen.long() // size
    ahead = whole.unsqueeze(1) + torch.arange(new, device=x.device)
    return Tape(
        state.contents,
        chunks,
        torch.cat([state.summaries, running[:, :, -1]], 1),
        torch.cat([state.numbers.long(), ahead], 1),
        running,
        whole,
    )


def store(state: HCAMState, tape: Tape, counts: Tensor, limit: int) -> HCAMState:
    """The state after the first `counts` int (batch,) tokens of the tape; its `seen` is still the old one.

    O(1) while no chunk gets whole, O(stored · chunk · dim) when one does.
    """
    size = state.chunk
    total = state.filled() + counts
    begun, left = total // size, total % size  # new chunks that are whole now; what is in the next
    chunks = tape.fresh
    flat = pad(chunks.flatten(1, 2), (0, 0, 0, size))
    ahead = torch.arange(size, device=flat.device)
    index = (begun * size).unsqueeze(1) + ahead
    partial = torch.take_along_dim(flat, index.unsqueeze(-1).long(), 1)
    partial = torch.where((ahead < left.unsqueeze(1)).unsqueeze(-1), partial, 0)
    if int(begun.max()) == 0:
        return HCAMState(
            spec=state.spec, seen=state.seen, contents=state.contents, summaries=state.summaries,
            numbers=state.numbers, partial=partial,
        )  # fmt: skip
    after = (tape.whole + begun).unsqueeze(1)  # whole chunks of each row, those that are gone counted
    slots = min(int(after.max()), limit)
    slot = torch.arange(slots, device=flat.device)
    held = slot + limit * torch.div(
        after - 1 - slot, limit, rounding_mode="floor"
    )  # newest chunk of the slot
    fresh = held - tape.whole.unsqueeze(1)  # its place among the new ones, below 0 for an old one
    is_new = (fresh >= 0) & (slot < after)
    source = fresh.clamp(0, chunks.shape[1] - 1)

    def renewed(old: Tensor, new: Tensor, empty: int = 0) -> Tensor:
        shape = (*source.shape, *[1] * (old.dim() - 2))
        taken = torch.take_along_dim(new, source.view(shape), 1)
        return torch.where(is_new.view(shape), taken, fit(old, slots, empty))

    return HCAMState(
        spec=state.spec,
        seen=state.seen,
        contents=renewed(state.contents, chunks),
        summaries=renewed(state.summaries, tape.summaries[:, tape.first :]),
        numbers=renewed(state.numbers, tape.numbers[:, tape.first :].int(), -1),
        partial=partial,
    )
