"""The gated delta rule (Yang, Kautz, Hatamizadeh 2024): the delta rule on a memory that fades first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from mnemic.layers.delta import DeltaOptions, DeltaRule, DeltaState, per_head


@dataclass(frozen=True, kw_only=True)
class GatedDeltaOptions(DeltaOptions):
    """Those of the delta rule; what is read is `gated`, as published."""

    gated: bool = True


class GatedDeltaRule(DeltaRule):
    """S = a S; S = S + β kᵀ (v - k S); o = q S, with a = exp(-exp(A) softplus(W x + b)) a head."""

    name = "gated-delta"
    Options: ClassVar[type[DeltaOptions]] = GatedDeltaOptions

    def __init__(self, options: DeltaOptions) -> None:
        super().__init__(options)
        self.decay = nn.Linear(options.dim, self.heads)  # its bias is the published dt_bias
        self.rate = nn.Parameter(torch.empty(self.heads))  # the published A_log
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Those of the delta rule, and a memory that begins by keeping most of what it holds."""
        super().reset_parameters()
        reset_decay(self.rate, self.decay.bias)

    def _gates(self, x: Tensor, state: DeltaState) -> tuple[Tensor, Tensor | None]:
        beta, _ = super()._gates(x, state)
        step = softplus(per_head(self.decay(x), state.memory.dtype))
        rate = self.rate.to(step.dtype).exp().view(1, -1, *[1] * (step.dim() - 2))
        return beta, -rate * step


def reset_decay(rate: Tensor, bias: Tensor) -> None:
    """log A and the bias of softplus(W x + b), one a head: A from 1 to 16, the softplus from 0.001 to 0.1.

    The released range (softplus(log s) is s within 5 % there), heads spread evenly over it from slow to
    fast, each at the middle of its part: 0.04 a token for one head. Drawn, as released, one of few heads may
    begin by forgetting within a token. A bias of 0 would keep half at A = 1 and nothing at 16.
    """
    heads = rate.shape[0]
    with torch.no_grad():
        part = (torch.arange(heads, dtype=rate.dtype, device=rate.device) + 0.5) / heads
        rate.copy_(part * math.log(16))
        bias.copy_(math.log(1e-3) + part * math.log(1e-1 / 1e-3))
