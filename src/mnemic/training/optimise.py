"""Rates, optimisers and clipping for models whose gradients are partly sparse."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mnemic.layers.rows import MemoryRows
from mnemic.training.options import LoopOptions
from mnemic.training.row_adam import RowAdam, summed


def rate_at(step: int, options: LoopOptions) -> tuple[float, float]:
    """Of the step that begins (from 0): the rate, and that of tables of rows."""
    rising = max(round(options.warmup * options.steps), 1)
    if step < rising:
        share = (step + 1) / rising
    else:
        gone = (step - rising) / max(options.steps - rising, 1)
        share = options.final + (1 - options.final) * (1 + math.cos(math.pi * gone)) / 2
    times = options.rows_rate + (options.rows_rate_end - options.rows_rate) * step / options.steps
    return options.rate * share, options.rate * share * times


def optimisers_of(model: nn.Module, options: LoopOptions) -> list[torch.optim.Optimizer]:
    """AdamW for what has dense gradients, RowAdam for the tables that have sparse ones.

    Weight decay: matrices alone, without embeddings and tables.
    """
    tables = [one.weight for one in model.modules() if isinstance(one, MemoryRows) and one.sparse]
    apart = {id(one) for one in tables}
    read = {
        id(one.weight) for one in model.modules() if isinstance(one, nn.Embedding | MemoryRows)
    }  # by number
    dense = [p for p in model.parameters() if id(p) not in apart and p.requires_grad]
    decayed = [p for p in dense if p.dim() >= 2 and id(p) not in read]
    rest = [p for p in dense if p.dim() < 2 or id(p) in read]
    groups = [
        {"params": params, "weight_decay": decay}
        for params, decay in ((decayed, options.decay), (rest, 0.0))
        if params
    ]
    found: list[torch.optim.Optimizer] = []
    if groups:
        found.append(torch.optim.AdamW(groups, lr=options.rate, betas=(0.9, 0.95), foreach=False))
    if tables:
        found.append(RowAdam(tables, lr=options.rate, betas=(0.9, 0.95)))
    return found


@torch.no_grad()
def clip(parameters: Iterable[Tensor], most: float) -> float:
    """Scale all gradients, sparse ones too, to a common norm of at most `most`; return what it was."""
    gradients = []
    for p in parameters:
        if p.grad is not None:
            if p.grad.is_sparse:
                p.grad = summed(p.grad)
            gradients.append(p.grad.values() if p.grad.is_sparse else p.grad)
    if not gradients:
        return 0.0
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    scale = (most / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale)
    return float(norm)
