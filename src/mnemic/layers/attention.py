"""Causal attention (Vaswani et al. 2017): the exact memory, whose state grows with every token."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from mnemic.cube.errors import InvalidOption
from mnemic.layers.heads import COUNTER_BYTES, counts_of, join_heads, split_heads
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.options import LayerOptions, require_divisible
from mnemic.layers.rotary import rotate
from mnemic.layers.state import LayerState


@dataclass(frozen=True, kw_only=True)
class AttentionOptions(LayerOptions):
    """`rotary`: positions by rotation (Su et al. 2021); without it causality is all it knows of order."""

    heads: int = 1
    rotary: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_divisible(dim=self.dim, heads=self.heads)
        if self.rotary and self.head_dim % 2:
            raise InvalidOption(f"rotary needs an even dim // heads, got {self.head_dim}; or rotary=False")

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    def state_bytes(self, tokens: int, *, batch: int = 1, element_bytes: int = 4) -> int:
        return batch * (2 * tokens * self.dim * element_bytes + COUNTER_BYTES)


@dataclass(frozen=True, kw_only=True)
class AttentionState(LayerState):
    """`keys`, `values` (batch, heads, longest, head_dim): token n in slot n, zero beyond a row's `seen`."""

    keys: Tensor
    values: Tensor

    def select(self, index: Tensor) -> AttentionState:
        chosen = super().select(index)
        longest = int(chosen.seen.max()) if index.numel() else 0
        return chosen.map(lambda t: t if t.dim() == 1 else t[:, :, :longest]).owned()

    def where(self, rows: Tensor, other: AttentionState) -> AttentionState:
        seen = torch.where(rows, self.seen, other.seen)
        longest = int(seen.max())

        def fit(tensor: Tensor) -> Tensor:
            missing = longest - tensor.shape[2]
            return pad(tensor, (0, 0, 0, missing)) if missing > 0 else tensor[:, :, :longest]

        chosen = rows.view(-1, 1, 1, 1)
        return AttentionState(
            spec=self.spec,
            seen=seen,
            keys=torch.where(chosen, fit(self.keys), fit(other.keys)),
            values=torch.where(chosen, fit(self.values), fit(other.values)),
        )


class CausalAttention(MemoryLayer[AttentionState]):
    """Every token sees all before it. State: 2 · tokens · dim numbers, without limit. O(time²)."""

    name = "attention"
    Options = AttentionOptions
    State = AttentionState
    small: ClassVar[tuple[Mapping[str, Any], ...]] = ({"heads": 2}, {"rotary": False})
    uses_positions = True

    def __init__(self, options: AttentionOptions) -> None:
        super().__init__(options)
        self.heads, self.head_dim, self.rotary = options.heads, options.head_dim, options.rotary
        self.qkv = nn.Linear(options.dim, 3 * options.dim, bias=False)
        self.out = nn.Linear(options.dim, options.dim, bias=False)

    def init_state(
        self, batch: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> AttentionState:
        dtype, device = self._place(dtype, device)
        empty = torch.zeros(batch, self.heads, 0, self.head_dim, dtype=dtype, device=device)
        seen = torch.zeros(batch, dtype=torch.int32, device=device)
        return AttentionState(spec=self.spec, seen=seen, keys=empty, values=empty.clone())

    def chunked(
        self, x: Tensor, state: AttentionState, valid: Tensor | None, positions: Tensor | None
    ) -> tuple[Tensor, AttentionState]:
        q, k, v = project(self.qkv, x, self.heads, positions if self.rotary else None)
        seen = int(state.seen[0])
        if valid is None and bool((state.seen == seen).all()):
            keys = torch.cat([state.keys, k.to(state.keys.dtype)], 2)
            values = torch.cat([state.values, v.to(state.values.dtype)], 2)
            mask = None
            if seen and x.shape[1] > 1:
                mask = torch.ones(x.shape[1], keys.shape[2], dtype=torch.bool, device=x.device).tril(seen)
            causal = mask is None and x.shape[1] > 1
        else:
            keys, values, mask = _append_ragged(state, k, v, counts_of(x, valid))
            causal = False
        read = scaled_dot_product_attention(
            q, keys.to(q.dtype), values.to(q.dtype), attn_mask=mask, is_causal=causal
        )
        return self.out(join_heads(read)), AttentionState(
            spec=self.spec, seen=state.seen, keys=keys, values=values
        )

    def token(self, x: Tensor, state: AttentionState) -> tuple[Tensor, AttentionState]:
        y, after = self.chunked(x.unsqueeze(1), state, None, state.seen.unsqueeze(1))
        return y.squeeze(1), after

    def definition(self, x: Tensor, state: AttentionState) -> tuple[Tensor, AttentionState]:
        q, k, v = project(
            self.qkv, x.unsqueeze(1), self.heads, state.seen.unsqueeze(1) if self.rotary else None
        )
        reads, all_keys, all_values = [], [], []
        for row in range(x.shape[0]):
            n = int(state.seen[row])
            keys = torch.cat([state.keys[row, :, :n], k[row]], 1)  # (heads, n + 1, head_dim)
            values = torch.cat([state.values[row, :, :n], v[row]], 1)
            weights = (q[row] @ keys.mT / math.sqrt(self.head_dim)).softmax(-1)
            reads.append((weights @ values).flatten())
            beyond = int(state.seen.max()) - n
            all_keys.append(pad(keys, (0, 0, 0, beyond)))
            all_values.append(pad(values, (0, 0, 0, beyond)))
        after = AttentionState(
            spec=self.spec, seen=state.seen, keys=torch.stack(all_keys), values=torch.stack(all_values)
        )
        return self.out(torch.stack(reads)), after


def project(qkv: nn.Linear, x: Tensor, heads: int, positions: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v (batch, heads, time, head_dim), rotated where positions (batch, time) are given."""
    q, k, v = (split_heads(part, heads) for part in qkv(x).chunk(3, -1))
    if positions is not None:
        q, k = rotate(q, positions), rotate(k, positions)
    return q, k, v


def _append_ragged(
    state: AttentionState, k: Tensor, v: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values with each row's new tokens behind its old ones; what each query may see."""
    time = k.shape[2]
    ahead = torch.arange(time, device=k.device)
    slots = state.seen.unsqueeze(1) + ahead  # (batch, time)
    rows, columns = (ahead < counts.unsqueeze(1)).nonzero(as_tuple=True)
    longest = int((state.seen + counts).max())
    grown = []
    for old, new in ((state.keys, k), (state.values, v)):
        buffer = pad(old, (0, 0, 0, longest - old.shape[2])).transpose(1, 2)
        written = new.transpose(1, 2)[rows, columns].to(old.dtype)
        grown.append(buffer.index_put((rows, slots[rows, columns]), written).transpose(1, 2).contiguous())
    mask = torch.arange(longest, device=k.device) <= slots.unsqueeze(-1)
    return grown[0], grown[1], mask.unsqueeze(1)
