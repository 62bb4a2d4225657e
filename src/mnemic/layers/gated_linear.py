"""Gated linear attention (Yang et al. 2023): each channel forgets at a rate that the token decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

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
from mnemic.layers.options import option
from mnemic.layers.recurrences import additive


@dataclass(frozen=True, kw_only=True)
class GatedLinearOptions(HeadOptions):
    """`slowness`: the gate is sigmoid(·)^(1/slowness), 16 in the paper; `gate_rank`: of the gate's linear
    map.

    The chunk is shorter than that of other layers: each doubling is one more pass over the keys.
    """

    slowness: float = option(16.0, low=1.0)
    gate_rank: int = 16
    chunk: int = option(16, meaning=False)


class GatedLinearAttention(MemoryLayer[MatrixState]):
    """S = diag(a) S + kᵀ v; o = q S / √key_dim, a in (0, 1)^key_dim (§4). State: key_dim · value_dim a head.

    Then an RMS norm and a SiLU gate, as published. The decay is applied in log space, never as a ratio.
    """

    name = "gated-linear"
    Options = GatedLinearOptions
    State = MatrixState
    small: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"heads": 2, "chunk": 4, "slowness": 2.0},
        {"key_dim": 3, "value_dim": 5, "gate_rank": 2},
    )
    dials: ClassVar[tuple[Mapping[str, Any], ...]] = ({"key_dim": 16},)

    def __init__(self, options: GatedLinearOptions) -> None:
        super().__init__(options)
        self.heads, self.chunk, self.slowness = options.heads, options.chunk, options.slowness
        self.key_dim, self.value_dim = options.key_size, options.value_size
        keys = self.heads * self.key_dim
        self.qk = nn.Linear(options.dim, 2 * keys, bias=False)
        self.v = nn.Linear(options.dim, self.heads * self.value_dim, bias=False)
        self.decay = nn.Sequential(
            nn.Linear(options.dim, options.gate_rank, bias=False), nn.Linear(options.gate_rank, keys)
        )
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
        q, k, v, log_decay = self._project(x, state)
        v, log_decay = silence(valid, v, log_decay)
        with full_precision(x.device):
            read, memory = additive(q, k, v, state.memory, log_decay=log_decay, chunk=self.chunk)
        return self.output(read, x), replace(state, memory=memory)

    def definition(self, x: Tensor, state: MatrixState) -> tuple[Tensor, MatrixState]:
        q, k, v, log_decay = self._project(x, state)
        with full_precision(x.device):
            memory = log_decay.exp().unsqueeze(-1) * state.memory + k.unsqueeze(-1) * v.unsqueeze(-2)
            read = (q.unsqueeze(-2) @ memory).squeeze(-2)
        return self.output(read, x), replace(state, memory=memory)

    def _project(self, x: Tensor, state: MatrixState) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        precise = state.memory.dtype
        q, k = (split_heads(part, self.heads).to(precise) for part in self.qk(x).chunk(2, -1))
        v = split_heads(self.v(x), self.heads).to(precise)
        gate = split_heads(self.decay(x), self.heads).to(precise)
        return q * self.key_dim**-0.5, k, v, logsigmoid(gate) / self.slowness
