"""Linear attention with a normaliser (Katharopoulos et al. 2020): a running sum of keys times values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import elu, pad

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
from mnemic.layers.recurrences import additive

EPSILON = 1e-12  # the normaliser is positive once a token has been written


class LinearOptions(HeadOptions):
    """Those of every layer with heads."""

    def state_bytes(self, tokens: int, *, batch: int = 1, element_bytes: int = 4) -> int:
        floats = self.heads * self.key_size * (self.value_size + 1)
        return batch * (floats * accumulator_bytes(element_bytes) + COUNTER_BYTES)


class LinearAttention(MemoryLayer[MatrixState]):
    """o = φ(q) Σ φ(k)ᵀ v / φ(q) Σ φ(k)ᵀ with φ = elu + 1 (§3.2-3.4). Every write is kept at full weight.

    The state's last value column is Σ φ(k), the normaliser. State: heads · key_dim · (value_dim + 1).
    """

    name = "linear"
    Options = LinearOptions
    State = MatrixState
    small: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"heads": 2, "chunk": 4},
        {"key_dim": 3, "value_dim": 5},
    )
    dials: ClassVar[tuple[Mapping[str, Any], ...]] = ({"key_dim": 16}, {"key_dim": 8})

    def __init__(self, options: LinearOptions) -> None:
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
        shape = batch, self.heads, self.key_dim, self.value_dim + 1
        return empty_matrices(self.spec, shape, self.accumulator_dtype(dtype), device)

    def chunked(
        self, x: Tensor, state: MatrixState, valid: Tensor | None, positions: Tensor | None
    ) -> tuple[Tensor, MatrixState]:
        q, k, v = self._project(x, state)
        (v,) = silence(valid, v)  # with the column of ones at 0, padding writes nothing
        with full_precision(x.device):
            read, memory = additive(q, k, v, state.memory, chunk=self.chunk)
        return self._output(read, x), replace(state, memory=memory)

    def definition(self, x: Tensor, state: MatrixState) -> tuple[Tensor, MatrixState]:
        q, k, v = self._project(x, state)
        with full_precision(x.device):
            memory = state.memory + k.unsqueeze(-1) * v.unsqueeze(-2)
            read = (q.unsqueeze(-2) @ memory).squeeze(-2)
        return self._output(read, x), replace(state, memory=memory)

    def merge(self, a: MatrixState, b: MatrixState) -> MatrixState:
        """Of disjoint streams that each began empty."""
        return merged(self.spec, a, b)

    def _project(self, x: Tensor, state: MatrixState) -> tuple[Tensor, Tensor, Tensor]:
        """φ(q), φ(k), and v with a column of ones, in the dtype of the state."""
        q, k = (split_heads(part, self.heads).to(state.memory.dtype) for part in self.qk(x).chunk(2, -1))
        v = split_heads(self.v(x), self.heads).to(state.memory.dtype)
        return elu(q) + 1, elu(k) + 1, pad(v, (0, 1), value=1.0)

    def _output(self, read: Tensor, x: Tensor) -> Tensor:
        read = read[..., :-1] / (read[..., -1:] + EPSILON)
        y: Tensor = self.out(join_heads(read).to(x.dtype))
        return y
