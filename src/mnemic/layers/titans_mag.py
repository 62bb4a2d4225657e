"""Titans, memory as a gate (Behrouz et al. 2025, arXiv 2501.00663, §4.2; "MAG")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mnemic.layers.heads import join_heads
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.titans_attention import PrefixedWindow, WindowedOptions, WindowedState
from mnemic.layers.titans_core import LongTermMemory
from mnemic.layers.titans_guard import rollback
from mnemic.layers.titans_rule import derived, explicit
from mnemic.layers.titans_state import persistent_tokens, reset_persistent


class MemoryAsGate(MemoryLayer[WindowedState]):
    """A window and the memory over the same tokens: o = out(norm(window) · sigmoid(norm(M(q)))).

    O(time · (|W| + window · dim)).
    """

    name = "titans-mag"
    Options = WindowedOptions
    State = WindowedState
    small: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"heads": 2, "chunk": 4, "hidden": 6, "window": 5},
        {"depth": 1, "chunk": 3, "window": 1, "reads": "chunk", "persistent": 0, "rotary": False},
    )
    dials: ClassVar[tuple[Mapping[str, Any], ...]] = ({"depth": 1, "chunk": 16, "window": 8},)
    uses_positions = True
    only_at_start = ("memory.initial",)

    def __init__(self, options: WindowedOptions) -> None:
        super().__init__(options)
        self.memory, self.attention = LongTermMemory(options), PrefixedWindow(options)
        self.persistent = persistent_tokens(options)
        self.norm_attention = nn.RMSNorm(options.dim, eps=1e-6)
        self.norm_memory = nn.RMSNorm(options.dim, eps=1e-6)
        self.out = nn.Linear(options.dim, options.dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights of its own, as they begin; those of its modules reset themselves."""
        reset_persistent(self.persistent)

    def init_state(
        self, batch: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> WindowedState:
        """An empty window; M_0 as learned, and what the persistent tokens then wrote to it."""
        dtype, device = self._place(dtype, device)
        state = WindowedState(
            spec=self.spec,
            **self.memory.start(batch, dtype=dtype, sums=self.accumulator_dtype(dtype), device=device),
            **self.attention.start(batch, dtype=dtype, device=device),
        )
        return self.memory.preface(state, self.persistent)

    def chunked(
        self, x: Tensor, state: WindowedState, valid: Tensor | None, positions: Tensor | None
    ) -> tuple[Tensor, WindowedState]:
        with rollback(self, x, state, valid):
            read, after = self.memory.recall(x, state, valid)
        near, window = self.attention(x, state, valid, positions, self.persistent)
        return self._gate(near, read), replace(after, **window)

    def token(self, x: Tensor, state: WindowedState) -> tuple[Tensor, WindowedState]:
        x = x.unsqueeze(1)
        with rollback(self, x, state):
            read, after = self.memory.recall_one(x, state, explicit)
        near, window = self.attention(x, state, None, state.seen.unsqueeze(1), self.persistent)
        return self._gate(near, read).squeeze(1), replace(after, **window)

    def definition(self, x: Tensor, state: WindowedState) -> tuple[Tensor, WindowedState]:
        x = x.unsqueeze(1)
        with rollback(self, x, state):
            read, after = self.memory.recall_one(x, state, derived)
        near, window = self.attention.definition(x, state, self.persistent)
        return self._gate(near, read).squeeze(1), replace(after, **window)

    def _gate(self, near: Tensor, read: Tensor) -> Tensor:
        gate = self.norm_memory(join_heads(read).to(self.norm_memory.weight.dtype)).sigmoid()
        y: Tensor = self.out(self.norm_attention(near) * gate.to(near.dtype))
        return y
