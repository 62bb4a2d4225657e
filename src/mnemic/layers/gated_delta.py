"""The gated delta rule (Yang, Kautz, Hatamizadeh 2024): the delta rule on a memory that fades first."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from mnemic.layers.delta import DeltaOptions, DeltaRule, DeltaState, per_head


class GatedDeltaRule(DeltaRule):
    """S = a S; S = S + β kᵀ (v - k S); o = q S, with a = exp(-exp(A) softplus(W x + b)) a head."""

    name = "gated-delta"

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
    """log A and the bias of softplus(W x + b) as released: A from 1 to 16, the softplus from 0.001 to 0.1.

    Each uniform in its logarithm (softplus(log s) is s within 5 % there). A bias of 0 would keep half of the
    memory at A = 1 and nothing at 16, token by token: too little to learn from.
    """
    nn.init.uniform_(rate, 0.0, math.log(16))
    nn.init.uniform_(bias, math.log(1e-3), math.log(1e-1))
