"""What memories share that are one matrix a head, written by addition: S = a S + φ(k)ᵀ v; o = φ(q) S.

A layer says what φ is, whether a normaliser stands beside the values, how fast it fades, and its output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mnemic.layers.heads import (
    HeadOptions,
    MatrixState,
    empty_matrices,
    full_precision,
    join_heads,
    silence,
    split_heads,
)
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.recurrences import additive

EPSILON = 1e-12  # a normaliser is positive once a token has been written


class MatrixMemory(MemoryLayer[MatrixState]):
    """S = a S + φ(k)ᵀ v; o = φ(q) S. A subclass makes `out`, or `_output` of its own."""

    State = MatrixState
    small: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"heads": 2, "chunk": 4},
        {"key_dim": 3, "value_dim": 5},
    )
    normalised: ClassVar[bool] = False
    """A column of ones beside the values: what is read is divided by what the ones became."""
    out: nn.Linear

    def __init__(self, options: HeadOptions) -> None:
        super().__init__(options)
        self.heads, self.chunk = options.heads, options.chunk
        self.key_dim, self.value_dim = options.key_size, options.value_size
        self.rows = self.key_dim  # of the state: the dimension of φ
        self.qk = nn.Linear(options.dim, 2 * self.heads * self.key_dim, bias=False)
        self.v = nn.Linear(options.dim, self.heads * self.value_dim, bias=False)

    def init_state(
        self, batch: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> MatrixState:
        dtype, device = self._place(dtype, device)
        shape = batch, self.heads, self.rows, self.value_dim + self.normalised
        return empty_matrices(self.spec, shape, self.accumulator_dtype(dtype), device)

    def chunked(
        self, x: Tensor, state: MatrixState, valid: Tensor | None, positions: Tensor | None
    ) -> tuple[Tensor, MatrixState]:
        q, k, v = self._project(x, state)
        log_decay = self._log_decay(x, v)
        (v,) = silence(valid, v)  # a normaliser's ones too: padding writes nothing
        if log_decay is not None:
            (log_decay,) = silence(valid, log_decay)
        with full_precision(x.device):
            read, memory = self._along(q, k, v, state.memory, log_decay)
        return self._output(read, x), replace(state, memory=memory)

    def definition(self, x: Tensor, state: MatrixState) -> tuple[Tensor, MatrixState]:
        q, k, v = self._project(x, state)
        log_decay = self._log_decay(x, v)
        with full_precision(x.device):
            memory = state.memory
            if log_decay is not None:  # (batch, heads) or (batch, heads, key)
                memory = log_decay.exp().view(*log_decay.shape, *[1] * (4 - log_decay.dim())) * memory
            memory = memory + self.features(k).unsqueeze(-1) * v.unsqueeze(-2)
            read = (self.features(q).unsqueeze(-2) @ memory).squeeze(-2)
        return self._output(read, x), replace(state, memory=memory)

    def features(self, x: Tensor) -> Tensor:
        """φ of queries and keys (…, key_dim): (…, rows)."""
        return x

    def _log_decay(self, x: Tensor, v: Tensor) -> Tensor | None:
        """log a, (batch, heads[, time]) or that with key_dim behind it; None: nothing fades."""
        return None

    def _project(self, x: Tensor, state: MatrixState) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v before φ, in the dtype of the state."""
        precise = state.memory.dtype
        q, k = (split_heads(part, self.heads).to(precise) for part in self.qk(x).chunk(2, -1))
        v = split_heads(self.v(x), self.heads).to(precise)
        return q, k, pad(v, (0, 1), value=1.0) if self.normalised else v

    def _along(
        self, q: Tensor, k: Tensor, v: Tensor, memory: Tensor, log_decay: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What many tokens read, and the matrices after them."""
        q, k = self.features(q), self.features(k)
        return additive(q, k, v, memory, log_decay=log_decay, chunk=self.chunk)

    def _output(self, read: Tensor, x: Tensor) -> Tensor:
        """read (batch, heads, [time,] value columns) to (batch, [time,] dim)."""
        if self.normalised:
            read = read[..., :-1] / (read[..., -1:] + EPSILON)
        y: Tensor = self.out(join_heads(read).to(x.dtype))
        return y
