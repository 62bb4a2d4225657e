"""Fast weights that program a circuit: forms, order, merging, forgetting, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mnemic.cube.errors import IncompatibleMemory, InvalidInput, InvalidOption
from mnemic.layers.layer import Forgettable, Mergeable, Writable
from mnemic.layers.qfwp import QFWPOptions, QFWPState, QuantumFastWeightMemory

MODES = ["additive", "overwrite", "gated"]
every = pytest.mark.parametrize("mode", MODES)


def memory(mode: str = "additive", **options: Any) -> QuantumFastWeightMemory:
    torch.manual_seed(0)
    wanted: dict[str, Any] = {"dim": 2, "qubits": 4, "depth": 2, "outputs": 3, "mode": mode, **options}
    return QuantumFastWeightMemory(QFWPOptions(**wanted)).double()


def stream(time: int = 9, *, batch: int = 3, seed: int = 1) -> Tensor:
    return torch.randn(batch, time, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@every
def test_forward_equals_the_definition_the_steps_and_any_split(mode: str) -> None:
    made, x = memory(mode), stream()
    for begun in (None, made.write(made.init_state(3), stream(seed=4))):
        y, after = made(x, begun)
        expected, there = made.reference(x, begun)
        torch.testing.assert_close(y, expected, atol=1e-10, rtol=0)
        torch.testing.assert_close(after.angles, there.angles, atol=1e-12, rtol=0)
        assert after.seen.tolist() == there.seen.tolist()
        state = begun or made.init_state(3)
        for size in (1, 2, 5):
            parts, going = [], state
            for part in x.split(size, 1):
                out, going = made(part, going)
                parts.append(out)
            torch.testing.assert_close(torch.cat(parts, 1), y, atol=1e-10, rtol=0)
            torch.testing.assert_close(going.angles, after.angles, atol=1e-12, rtol=0)
        last, same = made(x, begun, last=True)
        torch.testing.assert_close(last, y[:, -1:], atol=1e-12, rtol=0)
        assert torch.equal(same.angles, after.angles)
        stepped, going = made.step(x[:, 0], state)
        torch.testing.assert_close(stepped, y[:, 0], atol=1e-12, rtol=0)
        torch.testing.assert_close(made.read(going, x[:, :1])[:, 0], y[:, 0], atol=1e-12, rtol=0)
        torch.testing.assert_close(made.write(state, x).angles, after.angles, atol=1e-12, rtol=0)


@every
@pytest.mark.parametrize("gradient", ["autograd", "shift"])
def test_every_parameter_is_trained_the_same_by_either_gradient(mode: str, gradient: str) -> None:
    made, exact = memory(mode, gradient=gradient), memory(mode)
    for one in (made, exact):
        one(stream())[0].square().sum().backward()
    for (name, found), expected in zip(made.named_parameters(), exact.parameters(), strict=True):
        assert found.grad is not None
        assert expected.grad is not None
        assert float(found.grad.abs().max()) > 1e-6, name
        torch.testing.assert_close(found.grad, expected.grad, atol=1e-9, rtol=1e-9)


@every
def test_only_the_gate_knows_the_order_of_what_is_past(mode: str) -> None:
    made, x = memory(mode), stream(5)
    past, present = x[:, [1, 0, 2, 3, 4]], x[:, [0, 1, 2, 4, 3]]

    def apart(other: Tensor) -> float:
        return float((made(x, last=True)[0] - made(other, last=True)[0]).detach().abs().max())

    assert apart(present) > 1e-4
    if mode == "gated":
        assert apart(past) > 1e-4
    else:
        assert apart(past) < 1e-12


def test_states_of_two_streams_add_up() -> None:
    made = memory()
    a, b = (made.write(made.init_state(3), stream(seed=seed)) for seed in (2, 3))
    both = made.write(a, stream(seed=3))
    for merged in (made.merge(a, b), made.merge(b, a)):
        torch.testing.assert_close(merged.angles, both.angles, atol=1e-12, rtol=0)
        assert merged.seen.tolist() == [18] * 3
    assert isinstance(made, Mergeable)
    assert isinstance(made, Forgettable)
    assert isinstance(made, Writable)


def test_an_input_is_taken_out_wherever_it_stood() -> None:
    made, x = memory(), stream()
    state = made.write(made.init_state(3), x)
    for gone in ([0], [4], [8], [1, 3, 8]):
        left = [t for t in range(9) if t not in gone]
        expected = made.write(made.init_state(3), x[:, left])
        found = made.forget(state, x[:, gone])
        torch.testing.assert_close(found.angles, expected.angles, atol=1e-12, rtol=0)
        torch.testing.assert_close(made.read(found, x), made.read(expected, x), atol=1e-12, rtol=0)
        assert found.seen.tolist() == expected.seen.tolist()
    empty = made.forget(state, x)
    torch.testing.assert_close(empty.angles, made.init_state(3).angles, atol=1e-12, rtol=0)
    with pytest.raises(InvalidInput, match="has seen 9 only"):
        made.forget(state, stream(10))


@pytest.mark.parametrize("mode", ["overwrite", "gated"])
def test_where_order_matters_nothing_merges_and_nothing_is_taken_out(mode: str) -> None:
    made = memory(mode)
    state = made.init_state(3)
    with pytest.raises(InvalidInput, match="additive"):
        made.merge(state, state)
    with pytest.raises(InvalidInput, match="additive"):
        made.forget(state, stream(1))


@every
def test_padding_writes_nothing(mode: str) -> None:
    made, x = memory(mode), stream()
    mask = torch.rand(3, 9, generator=torch.Generator().manual_seed(3)) > 0.4
    mask[1] = False
    begun = made.write(made.init_state(3), stream(3, seed=5))
    y, after = made(x, begun, mask=mask)
    assert bool((y[~mask] == 0).all())
    assert torch.equal(after.angles[1], begun.angles[1])
    for row in (0, 2):
        alone, state = made(x[row : row + 1, mask[row]], begun.select(torch.tensor([row])))
        torch.testing.assert_close(y[row, mask[row]], alone[0], atol=1e-12, rtol=0)
        torch.testing.assert_close(after.angles[row], state.angles[0], atol=1e-12, rtol=0)
        assert int(after.seen[row]) == int(state.seen[0]) == 3 + int(mask[row].sum())


def test_additive_angles_grow_and_can_be_wrapped_while_the_gate_bounds_them() -> None:
    x = stream(400)
    made = memory()
    state = made.write(made.init_state(3), x).detach()
    assert bool((state.norm() > 2 * math.pi).all())
    small = state.wrapped()
    assert float(small.angles.abs().max()) <= math.pi
    torch.testing.assert_close(made.read(small, x[:, :4]), made.read(state, x[:, :4]), atol=1e-9, rtol=0)
    more, wrapped = made.write(state, stream(5, seed=8)), made.write(small, stream(5, seed=8))
    torch.testing.assert_close(made.read(wrapped, x[:, :4]), made.read(more, x[:, :4]), atol=1e-9, rtol=0)
    gated = memory("gated")
    one_by_one = [memory().write(memory().init_state(3), part).angles for part in x.split(1, 1)]
    largest = 2 * max(
        float(change.detach().abs().max()) for change in one_by_one
    )  # the same maps as additive
    assert float(gated.write(gated.init_state(3), x).detach().angles.abs().max()) <= largest + 1e-9


@every
def test_a_state_is_saved_and_goes_on(mode: str, tmp_path: Path) -> None:
    made, x = memory(mode), stream()
    state = made.write(made.init_state(3), x)
    state.save(tmp_path / "state")
    loaded = QFWPState.load(tmp_path / "state")
    assert torch.equal(loaded.angles, state.angles)
    assert torch.equal(made(x, loaded)[0], made(x, state)[0])
    assert state.size_bytes() == made.options.state_bytes(9, batch=3, element_bytes=8)
    assert (tmp_path / "state").stat().st_size < 2_000
    other = memory(mode, outputs=2)
    for use in (lambda: other(x, loaded), lambda: other.read(loaded, x), lambda: other.write(loaded, x)):
        with pytest.raises(IncompatibleMemory, match="outputs is 2, the state's is 3"):
            use()


def test_the_released_sizes_have_the_released_number_of_parameters() -> None:
    made = QuantumFastWeightMemory(QFWPOptions(dim=1))
    assert sum(p.numel() for p in made.parameters()) + 4 + 1 == 111
    assert made.options.state_bytes(10**6) == 16 * 4 + 4
    assert made.options.evaluations(7) == 7
    assert made.options.evaluations(7, gradients=True) == 7 * (1 + 2 * 16)


def test_half_precision_layers_keep_float32_angles() -> None:
    made = memory().to(torch.bfloat16)
    y, state = made(stream().to(torch.bfloat16))
    assert y.dtype == torch.bfloat16
    assert state.angles.dtype == torch.float32
    plain = memory().float()
    with torch.inference_mode():
        found, _ = plain(stream().float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near, kept = plain(stream().float())
    assert kept.angles.dtype == torch.float32
    torch.testing.assert_close(near.float(), found, atol=0.15, rtol=0)


@pytest.mark.parametrize(
    "wrong",
    [{"qubits": 21}, {"qubits": 1}, {"outputs": 5}, {"depth": 0}, {"mode": "other"}, {"gradient": "guess"}],
    ids=str,
)
def test_wrong_options_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(wrong))):
        memory(**wrong)
    QFWPOptions(dim=2, qubits=21, many_qubits=True)


def test_bad_input_is_refused_before_anything_is_written() -> None:
    made, x = memory(), stream()
    state = made.init_state(3)
    bad = x.clone()
    bad[1, 3, 0] = torch.inf
    with pytest.raises(InvalidInput, match=r"\[1, 3, 0\]"):
        made(bad, state)
    for wrong in (x[..., :1], x[0], x.long(), x[:2]):
        for use in (
            made.forward,
            lambda x, state: made.read(state, x),
            lambda x, state: made.write(state, x),
        ):
            with pytest.raises(InvalidInput):
                use(wrong, state)
    with pytest.raises(InvalidInput, match="nothing to read"):
        made(x[:, :0], state)
    assert made.write(state, x[:, :0]) is state
    for angles in (state.angles[..., :2], state.angles.float()):
        with pytest.raises(InvalidInput, match="angles"):
            made(x, replace(state, angles=angles))
    with pytest.raises(InvalidInput, match="mask"):
        made(x, state, mask=torch.ones(3, 8, dtype=torch.bool))
