"""Linear attention with a normaliser (Katharopoulos et al. 2020): a running sum of keys times values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.functional import elu

from mnemic.layers.heads import COUNTER_BYTES, HeadOptions, MatrixState, accumulator_bytes, merged
from mnemic.layers.matrix_memory import MatrixMemory


class LinearOptions(HeadOptions):
    """Those of every layer with heads."""

    def state_bytes(self, tokens: int, *, batch: int = 1, element_bytes: int = 4) -> int:
        floats = self.heads * self.key_size * (self.value_size + 1)
        return batch * (floats * accumulator_bytes(element_bytes) + COUNTER_BYTES)


class LinearAttention(MatrixMemory):
    """o = φ(q) Σ φ(k)ᵀ v / φ(q) Σ φ(k)ᵀ with φ = elu + 1 (§3.2-3.4). Every write is kept at full weight.

    The state's last value column is Σ φ(k), the normaliser. State: heads · key_dim · (value_dim + 1).
    """

    name = "linear"
    Options = LinearOptions
    dials: ClassVar[tuple[Mapping[str, Any], ...]] = ({"key_dim": 16}, {"key_dim": 8})
    normalised = True

    def __init__(self, options: LinearOptions) -> None:
        super().__init__(options)
        self.out = nn.Linear(self.heads * self.value_dim, options.dim, bias=False)

    def features(self, x: Tensor) -> Tensor:
        return elu(x) + 1

    def merge(self, a: MatrixState, b: MatrixState) -> MatrixState:
        """Of disjoint streams that each began empty."""
        return merged(self.spec, a, b)
