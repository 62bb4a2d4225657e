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


def taught(weights: Tensor) -> Tensor:
    """1 where a weight is above 0, with the gradient of its logarithm: how strong a write is.

    The published write is as strong as if the router had not weighed it, so that training never says where to
    write. Ours does: what a stronger write would have changed is passed on to the router.
    """
    return torch.where(weights > 0, weights / weights.detach().clamp(min=torch.finfo(weights.dtype).tiny), 1)


def sent_through(maps: Tensor, x: Tensor, chosen: Tensor) -> Tensor:
    """x (batch, dim) through those of maps (memories, dim, out) that int (batch, n) names: (batch, n, out).

    Reads each map that is named once, and no other. A single map is that of all.
    """
    if maps.shape[0] == 1:
        return (x @ maps[0]).unsqueeze(1).expand(-1, chosen.shape[1], -1)
    order = chosen.flatten().argsort(stable=True)
    counts = chosen.flatten().bincount(minlength=maps.shape[0]).tolist()
    parts = x[order // chosen.shape[1]].split(counts)
    found = [part @ maps[m] for m, part in enumerate(parts) if len(part)]
    return torch.cat(found)[order.argsort()].view(*chosen.shape, -1)


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
