"""What is particular to Titans' layers; the laws of the protocol are in test_layer_laws.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mnemic.cube.errors import IncompatibleMemory, InvalidInput, InvalidOption, MemoryDivergedError
from mnemic.layers.layer import Forgettable, MemoryLayer, Surprising, Writable
from mnemic.layers.table import make
from mnemic.layers.titans_memory import NeuralMemory

LAYERS = ["titans-lmm", "titans-mag", "titans-mal", "titans-mac"]
DIM = 16
every = pytest.mark.parametrize("name", LAYERS)


def layer(name: str, seed: int = 0, **options: Any) -> MemoryLayer[Any]:
    torch.manual_seed(seed)
    windowed = {"window": 4} if name in ("titans-mag", "titans-mal") else {}
    return make(name, **{"dim": DIM, "heads": 2, "chunk": 8, "hidden": 12, **windowed, **options})


def stream(time: int, *, batch: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(batch, time, DIM, generator=torch.Generator().manual_seed(seed))


def open_gate(made: MemoryLayer[Any], step: float) -> None:
    """Every token steps by sigmoid(step), whatever it is."""
    torch.nn.init.zeros_(made.memory.step.weight)
    torch.nn.init.constant_(made.memory.step.bias, step)


@every
@pytest.mark.parametrize("depth", [1, 2])
def test_every_parameter_is_trained_through_the_inner_steps(name: str, depth: int) -> None:
    made = layer(name, depth=depth).double()
    y, _ = made(stream(20).double())
    y.square().sum().backward()
    for parameter, tensor in made.named_parameters():
        assert tensor.grad is not None, parameter
        assert float(tensor.grad.abs().max()) > 1e-12, parameter


@every
def test_what_left_the_window_is_reached_through_the_weights_alone(name: str) -> None:
    """Beyond the window and the segment a change of a token is felt, and not once nothing is written.

    Without momentum and decay: a token's gates too are felt later.
    """
    made = layer(name, conv=0, momentum=False, decay=False).double()
    x = stream(30).double()
    other = x.clone()
    other[:, 2] += 1
    far = slice(20, 30)
    felt = float((made(x)[0] - made(other)[0])[:, far].detach().abs().max())
    assert felt > 1e-6
    open_gate(made, -1e9)
    assert torch.equal(made(x)[0][:, far], made(other)[0][:, far])


@every
def test_the_chunk_belongs_to_the_state(name: str) -> None:
    state = layer(name)(stream(11))[1]
    with pytest.raises(IncompatibleMemory, match="chunk is 4, the state's is 8"):
        layer(name, chunk=4)(stream(3), state)
    layer(name, limit=5e3)(stream(3), state)


@every
def test_the_chunk_changes_results_and_the_read_of_a_token_is_not_that_of_its_chunk(name: str) -> None:
    x = stream(24)
    y = layer(name)(x)[0]
    assert float((y - layer(name, chunk=3)(x)[0]).detach().abs().max()) > 1e-4
    assert float((y - layer(name, reads="chunk")(x)[0]).detach().abs().max()) > 1e-4


@every
def test_divergence_rolls_back_to_the_last_chunk_that_was_well(name: str) -> None:
    made = layer(name, depth=1, momentum=False, decay=False, bounded=False)
    open_gate(made, 9.0)
    same = stream(1).expand(-1, 400, -1)  # one token again and again: every chunk oversteps
    before = made.init_state(2)
    with pytest.raises(MemoryDivergedError, match=name) as raised:
        made(same, before)
    good, tokens = raised.value.state, raised.value.tokens
    assert 0 < tokens < 400
    assert tokens % 8 == 0
    assert type(good) is made.State
    assert good.seen.tolist() == [tokens] * 2
    assert all(bool(torch.isfinite(t).all()) for t in good.tensors().values())
    expected = made(same[:, :tokens], before)[1]
    assert torch.equal(good.weights, expected.weights)
    assert before.seen.tolist() == [0, 0]
    with pytest.raises(MemoryDivergedError):
        made(same, good)
    state = good
    with pytest.raises(MemoryDivergedError) as stepped:  # noqa: PT012
        for t in range(16):
            state = made.step(same[:, t], state)[1]
    assert torch.equal(stepped.value.state.weights, state.weights)
    assert stepped.value.tokens == 0


@every
@pytest.mark.parametrize("momentum", [None, -2.0, 1.0, 5.0], ids=str)  # none, 0.12, 0.73, 0.99
@torch.no_grad()
def test_bounded_steps_never_diverge_whatever_the_gates_say(name: str, momentum: float | None) -> None:
    """One token again and again, every step as large as it may be, nothing forgotten."""
    made = layer(name, depth=1, momentum=momentum is not None, decay=False)
    open_gate(made, 20.0)
    if momentum is not None:
        torch.nn.init.zeros_(made.memory.momentum.weight)
        torch.nn.init.constant_(made.memory.momentum.bias, momentum)
    same, largest, state = stream(1).expand(-1, 200, -1), [], None
    for _ in range(4):
        _, state = made(same, state)
        largest.append(float(state.weights.norm(dim=-1).max()))
    assert largest[-1] < 1.5 * largest[0] + 5


def test_persistent_tokens_that_diverge_are_an_error_too() -> None:
    with pytest.raises(MemoryDivergedError, match="persistent") as raised:
        layer("titans-lmm", limit=1e-6).init_state(2)
    assert raised.value.tokens == 0


def test_rows_that_stand_at_different_places_go_back_together() -> None:
    made = layer("titans-lmm", depth=1, momentum=False, decay=False, bounded=False)
    open_gate(made, 9.0)
    same = stream(1).expand(-1, 400, -1)
    mask = torch.ones(2, 400, dtype=torch.bool)
    mask[1, :5] = False
    with pytest.raises(MemoryDivergedError) as raised:
        made(same, made(stream(5), mask=torch.tensor([[True] * 5, [True] * 2 + [False] * 3]))[1], mask=mask)
    good = raised.value.state
    assert bool(torch.isfinite(good.weights).all())
    assert good.seen.tolist() == [5 + raised.value.tokens, 2 + raised.value.tokens]


@every
def test_clipping_and_decay_keep_that_stream_finite(name: str) -> None:
    made = layer(name, depth=1, clip=0.5, decay=True, momentum=False, bounded=False)
    open_gate(made, 9.0)
    torch.nn.init.constant_(made.memory.decay.bias, -1.0)
    _, state = made(stream(1).expand(-1, 400, -1))
    assert bool(torch.isfinite(state.weights).all())


def test_the_memory_is_a_store_that_says_how_little_it_expected() -> None:
    made = layer("titans-lmm", persistent=0, chunk=1, decay=False, momentum=False)
    assert isinstance(made, NeuralMemory)
    assert isinstance(made, Writable)
    assert isinstance(made, Surprising)
    assert isinstance(made, Forgettable)
    x, state = stream(16), made.init_state(2)
    first = made.surprise(state, x)
    assert first.shape == made.pull(state, x).shape == (2, 16)
    again = state
    for _ in range(3):
        again = made.write(again, x)
    assert float(made.surprise(again, x).mean()) < float(first.mean())
    assert torch.equal(made.surprise(state, x), first)  # nothing was written
    assert again.seen.tolist() == [48, 48]
    torch.testing.assert_close(again.weights, made(x.repeat(1, 3, 1))[1].weights)
    held = made.read(again, x)
    assert held.shape == x.shape
    assert float((held - made.read(state, x)).abs().max()) > 1e-4
    torch.testing.assert_close(made.read(made.forget(again, 0.0), x), held)
    torch.testing.assert_close(made.forget(again, 1).weights, state.weights)  # as it began
    for use in (made.read, made.surprise, made.pull):
        with pytest.raises(InvalidInput):
            use(state, x[..., :-1])
        with pytest.raises(IncompatibleMemory):
            use(layer("titans-lmm", chunk=3).init_state(2), x)


@every
def test_persistent_tokens_stand_before_every_sequence(name: str) -> None:
    made = layer(name)
    y = made(stream(30))[0]
    with torch.no_grad():
        made.persistent += 1
    assert float((made(stream(30))[0] - y)[:, -1].abs().max()) > 1e-5
    assert made.init_state(2).seen.tolist() == [0, 0]
    assert layer(name, persistent=0).persistent is None


@every
@pytest.mark.parametrize(
    "wrong", [{"heads": 3}, {"depth": 0}, {"chunk": 0}, {"conv": -1}, {"persistent": -1}, {"reads": "all"},
    {"clip": 0.0},
     {"limit": 0.0}, {"momentum": 0.9}, {"hidden": 0}],
    ids=str,
)  # fmt: skip
def test_wrong_options_are_refused_by_name(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(wrong))):
        layer(name, **wrong)


def test_rotation_needs_pairs() -> None:
    with pytest.raises(InvalidOption, match="rotary=False"):
        make("titans-mag", dim=9, heads=3)
    make("titans-mag", dim=9, heads=3, rotary=False)


@pytest.mark.parametrize(("decays_to", "learns"), [("start", True), ("zero", False)])
def test_a_deep_memory_still_learns_after_a_long_stream(decays_to: str, learns: bool) -> None:
    """Decay to zero, as published, ends in weights that have no gradient."""
    made = layer("titans-lmm", decays_to=decays_to)
    torch.nn.init.constant_(made.memory.decay.bias, 0.0)  # half a token: what is long in the default
    with torch.inference_mode():
        state = made.write(made.init_state(2), stream(2000))
        hard = float(made.pull(state, stream(8)).max())
    assert (hard > 1e-3) is learns
    assert (float(state.weights.norm()) > 1e-3) is learns


def test_constant_cost_over_a_long_stream() -> None:
    """20,000 tokens through a state that stays as large as it began, and finite."""
    made = layer("titans-lmm", chunk=64)
    with torch.inference_mode():
        state = made.init_state(1)
        before = state.size_bytes()
        for part in stream(20_000, batch=1).split(4096, 1):
            y, state = made(part, state)
            assert bool(torch.isfinite(y).all())
    assert state.size_bytes() == before == made.Options(dim=DIM, heads=2, hidden=12).state_bytes(20_000)
