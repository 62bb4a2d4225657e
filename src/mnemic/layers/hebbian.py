"""Hebbian memory: unnormalised linear attention on keys and queries of unit length.

What a linear memory reaches without a feature map: Arora et al. 2024 note that recall follows the size of the
state, and this is its cheapest form (key_dim rows, no parameters beyond the projections).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mnemic.layers.heads import (
    HeadOptions,
    MatrixState,
    empty_matrices,
    full_precision,
    join_heads,
    merged,
    silence,
    split_heads,
)
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.recurrences import additive


class Hebbian(MemoryLayer[MatrixState]):
    """S = S + kᵀ v; o = q S, with q and k of unit length. State: heads · key_dim · value_dim."""

    name = "hebbian"
    Options = HeadOptions
    State = MatrixState
    small: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"heads": 2, "chunk": 4},
        {"key_dim": 3, "value_dim": 5},
    )
    dials: ClassVar[tuple[Mapping[str, Any], ...]] = ({"key_dim": 16}, {"key_dim": 8})

    def __init__(self, options: HeadOptions) -> None:
        super().__init__(options)
        self.heads, self.chunk = options.heads, options.chunk
        self.key_dim, self.value_dim = options.key_size, options.value_size
        self.qk = nn.Linear(options.dim, 2 * self.heads * self.key_dim, bias=False)
        self.v = nn.Linear(options.dim, self.heads * self.value_dim, bias=False)
        self.out = nn.Linear(self.heads * self.value_dim, options.dim, bias=False)

    def init_state(
        self, batch: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> MatrixState:
        dtype, device = self._place(dtype, device)
        shape = batch, self.heads, self.key_dim, self.value_dim
        return empty_matrices(self.spec, shape, self.accumulator_dtype(dtype), device)

    def chunked(
        self, x: Tensor, state: MatrixState, valid: Tensor | None, positions: Tensor | None
    ) -> tuple[Tensor, MatrixState]:
        q, k, v = self._project(x, state)
        (v,) = silence(valid, v)
        with full_precision(x.device):
            read, memory = additive(q, k, v, state.memory, chunk=self.chunk)
        return self.out(join_heads(read).to(x.dtype)), replace(state, memory=memory)

    def definition(self, x: Tensor, state: MatrixState) -> tuple[Tensor, MatrixState]:
        q, k, v = self._project(x, state)
        with full_precision(x.device):
            memory = state.memory + k.unsqueeze(-1) * v.unsqueeze(-2)
            read = (q.unsqueeze(-2) @ memory).squeeze(-2)
        return self.out(join_heads(read).to(x.dtype)), replace(state, memory=memory)

    def merge(self, a: MatrixState, b: MatrixState) -> MatrixState:
        """Of disjoint streams that each began empty."""
        return merged(self.spec, a, b)

    def _project(self, x: Tensor, state: MatrixState) -> tuple[Tensor, Tensor, Tensor]:
        q, k = (
            normalize(split_heads(part, self.heads).to(state.memory.dtype), dim=-1)
            for part in self.qk(x).chunk(2, -1)
        )
        return q, k, split_heads(self.v(x), self.heads).to(state.memory.dtype)
