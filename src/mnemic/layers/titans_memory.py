"""Titans' neural long-term memory as a layer (Behrouz et al. 2025, arXiv 2501.00663, §4; "LMM")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from mnemic.layers.heads import GatedOutput
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.titans_core import LongTermMemory
from mnemic.layers.titans_guard import rollback
from mnemic.layers.titans_rule import derived, explicit
from mnemic.layers.titans_state import (
    MemoryOptions,
    MemoryState,
    forgetful,
    join_weights,
    persistent_tokens,
    reset_persistent,
)


class NeuralMemory(MemoryLayer[MemoryState]):
    """The memory alone: y = out(norm(M(q)) · silu(gate(x))). O(time · |W|), whatever came before.

    Also a store of vectors with no sequence model around it: `write`, `read`, `surprise`, `forget`.
    """

    name = "titans-lmm"
    Options = MemoryOptions
    State = MemoryState
    small: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"heads": 2, "chunk": 4, "hidden": 6},
        {"depth": 1, "chunk": 3, "reads": "chunk", "momentum": False, "conv": 0, "persistent": 0},
        {"depth": 3, "chunk": 5, "hidden": 7, "decay": False, "clip": 0.5},
        {"heads": 2, "chunk": 4, "hidden": 5, "decays_to": "zero"},
    )
    dials: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"depth": 1, "chunk": 16},
        {"depth": 2, "hidden": 48, "chunk": 16},
    )
    only_at_start = ("memory.initial", "persistent")

    def __init__(self, options: MemoryOptions) -> None:
        super().__init__(options)
        self.memory = LongTermMemory(options)
        self.persistent = persistent_tokens(options)
        self.output = GatedOutput(dim=options.dim, heads=options.heads, value_dim=options.head_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights of its own, as they begin; those of its modules reset themselves."""
        reset_persistent(self.persistent)

    def init_state(
        self, batch: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> MemoryState:
        """M_0 as learned, and what the persistent tokens then wrote to it."""
        dtype, device = self._place(dtype, device)
        fields = self.memory.start(batch, dtype=dtype, sums=self.accumulator_dtype(dtype), device=device)
        return self.memory.preface(MemoryState(spec=self.spec, **fields), self.persistent)

    def chunked(
        self, x: Tensor, state: MemoryState, valid: Tensor | None, positions: Tensor | None
    ) -> tuple[Tensor, MemoryState]:
        with rollback(self, x, state, valid):
            read, after = self.memory.recall(x, state, valid)
        return self.output(read, x), after

    def token(self, x: Tensor, state: MemoryState) -> tuple[Tensor, MemoryState]:
        x = x.unsqueeze(1)
        with rollback(self, x, state):
            read, after = self.memory.recall_one(x, state, explicit)
        return self.output(read, x).squeeze(1), after

    def definition(self, x: Tensor, state: MemoryState) -> tuple[Tensor, MemoryState]:
        x = x.unsqueeze(1)
        with rollback(self, x, state):
            read, after = self.memory.recall_one(x, state, derived)
        return self.output(read, x).squeeze(1), after

    def write(self, state: MemoryState, x: Tensor) -> MemoryState:
        """The state after x (batch, time, dim): `forward` without its outputs. Raises as `forward`."""
        after: MemoryState = self(x, state)[1]
        return after

    def read(self, state: MemoryState, q: Tensor) -> Tensor:
        """What it holds for each q (batch, time, dim), read as if it came next; nothing is written."""
        self._require(q, state)
        y: Tensor = self.output(self.memory.consult(q, state), q)
        return y

    def surprise(self, state: MemoryState, x: Tensor) -> Tensor:
        """|M(k) - v|² of each token over all heads, (batch, time); nothing is written."""
        self._require(x, state)
        return self.memory.unexpected(x, state)[0]

    def pull(self, state: MemoryState, x: Tensor) -> Tensor:
        """The norm of each token's gradient, (batch, time): how hard it would move the weights."""
        self._require(x, state)
        return self.memory.unexpected(x, state)[1]

    def forget(self, state: MemoryState, part: float) -> MemoryState:
        """A part of the way back to where decay leads. Raises InvalidInput unless 0 <= part <= 1."""
        self.spec.require(state.spec)
        rest = self.memory.rest(state.weights.dtype)
        return forgetful(state, part, join_weights(rest) if rest else torch.zeros_like(state.weights))

    def _require(self, x: Tensor, state: MemoryState) -> None:
        self._begin(x, state, None)
        self._require_finite(x)
