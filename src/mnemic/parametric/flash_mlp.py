"""A feed-forward part whose weights lie on disk: only the neurons that fire are read (LLM in a flash §3).

y = sum over the active neurons i of relu(x · up_i + b_i) · down_i. Neuron i is one row of a table, up_i and
down_i one after the other: half the reads, in pieces twice as large.
"""

from __future__ import annotations

import os
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnemic.cube.checks import require_count, require_positive
from mnemic.cube.errors import InvalidInput
from mnemic.layers.rows import RowTable
from mnemic.parametric.disk_rows import pack_rows


class Predictor(Protocol):
    """Which neurons will fire: x [n, width] to bool [n, neurons]."""

    def __call__(self, x: Tensor) -> Tensor: ...


def pack_mlp(path: str | os.PathLike[str], up: Tensor, down: Tensor, *, dtype: str = "float32") -> None:
    """Write a feed-forward part as bundles. up [neurons, width], down [width, neurons].

    Raises InvalidInput when they do not belong together.
    """
    if up.ndim != 2 or down.shape != (up.shape[1], up.shape[0]):
        raise InvalidInput(
            f"up {tuple(up.shape)} and down {tuple(down.shape)} are not [neurons, width] and [width, neurons]"
        )
    neurons, width = up.shape
    pieces = (
        torch.cat([up[start : start + 256], down[:, start : start + 256].T], dim=1)
        for start in range(0, neurons, 256)
    )
    pack_rows(path, pieces, shape=(neurons, 2 * width), dtype=dtype)


class FlashMLP(nn.Module):
    """x [n, width] to [n, width], reading from `table` what `predictor` names; bias [neurons] is in memory.

    Exact when the predictor names every neuron that fires; others add nothing. For ReLU: a SwiGLU part has no
    neurons that are exactly zero, and gains little (see docs/flash.md).
    """

    def __init__(self, table: RowTable, predictor: Predictor, bias: Tensor | None = None) -> None:
        super().__init__()
        neurons, twice = table.shape
        self.table, self.predictor, self._width = table, predictor, twice // 2
        self.register_buffer("bias", torch.zeros(neurons) if bias is None else bias.detach().clone())
        self.bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, self._width)
        active = self.predictor(flat)
        ids = active.any(0).nonzero()[:, 0]
        bundle = self.table.get(ids).to(flat.dtype)
        up, down = bundle[:, : self._width], bundle[:, self._width :]
        fired = F.relu(flat @ up.T + self.bias[ids]) * active[:, ids]
        return (fired @ down).view(x.shape)


class Oracle:
    """Names exactly the neurons that fire, from the whole of `up` in memory: a bound, not a saving."""

    def __init__(self, up: Tensor, bias: Tensor | None = None) -> None:
        self._up, self._bias = up, bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self._up, self._bias) > 0


class LowRank(nn.Module):
    """p = sigmoid((x A) B), active where p exceeds the threshold. A [width, rank], B [rank, neurons]."""

    def __init__(self, width: int, neurons: int, *, rank: int, threshold: float = 0.5) -> None:
        super().__init__()
        require_count(rank=rank)
        require_positive(threshold=threshold)
        self.down, self.up = nn.Linear(width, rank, bias=False), nn.Linear(rank, neurons)
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.up(self.down(x))) > self.threshold

    @property
    def nbytes(self) -> int:
        return sum(one.numel() * one.element_size() for one in self.parameters())


def train_predictor(
    predictor: LowRank,
    x: Tensor,
    fired: Tensor,
    *,
    epochs: int = 2,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> None:
    """Teach it which neurons fire: x [n, width], fired bool [n, neurons]. Adam, batches of 64.

    The paper balances the loss over both labels without saying how; ours weighs a firing neuron by
    (silent / firing).
    """
    weight = (fired.numel() - fired.sum()) / fired.sum().clamp(min=1)
    optimiser = torch.optim.Adam(predictor.parameters(), lr=learning_rate)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(64):
                logits = predictor.up(predictor.down(x[rows]))
                loss = F.binary_cross_entropy_with_logits(logits, fired[rows].float(), pos_weight=weight)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
