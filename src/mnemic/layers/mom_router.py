"""The router of the mixture of memories: which a token is sent to, and how evenly all are used."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mnemic.cube.errors import InvalidInput
from mnemic.layers.heads import full_precision


class Routes(NamedTuple):
    """`chosen` int and `weights` (batch, time, topk), best first; `probabilities` of all memories."""

    chosen: Tensor
    weights: Tensor
    probabilities: Tensor


class Router(nn.Linear):
    """softmax(W x) in float32 or better; the topk largest, renormalised (Du et al. 2025, §3.2)."""

    def __init__(self, dim: int, memories: int, topk: int) -> None:
        super().__init__(dim, memories, bias=False)
        self.topk = topk

    def forward(self, x: Tensor) -> Routes:  # type: ignore[override]
        """x (batch, time, dim). Raises InvalidInput when a logit is not finite."""
        with full_precision(x.device):
            precise = torch.float64 if x.dtype == torch.float64 else torch.float32
            logits = x.to(precise) @ self.weight.to(precise).mT
            if not bool(torch.isfinite(logits.detach()).all()):
                raise InvalidInput("the router's logits are not finite: its weights are")
            probabilities = logits.softmax(-1)
            best, chosen = probabilities.topk(self.topk, -1)
            return Routes(chosen, best / best.sum(-1, keepdim=True), probabilities)


def imbalance(routes: Routes, valid: Tensor | None) -> Tensor:
    """memories · Σ f P over real tokens (Fedus et al. 2022): of one layer alone, least when all are even."""
    chosen, _, probabilities = routes
    real = torch.ones_like(chosen[..., 0], dtype=torch.bool) if valid is None else valid
    sent = torch.zeros_like(probabilities).scatter(2, chosen, 1.0)[real].mean(0)
    return probabilities.shape[-1] * (sent * probabilities[real].mean(0)).sum()


def shares(counts: Tensor) -> Tensor:
    """Share of the routed tokens in each memory, of counts (batch, memories); warns below 1 %."""
    written = counts.sum(0).double()
    found = written / written.sum().clamp(min=1)
    idle = (found < 0.01).nonzero().flatten().tolist()
    if idle and float(written.sum()):
        warnings.warn(f"memories {idle} hold less than 1 % of the tokens; raise `balance`", stacklevel=3)
    return found
