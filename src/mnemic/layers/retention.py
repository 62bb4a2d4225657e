"""Retention (Sun et al. 2023): linear attention that forgets at a fixed rate, each head at its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mnemic.layers.heads import (
    GatedOutput,
    HeadOptions,
    MatrixState,
    empty_matrices,
    full_precision,
    silence,
    split_heads,
)
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.recurrences import additive


class Retention(MemoryLayer[MatrixState]):
    """S = γ S + kᵀ v; o = q S / √key_dim, γ = 1 - 2^(-5 - head) (§2.2). State: key · value a head.

    Then an RMS norm and a SiLU gate. Without the paper's rotation of q and k.
    """

    name = "retention"
    Options = HeadOptions
    State = MatrixState
    small: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"heads": 2, "chunk": 4},
        {"key_dim": 3, "value_dim": 5},
    )
    dials: ClassVar[tuple[Mapping[str, Any], ...]] = ({"key_dim": 16},)

    def __init__(self, options: HeadOptions) -> None:
        super().__init__(options)
        self.heads, self.chunk = options.heads, options.chunk
        self.key_dim, self.value_dim = options.key_size, options.value_size
        self.qk = nn.Linear(options.dim, 2 * self.heads * self.key_dim, bias=False)
        self.v = nn.Linear(options.dim, self.heads * self.value_dim, bias=False)
        self.output = GatedOutput(dim=options.dim, heads=self.heads, value_dim=self.value_dim)

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
        log_decay = log_retention(self.heads, v).view(1, -1, 1).expand(v.shape[:3])
        v, log_decay = silence(valid, v, log_decay)
        with full_precision(x.device):
            read, memory = additive(q, k, v, state.memory, log_decay=log_decay, chunk=self.chunk)
        return self.output(read, x), replace(state, memory=memory)

    def definition(self, x: Tensor, state: MatrixState) -> tuple[Tensor, MatrixState]:
        q, k, v = self._project(x, state)
        with full_precision(x.device):
            kept = log_retention(self.heads, v).exp().view(1, -1, 1, 1)
            memory = kept * state.memory + k.unsqueeze(-1) * v.unsqueeze(-2)
            read = (q.unsqueeze(-2) @ memory).squeeze(-2)
        return self.output(read, x), replace(state, memory=memory)

    def _project(self, x: Tensor, state: MatrixState) -> tuple[Tensor, Tensor, Tensor]:
        precise = state.memory.dtype
        q, k = (split_heads(part, self.heads).to(precise) for part in self.qk(x).chunk(2, -1))
        return q * self.key_dim**-0.5, k, split_heads(self.v(x), self.heads).to(precise)


def log_retention(heads: int, like: Tensor) -> Tensor:
    """log γ of each head, (heads,), in the dtype and on the device of `like`."""
    head = torch.arange(heads, dtype=like.dtype, device=like.device)
    return torch.log1p(-torch.exp2(-5 - head))
