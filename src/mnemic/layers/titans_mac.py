"""Titans, memory as context (Behrouz et al. 2025, arXiv 2501.00663, §4.1; "MAC").

A segment asks the memory first and then attends over [persistent tokens | what the memory said | the
segment]; what comes out is written to the memory, and gated by what the memory then says of it.

Two things in the paper would let a token see later ones: attention that sees all of what the memory said
(it was asked by the whole segment), and a gate read after the whole segment was written. Here a token sees
the answers to queries up to its own, and its gate is read after it itself was written. Then the layer is
causal, and a stream can be cut anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnemic.layers.heads import full_precision, join_heads, split_heads
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.packing import pack
from mnemic.layers.titans_attention import AttendingOptions, Projection, attend
from mnemic.layers.titans_core import Gradient, LongTermMemory
from mnemic.layers.titans_guard import rollback
from mnemic.layers.titans_rule import derived, evaluate, explicit
from mnemic.layers.titans_state import MemoryState, persistent_tokens, reset_persistent
from mnemic.layers.titans_stream import Diverged, Grid


@dataclass(frozen=True, kw_only=True)
class ContextOptions(AttendingOptions):
    """`chunk` is the segment: attention does not look beyond it, the memory does."""

    def state_bytes(self, tokens: int, *, batch: int = 1, element_bytes: int = 4) -> int:
        memory = super().state_bytes(tokens, batch=batch, element_bytes=element_bytes)
        return memory + batch * 4 * self.chunk * self.dim * element_bytes


@dataclass(frozen=True, kw_only=True)
class ContextState(MemoryState):
    """The segment so far: `keys`, `values`, and `told_keys`, `told_values` of what the memory said to it.

    (batch, heads, chunk, head_dim) each, by place in the segment, zero where none stands yet.
    """

    keys: Tensor
    values: Tensor
    told_keys: Tensor
    told_values: Tensor


SEGMENT: Final = ("keys", "values", "told_keys", "told_values")
Remember = Callable[[Tensor, ContextState], tuple[Tensor, ContextState]]


class Segment(NamedTuple):
    """Tokens of one segment, and where they stand in it. Batch first, then heads, then tokens."""

    ask: Tensor  # what the memory is asked, of unit length
    plain: Tensor  # queries, without rotation
    queries: Tensor
    keys: Tensor
    values: Tensor
    positions: Tensor  # (batch, 1, tokens)


class MemoryAsContext(MemoryLayer[ContextState]):
    """o = out(norm(y) · sigmoid(norm(M(y)))), y = attention over [persistent | M(x) | x] within a segment.

    O(time · (|W| + chunk · dim)); segments one after another.
    """

    name = "titans-mac"
    Options = ContextOptions
    State = ContextState
    small: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"heads": 2, "chunk": 4, "hidden": 6},
        {"depth": 1, "chunk": 3, "reads": "chunk", "momentum": False, "persistent": 0, "rotary": False},
    )
    dials: ClassVar[tuple[Mapping[str, Any], ...]] = ({"depth": 1, "chunk": 16},)
    uses_positions = True
    only_at_start = ("memory.initial",)

    def __init__(self, options: ContextOptions) -> None:
        super().__init__(options)
        self.options = options
        self.memory, self.attention = LongTermMemory(options), Projection(options)
        self.persistent = persistent_tokens(options)
        self.ask = nn.Linear(options.dim, options.dim, bias=False)
        self.mix = nn.Linear(options.dim, options.dim, bias=False)
        self.norm_told, self.norm_segment, self.norm_memory = (
            nn.RMSNorm(options.dim, eps=1e-6) for _ in range(3)
        )
        self.out = nn.Linear(options.dim, options.dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights of its own, as they begin; those of its modules reset themselves."""
        reset_persistent(self.persistent)

    def init_state(
        self, batch: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> ContextState:
        """An empty segment, and M_0 as learned: the persistent tokens are attended to, not written."""
        dtype, device = self._place(dtype, device)
        shape = batch, self.options.heads, self.options.chunk, self.options.head_dim
        return ContextState(
            spec=self.spec,
            **self.memory.start(batch, dtype=dtype, sums=self.accumulator_dtype(dtype), device=device),
            **{name: torch.zeros(shape, dtype=dtype, device=device) for name in SEGMENT},
        )

    def chunked(
        self, x: Tensor, state: ContextState, valid: Tensor | None, positions: Tensor | None
    ) -> tuple[Tensor, ContextState]:
        assert positions is not None  # noqa: S101  it uses them, so it is given them
        grid, begun = Grid.of(state.seen, x.shape[1], self.options.chunk, valid), state.seen
        parts = zip(*(grid.lay(part).unbind(2) for part in self._project(x, positions)), strict=True)
        outputs = []
        with rollback(self, x, state, valid):
            for c, part in enumerate(parts):
                here = replace(state, seen=begun + grid.before(c))
                remember = partial(self._remember, valid=None if grid.valid is None else grid.valid[:, 0, c])
                try:
                    y, state = self._segment(Segment(*part), here, remember, grid.places)
                except Diverged as found:
                    raise Diverged(int(grid.before(c).min()), found.norm) from found
                outputs.append(y.unsqueeze(1))
                state = emptied(state, grid.full[c])
        return grid.lift(outputs).squeeze(1), replace(state, seen=begun)

    def token(self, x: Tensor, state: ContextState) -> tuple[Tensor, ContextState]:
        return self._one_token(x.unsqueeze(1), state, explicit)

    def definition(self, x: Tensor, state: ContextState) -> tuple[Tensor, ContextState]:
        return self._one_token(x.unsqueeze(1), state, derived)

    def _one_token(self, x: Tensor, state: ContextState, gradient: Gradient) -> tuple[Tensor, ContextState]:
        part = Segment(*self._project(x, state.seen.unsqueeze(1)))
        place = state.seen % self.options.chunk
        with rollback(self, x, state):
            y, after = self._segment(
                part, state, partial(self.memory.recall_one, gradient=gradient), place.unsqueeze(1)
            )
        return y.squeeze(1), emptied(after, place == self.options.chunk - 1)

    def _project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, ...]:
        """The fields of a Segment, for all of x (batch, time, dim)."""
        ask = F.normalize(split_heads(F.silu(self.ask(x)), self.options.heads), dim=-1)
        plain, queries = self.attention.queries(x, positions)
        keys, values = self.attention.keys_values(x, positions)
        return ask, plain, queries, keys, values, positions.unsqueeze(1)

    def _segment(
        self, part: Segment, state: ContextState, remember: Remember, places: Tensor
    ) -> tuple[Tensor, ContextState]:
        """Ask, attend, remember, gate. `places` int (batch or 1, tokens): places in the segment."""
        dtype, kept = part.queries.dtype, state.keys.dtype
        with full_precision(part.ask.device):
            anchor = state.fast(self.options.shapes).anchor
            told = join_heads(evaluate(anchor, part.ask.to(state.weights.dtype)))
        told = self.norm_told(told.to(self.norm_told.weight.dtype)).to(dtype)
        told_keys, told_values = self.attention.keys_values(told, part.positions.squeeze(1))
        new = {"told_keys": told_keys, "told_values": told_values, "keys": part.keys, "values": part.values}
        index = places[:, None, :, None].expand_as(part.keys)
        segment: dict[str, Any] = {
            name: getattr(state, name).scatter_add(2, index, tensor.to(kept)) for name, tensor in new.items()
        }
        state = replace(state, **segment)
        visible = torch.arange(self.options.chunk, device=places.device) <= places[:, None, :, None]
        near = attend(
            part.plain,
            part.queries,
            self.attention.persistent(self.persistent, part.plain),
            torch.cat([state.told_keys, state.keys], 2).to(dtype),
            torch.cat([state.told_values, state.values], 2).to(dtype),
            visible.repeat(1, 1, 1, 2),
        )
        y = self.mix(join_heads(near))
        read, state = remember(y, state)
        gate = self.norm_memory(join_heads(read).to(self.norm_memory.weight.dtype)).sigmoid()
        return self.out(self.norm_segment(y) * gate.to(y.dtype)), state

    def _remember(
        self, y: Tensor, state: ContextState, *, valid: Tensor | None
    ) -> tuple[Tensor, ContextState]:
        """`LongTermMemory.recall` for y with empty slots anywhere."""
        packed = pack(y, valid)
        read, state = self.memory.recall(packed.x, state, packed.valid)
        return split_heads(packed.unpack(join_heads(read)), self.options.heads), state


def emptied(state: ContextState, full: Tensor | bool) -> ContextState:
    """With an empty segment where it was full; `full` bool (batch,), or the same for all."""
    if full is False:
        return state
    keep = torch.logical_not(torch.as_tensor(full, device=state.seen.device)).view(-1, 1, 1, 1)
    left: dict[str, Any] = {name: torch.where(keep, getattr(state, name), 0) for name in SEGMENT}
    return replace(state, **left)
