"""The short memory beside the long one: attention over learned tokens, always visible, and over a window.

Behrouz et al. 2025 (arXiv 2501.00663), §3.3, §4.2. The learned tokens have no place in the sequence: their
scores come from queries that are not rotated, so that they look the same from everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mnemic.cube.errors import InvalidOption
from mnemic.layers.heads import counts_of, join_heads, split_heads
from mnemic.layers.packing import last_slots
from mnemic.layers.rotary import rotate
from mnemic.layers.titans_state import MemoryOptions, MemoryState
from mnemic.layers.window import banded


@dataclass(frozen=True, kw_only=True)
class AttendingOptions(MemoryOptions):
    """A memory beside attention. `rotary`: positions by rotation (Su et al. 2021)."""

    rotary: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rotary and self.head_dim % 2:
            raise InvalidOption(f"rotary needs an even dim // heads, got {self.head_dim}; or rotary=False")


@dataclass(frozen=True, kw_only=True)
class WindowedOptions(AttendingOptions):
    """`window`: token t attends to t - window + 1 … t, and to the persistent tokens."""

    window: int = 64

    def state_bytes(self, tokens: int, *, batch: int = 1, element_bytes: int = 4) -> int:
        memory = super().state_bytes(tokens, batch=batch, element_bytes=element_bytes)
        return memory + batch * 2 * (self.window - 1) * self.dim * element_bytes


@dataclass(frozen=True, kw_only=True)
class WindowedState(MemoryState):
    """`keys`, `values` (batch, heads, window - 1, head_dim): what the next token can see, newest last."""

    keys: Tensor
    values: Tensor


class Projection(nn.Module):
    """Queries, keys and values of attention: (batch, heads, time, head_dim) of x (batch, time, dim)."""

    def __init__(self, options: AttendingOptions) -> None:
        super().__init__()
        self.heads, self.rotary = options.heads, options.rotary
        self.q = nn.Linear(options.dim, options.dim, bias=False)
        self.kv = nn.Linear(options.dim, 2 * options.dim, bias=False)

    def queries(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Without rotation, for what has no place in the sequence, and with it, for what has."""
        plain = split_heads(self.q(x), self.heads)
        return plain, rotate(plain, positions) if self.rotary else plain

    def keys_values(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        k, v = (split_heads(part, self.heads) for part in self.kv(x).chunk(2, -1))
        return rotate(k, positions) if self.rotary else k, v

    def persistent(self, tokens: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, (heads, n, head_dim), of persistent tokens (n, dim); n = 0 without any."""
        if tokens is None:
            none = like.new_zeros(self.heads, 0, like.shape[-1])
            return none, none
        k, v = self.kv(tokens).to(like.dtype).unflatten(-1, (2, self.heads, -1)).permute(1, 2, 0, 3)
        return k, v


def attend(
    plain: Tensor, q: Tensor, persistent: tuple[Tensor, Tensor], keys: Tensor, values: Tensor, mask: Tensor
) -> Tensor:
    """Softmax over the persistent tokens, which every query sees, and over keys where `mask`, together.

    plain, q, keys, values (..., time, head_dim); `persistent` keys and values, (..., n, head_dim).
    """
    always, held = persistent
    scores = torch.cat([plain @ always.mT, (q @ keys.mT).masked_fill(~mask, -math.inf)], -1)
    weights = (scores / math.sqrt(q.shape[-1])).softmax(-1)
    read: Tensor = weights[..., : always.shape[-2]] @ held + weights[..., always.shape[-2] :] @ values
    return read


class PrefixedWindow(nn.Module):
    """Sliding-window attention that also sees the persistent tokens. O(time · (window + persistent))."""

    def __init__(self, options: WindowedOptions) -> None:
        super().__init__()
        self.options = options
        self.project = Projection(options)

    def start(self, batch: int, *, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
        """The fields of a WindowedState before any token."""
        options = self.options
        shape = batch, options.heads, options.window - 1, options.head_dim
        return {name: torch.zeros(shape, dtype=dtype, device=device) for name in ("keys", "values")}

    def forward(
        self, x: Tensor, state: WindowedState, valid: Tensor | None, positions: Tensor, tokens: Tensor | None
    ) -> tuple[Tensor, dict[str, Any]]:
        """What each token of x (batch, time, dim) sees, (batch, time, dim), and the next state's fields."""
        plain, q = self.project.queries(x, positions)
        keys, values = self._with_past(x, state, positions)  # slot t + window - 1 is token t of x
        both, around, mask = banded(torch.cat([plain, q], -1), (keys, values), state.seen)
        always, held = (part.unsqueeze(1) for part in self.project.persistent(tokens, q))
        plain, rotated = both.chunk(2, -1)
        near_keys, near_values = (part.to(q.dtype) for part in around)
        read = attend(plain, rotated, (always, held), near_keys, near_values, mask)
        counts, size = None if valid is None else counts_of(x, valid), self.options.window - 1
        after = {"keys": last_slots(keys, size, counts), "values": last_slots(values, size, counts)}
        return join_heads(read.flatten(2, 3)[:, :, : x.shape[1]]), after

    def definition(
        self, x: Tensor, state: WindowedState, tokens: Tensor | None
    ) -> tuple[Tensor, dict[str, Any]]:
        """The same for one token, x (batch, 1, dim), row by row."""
        positions = state.seen.unsqueeze(1)
        plain, q = self.project.queries(x, positions)
        keys, values = self._with_past(x, state, positions)
        always, held = self.project.persistent(tokens, q)
        reads = []
        for row in range(x.shape[0]):
            n = min(int(state.seen[row]) + 1, self.options.window)
            scores = torch.cat([plain[row] @ always.mT, q[row] @ keys[row, :, -n:].mT], -1)
            weights = (scores / math.sqrt(q.shape[-1])).softmax(-1)
            reads.append(weights @ torch.cat([held, values[row, :, -n:]], 1))
        return join_heads(torch.stack(reads)), {"keys": keys[:, :, 1:], "values": values[:, :, 1:]}

    def _with_past(self, x: Tensor, state: WindowedState, positions: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self.project.keys_values(x, positions)
        dtype = state.keys.dtype
        return torch.cat([state.keys, k.to(dtype)], 2), torch.cat([state.values, v.to(dtype)], 2)
