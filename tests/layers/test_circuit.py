"""The simulator against matrices built here, against PennyLane, and what must hold for any circuit."""

from __future__ import annotations

import importlib.util
import math

import pytest
import torch
from torch import Tensor

from mnemic.bench.layers.qfwp_pennylane import pennylane_simulator
from mnemic.cube.errors import InvalidInput, InvalidOption
from mnemic.layers.circuit import Circuit, entangler, shifted, turn, wires, with_shifts

SIZES = [(n, depth) for n in range(1, 5) for depth in range(4)]


def draw(circuit: Circuit, rows: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = 4 * torch.randn(rows, circuit.inputs, generator=generator, dtype=torch.float64)
    return x, 4 * torch.randn(rows, circuit.depth, circuit.qubits, generator=generator, dtype=torch.float64)


def by_matrices(circuit: Circuit, x: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
    """⟨Z⟩ and amplitudes of one row: every gate a 2^n matrix, filled by what it does to bits."""
    n = circuit.qubits

    def bits(index: int) -> list[int]:
        return [index >> (n - 1 - wire) & 1 for wire in range(n)]

    def one(gate: list[list[float]], wire: int) -> Tensor:
        full = torch.zeros(2**n, 2**n, dtype=torch.float64)
        for column in range(2**n):
            for to in (0, 1):
                row = column & ~(1 << (n - 1 - wire)) | to << (n - 1 - wire)
                full[row, column] = gate[to][bits(column)[wire]]
        return full

    def cnot(control: int, target: int) -> Tensor:
        full = torch.zeros(2**n, 2**n, dtype=torch.float64)
        for column in range(2**n):
            full[column ^ (bits(column)[control] << (n - 1 - target)), column] = 1
        return full

    def ry(angle: float) -> list[list[float]]:
        c, s = math.cos(angle / 2), math.sin(angle / 2)
        return [[c, -s], [s, c]]

    state = torch.zeros(2**n, dtype=torch.float64)
    state[0] = 1
    h = 1 / math.sqrt(2)
    for wire in range(n):
        state = one([[h, h], [h, -h]], wire) @ state
    for wire in range(circuit.inputs):
        state = one(ry(float(x[wire])), wire) @ state
    for layer in angles:
        for control in range(0, n - 1, 2):
            state = cnot(control, control + 1) @ state
        for control in range(1, n - 1, 2):
            state = cnot(control, control + 1) @ state
        if circuit.cyclic and n > 1:
            state = cnot(n - 1, 0) @ state
        for wire in range(n):
            state = one(ry(float(layer[wire])), wire) @ state
    sign = torch.tensor([[1 - 2 * b for b in bits(i)] for i in range(2**n)], dtype=torch.float64)
    return (state.square() @ sign)[: circuit.outputs], state


@pytest.mark.parametrize(("qubits", "depth"), SIZES)
@pytest.mark.parametrize("cyclic", [False, True])
def test_it_equals_dense_matrices(qubits: int, depth: int, cyclic: bool) -> None:
    for inputs in range(1, qubits + 1):
        circuit = Circuit(qubits=qubits, depth=depth, inputs=inputs, outputs=qubits, cyclic=cyclic)
        x, angles = draw(circuit)
        z, amplitudes = circuit(x, angles), circuit.amplitudes(x, angles)
        torch.testing.assert_close(amplitudes.norm(dim=1), torch.ones(3).double(), atol=1e-12, rtol=0)
        assert bool((z.abs() <= 1 + 1e-12).all())
        for row in range(3):
            expected, vector = by_matrices(circuit, x[row], angles[row])
            torch.testing.assert_close(z[row], expected, atol=1e-10, rtol=0)
            torch.testing.assert_close(amplitudes[row], vector, atol=1e-10, rtol=0)
            torch.testing.assert_close(circuit.definition(x[row], angles[row]), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize(("qubits", "depth"), SIZES)
def test_the_shift_rule_is_the_gradient(qubits: int, depth: int) -> None:
    circuit = Circuit(qubits=qubits, depth=depth, inputs=qubits, outputs=qubits)
    x, angles = (t.requires_grad_() for t in draw(circuit))
    by_x, by_angles = shifted(circuit, x, angles)
    assert by_x is not None
    for output in range(qubits):
        grads = torch.autograd.grad(circuit(x, angles)[:, output].sum(), (x, angles), allow_unused=True)
        for found, expected in zip((by_x[:, output], by_angles[:, output]), grads, strict=True):
            wanted = torch.zeros_like(found) if expected is None else expected
            torch.testing.assert_close(found, wanted, atol=1e-8, rtol=0)


def test_training_by_the_shift_rule_is_training_by_autograd() -> None:
    circuit = Circuit(qubits=4, depth=2, inputs=2, outputs=3)
    weights = torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    grads, ran = [], []

    def counted(x: Tensor, angles: Tensor) -> Tensor:
        ran.append(x.shape[0])
        assert not torch.is_grad_enabled()
        return circuit(x, angles)

    for shift in (False, True):
        x, angles = (t.requires_grad_() for t in draw(circuit))
        z = with_shifts(counted, x, angles) if shift else circuit(x, angles)
        (z * weights).square().sum().backward()
        grads.append((x.grad, angles.grad))
    for found, expected in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    assert ran == [3, 3 * 2 * (2 + 2 * 4)]
    x, angles = draw(circuit)
    with_shifts(counted, x, angles.requires_grad_()).sum().backward()
    assert ran[2:] == [3, 3 * 2 * 2 * 4]  # data that wants no gradient costs none


@pytest.mark.skipif(importlib.util.find_spec("pennylane") is None, reason="pip install pennylane")
@pytest.mark.parametrize(
    ("qubits", "depth", "cyclic"), [(1, 1, False), (3, 2, True), (4, 3, False), (8, 2, False)]
)
def test_it_equals_pennylane(qubits: int, depth: int, cyclic: bool) -> None:
    circuit = Circuit(qubits=qubits, depth=depth, inputs=min(2, qubits), outputs=qubits, cyclic=cyclic)
    theirs = pennylane_simulator(circuit)
    x, angles = (t.requires_grad_() for t in draw(circuit, rows=2))
    torch.testing.assert_close(circuit(x, angles), theirs(x, angles), atol=1e-10, rtol=0)
    ours = torch.autograd.grad(circuit(x, angles).sum(), (x, angles))
    for found, expected in zip(ours, torch.autograd.grad(theirs(x, angles).sum(), (x, angles)), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-8, rtol=0)


def test_one_flipped_wire_is_seen_on_that_wire_alone() -> None:
    """A turn by π/2 from the equal mixture puts a wire in |1⟩: the ends of the index cannot be mixed up."""
    circuit = Circuit(qubits=4, depth=1, inputs=4, outputs=4)
    flat = torch.zeros(1, 1, 4, dtype=torch.float64)
    for wire in range(4):
        x = torch.full((1, 4), -math.pi / 2, dtype=torch.float64)  # |0⟩ everywhere
        x[0, wire] = math.pi / 2
        before = Circuit(qubits=4, depth=0, inputs=4, outputs=4)(x, flat[:, :0])
        assert before.round().int().tolist() == [[1 - 2 * (w == wire) for w in range(4)]]
        after = [int(z) for z in circuit(x, flat).round()[0]]  # and the CNOTs carry it on, in their order
        expected = [int(w == wire) for w in range(4)]
        for control, target in wires(4, False):
            expected[target] ^= expected[control]
        assert after == [1 - 2 * bit for bit in expected]


def test_a_whole_turn_flips_the_sign_of_the_state_and_nothing_that_is_read() -> None:
    circuit = Circuit(qubits=3, depth=2, inputs=1, outputs=3)
    x, angles = draw(circuit)
    turned = angles.clone()
    turned[:, 1, 2] += 2 * math.pi
    torch.testing.assert_close(circuit.amplitudes(x, turned), -circuit.amplitudes(x, angles))
    torch.testing.assert_close(circuit(x, turned), circuit(x, angles))


def test_the_entangler_only_moves_amplitudes() -> None:
    assert entangler(1, True).tolist() == [0, 1]
    assert entangler(2, False).tolist() == [0, 1, 3, 2]
    assert sorted(entangler(5, True).tolist()) == list(range(32))
    assert wires(5, False) == [(0, 1), (2, 3), (1, 2), (3, 4)]
    state = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        turn(turn(state, torch.tensor([0.3, 2]), 1), torch.tensor([-0.3, -2]), 1), state
    )


def test_what_cannot_be_is_refused() -> None:
    for wrong in ({"qubits": 0}, {"inputs": 4}, {"outputs": 4}, {"outputs": 0}, {"depth": -1}):
        with pytest.raises(InvalidOption, match=next(iter(wrong))):
            Circuit(**{"qubits": 3, "depth": 1, "inputs": 1, "outputs": 1, **wrong})
    circuit = Circuit(qubits=3, depth=1, inputs=1, outputs=1)
    x, angles = draw(circuit)
    for args in ((x, angles[:, :, :2]), (x[:2], angles), (torch.cat([x, x], 1), angles)):
        with pytest.raises(InvalidInput, match="takes"):
            circuit(*args)
