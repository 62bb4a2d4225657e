"""Retention (Sun et al. 2023): linear attention that forgets at a fixed rate, each head at its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from mnemic.layers.heads import GatedOutput, HeadOptions, MatrixState
from mnemic.layers.matrix_memory import MatrixMemory


class Retention(MatrixMemory):
    """S = γ S + kᵀ v; o = q S / √key_dim, γ = 1 - 2^(-5 - head) (§2.2). State: key · value a head.

    Then an RMS norm and a SiLU gate. Without the paper's rotation of q and k.
    """

    name = "retention"
    Options = HeadOptions
    dials: ClassVar[tuple[Mapping[str, Any], ...]] = ({"key_dim": 16},)

    def __init__(self, options: HeadOptions) -> None:
        super().__init__(options)
        self.output = GatedOutput(dim=options.dim, heads=self.heads, value_dim=self.value_dim)

    def _project(self, x: Tensor, state: MatrixState) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super()._project(x, state)
        return q * self.key_dim**-0.5, k, v

    def _log_decay(self, x: Tensor, v: Tensor) -> Tensor:
        fixed = log_retention(self.heads, v)
        return fixed.view(1, -1, *[1] * (v.dim() - 3)).expand(v.shape[:-1])

    def _output(self, read: Tensor, x: Tensor) -> Tensor:
        y: Tensor = self.output(read, x)
        return y


def log_retention(heads: int, like: Tensor) -> Tensor:
    """log γ of each head, (heads,), in the dtype and on the device of `like`."""
    head = torch.arange(heads, dtype=like.dtype, device=like.device)
    return torch.log1p(-torch.exp2(-5 - head))
