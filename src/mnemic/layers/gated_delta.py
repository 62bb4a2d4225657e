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
        """A as published between 1 and 16, uniform in its logarithm."""
        super().reset_parameters()
        nn.init.uniform_(self.rate, 0.0, math.log(16))

    def _gates(self, x: Tensor, state: DeltaState) -> tuple[Tensor, Tensor | None]:
        beta, _ = super()._gates(x, state)
        step = softplus(per_head(self.decay(x), state.memory.dtype))
        rate = self.rate.to(step.dtype).exp().view(1, -1, *[1] * (step.dim() - 2))
        return beta, -rate * step
