"""QFWP: fast weights that program a variational quantum circuit (Chen 2024, arXiv 2402.17760).

A small linear network reads each input and says by how much to turn the circuit's rotations. The circuit is
no recurrent thing: it begins at |0…0⟩ every time. What is carried is its angles, depth · qubits numbers.

As addition commutes, additive angles are an unordered sum: what was told k steps ago and what was told k + 1
steps ago cannot be told apart, only the present input stands out. `mode="gated"` can (ours; it also keeps the
angles within bounds). For what the addition gives in return, see `merge` and `forget`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Literal

import torch
from torch import Tensor, nn

from mnemic.cube.errors import InvalidInput, InvalidOption
from mnemic.layers.circuit import Circuit, Simulator, with_shifts
from mnemic.layers.heads import COUNTER_BYTES, accumulator_bytes, full_precision
from mnemic.layers.options import LayerOptions, option
from mnemic.layers.state import LayerSpec, LayerState, require_batch

MANY: Final = 20  # qubits: 2^20 amplitudes a row, 4 MB in float32


@dataclass(frozen=True, kw_only=True)
class QFWPOptions(LayerOptions):
    """`dim`: inputs, one wire each. Defaults are those of the released code."""

    qubits: int = 8
    depth: int = 2
    outputs: int = 4
    """Wires whose ⟨Z⟩ is read, from the first on."""
    latent: int | None = None
    """Width between the two linear maps of the slow programmer; `qubits` unless given."""
    mode: Literal["additive", "overwrite", "gated"] = "additive"
    """W + Δ; Δ alone (no memory: the ablation); g W + (1 - g) 2 Δ with g = sigmoid of a linear map."""
    cyclic: bool = False
    gradient: Literal["autograd", "shift"] = option("autograd", meaning=False)
    """Through the simulation, or by the parameter-shift rule, which a device could run: the same numbers."""
    many_qubits: bool = option(False, meaning=False)
    """Allow more than 20: each row takes 2^qubits numbers, several times over in training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.qubits > MANY and not self.many_qubits:
            raise InvalidOption(
                f"qubits = {self.qubits} take 2^{self.qubits} numbers a row; at most {MANY}, or "
                "many_qubits=True"
            )
        self.circuit()

    def circuit(self) -> Circuit:
        """The circuit these options describe. Raises InvalidOption."""
        return Circuit(
            qubits=self.qubits, depth=self.depth, inputs=self.dim, outputs=self.outputs, cyclic=self.cyclic
        )

    def evaluations(self, reads: int, *, gradients: bool = False) -> int:
        """Circuits a device has to run: one a read; `gradients` by the shift rule take two more an angle."""
        return reads * (1 + (2 * self.depth * self.qubits if gradients else 0))

    def state_bytes(self, tokens: int, *, batch: int = 1, element_bytes: int = 4) -> int:
        return batch * (self.depth * self.qubits * accumulator_bytes(element_bytes) + COUNTER_BYTES)


@dataclass(frozen=True, kw_only=True)
class QFWPState(LayerState):
    """`angles` (batch, depth, qubits), radians, float32 or float64."""

    angles: Tensor

    def norm(self) -> Tensor:
        """How far the angles have gone, (batch,): in additive mode they grow with the stream."""
        norm: Tensor = torch.linalg.vector_norm(self.angles, dim=(1, 2))
        return norm

    def wrapped(self) -> QFWPState:
        """Angles within (-π, π]: a turn by 2π flips the quantum state's sign, and nothing that is read."""
        turns = torch.ceil((self.angles - math.pi) / (2 * math.pi))
        return replace(self, angles=self.angles - 2 * math.pi * turns)


class QuantumFastWeightMemory(nn.Module):
    """y_t = ⟨Z⟩ of a circuit with data x_t and angles W_t = W_{t-1} + Δ(x_t). State: depth · qubits.

    Δ(x) = (A z) (C z)ᵀ, z = E x, linear maps with bias. `simulator`: what runs the circuit, the exact one
    unless given; one that autograd cannot see through needs gradient="shift".
    """

    def __init__(self, options: QFWPOptions, *, simulator: Simulator | None = None) -> None:
        super().__init__()
        self.options = options
        self.spec = LayerSpec(layer="qfwp", version=1, options=options.meaning())
        self.simulator: Simulator = simulator or options.circuit()
        latent = options.latent or options.qubits
        self.encode = nn.Linear(options.dim, latent)
        self.rows, self.columns = nn.Linear(latent, options.depth), nn.Linear(latent, options.qubits)
        self.keep = nn.Linear(latent, 1) if options.mode == "gated" else None

    def init_state(self, batch: int = 1) -> QFWPState:
        """Angles of zero."""
        weight = self.encode.weight
        sums = torch.float64 if weight.dtype == torch.float64 else torch.float32
        return QFWPState(
            spec=self.spec,
            seen=torch.zeros(batch, dtype=torch.int32, device=weight.device),
            angles=torch.zeros(
                batch, self.options.depth, self.options.qubits, dtype=sums, device=weight.device
            ),
        )

    def forward(
        self, x: Tensor, state: QFWPState | None = None, *, mask: Tensor | None = None, last: bool = False
    ) -> tuple[Tensor, QFWPState]:
        """x (batch, time, dim): write each, then read with it. -> (batch, time, outputs), the state after.

        `mask` bool (batch, time): False writes nothing and reads zero. `last` reads once, at the end: one
        circuit instead of `time`. Raises InvalidInput, IncompatibleMemory. O(time) writes of depth · qubits.
        """
        state = self._begin(x, state, mask)
        if x.shape[1] == 0:
            raise InvalidInput("there is nothing to read: x has no steps")
        angles = self._angles(x, state, mask)
        seen = x.shape[1] if mask is None else mask.sum(1, dtype=torch.int32)
        after = replace(state, seen=state.seen + seen, angles=angles[:, -1].clone())
        if last:
            x, angles, mask = x[:, -1:], angles[:, -1:], None if mask is None else mask[:, -1:]
        y = self._evaluate(x, angles)
        return y if mask is None else torch.where(mask.unsqueeze(-1), y, 0), after

    def step(self, x: Tensor, state: QFWPState) -> tuple[Tensor, QFWPState]:
        """x (batch, dim): one input written, then read with."""
        y, after = self(x.unsqueeze(1), state)
        return y[:, 0], after

    def reference(self, x: Tensor, state: QFWPState | None = None) -> tuple[Tensor, QFWPState]:
        """What `forward` must equal: one input after another, dense matrices. Slow; for tests."""
        state = self._begin(x, state, None)
        circuit, outputs = self.options.circuit(), []
        for t in range(x.shape[1]):
            change, keep = self._change(x[:, t])
            match self.options.mode:
                case "additive":
                    angles = state.angles + change
                case "overwrite":
                    angles = change
                case _:
                    angles = keep * state.angles + (1 - keep) * 2 * change
            state = replace(state, angles=angles, seen=state.seen + 1)
            rows = zip(x[:, t].to(angles.dtype), angles, strict=True)
            outputs.append(torch.stack([circuit.definition(*row) for row in rows]))
        return torch.stack(outputs, 1).to(x.dtype), state

    def write(self, state: QFWPState, x: Tensor) -> QFWPState:
        """The state after x (batch, time, dim), no circuit run."""
        state = self._begin(x, state, None)
        if x.shape[1] == 0:
            return state
        angles = self._angles(x, state, None)[:, -1]
        return replace(state, seen=state.seen + x.shape[1], angles=angles.clone())

    def read(self, state: QFWPState, x: Tensor) -> Tensor:
        """⟨Z⟩ (batch, queries, outputs) of x (batch, queries, dim) at the state's angles; writes nothing."""
        state = self._begin(x, state, None)
        return self._evaluate(x, state.angles.unsqueeze(1).expand(-1, x.shape[1], -1, -1))

    def merge(self, a: QFWPState, b: QFWPState) -> QFWPState:
        """The state after both streams, in any order: additive angles add. Raises InvalidInput otherwise."""
        self._require_additive("states merge")
        self.spec.require(a.spec)
        self.spec.require(b.spec)
        require_batch(a, b.batch)
        return replace(a, seen=a.seen + b.seen, angles=a.angles + b.angles)

    def forget(self, state: QFWPState, part: Tensor) -> QFWPState:
        """The state as if these inputs (batch, time, dim) had never come: additive angles subtract.

        Exact up to rounding, wherever in the stream they stood. That they did come is the caller's word: the
        state cannot tell. Raises InvalidInput in other modes, or beyond the number of inputs seen.
        """
        self._require_additive("inputs can be taken out")
        self._begin(part, state, None)
        if bool((state.seen < part.shape[1]).any()):
            raise InvalidInput(
                f"{part.shape[1]} inputs to forget, and a row has seen {int(state.seen.min())} only"
            )
        change, _ = self._change(part)
        return replace(state, seen=state.seen - part.shape[1], angles=state.angles - change.sum(1))

    def _angles(self, x: Tensor, state: QFWPState, mask: Tensor | None) -> Tensor:
        """The angles after each input: (batch, time, depth, qubits)."""
        change, keep = self._change(x)
        real = None if mask is None else mask.view(*mask.shape, 1, 1)
        if self.options.mode == "additive":
            change = change if real is None else torch.where(real, change, 0)
            return state.angles.unsqueeze(1) + change.cumsum(1)
        found, angles = [], state.angles
        for t in range(x.shape[1]):
            new = change[:, t] if self.keep is None else torch.lerp(2 * change[:, t], angles, keep[:, t])
            angles = new if real is None else torch.where(real[:, t], new, angles)
            found.append(angles)
        return torch.stack(found, 1)

    def _change(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Δ (…, depth, qubits) of x (…, dim), in the dtype of the state, and the gate (…, 1, 1)."""
        z = self.encode(x)
        rows, columns = self.rows(z), self.columns(z)
        sums = torch.float64 if rows.dtype == torch.float64 else torch.float32
        change = rows.to(sums).unsqueeze(-1) * columns.to(sums).unsqueeze(-2)
        if self.keep is None:
            return change, torch.ones_like(change[..., :1, :1])
        return change, self.keep(z).to(sums).sigmoid().unsqueeze(-1)

    def _evaluate(self, x: Tensor, angles: Tensor) -> Tensor:
        """Run the circuits of x (batch, n, dim) and angles (batch, n, depth, qubits)."""
        data, turns = x.flatten(0, 1).to(angles.dtype), angles.flatten(0, 1)
        with full_precision(x.device):
            if self.options.gradient == "shift":
                z = with_shifts(self.simulator, data, turns)
            else:
                z = self.simulator(data, turns)
        y: Tensor = z.unflatten(0, x.shape[:2]).to(x.dtype)
        return y

    def _begin(self, x: Tensor, state: QFWPState | None, mask: Tensor | None) -> QFWPState:
        if x.dim() != 3 or x.shape[-1] != self.options.dim or not x.is_floating_point():
            raise InvalidInput(
                f"inputs are floating-point numbers (batch, time, {self.options.dim}), got {x.dtype} "
                f"{tuple(x.shape)}"
            )
        if not bool(torch.isfinite(x.detach()).all()):
            bad = (~torch.isfinite(x.detach())).nonzero()[0].tolist()
            raise InvalidInput(f"the input is not finite (first at {bad}); nothing was written")
        if mask is not None and (mask.shape != x.shape[:2] or mask.dtype != torch.bool):
            raise InvalidInput(f"a mask is bool {tuple(x.shape[:2])}, got {mask.dtype} {tuple(mask.shape)}")
        if state is None:
            return self.init_state(x.shape[0])
        self.spec.require(state.spec)
        require_batch(state, x.shape[0])
        first = self.init_state(0).angles
        if state.angles.shape[1:] != first.shape[1:] or state.angles.dtype != first.dtype:
            raise InvalidInput(
                f"the state holds angles {state.angles.dtype} {tuple(state.angles.shape[1:])}, this memory's "
                f"are {first.dtype} {tuple(first.shape[1:])}"
            )
        return state

    def _require_additive(self, what: str) -> None:
        if self.options.mode != "additive":
            raise InvalidInput(
                f"{what} in additive mode alone: here the order of inputs matters ({self.options.mode})"
            )
