"""Taylor linear attention, the global part of BASED (Arora et al. 2024, §4.1).

φ(q)·φ(k) = 1 + s + s²/2 with s = q·k / √feature_dim: the second-order expansion of exp(s), at least 1/2, so
that the normaliser is safe. It is a larger state without more parameters. Below s = -1 the expansion rises
again: `share_below` says how often that happens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mnemic.layers.heads import (
    COUNTER_BYTES,
    HeadOptions,
    MatrixState,
    accumulator_bytes,
    merged,
    split_heads,
)
from mnemic.layers.matrix_memory import MatrixMemory
from mnemic.layers.recurrences import carry, in_chunks, whole


@dataclass(frozen=True, kw_only=True)
class TaylorOptions(HeadOptions):
    """`key_dim` is the feature dimension of a head's queries and keys, 16 in the paper.

    `compressed` keeps x_i x_j for i <= j only: the same product from 153 instead of 273 rows at 16.
    """

    key_dim: int = 16
    compressed: bool = True

    @property
    def rows(self) -> int:
        """Rows of a head's state: the dimension of φ."""
        square = self.key_dim * (self.key_dim + 1) // 2 if self.compressed else self.key_dim**2
        return 1 + self.key_dim + square

    def state_bytes(self, tokens: int, *, batch: int = 1, element_bytes: int = 4) -> int:
        floats = self.heads * self.rows * (self.value_size + 1)
        return batch * (floats * accumulator_bytes(element_bytes) + COUNTER_BYTES)


class TaylorLinearAttention(MatrixMemory):
    """o = φ(q) Σ φ(k)ᵀ v / φ(q) Σ φ(k)ᵀ. State: heads · rows · (value_dim + 1), a column the normaliser.

    No decay, no positions. Inside a chunk 1 + s + s²/2 is evaluated on q kᵀ, without φ.
    """

    name = "taylor"
    Options = TaylorOptions
    small: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"heads": 2, "key_dim": 3, "chunk": 4},
        {"key_dim": 4, "value_dim": 5, "compressed": False},
    )
    dials: ClassVar[tuple[Mapping[str, Any], ...]] = ({"key_dim": 8}, {"key_dim": 4})

    normalised = True

    def __init__(self, options: TaylorOptions) -> None:
        super().__init__(options)
        self.compressed, self.rows = options.compressed, options.rows
        self.out = nn.Linear(self.heads * self.value_dim, options.dim, bias=False)

    def features(self, x: Tensor) -> Tensor:
        return features(x, self.compressed)

    def _along(
        self, q: Tensor, k: Tensor, v: Tensor, memory: Tensor, log_decay: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        time = q.shape[2]
        q, k, v = (in_chunks(t, self.chunk) for t in (q, k, v))
        scores = (q @ k.mT) * self.key_dim**-0.5
        inside = (1 + scores + scores.square() / 2).tril() @ v
        before, memory = carry(self.features(k).mT @ v, memory)
        return whole(inside + self.features(q) @ before, time), memory

    def merge(self, a: MatrixState, b: MatrixState) -> MatrixState:
        """Of disjoint streams that each began empty."""
        return merged(self.spec, a, b)

    def share_below(self, x: Tensor) -> float:
        """Share of causal pairs in x (batch, time, dim) with s < -1, where less alike weighs more."""
        q, k = (split_heads(part, self.heads) for part in self.qk(x).chunk(2, -1))
        scores = q @ k.mT * self.key_dim**-0.5
        causal = torch.ones_like(scores, dtype=torch.bool).tril()
        return float((scores[causal] < -1).float().mean())


def features(x: Tensor, compressed: bool = True) -> Tensor:
    """φ(x) = [1, x / d^¼, x xᵀ / √(2 d)] of (…, d): (…, 1 + d + d²), or (…, 1 + d + d (d + 1) / 2).

    Compressed, a product off the diagonal stands once, times √2.
    """
    d = x.shape[-1]
    if compressed:
        rows, columns = torch.triu_indices(d, d, device=x.device)
        weight = x.new_full(rows.shape, math.sqrt(2)).masked_fill(rows == columns, 1)
        square = x[..., rows] * x[..., columns] * weight
    else:
        square = (x.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2)
    return torch.cat([torch.ones_like(x[..., :1]), x * d**-0.25, square * (2 * d) ** -0.5], -1)
