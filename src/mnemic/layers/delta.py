"""The delta rule (Schlag et al. 2021; Yang et al. 2024): a key's old value makes room for its new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, silu

from mnemic.layers.conv import begin_conv, causal_conv, conv_once
from mnemic.layers.heads import (
    GatedOutput,
    UnitKeyOptions,
    counts_of,
    full_precision,
    silence,
    split_heads,
)
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.recurrences import delta
from mnemic.layers.state import LayerState


@dataclass(frozen=True, kw_only=True)
class DeltaOptions(UnitKeyOptions):
    """`conv`: tokens seen by the short convolutions of q, k and v, itself counted; published 4.

    `gated`: a SiLU gate on what is read, beside its norm; published without.
    """

    conv: int = 4
    gated: bool = False

    @property
    def channels(self) -> int:
        """Of q, k and v together."""
        return self.heads * (2 * self.key_size + self.value_size)

    def state_bytes(self, tokens: int, *, batch: int = 1, element_bytes: int = 4) -> int:
        tail = (self.conv - 1) * self.channels * element_bytes
        return super().state_bytes(tokens, batch=batch, element_bytes=element_bytes) + batch * tail


@dataclass(frozen=True, kw_only=True)
class DeltaState(LayerState):
    """`memory` (batch, heads, key_dim, value_dim); `tail` (batch, conv - 1, channels): the last q, k, v."""

    memory: Tensor
    tail: Tensor


class DeltaRule(MemoryLayer[DeltaState]):
    """S = S + β kᵀ (v - k S); o = q S, with q and k of unit length, β = sigmoid of a linear map of x.

    Short convolutions on q, k, v, SiLU on v, RMS norm on o. State: key · value a head.
    """

    name = "delta"
    Options: ClassVar[type[DeltaOptions]] = DeltaOptions
    State = DeltaState
    small: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"heads": 2, "chunk": 4},
        {"key_dim": 3, "value_dim": 5, "conv": 1, "gated": True, "qk_silu": True},
    )
    dials: ClassVar[tuple[Mapping[str, Any], ...]] = ({"key_dim": 16}, {"key_dim": 8})

    def __init__(self, options: DeltaOptions) -> None:
        super().__init__(options)
        self.heads, self.chunk, self.qk_silu = options.heads, options.chunk, options.qk_silu
        self.key_dim, self.value_dim = options.key_size, options.value_size
        self.sizes = [self.heads * self.key_dim, self.heads * self.key_dim, self.heads * self.value_dim]
        self.qkv = nn.Linear(options.dim, options.channels, bias=False)
        self.conv = nn.Parameter(torch.empty(options.channels, options.conv))
        self.beta = nn.Linear(options.dim, self.heads, bias=False)
        self.output = GatedOutput(
            dim=options.dim, heads=self.heads, value_dim=self.value_dim, gated=options.gated
        )
        DeltaRule.reset_parameters(self)

    def reset_parameters(self) -> None:
        """Weights of its own, as they begin; those of its modules reset themselves."""
        begin_conv(self.conv)

    def init_state(
        self, batch: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> DeltaState:
        dtype, device = self._place(dtype, device)
        channels, width = self.conv.shape
        return DeltaState(
            spec=self.spec,
            seen=torch.zeros(batch, dtype=torch.int32, device=device),
            memory=torch.zeros(
                (batch, self.heads, self.key_dim, self.value_dim),
                dtype=self.accumulator_dtype(dtype),
                device=device,
            ),
            tail=torch.zeros(batch, width - 1, channels, dtype=dtype, device=device),
        )

    def chunked(
        self, x: Tensor, state: DeltaState, valid: Tensor | None, positions: Tensor | None
    ) -> tuple[Tensor, DeltaState]:
        counts = None if valid is None else counts_of(x, valid)
        near, tail = causal_conv(self.qkv(x), self.conv, state.tail, counts)
        q, k, v = self._heads_of(near, state)
        beta, log_decay = self._gates(x, state)
        k, v, beta = silence(valid, k, v, beta)
        if log_decay is not None:
            (log_decay,) = silence(valid, log_decay)
        with full_precision(x.device):
            read, memory = delta(q, k, v, beta, state.memory, log_decay=log_decay, chunk=self.chunk)
        return self.output(read, x), DeltaState(spec=self.spec, seen=state.seen, memory=memory, tail=tail)

    def definition(self, x: Tensor, state: DeltaState) -> tuple[Tensor, DeltaState]:
        near, tail = conv_once(self.qkv(x), self.conv, state.tail)
        q, k, v = self._heads_of(near, state)
        beta, log_decay = self._gates(x, state)
        with full_precision(x.device):
            memory = state.memory if log_decay is None else log_decay.exp()[..., None, None] * state.memory
            old = (k.unsqueeze(-2) @ memory).squeeze(-2)
            memory = memory + k.unsqueeze(-1) * (beta.unsqueeze(-1) * (v - old)).unsqueeze(-2)
            read = (q.unsqueeze(-2) @ memory).squeeze(-2)
        return self.output(read, x), DeltaState(spec=self.spec, seen=state.seen, memory=memory, tail=tail)

    def _heads_of(self, near: Tensor, state: DeltaState) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (
            split_heads(part, self.heads) for part in near.to(state.memory.dtype).split(self.sizes, -1)
        )
        if self.qk_silu:
            q, k = silu(q), silu(k)
        return normalize(q, dim=-1), normalize(k, dim=-1), silu(v)

    def _gates(self, x: Tensor, state: DeltaState) -> tuple[Tensor, Tensor | None]:
        """β and the log decay, each (batch, heads[, time]); no decay here."""
        return per_head(self.beta(x), state.memory.dtype).sigmoid(), None


def per_head(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(batch, time, heads) to (batch, heads, time); (batch, heads) stays."""
    return (x.transpose(1, 2) if x.dim() == 3 else x).to(dtype)
