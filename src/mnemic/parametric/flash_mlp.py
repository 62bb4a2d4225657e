"""A feed-forward part whose weights lie on disk: only the neurons that fire are read (LLM in a flash §3).

y = sum over the active neurons i of relu(x · up_i + b_i) · down_i, or, gated, of relu(x · gate_i) ·
(x · up_i) · down_i. Neuron i is one row of a table, its vectors one after the other: fewer reads, in larger
pieces.
"""

from __future__ import annotations

import os
from typing import Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnemic.cube.checks import require_count, require_positive
from mnemic.cube.errors import InvalidInput
from mnemic.parametric.disk_rows import DiskRows, pack_rows

PIECE: Final = 256  # neurons that are computed at once


class Predictor(Protocol):
    """Which neurons will fire: x [n, width] to bool [n, neurons]."""

    def __call__(self, x: Tensor) -> Tensor: ...


def pack_mlp(
    path: str | os.PathLike[str],
    up: Tensor,
    down: Tensor,
    *,
    gate: Tensor | None = None,
    dtype: str = "float32",
) -> None:
    """Write a feed-forward part as bundles. up, gate [neurons, width], down [width, neurons].

    Raises InvalidInput when they do not belong together.
    """
    first = up if gate is None else gate
    if up.ndim != 2 or down.shape != (up.shape[1], up.shape[0]) or first.shape != up.shape:
        raise InvalidInput(
            f"up {tuple(up.shape)}, gate {tuple(first.shape)} and down {tuple(down.shape)} are not [neurons, "
            "width] twice and [width, neurons]"
        )
    neurons, width = up.shape
    parts = [up] if gate is None else [gate, up]
    pieces = (
        torch.cat([*(one[start : start + 256] for one in parts), down[:, start : start + 256].T], dim=1)
        for start in range(0, neurons, 256)
    )
    pack_rows(path, pieces, shape=(neurons, (len(parts) + 1) * width), dtype=dtype)


class FlashMLP(nn.Module):
    """x [n, width] to [n, width], reading from `table` what `predictor` names; bias [neurons] is in memory.

    Exact when the predictor names every neuron that fires; others add nothing. For ReLU: a SwiGLU part has no
    neurons that are exactly zero, and gains little (see docs/flash.md). gated: its bundles are of three
    vectors. piece: neurons that are computed at once; what is in memory beside the table is 2 · piece rows.
    """

    def __init__(
        self,
        table: DiskRows,
        predictor: Predictor,
        bias: Tensor | None = None,
        *,
        gated: bool = False,
        piece: int = PIECE,
    ) -> None:
        super().__init__()
        require_count(piece=piece)
        row = table.shape[1]
        if row % (2 + gated):
            raise InvalidInput(f"rows of {row} numbers are not bundles of {2 + gated} vectors")
        self.table, self.predictor, self.gated, self.piece = table, predictor, gated, piece
        self._width = row // (2 + gated)
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self.bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, self._width)
        active = self.predictor(flat)
        out = torch.zeros_like(flat)
        for ids, bundle in self.table.pieces(active.any(0).nonzero()[:, 0], self.piece):
            parts = bundle.to(flat.dtype).split(self._width, dim=1)
            fired = F.relu(F.linear(flat, parts[0], None if self.bias is None else self.bias[ids]))
            if self.gated:
                fired = fired * F.linear(flat, parts[1])
            out += (fired * active[:, ids]) @ parts[-1]
        return out.view(x.shape)


class Oracle:
    """Names exactly the neurons that fire, from the whole of `up` (gated: of `gate`) in memory: a bound, not
    a saving.
    """

    def __init__(self, up: Tensor, bias: Tensor | None = None) -> None:
        self._up, self._bias = up, bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self._up, self._bias) > 0


class Recorded:
    """Names what fired when the same tokens passed by once before: an oracle that has no weights.

    trace: uint8 [tokens, neurons / 8], bits as `pack_bits` gives them, for one layer; it may lie in a file.
    Raises InvalidInput past its end.
    """

    def __init__(self, trace: Tensor, neurons: int) -> None:
        self._trace, self._neurons, self._at = trace, neurons, 0

    def __call__(self, x: Tensor) -> Tensor:
        end = self._at + len(x)
        if end > len(self._trace):
            raise InvalidInput(f"the record is of {len(self._trace):,} tokens, and {end:,} passed by")
        bits, self._at = self._trace[self._at : end], end
        return unpack_bits(bits, self._neurons)


def pack_bits(active: Tensor) -> Tensor:
    """bool [n, neurons] to uint8 [n, neurons / 8], the last byte filled with zeros."""
    padded = F.pad(active.to(torch.uint8), (0, -active.shape[1] % 8)).unflatten(1, (-1, 8))
    bytes_: Tensor = (padded << torch.arange(8, dtype=torch.uint8)).sum(-1)
    return bytes_.to(torch.uint8)


def unpack_bits(bits: Tensor, neurons: int) -> Tensor:
    """The reverse of `pack_bits`."""
    spread = (bits[..., None] >> torch.arange(8, dtype=torch.uint8)) & 1
    return spread.flatten(1)[:, :neurons].bool()


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
