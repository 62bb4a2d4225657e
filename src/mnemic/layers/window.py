"""Sliding-window attention: exact about the last `window` tokens, the current one counted; blind beyond."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from mnemic.layers.attention import AttentionOptions, project
from mnemic.layers.heads import COUNTER_BYTES, counts_of, join_heads
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.packing import last_slots
from mnemic.layers.state import LayerState


@dataclass(frozen=True, kw_only=True)
class WindowOptions(AttentionOptions):
    """`window`: token t sees t - window + 1 … t (Arora et al. 2024 use 64; their shipped 360M model 256)."""

    window: int = 64

    def state_bytes(self, tokens: int, *, batch: int = 1, element_bytes: int = 4) -> int:
        return batch * (2 * (self.window - 1) * self.dim * element_bytes + COUNTER_BYTES)


@dataclass(frozen=True, kw_only=True)
class WindowState(LayerState):
    """`keys`, `values` (batch, heads, window - 1, head_dim): what the next token can see, newest last.

    Slots that no token has filled are zero and stand in front.
    """

    keys: Tensor
    values: Tensor


class SlidingWindow(MemoryLayer[WindowState]):
    """State: 2 · (window - 1) · dim numbers, from the first token on. O(time · window)."""

    name = "window"
    Options = WindowOptions
    State = WindowState
    small: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"heads": 2, "window": 5},
        {"window": 1, "rotary": False},
    )
    uses_positions = True
    dials: ClassVar[tuple[Mapping[str, Any], ...]] = ({"window": 8}, {"window": 16}, {"window": 32})

    def __init__(self, options: WindowOptions) -> None:
        super().__init__(options)
        self.heads, self.head_dim, self.rotary = options.heads, options.head_dim, options.rotary
        self.window = options.window
        self.qkv = nn.Linear(options.dim, 3 * options.dim, bias=False)
        self.out = nn.Linear(options.dim, options.dim, bias=False)

    def init_state(
        self, batch: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> WindowState:
        dtype, device = self._place(dtype, device)
        empty = torch.zeros(batch, self.heads, self.window - 1, self.head_dim, dtype=dtype, device=device)
        seen = torch.zeros(batch, dtype=torch.int32, device=device)
        return WindowState(spec=self.spec, seen=seen, keys=empty, values=empty.clone())

    def chunked(
        self, x: Tensor, state: WindowState, valid: Tensor | None, positions: Tensor | None
    ) -> tuple[Tensor, WindowState]:
        q, k, v = project(self.qkv, x, self.heads, positions if self.rotary else None)
        keys = torch.cat([state.keys, k.to(state.keys.dtype)], 2)  # slot t + window - 1 is token t of x
        values = torch.cat([state.values, v.to(state.values.dtype)], 2)
        read = self._attend(q, keys.to(q.dtype), values.to(q.dtype), state.seen)
        counts = None if valid is None else counts_of(x, valid)
        after = WindowState(
            spec=self.spec,
            seen=state.seen,
            keys=last_slots(keys, self.window - 1, counts),
            values=last_slots(values, self.window - 1, counts),
        )
        return self.out(join_heads(read)), after

    def token(self, x: Tensor, state: WindowState) -> tuple[Tensor, WindowState]:
        y, after = self.chunked(x.unsqueeze(1), state, None, state.seen.unsqueeze(1))
        return y.squeeze(1), after

    def definition(self, x: Tensor, state: WindowState) -> tuple[Tensor, WindowState]:
        q, k, v = project(
            self.qkv, x.unsqueeze(1), self.heads, state.seen.unsqueeze(1) if self.rotary else None
        )
        keys, values = torch.cat([state.keys, k], 2), torch.cat([state.values, v], 2)
        reads = []
        for row in range(x.shape[0]):
            seen = min(int(state.seen[row]) + 1, self.window)
            weights = (q[row] @ keys[row, :, -seen:].mT / math.sqrt(self.head_dim)).softmax(-1)
            reads.append((weights @ values[row, :, -seen:]).flatten())
        after = WindowState(spec=self.spec, seen=state.seen, keys=keys[:, :, 1:], values=values[:, :, 1:])
        return self.out(torch.stack(reads)), after

    def _attend(self, q: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
        blocks, (around_keys, around_values), mask = banded(q, (keys, values), seen)
        read = scaled_dot_product_attention(blocks, around_keys, around_values, attn_mask=mask)
        return read.flatten(2, 3)[:, :, : q.shape[2]]


def banded(q: Tensor, around: tuple[Tensor, ...], seen: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
    """Blocks of queries, each beside its own keys and the past before them: what a window can see.

    q (batch, heads, time, ·); each of `around` (batch, heads, past + time, ·), of which the first `past`
    stood before; `seen` int (batch,) tokens before q, fewer than `past` at first. Returns q (batch, heads,
    blocks, block, ·), each of `around` (batch, heads, blocks, block + past, ·) and the mask bool (batch, 1,
    blocks, block, block + past).
    """
    time = q.shape[2]
    past = around[0].shape[2] - time
    block = min(time, max(past, 32))
    blocks = math.ceil(time / block)
    missing = blocks * block - time
    span = block + past
    spans = [pad(x, (0, 0, 0, missing)).unfold(2, span, block).mT for x in around]
    slot = torch.arange(span, device=q.device)
    query = torch.arange(block, device=q.device).unsqueeze(1)
    band = (slot >= query) & (slot <= query + past)  # (block, span)
    first = (past - seen).clamp(min=0)  # (batch,) slots of the whole that hold nothing yet
    starts = torch.arange(blocks, device=q.device) * block
    filled = (starts[:, None] + slot) >= first[:, None, None]  # (batch, blocks, span)
    mask = band & filled[:, None, :, None, :]
    return pad(q, (0, 0, 0, missing)).unflatten(2, (blocks, block)), spans, mask
