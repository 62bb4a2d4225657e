"""The acceptance experiments of QFWP, through the public API: demanded, measured, met."""

from __future__ import annotations

import importlib.util
import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import torch
from torch import Tensor

from mnemic.bench.kept import Record
from mnemic.bench.layers.acceptance import Demand
from mnemic.bench.layers.qfwp_pennylane import pennylane_simulator
from mnemic.bench.layers.qfwp_series import MODELS, SERIES, train
from mnemic.bench.markdown import table
from mnemic.layers.circuit import Circuit, shifted
from mnemic.layers.qfwp import QFWPOptions, QuantumFastWeightMemory

SIZES: Final = tuple(itertools.product(range(1, 5), range(4)))  # qubits, depth
VERDICT: Final = {True: "yes", False: "no", None: "–"}
FAILED: Final = 0.1  # of persistence: above it a run on the pendulum counts as failed


def line(what: str, demanded: str, measured: str, seeds: int, met: bool | None) -> Demand:
    return Demand(method="QFWP", what=what, demanded=demanded, measured=measured, seeds=seeds, met=met)


# 1 and 4: what trains nothing


def untrained() -> list[Demand]:
    """Simulator, gradients and order, seconds; PennyLane where it is installed."""
    lines = [
        _bound("1 ⟨Z⟩ against dense matrices, 1-4 qubits, depth 0-3", against_matrices(), 1e-10),
        _bound("1 norm of the state", norms(), 1e-12),
        _bound("1 autograd against the parameter-shift rule, angles and data", against_shifts(), 1e-8),
    ]
    if importlib.util.find_spec("pennylane"):
        values, slopes = against_pennylane()
        lines.append(_bound("1 ⟨Z⟩ against PennyLane, 8 qubits, depth 2", values, 1e-6))
        lines.append(_bound("1 gradients against PennyLane", slopes, 1e-6))
    else:
        lines.append(line("1 ⟨Z⟩ against PennyLane", "≤ 1e-06", "not installed", 0, None))
    for mode in ("additive", "gated"):
        past, present = permuted(mode)
        if mode == "additive":
            lines.append(_bound("4 additive, two past inputs swapped", past, 1e-12))
        else:
            lines.append(_above("4 gated, two past inputs swapped", past, 1e-4))
        lines.append(_above(f"4 {mode}, the last input swapped with a past one", present, 1e-4))
    lines.append(_bound("forget an input = it never came", taken_out(), 1e-12))
    lines.append(_bound("merge two streams = one after the other", merged(), 1e-12))
    lines.append(_bound("angles wrapped to (-π, π]: ⟨Z⟩", wrapped(), 1e-9))
    return lines


def against_matrices() -> float:
    worst = 0.0
    for circuit, x, angles in _draws():
        rows = [circuit.definition(*row) for row in zip(x, angles, strict=True)]
        worst = max(worst, _apart(circuit(x, angles), torch.stack(rows)))
    return worst


def norms() -> float:
    return max(float((c.amplitudes(x, angles).norm(dim=1) - 1).abs().max()) for c, x, angles in _draws())


def against_shifts() -> float:
    worst = 0.0
    for circuit, x, angles in _draws():
        by_x, by_angles = shifted(circuit, x, angles)
        assert by_x is not None  # noqa: S101  data is asked for
        x, angles = x.requires_grad_(), angles.requires_grad_()
        for output in range(circuit.outputs):
            z = circuit(x, angles)[:, output].sum()
            grads = torch.autograd.grad(z, (x, angles), materialize_grads=True, allow_unused=True)
            for found, expected in zip(grads, (by_x[:, output], by_angles[:, output]), strict=True):
                worst = max(worst, _apart(found, expected)) if found.numel() else worst
    return worst


def against_pennylane() -> tuple[float, float]:
    """The largest difference of ⟨Z⟩ and of its derivatives."""
    circuit = Circuit(qubits=8, depth=2, inputs=1, outputs=4)
    theirs = pennylane_simulator(circuit)
    x, angles = (t.requires_grad_() for t in _draw(circuit))
    ours, other = circuit(x, angles), theirs(x, angles)
    pairs = zip(
        torch.autograd.grad(ours.sum(), (x, angles)),
        torch.autograd.grad(other.sum(), (x, angles)),
        strict=True,
    )
    return _apart(ours, other), max(_apart(a, b) for a, b in pairs)


def permuted(mode: str) -> tuple[float, float]:
    """How far the output moves when two past inputs change places, and the last with a past one."""
    memory, x = _memory(mode)

    def apart(order: list[int]) -> float:
        with torch.no_grad():
            return _apart(memory(x, last=True)[0], memory(x[:, order], last=True)[0])

    return apart([2, 1, 0, 3, 4]), apart([0, 1, 4, 3, 2])


def taken_out() -> float:
    memory, x = _memory("additive")
    with torch.no_grad():
        found = memory.forget(memory.write(memory.init_state(3), x), x[:, 1:2])
        expected = memory.write(memory.init_state(3), x[:, [0, 2, 3, 4]])
        return _apart(memory.read(found, x), memory.read(expected, x))


def merged() -> float:
    memory, x = _memory("additive")
    with torch.no_grad():
        first, second = (memory.write(memory.init_state(3), part) for part in (x[:, :3], x[:, 3:]))
        whole = memory.write(memory.init_state(3), x)
        return _apart(memory.merge(second, first).angles, whole.angles)


def wrapped() -> float:
    memory, x = _memory("additive")
    with torch.no_grad():
        state = memory.write(memory.init_state(3), x.repeat(1, 100, 1))
        return _apart(memory.read(state, x), memory.read(state.wrapped(), x))


def _draws() -> list[tuple[Circuit, Tensor, Tensor]]:
    circuits = [Circuit(qubits=n, depth=depth, inputs=n, outputs=n) for n, depth in SIZES]
    return [(circuit, *_draw(circuit)) for circuit in circuits]


def _draw(circuit: Circuit, rows: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = 4 * torch.randn(rows, circuit.inputs, generator=generator, dtype=torch.float64)
    return x, 4 * torch.randn(rows, circuit.depth, circuit.qubits, generator=generator, dtype=torch.float64)


def _memory(mode: str) -> tuple[QuantumFastWeightMemory, Tensor]:
    torch.manual_seed(0)
    memory = QuantumFastWeightMemory(QFWPOptions.read({"dim": 1, "mode": mode})).double()
    return memory, torch.randn(3, 5, 1, dtype=torch.float64)


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max())


def _bound(what: str, found: float, limit: float) -> Demand:
    return line(what, f"≤ {limit:.0e}", f"{found:.1e}", 1, found <= limit)


def _above(what: str, found: float, limit: float) -> Demand:
    return line(what, f"> {limit:.0e}", f"{found:.1e}", 1, found > limit)


# 2 and 3: what is trained


def runs(series: Sequence[str], seeds: int | None, epochs: int | None) -> dict[str, Callable[[], Record]]:
    """Seed by seed. `seeds` and `epochs` default to each series' own."""
    planned: dict[str, Callable[[], Record]] = {}
    for seed in range(seeds or max(SERIES[name].seeds for name in series) if series else 0):
        for name in series:
            if seed < (seeds or SERIES[name].seeds):
                length = epochs or SERIES[name].epochs
                for model in MODELS:
                    planned[f"{name}/{model}/{length}/{seed}"] = partial(train, name, model, length, seed)
    return planned


def trained(records: Mapping[str, Record]) -> list[Demand]:
    """The demands on what was trained, by the runs there are."""
    lines = []
    added, alone = _errors(records, "mean", "additive"), _errors(records, "mean", "overwrite")
    if added and alone:
        ratio = statistics.median(alone) / statistics.median(added)
        said = f"{ratio:.0f} ({_said(added)} against {_said(alone)})"
        what = "2 mean of four: overwrite's error over additive's, medians"
        met = ratio >= 10 if len(added) >= 3 else None  # demanded of three seeds
        lines.append(line(what, "≥ 10, 3 seeds", said, len(added), met))
    if waves := _errors(records, "pendulum", "additive"):
        last = next(r["persistence_mse"] for r in records.values() if r["series"] == "pendulum")
        lines.append(
            line(
                "3 pendulum, additive, best seed against a tenth of persistence",
                f"< {FAILED * last:.1e}",
                f"{min(waves):.1e}",
                len(waves),
                min(waves) < FAILED * last,
            )
        )
        failed = sum(one >= FAILED * last for one in waves)
        said = f"median {statistics.median(waves):.1e}, {failed} of {len(waves)} seeds failed"
        lines.append(line("3 pendulum, additive, median and failed seeds", "report", said, len(waves), None))
    for name in ("weighted", "three-ago"):
        found = {model: _errors(records, name, model) for model in MODELS}
        if all(found.values()):
            said = ", ".join(f"{model} {statistics.median(errors):.1e}" for model, errors in found.items())
            lines.append(line(f"order: {name}, medians", "report", said, len(found["LSTM"]), None))
    return lines


def _errors(records: Mapping[str, Record], series: str, model: str) -> list[float]:
    return [r["test_mse"] for r in records.values() if (r["series"], r["model"]) == (series, model)]


def _said(errors: Sequence[float]) -> str:
    return f"{statistics.median(errors):.1e} [{min(errors):.1e}, {max(errors):.1e}]"


def series_table(records: Mapping[str, Record]) -> str:
    """Test error by series and model, beside what costs nothing."""
    heads = [
        "series", "model", "test MSE, median [least, most]", "train MSE", "says the last value", "variance",
        "seeds", "epochs", "parameters", "CPU s",
    ]  # fmt: skip
    rows = []
    for name, model in itertools.product(SERIES, MODELS):
        mine = [r for r in records.values() if (r["series"], r["model"]) == (name, model)]
        if mine:
            rows.append([
                name, model, _said([r["test_mse"] for r in mine]),
                f"{statistics.median(r['train_mse'] for r in mine):.1e}",
                f"{statistics.median(r['persistence_mse'] for r in mine):.1e}",
                f"{statistics.median(r['variance'] for r in mine):.1e}", str(len(mine)),
                " ".join(sorted({str(r["epochs"]) for r in mine})), str(mine[0]["parameters"]),
                f"{statistics.mean(r['cpu_s'] for r in mine):.0f}",
            ])  # fmt: skip
    return table(heads, rows)


def qfwp_markdown(lines: Sequence[Demand], records: Mapping[str, Record], command: str) -> str:
    heads = ["experiment", "demanded", "measured", "seeds", "met"]
    rows = [[one.what, one.demanded, one.measured, str(one.seeds), VERDICT[one.met]] for one in lines]
    parts = [
        "# QFWP: acceptance",
        f"`{command}`. `–`: reported, or too few seeds to say.",
        table(heads, rows),
    ]
    if records:
        about = [[name, one.about] for name, one in SERIES.items()]
        parts += [
            "## Series",
            "Windows of 4, RMSprop 0.01, batches of 10 in order, float64, 67 % trained on; 8 qubits, "
            "depth 2, 4 outputs; `overwrite` carries nothing, the LSTM has 5 units.",
            table(["series", "what is to be said"], about),
            series_table(records),
        ]
    return "\n\n".join(parts) + "\n"
