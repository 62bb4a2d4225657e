"""BASED in one layer: a Taylor memory of everything beside exact attention to the last few tokens.

The paper (Arora et al. 2024, §4) gives them layers of their own; `pattern` makes that stack. Side by side
they are one memory with two dials, `key_dim` and `window`, which is what `plan` sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from mnemic.cube.errors import InvalidOption
from mnemic.layers.heads import MatrixState
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.options import LayerOptions, option
from mnemic.layers.state import LayerState
from mnemic.layers.taylor import TaylorLinearAttention, TaylorOptions
from mnemic.layers.window import SlidingWindow, WindowOptions, WindowState


@dataclass(frozen=True, kw_only=True)
class BasedOptions(LayerOptions):
    """Those of its parts: `key_dim` of the Taylor memory, `window` of the attention, `heads` of both."""

    heads: int = 1
    key_dim: int = 16
    window: int = 64
    compressed: bool = True
    rotary: bool = True
    chunk: int = option(64, meaning=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.taylor, self.local  # refuse here what they would refuse

    @property
    def taylor(self) -> TaylorOptions:
        return TaylorOptions(
            dim=self.dim, heads=self.heads, key_dim=self.key_dim, compressed=self.compressed, chunk=self.chunk
        )

    @property
    def local(self) -> WindowOptions:
        return WindowOptions(dim=self.dim, heads=self.heads, window=self.window, rotary=self.rotary)

    def state_bytes(self, tokens: int, *, batch: int = 1, element_bytes: int = 4) -> int:
        parts = [part.state_bytes(tokens, batch=batch, element_bytes=element_bytes) for part in self._parts()]
        return sum(parts) + 4 * batch  # its own counter

    def _parts(self) -> tuple[LayerOptions, LayerOptions]:
        return self.taylor, self.local


@dataclass(frozen=True, kw_only=True)
class BasedState(LayerState):
    """The states of both parts."""

    taylor: MatrixState
    local: WindowState


class Based(MemoryLayer[BasedState]):
    """y = taylor(x) + window(x). State: that of both; constant from the first token on."""

    name = "based"
    Options = BasedOptions
    State = BasedState
    small: ClassVar[tuple[Mapping[str, Any], ...]] = ({"heads": 2, "key_dim": 3, "window": 5, "chunk": 4},)
    uses_positions = True
    dials: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"key_dim": 8, "window": 8},
        {"key_dim": 4, "window": 8},
    )

    def __init__(self, options: BasedOptions) -> None:
        taylor, local = TaylorLinearAttention(options.taylor), SlidingWindow(options.local)
        super().__init__(options, parts={"taylor": taylor.spec, "local": local.spec})
        self.taylor, self.local = taylor, local

    def init_state(
        self, batch: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> BasedState:
        taylor = self.taylor.init_state(batch, dtype=dtype, device=device)
        local = self.local.init_state(batch, dtype=dtype, device=device)
        return BasedState(spec=self.spec, seen=taylor.seen.clone(), taylor=taylor, local=local)

    def chunked(
        self, x: Tensor, state: BasedState, valid: Tensor | None, positions: Tensor | None
    ) -> tuple[Tensor, BasedState]:
        far, taylor = self.taylor(x, state.taylor, mask=valid)
        near, local = self.local(x, state.local, mask=valid, positions=positions)
        return far + near, BasedState(spec=self.spec, seen=state.seen, taylor=taylor, local=local)

    def definition(self, x: Tensor, state: BasedState) -> tuple[Tensor, BasedState]:
        far, taylor = self.taylor.reference(x.unsqueeze(1), state.taylor)
        near, local = self.local.reference(x.unsqueeze(1), state.local)
        after = BasedState(spec=self.spec, seen=state.seen, taylor=taylor, local=local)
        return (far + near).squeeze(1), after

    def token(self, x: Tensor, state: BasedState) -> tuple[Tensor, BasedState]:
        far, taylor = self.taylor.step(x, state.taylor)
        near, local = self.local.step(x, state.local)
        return far + near, BasedState(spec=self.spec, seen=state.seen, taylor=taylor, local=local)


def plan(
    budget_bytes: int, *, dim: int, heads: int = 1, window: int = 64, element_bytes: int = 4
) -> BasedOptions:
    """The options whose state is largest within `budget_bytes` a sequence. Raises InvalidOption if none fits.

    Ours: the window, at most `window`, takes at most a quarter of the budget; the Taylor memory takes what is
    left, since recall follows its size. O(window + feature dimension).
    """
    if budget_bytes < 1:
        raise InvalidOption(f"budget_bytes must be at least 1, got {budget_bytes}")
    wide = min(window, 1 + budget_bytes // 4 // (2 * dim * element_bytes))
    best = None
    for key_dim in range(1, dim + 1):
        tried = BasedOptions(dim=dim, heads=heads, key_dim=key_dim, window=wide)
        if tried.state_bytes(0, element_bytes=element_bytes) > budget_bytes:
            break
        best = tried
    if best is None:
        least = BasedOptions(dim=dim, heads=heads, key_dim=1, window=1)
        raise InvalidOption(
            f"{budget_bytes} bytes hold no BASED state of width {dim}; the smallest takes "
            f"{least.state_bytes(0, element_bytes=element_bytes)}"
        )
    return best


def pattern(layers: int = 27) -> list[str]:
    """Layer names in the order of the published 360M model (27 layers), its ratio at any other depth.

    Of every five layers the second is Taylor, the third a window, the others BaseConv; the last two are
    BaseConv.
    """
    kinds = ("base-conv", "taylor", "window", "base-conv", "base-conv")
    last = layers - 2 if layers == 27 else layers
    return [kinds[n % 5] if n < last else "base-conv" for n in range(layers)]
