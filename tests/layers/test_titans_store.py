"""Titans' memory as a store without training: binding, forgetting, surprise, and the guard."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mnemic.cube.errors import IncompatibleMemory, InvalidInput, InvalidOption, MemoryDivergedError
from mnemic.layers.titans_state import WeightState
from mnemic.layers.titans_store import AssociativeMemory, StoreOptions

DIM = 32


def pairs(number: int, seed: int, *, batch: int = 1, correlation: float = 0.0) -> tuple[Tensor, Tensor]:
    """Unit keys and values; keys share a direction as far as `correlation` says."""
    generator = torch.Generator().manual_seed(seed)
    noise, values = (
        normalize(torch.randn(batch, number, DIM, generator=generator), dim=-1) for _ in range(2)
    )
    common = normalize(torch.randn(batch, 1, DIM, generator=generator), dim=-1)
    return normalize(correlation**0.5 * common + (1 - correlation) ** 0.5 * noise, dim=-1), values


def memory(**options: Any) -> AssociativeMemory:
    return AssociativeMemory(StoreOptions(dim=DIM, **options))


def error(found: Tensor, values: Tensor) -> float:
    return float((found - values).square().sum(-1).mean())


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_chunks_of_one_are_gradient_descent_by_autograd(depth: int) -> None:
    made = memory(depth=depth, step=0.1, momentum=0.3, decay=0.05, hidden=24).double()
    keys, values = (x.double() for x in pairs(12, 0))
    found = made.write(made.init_state(), keys, values)
    row = made.initial.clone()
    surprise = torch.zeros_like(row)
    for k, v in zip(keys[0], values[0], strict=True):
        weights = row.clone().requires_grad_()
        layers = [
            part.view(shape)
            for part, shape in zip(
                weights[0].split([a * b for a, b in made.options.shapes]), made.options.shapes, strict=True
            )
        ]
        out = k
        for number, layer in enumerate(layers):
            out = out @ layer if number == 0 else torch.nn.functional.silu(out) @ layer
        (gradient,) = torch.autograd.grad((out - v).square().sum(), weights)
        surprise = 0.3 * surprise - 0.1 * gradient
        row = made.initial + 0.95 * (row - made.initial) + surprise
    torch.testing.assert_close(found.weights[0], row, atol=1e-13, rtol=0)
    torch.testing.assert_close(found.surprise[0], surprise, atol=1e-13, rtol=0)


def test_any_split_gives_the_same_state() -> None:
    made = memory(depth=2, chunk=8, step=0.05, momentum=0.5, decay=0.01).double()
    keys, values = (x.double() for x in pairs(41, 1, batch=2))
    whole = made.write(made.init_state(2), keys, values)
    for size in (1, 3, 7, 8, 9, 40):
        state = made.init_state(2)
        for start in range(0, 41, size):
            state = made.write(state, keys[:, start : start + size], values[:, start : start + size])
        for name, tensor in state.tensors().items():
            torch.testing.assert_close(tensor, whole.tensors()[name], atol=1e-12, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_a_key_bound_anew_says_the_new_value(seed: int) -> None:
    """Re-binding: 24 keys, each bound twice. A Hebbian sum still says both."""
    keys, old = pairs(24, seed)
    _, new = pairs(24, seed + 100)
    made = memory(step=0.5)
    state = made.write(made.write(made.init_state(), keys, old), keys, new)
    hebbian = keys.mT @ (old + new)
    assert error(made.read(state, keys), new) <= 0.4 * error(keys @ hebbian, new)


def test_correlated_keys_are_told_apart() -> None:
    ours, hebbian = 0.0, 0.0
    for seed in range(5):
        keys, values = pairs(24, seed, correlation=0.5)
        made = memory(step=0.5)
        ours += error(made.read(made.write(made.init_state(), keys, values), keys), values)
        hebbian += error(keys @ (keys.mT @ values), values)
    assert hebbian >= 4 * ours


def test_surprise_is_what_it_did_not_expect_and_is_not_written() -> None:
    keys, values = pairs(6, 0)
    made = memory(step=0.5)
    empty = made.init_state()
    before = made.surprise(empty, keys, values)
    torch.testing.assert_close(before.loss, torch.ones(1, 6))  # an empty memory says 0 to unit values
    torch.testing.assert_close(before.gradient, torch.full((1, 6), 2.0))  # |2 kᵀ(kW - v)|
    state = made.write(empty, keys, values)
    known, news = made.surprise(state, keys, values), made.surprise(state, *pairs(6, 9))
    assert float(known.loss.max()) < float(news.loss.min())
    assert torch.equal(empty.weights, torch.zeros_like(empty.weights))
    assert torch.equal(made.surprise(state, keys, values).loss, known.loss)


def test_what_is_forgotten_is_gone_in_part_or_whole() -> None:
    keys, values = pairs(6, 0)
    made = memory(step=0.5, momentum=0.5, chunk=2)
    state = made.write(made.init_state(), keys, values)
    said = made.read(state, keys)
    torch.testing.assert_close(made.read(made.forget(state, 0.25), keys), 0.75 * said)
    assert float(made.forget(state, 1).weights.abs().max()) == 0
    torch.testing.assert_close(made.read(state, keys), said)  # and the state itself is as it was
    assert float(state.distance(made.forget(state, 0)).max()) == 0
    for part in (-0.1, 1.5, float("nan"), True, "all"):
        with pytest.raises(InvalidInput, match="part"):
            made.forget(state, part)  # type: ignore[arg-type]


def test_divergence_is_an_error_that_carries_the_last_state_that_was_well() -> None:
    keys, values = pairs(64, 0)
    made = memory(depth=2, hidden=256, step=0.5, momentum=0.9, seed=0)
    start = made.init_state()
    with pytest.raises(MemoryDivergedError, match="64 pairs") as raised:
        made.write(start, keys, values)
    assert 0 < raised.value.tokens < 64
    good = raised.value.state
    assert int(good.seen) == raised.value.tokens
    assert bool(torch.isfinite(good.weights).all())
    again = made.write(start, keys[:, : raised.value.tokens], values[:, : raised.value.tokens])
    assert torch.equal(again.weights, good.weights)
    with pytest.raises(MemoryDivergedError):
        made.write(good, keys[:, raised.value.tokens :], values[:, raised.value.tokens :])
    assert int(start.seen) == 0


def test_without_a_limit_that_memory_would_be_nan_and_clipped_it_stays_finite() -> None:
    keys, values = pairs(64, 0)
    wild = memory(depth=2, hidden=256, step=0.5, momentum=0.9, limit=1e38)
    with pytest.raises(MemoryDivergedError, match=r"nan|inf"):
        wild.write(wild.init_state(), keys.repeat(1, 8, 1), values.repeat(1, 8, 1))
    calm = memory(depth=2, hidden=256, step=0.5, momentum=0.9, clip=0.1, decay=0.05)
    state = calm.write(calm.init_state(), keys.repeat(1, 8, 1), values.repeat(1, 8, 1))
    assert bool(torch.isfinite(state.weights).all())


def test_a_store_goes_on_in_another_process(tmp_path: Path) -> None:
    made = memory(depth=2, chunk=8, step=0.05, momentum=0.5)
    keys, values = pairs(30, 1)
    made.write(made.init_state(), keys[:, :11], values[:, :11]).save(tmp_path / "state.safetensors")
    torch.save({"keys": keys, "values": values}, tmp_path / "rest.pt")
    code = f"""
import torch
from mnemic.layers.titans_state import WeightState
from mnemic.layers.titans_store import AssociativeMemory, StoreOptions
made = AssociativeMemory(StoreOptions(dim={DIM}, depth=2, chunk=8, step=0.05, momentum=0.5))
rest = torch.load({str(tmp_path / "rest.pt")!r})
state = WeightState.load({str(tmp_path / "state.safetensors")!r})
made.write(state, rest["keys"][:, 11:], rest["values"][:, 11:]).save({str(tmp_path / "after")!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    expected = made.write(made.init_state(), keys, values)
    torch.testing.assert_close(
        WeightState.load(tmp_path / "after").weights, expected.weights, atol=1e-6, rtol=0
    )


def test_the_state_does_not_grow() -> None:
    made = memory(depth=2, chunk=16, step=0.02, momentum=0.1)
    for number in (1, 100):
        state = made.write(made.init_state(3), *pairs(number, 0, batch=3))
        assert state.size_bytes() == made.options.state_bytes(number, batch=3)


def test_states_of_another_configuration_are_refused() -> None:
    state = memory(chunk=8).init_state()
    for other in ({"chunk": 4}, {"step": 0.1}, {"momentum": 0.5}, {"depth": 2}):
        with pytest.raises(IncompatibleMemory, match=next(iter(other))):
            memory(**{"chunk": 8, **other}).read(state, pairs(2, 0)[0])
    memory(chunk=8, limit=5.0).read(state, pairs(2, 0)[0])  # a limit changes no state


@pytest.mark.parametrize(
    "wrong",
    [
        {"step": 0}, {"step": -0.5}, {"step": float("nan")}, {"decay": 1.5}, {"decay": -0.1},
        {"momentum": 2.0},
        {"clip": 0.0}, {"limit": -1.0}, {"chunk": 0}, {"depth": 0},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_options_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(wrong))):
        memory(**wrong)


def test_bad_pairs_are_refused_and_nothing_is_written() -> None:
    made = memory()
    state, (keys, values) = made.init_state(), pairs(5, 0)
    nan = keys.clone()
    nan[0, 2, 3] = torch.nan
    wrong = [
        (keys[..., :-1], values), (nan, values), (keys, values[:, :-1]), (keys[0], values[0]), (keys.long(),
        values), (keys[:, :0], values[:, :0]), (keys.repeat(2, 1, 1), values.repeat(2, 1, 1)),
    ]  # fmt: skip
    for given in wrong:
        with pytest.raises(InvalidInput):
            made.write(state, *given)
    assert int(state.seen) == 0
