"""The protocol of a sequence-memory layer, and the laws that hold for every layer, kept in one place.

A layer writes three things: `chunked` (the fast form over many tokens), `definition` (the equations of one
token, as in the paper: the oracle that tests compare with) and, where it can be faster than the definition,
`token`. Masks, checks, counters and streaming are here and hold for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from mnemic.cube.errors import InvalidInput
from mnemic.layers.options import LayerOptions
from mnemic.layers.packing import pack
from mnemic.layers.state import LayerSpec, LayerState, require_batch

S = TypeVar("S", bound=LayerState)
ReadState = TypeVar("ReadState", bound=LayerState, contravariant=True)


class MemoryLayer(nn.Module, ABC, Generic[S]):
    """Reads x (batch, time, dim) and a state, gives y (batch, time, dim) and the next state.

    The laws, for every layer; tests/layers holds them:

    - `forward` = repeated `step` = `reference` = `forward` in any split: outputs, final state, gradients.
    - Masked tokens write, decay and advance nothing, their outputs are zero, and a row of nothing but
      padding keeps its state bit by bit.
    - Nothing is written into a state or an input; nothing of the stream is kept in the module.
    - A state of another configuration is refused (IncompatibleMemory), bad input too (InvalidInput).
    - Accumulators are float32 (float64 in a float64 layer), whatever the layer's dtype, also under autocast.
    """

    name: ClassVar[str]  # its row in the table
    version: ClassVar[int] = 1  # rises when an old state would mean something else
    Options: ClassVar[type[LayerOptions]]
    State: ClassVar[type[LayerState]]
    small: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    """Options beside `dim` of small layers that between them reach every branch: the test matrix."""
    dials: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    """Options of its points on the curve of recall against state bytes; the suite runs the first. None: it
    keeps no state of a sequence."""
    uses_positions: ClassVar[bool] = False
    only_at_start: ClassVar[tuple[str, ...]] = ()
    """Beginnings of names of parameters that `init_state` alone uses: a carried state stands for them."""

    def __init__(self, options: LayerOptions, parts: Mapping[str, LayerSpec] | None = None) -> None:
        super().__init__()
        self.spec = LayerSpec(
            layer=self.name, version=self.version, options=options.meaning(), parts=dict(parts or {})
        )
        self.dim = options.dim
        self._aux: Tensor | None = None

    # what a layer writes

    @abstractmethod
    def init_state(
        self, batch: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> S:
        """The state before any token. `dtype` and `device` default to the parameters'."""

    @abstractmethod
    def chunked(
        self, x: Tensor, state: S, valid: Tensor | None, positions: Tensor | None
    ) -> tuple[Tensor, S]:
        """x (batch, time, dim), real tokens first; `valid` bool (batch, time) is None when all are real.

        Outputs at padding may be anything finite. `seen` of the returned state is set by the caller.
        """

    @abstractmethod
    def definition(self, x: Tensor, state: S) -> tuple[Tensor, S]:
        """x (batch, dim): the equations of one token, written to be read."""

    def token(self, x: Tensor, state: S) -> tuple[Tensor, S]:
        """x (batch, dim): one token, fast. The definition, where nothing is faster."""
        return self.definition(x, state)

    # what everybody calls

    def forward(
        self,
        x: Tensor,
        state: S | None = None,
        *,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> tuple[Tensor, S]:
        """x (batch, time, dim), mask bool (batch, time) True for real tokens, positions int (batch, time).

        Positions count from the state's `seen` over real tokens unless given. Raises InvalidInput,
        IncompatibleMemory.
        """
        self._aux = None
        if positions is None:
            return self._run(x, state, mask, self._from_seen)
        if not self.uses_positions:
            raise InvalidInput(f"{self.name} knows no positions: leave them out")
        if positions.shape != x.shape[:2]:
            raise InvalidInput(
                f"positions must have shape {tuple(x.shape[:2])}, got {tuple(positions.shape)}"
            )
        return self._run(x, state, mask, self.chunked, along=positions)

    def step(self, x: Tensor, state: S, *, mask: Tensor | None = None) -> tuple[Tensor, S]:
        """x (batch, dim), mask bool (batch,): one token. Raises InvalidInput, IncompatibleMemory."""
        state = self._begin(x.unsqueeze(1), state, None if mask is None else mask.unsqueeze(1))
        return self._one(self.token, x, state, mask)

    def reference(self, x: Tensor, state: S | None = None, *, mask: Tensor | None = None) -> tuple[Tensor, S]:
        """What `forward` must equal: the definition, token by token. Slow; for tests and for reading."""
        state = self._begin(x, state, mask)
        outputs = [torch.zeros_like(x[:, :0])]
        for t in range(x.shape[1]):
            y, state = self._one(self.definition, x[:, t], state, None if mask is None else mask[:, t])
            outputs.append(y.unsqueeze(1))
        return torch.cat(outputs, 1), state

    def aux_loss(self) -> Tensor | None:
        """The auxiliary loss of the last forward, a scalar (load balance of a router); None without one."""
        return self._aux

    def idle_parameters(self) -> int:
        """Parameters that any one token leaves unused (memories it is not sent to)."""
        return 0

    def load_state(self, state: S) -> S:
        """The state on this layer's device, if it is this layer's. Raises IncompatibleMemory."""
        self.spec.require(state.spec)
        return state.to(self._parameter().device)

    def accumulator_dtype(self, dtype: torch.dtype | None = None) -> torch.dtype:
        """Of sums over time: float32, or float64 where the layer is."""
        return torch.float64 if (dtype or self._parameter().dtype) == torch.float64 else torch.float32

    def _from_seen(self, x: Tensor, state: S, valid: Tensor | None, _: Tensor | None) -> tuple[Tensor, S]:
        """Positions count on from what was seen."""
        ahead = torch.arange(x.shape[1], device=x.device)
        return self.chunked(x, state, valid, state.seen.unsqueeze(1) + ahead if self.uses_positions else None)

    def _run(
        self,
        x: Tensor,
        state: S | None,
        mask: Tensor | None,
        rule: Callable[[Tensor, S, Tensor | None, Any], tuple[Tensor, S]],
        *,
        along: Tensor | None = None,
    ) -> tuple[Tensor, S]:
        """`rule` on real tokens alone, with what stands `along` them (batch, time)."""
        state = self._begin(x, state, mask)
        packed = pack(x, mask)
        if packed.x.shape[1] == 0:
            return torch.zeros_like(x), state
        self._require_finite(packed.x)
        y, after = rule(packed.x, state, packed.valid, None if along is None else packed.along(along))
        after = replace(after, seen=state.seen + packed.counts)
        if packed.valid is not None and bool((packed.counts == 0).any()):
            after = after.where(packed.counts > 0, state)
        return packed.unpack(y), after.owned()

    def _parameter(self) -> Tensor:
        return next(self.parameters())

    def _place(
        self, dtype: torch.dtype | None, device: torch.device | str | None
    ) -> tuple[torch.dtype, torch.device]:
        mine = self._parameter()
        return dtype or mine.dtype, torch.device(device or mine.device)

    def _one(self, rule: Any, x: Tensor, state: S, mask: Tensor | None) -> tuple[Tensor, S]:
        if mask is not None:
            x = torch.where(mask.unsqueeze(1), x, 0)
        self._require_finite(x)
        y, after = rule(x, state)
        after = replace(after, seen=state.seen + 1)
        if mask is None:
            return y, after.owned()
        return torch.where(mask.unsqueeze(1), y, 0), after.where(mask, state).owned()

    def _begin(self, x: Tensor, state: S | None, mask: Tensor | None) -> S:
        if x.dim() != 3 or x.shape[2] != self.dim:
            raise InvalidInput(f"{self.name} takes (batch, time, {self.dim}), got {tuple(x.shape)}")
        if not x.is_floating_point():
            raise InvalidInput(f"{self.name} takes floating-point vectors, got {x.dtype}; embed tokens first")
        if mask is not None and (mask.shape != x.shape[:2] or mask.dtype != torch.bool):
            raise InvalidInput(
                f"a mask is bool of shape {tuple(x.shape[:2])}, True for real tokens; got {mask.dtype} "
                f"of shape {tuple(mask.shape)}"
            )
        if state is None:
            return self.init_state(x.shape[0], device=x.device)
        if state.spec is not self.spec:
            self.spec.require(state.spec)
        require_batch(state, x.shape[0])
        return state

    def _require_finite(self, x: Tensor) -> None:
        if not bool(torch.isfinite(x.detach()).all()):
            bad = (~torch.isfinite(x.detach())).nonzero()[0].tolist()
            raise InvalidInput(
                f"the input of {self.name} is not finite (first at {bad}); nothing was written"
            )


@runtime_checkable
class Mergeable(Protocol[S]):
    """States of disjoint streams that each began empty add up, exactly, in any order."""

    def merge(self, a: S, b: S) -> S: ...


@runtime_checkable
class Inspectable(Protocol):
    """Which memory holds what: (indices, weights), each (batch, time, chosen)."""

    def routing(self, x: Tensor) -> tuple[Tensor, Tensor]: ...


@runtime_checkable
class Writable(Protocol[S]):
    """Usable as a store, without a language model: write vectors, read by vectors."""

    def write(self, state: S, x: Tensor) -> S: ...

    def read(self, state: S, q: Tensor) -> Tensor: ...


@runtime_checkable
class Surprising(Protocol[ReadState]):
    """How little a memory expected its input, token by token, without writing."""

    def surprise(self, state: ReadState, x: Tensor) -> Tensor: ...


@runtime_checkable
class Forgettable(Protocol[S]):
    """A part of a state can be taken out; what the part is, the layer says."""

    def forget(self, state: S, part: Any) -> S: ...
