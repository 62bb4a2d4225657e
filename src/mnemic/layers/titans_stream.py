"""A neural memory reads any number of tokens, from anywhere in a chunk, and is held to finite weights.

Chunks are counted over each sequence's own tokens, so a stream cut anywhere gives what the whole gives.
Sequences that stand at different places of their chunks are laid out on one grid of chunks, each from its
own slot on; empty slots change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mnemic.layers.titans_rule import (
    Carried,
    Fast,
    Gates,
    Scan,
    Weights,
    advance,
    evaluate,
    read,
    scan,
    steps,
)

Reads = Literal["token", "chunk"]


class Diverged(ArithmeticError):
    """The weights are not finite, or too large, some time after `tokens` tokens."""

    def __init__(self, tokens: int, norm: float) -> None:
        super().__init__(f"the norm of the memory's weights is {norm:g}")
        self.tokens, self.norm = tokens, norm


@dataclass(frozen=True, slots=True)
class Grid:
    """Where tokens stand: `chunks` of `width` slots, sequence r from slot `begin[r]` to before `end[r]`.

    With every sequence at the same place, `same` is that slot, and laying out is padding, or nothing; else
    it gathers. `begin`, `end` int (batch,); `valid` bool (batch, 1, chunks, width), None when every slot is
    taken. `full[c]` bool (batch,): whose chunk c is complete; True or False when that holds for all.
    `places` int (1, width): the places of the slots in their chunk.
    """

    chunks: int
    width: int
    time: int
    begin: Tensor
    end: Tensor
    same: int | None
    valid: Tensor | None
    full: tuple[Tensor | bool, ...]
    places: Tensor

    @classmethod
    def of(cls, seen: Tensor, time: int, chunk: int, valid: Tensor | None = None) -> Grid:
        """seen int (batch,): tokens before these; valid bool (batch, time), real ones first, or None."""
        begin = seen % chunk
        end = begin + (time if valid is None else valid.sum(1))
        first, last, furthest = int(begin.min()), int(begin.max()), int(end.max())
        chunks, width, origin = -(-furthest // chunk), chunk, 0
        even = valid is None and first == last
        full = tuple(
            (furthest >= edge) if even else (end >= edge) for edge in range(chunk, chunks * chunk + 1, chunk)
        )
        if chunks == 1:  # no edge within: leave out the slots before the first token and after the last
            origin, width = first, furthest - first
            begin, end, first, last = begin - origin, end - origin, 0, last - first
        same = first if first == last else None
        slots = torch.arange(chunks * width, device=seen.device)
        places = origin + slots[None, :width]
        taken = None
        if not even or time != chunks * width:
            taken = ((slots >= begin[:, None]) & (slots < end[:, None])).view(-1, 1, chunks, width)
        return cls(chunks, width, time, begin, end, same, taken, full, places)

    def lay(self, x: Tensor) -> Tensor:
        """(batch, heads, time, ...) -> (batch, heads, chunks, width, ...); zero in empty slots."""
        slots = self.chunks * self.width
        if self.valid is not None and self.same is not None:
            x = F.pad(x, (0, 0) * (x.dim() - 3) + (self.same, slots - self.same - self.time))
        elif self.same is None:
            index = torch.arange(slots, device=x.device) - self.begin[:, None]
            x = _gather(x, index.clamp(0, self.time - 1))
        x = x.unflatten(2, (self.chunks, self.width))
        if self.valid is not None:
            x = torch.where(self.valid.view(*self.valid.shape, *[1] * (x.dim() - 4)), x, 0)
        return x

    def lift(self, parts: list[Tensor]) -> Tensor:
        """The inverse: a tensor (batch, heads, width, ...) for each chunk -> (batch, heads, time, ...)."""
        x = torch.cat(parts, 2)
        if self.same is not None:
            return x[:, :, self.same : self.same + self.time]
        index = self.begin[:, None] + torch.arange(self.time, device=x.device)
        return _gather(x, index.clamp(max=x.shape[2] - 1))  # beyond its end a row holds padding

    def before(self, chunk: int) -> Tensor:
        """How many tokens of each sequence stand before this chunk, int (batch,)."""
        return torch.minimum((chunk * self.width - self.begin).clamp(min=0), self.end - self.begin)


def _gather(x: Tensor, index: Tensor) -> Tensor:
    """x (batch, heads, time, ...) at index (batch, n), along time."""
    index = index.view(index.shape[0], 1, index.shape[1], *[1] * (x.dim() - 3))
    return x.gather(2, index.expand(-1, x.shape[1], -1, *x.shape[3:]))


def stream(
    fast: Fast, keys: Tensor, values: Tensor, queries: Tensor | None, gates: Gates, *, grid: Grid,
    reads: Reads = "token", clip: float | None = None, limit: float,
) -> tuple[Tensor | None, Fast]:  # fmt: skip
    """Write tokens one after another and read at each: what `recurrent` does, chunk by chunk. O(time · |W|).

    keys, queries (batch, heads, time, d_in), values (batch, heads, time, d_out), gates (batch, heads,
    time). `reads`: "token" reads M_t, "chunk" the weights at the chunk's start, which is cheaper. Without
    queries nothing is read. Raises `Diverged` when the weights are not finite or their norm is above
    `limit`.
    """
    momentum = None if gates.momentum is None else grid.lay(gates.momentum)
    scans = unbound(scan(momentum, grid.lay(gates.decay), grid.valid))
    laid = (grid.lay(x).unbind(2) for x in (keys, values, gates.step))
    asked = None if queries is None else grid.lay(queries).unbind(2)
    outputs, norms = [], []
    for c, (key, value, step, solved) in enumerate(zip(*laid, scans, strict=True)):
        moves = steps(fast.anchor, key, value, step, clip=clip)
        if asked is not None and reads == "chunk":
            outputs.append(evaluate(fast.anchor, asked[c]))
        elif asked is not None:
            outputs.append(read(fast, asked[c], solved, moves))
        fast = closed(advance(fast, solved, moves), grid.full[c])
        norms.append(norm(fast.weights))
    guard(torch.stack(norms), limit, grid)
    return (grid.lift(outputs) if outputs else None), fast


def unbound(scan: Scan) -> list[Scan]:
    """One of all chunks, (batch, heads, chunks, ...), as one for each."""
    alone = zip(scan.kept.unbind(2), scan.written.unbind(2), strict=True)
    if scan.surprise is None:
        return [Scan(kept, written, None) for kept, written in alone]
    carried = zip(*(part.unbind(2) for part in scan.surprise), strict=True)
    return [Scan(*one, Carried(*of)) for one, of in zip(alone, carried, strict=True)]


def closed(fast: Fast, full: Tensor | bool) -> Fast:
    """With the anchor moved to the weights where the chunk is full: bool (batch,), or one for all."""
    if isinstance(full, bool):
        return fast._replace(anchor=fast.weights) if full else fast
    here = full.view(-1, 1, 1, 1)
    pairs = zip(fast.weights, fast.anchor, strict=True)
    return fast._replace(anchor=tuple(torch.where(here, new, old) for new, old in pairs))


def norm(weights: Weights) -> Tensor:
    """The norm of all layers' weights together, without history. -> (batch, heads)."""
    parts = [torch.linalg.vector_norm(weight.detach(), dim=(-2, -1)) for weight in weights]
    found: Tensor = torch.linalg.vector_norm(torch.stack(parts), dim=0)
    return found


def guard(norms: Tensor, limit: float, grid: Grid) -> None:
    """Raise `Diverged` unless the norm after every chunk, (chunks, ...), is at most `limit`; NaN is not."""
    well = (norms <= limit).flatten(1).all(1)
    if not bool(well.all()):
        chunk = int(well.int().argmin())
        raise Diverged(int(grid.before(chunk).min()), float(norms[chunk].max()))


def require_within(limit: float, weights: Weights) -> None:
    """Raise `Diverged` unless the norm of the weights is at most `limit`."""
    found = norm(weights)
    if not bool((found <= limit).all()):
        raise Diverged(0, float(found.max()))
