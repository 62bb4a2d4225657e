"""The same circuit in PennyLane, to check ours against: `pip install pennylane` (Apache-2.0, some 500 MB)."""

from __future__ import annotations

import torch
from torch import Tensor

from mnemic.cube.checks import require_extra
from mnemic.layers.circuit import Circuit, Simulator, wires


def pennylane_simulator(circuit: Circuit) -> Simulator:
    """A `Simulator` that PennyLane's `default.qubit` runs, row by row, gate by gate. Raises MissingExtra."""
    qml = require_extra("pennylane", extra="pennylane")

    @qml.qnode(qml.device("default.qubit", wires=circuit.qubits), interface="torch")  # type: ignore[untyped-decorator]
    def run(x: Tensor, angles: Tensor) -> list[Tensor]:
        for wire in range(circuit.qubits):
            qml.Hadamard(wire)
        for wire in range(circuit.inputs):
            qml.RY(x[wire], wire)
        for layer in angles:
            for control, target in wires(circuit.qubits, circuit.cyclic):
                qml.CNOT([control, target])
            for wire in range(circuit.qubits):
                qml.RY(layer[wire], wire)
        return [qml.expval(qml.PauliZ(wire)) for wire in range(circuit.outputs)]

    def simulate(x: Tensor, angles: Tensor) -> Tensor:
        return torch.stack([torch.stack(list(run(*row))) for row in zip(x, angles, strict=True)])

    return simulate
