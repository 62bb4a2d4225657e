"""Gated linear attention (Yang et al. 2023): each channel forgets at a rate that the token decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from mnemic.layers.heads import GatedOutput, HeadOptions, MatrixState, split_heads
from mnemic.layers.matrix_memory import MatrixMemory
from mnemic.layers.options import option


@dataclass(frozen=True, kw_only=True)
class GatedLinearOptions(HeadOptions):
    """`slowness`: the gate is sigmoid(·)^(1/slowness), 16 in the paper; `gate_rank`: of the gate's linear
    map.

    The chunk is shorter than that of other layers: each doubling is one more pass over the keys.
    """

    slowness: float = option(16.0, low=1.0)
    gate_rank: int = 16
    chunk: int = option(16, meaning=False)


class GatedLinearAttention(MatrixMemory):
    """S = diag(a) S + kᵀ v; o = q S / √key_dim, a in (0, 1)^key_dim (§4). State: key_dim · value_dim a head.

    Then an RMS norm and a SiLU gate, as published. The decay is applied in log space, never as a ratio.
    """

    name = "gated-linear"
    Options = GatedLinearOptions
    small: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"heads": 2, "chunk": 4, "slowness": 2.0},
        {"key_dim": 3, "value_dim": 5, "gate_rank": 2},
    )
    dials: ClassVar[tuple[Mapping[str, Any], ...]] = ({"key_dim": 16},)

    def __init__(self, options: GatedLinearOptions) -> None:
        super().__init__(options)
        self.slowness = options.slowness
        self.decay = nn.Sequential(
            nn.Linear(options.dim, options.gate_rank, bias=False),
            nn.Linear(options.gate_rank, self.heads * self.key_dim),
        )
        self.output = GatedOutput(dim=options.dim, heads=self.heads, value_dim=self.value_dim)

    def _project(self, x: Tensor, state: MatrixState) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super()._project(x, state)
        return q * self.key_dim**-0.5, k, v

    def _log_decay(self, x: Tensor, v: Tensor) -> Tensor:
        return logsigmoid(split_heads(self.decay(x), self.heads).to(v.dtype)) / self.slowness

    def _output(self, read: Tensor, x: Tensor) -> Tensor:
        y: Tensor = self.output(read, x)
        return y
