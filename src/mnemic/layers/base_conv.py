"""BaseConv: a gated short convolution, the local part of BASED (Arora et al. 2024; Arora et al. 2023, §4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from mnemic.layers.conv import causal_conv, conv_once
from mnemic.layers.heads import COUNTER_BYTES, counts_of
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.options import LayerOptions, option
from mnemic.layers.state import LayerState


@dataclass(frozen=True, kw_only=True)
class BaseConvOptions(LayerOptions):
    """`kernel`: tokens seen, the current one counted. `activate`: SiLU on both factors.

    `gate`: what b begins at; at 1 the tokens before come through from the first step (ours; published: 0,
    where their part begins as a product with W x, and keys made of them are learned later).
    """

    kernel: int = 3
    activate: bool = False
    gate: float = option(0.0, meaning=False)

    def state_bytes(self, tokens: int, *, batch: int = 1, element_bytes: int = 4) -> int:
        return batch * ((self.kernel - 1) * self.dim * element_bytes + COUNTER_BYTES)


@dataclass(frozen=True, kw_only=True)
class ConvState(LayerState):
    """`tail` (batch, kernel - 1, dim): the last inputs, newest last."""

    tail: Tensor


class BaseConv(MemoryLayer[ConvState]):
    """y = (W x + b) ⊙ (h ∗ x) + x, h one kernel a channel. State: (kernel - 1) · dim."""

    name = "base-conv"
    Options = BaseConvOptions
    State = ConvState
    small: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"kernel": 1}, {"kernel": 4, "activate": True})

    def __init__(self, options: BaseConvOptions) -> None:
        super().__init__(options)
        self.kernel, self.activate, self.gate = options.kernel, options.activate, options.gate
        self.project = nn.Linear(options.dim, options.dim)
        self.conv = nn.Parameter(torch.empty(options.dim, options.kernel))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights of its own, as they begin; those of its modules reset themselves."""
        nn.init.uniform_(self.conv, -(self.kernel**-0.5), self.kernel**-0.5)
        if self.gate:
            nn.init.constant_(self.project.bias, self.gate)

    def init_state(
        self, batch: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> ConvState:
        dtype, device = self._place(dtype, device)
        tail = torch.zeros(batch, self.kernel - 1, self.dim, dtype=dtype, device=device)
        return ConvState(spec=self.spec, seen=torch.zeros(batch, dtype=torch.int32, device=device), tail=tail)

    def chunked(
        self, x: Tensor, state: ConvState, valid: Tensor | None, positions: Tensor | None
    ) -> tuple[Tensor, ConvState]:
        counts = None if valid is None else counts_of(x, valid)
        near, tail = causal_conv(x, self.conv, state.tail, counts)
        return self._mix(x, near), ConvState(spec=self.spec, seen=state.seen, tail=tail)

    def definition(self, x: Tensor, state: ConvState) -> tuple[Tensor, ConvState]:
        near, tail = conv_once(x, self.conv, state.tail)
        return self._mix(x, near), ConvState(spec=self.spec, seen=state.seen, tail=tail)

    def _mix(self, x: Tensor, near: Tensor) -> Tensor:
        gate = self.project(x)
        mixed: Tensor = silu(gate) * silu(near) + x if self.activate else gate * near + x
        return mixed.to(x.dtype)
