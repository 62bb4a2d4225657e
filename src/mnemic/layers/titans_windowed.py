"""A long memory and a window over one stream: what `titans-mag` and `titans-mal` share (Behrouz et al. 2025,
arXiv 2501.00663, §4.2, §4.3). A layer says how the two are put together, in `_mix`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
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

Attend = Callable[[Tensor], tuple[Tensor, dict[str, Any]]]  # what the window sees, its keys and values


class WindowedMemory(MemoryLayer[WindowedState]):
    """O(time · (|W| + window · dim)). A subclass makes its norms, then `out`, in `_make`."""

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
        self._make(options.dim)
        self.out = nn.Linear(options.dim, options.dim, bias=False)
        self.reset_parameters()

    @abstractmethod
    def _make(self, dim: int) -> None:
        """Its norms."""

    @abstractmethod
    def _mix(self, x: Tensor, read: Tensor, attend: Attend) -> tuple[Tensor, dict[str, Any]]:
        """x (batch, time, dim), what the memory says (batch, heads, time, head_dim): outputs, the window."""

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
        y, window = self._mix(
            x, read, lambda seen: self.attention(seen, state, valid, positions, self.persistent)
        )
        return y, replace(after, **window)

    def token(self, x: Tensor, state: WindowedState) -> tuple[Tensor, WindowedState]:
        at = state.seen.unsqueeze(1)
        return self._single(
            x, state, explicit, lambda seen: self.attention(seen, state, None, at, self.persistent)
        )

    def definition(self, x: Tensor, state: WindowedState) -> tuple[Tensor, WindowedState]:
        return self._single(
            x, state, derived, lambda seen: self.attention.definition(seen, state, self.persistent)
        )

    def _single(
        self, x: Tensor, state: WindowedState, gradient: Any, attend: Attend
    ) -> tuple[Tensor, WindowedState]:
        x = x.unsqueeze(1)
        with rollback(self, x, state):
            read, after = self.memory.recall_one(x, state, gradient)
        y, window = self._mix(x, read, attend)
        return y.squeeze(1), replace(after, **window)


def normed(norm: nn.RMSNorm, read: Tensor) -> Tensor:
    """What the memory says, heads joined, in the dtype of the norm."""
    y: Tensor = norm(join_heads(read).to(norm.weight.dtype))
    return y
