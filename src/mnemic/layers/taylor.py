"""Taylor linear attention, the global part of BASED (Arora et al. 2024, §4.1).

φ(q)·φ(k) = 1 + s + s²/2 with s = q·k / √feature_dim: the second-order expansion of exp(s), at least 1/2, so
that the normaliser is safe. It is a larger state without more parameters. Below s = -1 the expansion rises
again: `share_below` says how often that happens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mnemic.layers.heads import (
    COUNTER_BYTES,
    HeadOptions,
    MatrixState,
    accumulator_bytes,
    empty_matrices,
    full_precision,
    join_heads,
    merged,
    silence,
    split_heads,
)
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.recurrences import carry, in_chunks, whole

EPSILON = 1e-12


@dataclass(frozen=True, kw_only=True)
class TaylorOptions(HeadOptions):
    """`key_dim` is the feature dimension of a head's queries and keys, 16 in the paper.

    `compressed` keeps x_i x_j for i <= j only: the same product from 153 instead of 273 rows at 16.
    """

    key_dim: int = 16
    compressed: bool = True

    @property
    def rows(self) -> int:
        """Rows of a head's state: the dimension of φ."""
        square = self.key_dim * (self.key_dim + 1) // 2 if self.compressed else self.key_dim**2
        return 1 + self.key_dim + square

    def state_bytes(self, tokens: int, *, batch: int = 1, element_bytes: int = 4) -> int:
        floats = self.heads * self.rows * (self.value_size + 1)
        return batch * (floats * accumulator_bytes(element_bytes) + COUNTER_BYTES)


class TaylorLinearAttention(MemoryLayer[MatrixState]):
    """o = φ(q) Σ φ(k)ᵀ v / φ(q) Σ φ(k)ᵀ. State: heads · rows · (value_dim + 1), a column the normaliser.

    No decay, no positions. Inside a chunk 1 + s + s²/2 is evaluated on q kᵀ, without φ.
    """

    name = "taylor"
    Options = TaylorOptions
    State = MatrixState
    small: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"heads": 2, "key_dim": 3, "chunk": 4},
        {"key_dim": 4, "value_dim": 5, "compressed": False},
    )
    dials: ClassVar[tuple[Mapping[str, Any], ...]] = ({"key_dim": 8}, {"key_dim": 4})

    def __init__(self, options: TaylorOptions) -> None:
        super().__init__(options)
        self.heads, self.chunk, self.compressed = options.heads, options.chunk, options.compressed
        self.key_dim, self.value_dim, self.rows = options.key_dim, options.value_size, options.rows
        self.qk = nn.Linear(options.dim, 2 * self.heads * self.key_dim, bias=False)
        self.v = nn.Linear(options.dim, self.heads * self.value_dim, bias=False)
        self.out = nn.Linear(self.heads * self.value_dim, options.dim, bias=False)

    def init_state(
        self, batch: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> MatrixState:
        dtype, device = self._place(dtype, device)
        shape = batch, self.heads, self.rows, self.value_dim + 1
        return empty_matrices(self.spec, shape, self.accumulator_dtype(dtype), device)

    def chunked(
        self, x: Tensor, state: MatrixState, valid: Tensor | None, positions: Tensor | None
    ) -> tuple[Tensor, MatrixState]:
        q, k, v = self._project(x, state)
        (v,) = silence(valid, v)  # with the column of ones at 0, padding writes nothing
        with full_precision(x.device):
            q, k, v = (in_chunks(t, self.chunk) for t in (q, k, v))
            scores = (q @ k.mT) * self.key_dim**-0.5
            inside = (1 + scores + scores.square() / 2).tril() @ v
            before, memory = carry(features(k, self.compressed).mT @ v, state.memory)
            read = whole(inside + features(q, self.compressed) @ before, x.shape[1])
        return self._output(read, x), replace(state, memory=memory)

    def definition(self, x: Tensor, state: MatrixState) -> tuple[Tensor, MatrixState]:
        q, k, v = self._project(x, state)
        with full_precision(x.device):
            q, k = features(q, self.compressed), features(k, self.compressed)
            memory = state.memory + k.unsqueeze(-1) * v.unsqueeze(-2)
            read = (q.unsqueeze(-2) @ memory).squeeze(-2)
        return self._output(read, x), replace(state, memory=memory)

    def merge(self, a: MatrixState, b: MatrixState) -> MatrixState:
        """Of disjoint streams that each began empty."""
        return merged(self.spec, a, b)

    def share_below(self, x: Tensor) -> float:
        """Share of causal pairs in x (batch, time, dim) with s < -1, where less alike weighs more."""
        q, k = (split_heads(part, self.heads) for part in self.qk(x).chunk(2, -1))
        scores = q @ k.mT * self.key_dim**-0.5
        causal = torch.ones_like(scores, dtype=torch.bool).tril()
        return float((scores[causal] < -1).float().mean())

    def _project(self, x: Tensor, state: MatrixState) -> tuple[Tensor, Tensor, Tensor]:
        q, k = (split_heads(part, self.heads).to(state.memory.dtype) for part in self.qk(x).chunk(2, -1))
        return q, k, pad(split_heads(self.v(x), self.heads).to(state.memory.dtype), (0, 1), value=1.0)

    def _output(self, read: Tensor, x: Tensor) -> Tensor:
        read = read[..., :-1] / (read[..., -1:] + EPSILON)
        y: Tensor = self.out(join_heads(read).to(x.dtype))
        return y


def features(x: Tensor, compressed: bool = True) -> Tensor:
    """φ(x) = [1, x / d^¼, x xᵀ / √(2 d)] of (…, d): (…, 1 + d + d²), or (…, 1 + d + d (d + 1) / 2).

    Compressed, a product off the diagonal stands once, times √2.
    """
    d = x.shape[-1]
    if compressed:
        rows, columns = torch.triu_indices(d, d, device=x.device)
        weight = x.new_full(rows.shape, math.sqrt(2)).masked_fill(rows == columns, 1)
        square = x[..., rows] * x[..., columns] * weight
    else:
        square = (x.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2)
    return torch.cat([torch.ones_like(x[..., :1]), x * d**-0.25, square * (2 * d) ** -0.5], -1)
