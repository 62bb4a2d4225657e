"""A variational quantum circuit of RY rotations and CNOTs, simulated exactly: all amplitudes are real.

Hadamards on all wires; RY(x_q) on the first wires, one an input; then layers, each an entangler (CNOT 0-1,
2-3, …, then 1-2, 3-4, …) and RY(angle) on every wire. Read: the expectations ⟨Z⟩ of the first wires. Wire 0
is the most significant bit of an amplitude's index. (Chen 2024, arXiv 2402.17760, and its released code.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from mnemic.cube.errors import InvalidInput, InvalidOption

Simulator = Callable[[Tensor, Tensor], Tensor]
"""From x (batch, inputs) and angles (batch, depth, qubits), in radians, to ⟨Z⟩ (batch, outputs)."""


@dataclass(frozen=True, kw_only=True)
class Circuit:
    """A `Simulator`, differentiable by autograd. O(2^qubits · qubits · depth) a row.

    `cyclic` adds a CNOT from the last wire to the first to each entangler. Raises InvalidOption.
    """

    qubits: int
    depth: int
    inputs: int
    outputs: int
    cyclic: bool = False

    def __post_init__(self) -> None:
        for name, value, low in (
            ("qubits", self.qubits, 1),
            ("depth", self.depth, 0),
            ("outputs", self.outputs, 1),
        ):
            if value < low:
                raise InvalidOption(f"{name} must be at least {low}, got {value}")
        for name, value in (("inputs", self.inputs), ("outputs", self.outputs)):
            if value > self.qubits:
                raise InvalidOption(
                    f"{name} = {value} need as many wires: qubits must be at least that, got {self.qubits}"
                )

    def __call__(self, x: Tensor, angles: Tensor) -> Tensor:
        """⟨Z⟩ of the first `outputs` wires, (batch, outputs), each in [-1, 1]."""
        return self.amplitudes(x, angles).square() @ signs(self.qubits).to(angles)[:, : self.outputs]

    def amplitudes(self, x: Tensor, angles: Tensor) -> Tensor:
        """The state vector, (batch, 2^qubits), of norm 1. Raises InvalidInput."""
        self._require(x, angles)
        order = entangler(self.qubits, self.cyclic).to(x.device)
        state = angles.new_full((x.shape[0], 2**self.qubits), 2 ** (-self.qubits / 2))
        for wire in range(self.inputs):
            state = turn(state, x[:, wire].to(angles.dtype), wire)
        for layer in angles.unbind(1):
            state = state[:, order]
            for wire in range(self.qubits):
                state = turn(state, layer[:, wire], wire)
        return state

    def definition(self, x: Tensor, angles: Tensor) -> Tensor:
        """The same by dense matrices, gate by gate, for x (inputs,), angles (depth, qubits): (outputs,).

        O(8^qubits · depth): what `__call__` must equal; for tests and for reading.
        """
        n = self.qubits
        state = torch.zeros(2**n, dtype=angles.dtype)
        state[0] = 1
        hadamard = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=angles.dtype) / math.sqrt(2)
        for wire in range(n):
            state = _on(hadamard, wire, n) @ state
        for wire in range(self.inputs):
            state = _on(_rotation(x[wire]), wire, n) @ state
        for layer in angles:
            for control, target in wires(n, self.cyclic):
                state = _controlled_not(control, target, n).to(angles.dtype) @ state
            for wire in range(n):
                state = _on(_rotation(layer[wire]), wire, n) @ state
        z = torch.tensor([[1.0, 0.0], [0.0, -1.0]], dtype=angles.dtype)
        return torch.stack([state @ _on(z, wire, n) @ state for wire in range(self.outputs)])

    def _require(self, x: Tensor, angles: Tensor) -> None:
        if x.shape != (angles.shape[0], self.inputs) or angles.shape[1:] != (self.depth, self.qubits):
            raise InvalidInput(
                f"this circuit takes x (batch, {self.inputs}) and angles (batch, {self.depth}, "
                f"{self.qubits}), got {tuple(x.shape)} and {tuple(angles.shape)}"
            )


def with_shifts(run: Simulator, x: Tensor, angles: Tensor) -> Tensor:
    """Any simulator with the gradient a device can measure: (f(t + π/2) - f(t - π/2)) / 2 for every angle.

    Exact, not a finite difference, as each angle turns one RY. Backward runs 2 · depth · qubits circuits a
    row, and 2 · inputs more where x wants a gradient.
    """
    z: Tensor = _ParameterShift.apply(x, angles, run)  # type: ignore[no-untyped-call]
    return z


class _ParameterShift(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, angles: Tensor, run: Simulator) -> Tensor:
        ctx.save_for_backward(x, angles)
        ctx.run = run
        with torch.no_grad():
            return run(x, angles)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, None]:
        x, angles = ctx.saved_tensors
        by_x, by_angles = shifted(ctx.run, x, angles, data=ctx.needs_input_grad[0])
        (grad,) = grads
        grad_x = None if by_x is None else torch.einsum("bo,boi->bi", grad, by_x)
        return grad_x, torch.einsum("bo,bodq->bdq", grad, by_angles), None


@torch.no_grad()
def shifted(run: Simulator, x: Tensor, angles: Tensor, *, data: bool = True) -> tuple[Tensor | None, Tensor]:
    """Derivatives of ⟨Z⟩ by the parameter-shift rule, all in one batch of circuits.

    By x (batch, outputs, inputs), None unless `data`; by angles (batch, outputs, depth, qubits).
    """
    batch, inputs = x.shape
    flat = torch.cat([x.to(angles.dtype), angles.flatten(1)], 1)
    shifts = math.pi / 2 * torch.eye(flat.shape[1], dtype=flat.dtype, device=flat.device)
    shifts = shifts if data else shifts[inputs:]
    both = torch.cat([flat.unsqueeze(1) + shifts, flat.unsqueeze(1) - shifts], 1).flatten(0, 1)
    z = run(both[:, :inputs], both[:, inputs:].unflatten(1, angles.shape[1:]))
    ahead, behind = z.unflatten(0, (batch, 2, shifts.shape[0])).unbind(1)
    slope = (ahead - behind).mT / 2  # (batch, outputs, shifted)
    of_x, of_angles = slope.split([inputs if data else 0, angles[0].numel()], -1)
    return of_x.to(x.dtype) if data else None, of_angles.unflatten(-1, angles.shape[1:])


def turn(state: Tensor, angle: Tensor, wire: int) -> Tensor:
    """RY(angle) on one wire: state (batch, 2^qubits), angle (batch,)."""
    half = angle.view(-1, 1, 1) / 2
    cos, sin = half.cos(), half.sin()
    zero, one = state.unflatten(1, (2**wire, 2, -1)).unbind(2)
    return torch.stack([cos * zero - sin * one, sin * zero + cos * one], 2).flatten(1)


def wires(qubits: int, cyclic: bool) -> list[tuple[int, int]]:
    """Control and target of the entangler's CNOTs, in order."""
    pairs = [(wire, wire + 1) for start in (0, 1) for wire in range(start, qubits - 1, 2)]
    return [*pairs, (qubits - 1, 0)] if cyclic and qubits > 1 else pairs


@cache
def entangler(qubits: int, cyclic: bool) -> Tensor:
    """Where each amplitude comes from after all CNOTs, int64 (2^qubits,): they only permute."""
    source = torch.arange(2**qubits)
    for control, target in reversed(wires(qubits, cyclic)):
        on = source >> (qubits - 1 - control) & 1
        source = source ^ (on << (qubits - 1 - target))
    return source


@cache
def signs(qubits: int) -> Tensor:
    """+1 where a wire's bit is 0, -1 where it is 1: float64 (2^qubits, qubits)."""
    bits = torch.arange(2**qubits).unsqueeze(1) >> torch.arange(qubits - 1, -1, -1) & 1
    return 1.0 - 2.0 * bits.double()


def _rotation(angle: Tensor) -> Tensor:
    cos, sin = (angle / 2).cos(), (angle / 2).sin()
    return torch.stack([torch.stack([cos, -sin]), torch.stack([sin, cos])])


def _on(gate: Tensor, wire: int, qubits: int) -> Tensor:
    """The gate on one wire, nothing on the others: (2^qubits, 2^qubits)."""
    left, right = (torch.eye(2**n, dtype=gate.dtype) for n in (wire, qubits - 1 - wire))
    return torch.kron(torch.kron(left, gate.contiguous()), right)


def _controlled_not(control: int, target: int, qubits: int) -> Tensor:
    """|0⟩⟨0| on the control, and |1⟩⟨1| on it with X on the target."""
    zero, one = torch.diag(torch.tensor([1.0, 0.0])), torch.diag(torch.tensor([0.0, 1.0]))
    flip = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    return _on(zero, control, qubits) + _on(one, control, qubits) @ _on(flip, target, qubits)
