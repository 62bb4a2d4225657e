"""Hebbian memory: unnormalised linear attention on keys and queries of unit length.

What a linear memory reaches without a feature map: Arora et al. 2024 note that recall follows the size of the
state, and this is its cheapest form (key_dim rows, no parameters beyond the projections).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.functional import normalize

from mnemic.layers.heads import HeadOptions, MatrixState, merged
from mnemic.layers.matrix_memory import MatrixMemory


class Hebbian(MatrixMemory):
    """S = S + kᵀ v; o = q S, with q and k of unit length. State: heads · key_dim · value_dim."""

    name = "hebbian"
    Options = HeadOptions
    dials: ClassVar[tuple[Mapping[str, Any], ...]] = ({"key_dim": 16}, {"key_dim": 8})

    def __init__(self, options: HeadOptions) -> None:
        super().__init__(options)
        self.out = nn.Linear(self.heads * self.value_dim, options.dim, bias=False)

    def features(self, x: Tensor) -> Tensor:
        return normalize(x, dim=-1)

    def merge(self, a: MatrixState, b: MatrixState) -> MatrixState:
        """Of disjoint streams that each began empty."""
        return merged(self.spec, a, b)
