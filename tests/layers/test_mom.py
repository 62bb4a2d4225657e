"""The mixture of memories: isolation, its limits as other layers, routing, forgetting."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import normalize, silu
from torch.utils.flop_counter import FlopCounterMode

from mnemic.bench.layers.acceptance import interference
from mnemic.cube.errors import InvalidInput, InvalidOption
from mnemic.layers.hebbian import Hebbian
from mnemic.layers.mom import MixtureOfMemories
from mnemic.layers.mom_state import MoMOptions
from mnemic.layers.table import make

UPDATES = ("linear", "retention", "gla", "delta", "gated_delta")


def mom(**options: Any) -> MixtureOfMemories:
    torch.manual_seed(0)
    return MixtureOfMemories(MoMOptions(dim=8, **options)).double()


def stream(time: int = 50, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, time, 8, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("topk", [1, 2, 4])
def test_many_tokens_at_once_equal_one_by_one(update: str, topk: int) -> None:
    layer, x = mom(update=update, topk=topk, chunk=8), stream(30)
    (y, state), (expected, last) = layer(x), layer.reference(x)
    torch.testing.assert_close(y, expected, atol=1e-10, rtol=1e-10)
    for name, tensor in last.tensors().items():
        torch.testing.assert_close(state.tensors()[name], tensor, atol=1e-10, rtol=1e-10)
    assert state.counts[:, :4].sum(1).tolist() == [30 * topk] * 3
    assert state.counts[:, 4].tolist() == [30] * 3


@pytest.mark.parametrize("update", UPDATES)
def test_a_memory_that_is_not_written_stays_bit_by_bit(update: str) -> None:
    layer = mom(update=update, shared=False)
    before = layer.write(layer.init_state(3), stream(20))
    after = layer.write(before, stream(9, seed=2), torch.full((3, 9), 2))
    for name in ("memory", "tail", "counts"):
        mine, theirs = getattr(after, name), getattr(before, name)
        for memory in (0, 1, 3):
            assert torch.equal(mine[:, memory], theirs[:, memory]), (name, memory)
        assert not torch.equal(mine[:, 2], theirs[:, 2])


def test_one_memory_is_the_plain_layer() -> None:
    """M = 1, k = 1, nothing shared, no convolution: a Hebbian memory behind MoM's norm and gate."""
    layer = mom(memories=1, topk=1, shared=False, conv=0, update="linear", heads=2)
    plain = make("hebbian", dim=8, heads=2).double()
    assert isinstance(plain, Hebbian)
    with torch.no_grad():
        plain.qk.weight.copy_(torch.cat([layer.q.weight, layer.kv[0, :, :8].T]))
        plain.v.weight.copy_(layer.kv[0, :, 8:].T)
    x = stream()
    torch.testing.assert_close(layer(x)[1].memory[:, 0], plain(x)[1].memory, atol=1e-12, rtol=1e-12)
    straight = mom(memories=1, topk=1, shared=False, conv=0, update="linear", heads=2, gated=False)
    with torch.no_grad():
        plain.qk.weight.copy_(torch.cat([straight.q.weight, straight.kv[0, :, :8].T]))
        plain.v.weight.copy_(straight.kv[0, :, 8:].T)
        plain.out.weight.copy_(straight.output.weight)
    torch.testing.assert_close(straight(x)[0], plain(x)[0], atol=1e-12, rtol=1e-12)
    one, state = mom(memories=1, topk=1, shared=False, update="gated_delta", heads=2), None
    delta = make("gated-delta", dim=8, heads=2).double()
    with torch.no_grad():
        delta.qkv.weight.copy_(torch.cat([one.q.weight, one.kv[0].T]))
        delta.conv.copy_(one.conv)
        delta.beta.weight.copy_(one.beta[0].T)
        delta.decay.weight.copy_(one.decay[0].T)
        delta.decay.bias.copy_(one.decay_bias)
        delta.rate.copy_(one.rate)
        delta.output.load_state_dict(one.output.state_dict())
    (y, state), (expected, last) = one(x), delta(x)
    torch.testing.assert_close(y, expected, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(state.memory[:, 0], last.memory, atol=1e-10, rtol=1e-10)


def test_all_memories_with_tied_maps_are_one_memory() -> None:
    every, one = mom(topk=4, single_kv=True, shared=False, update="linear"), mom(
        memories=1, topk=1, single_kv=True, shared=False, update="linear"
    )  # fmt: skip
    weights = {name: w for name, w in every.state_dict().items() if name != "router.weight"}
    one.load_state_dict(weights, strict=False)
    x = stream()
    torch.testing.assert_close(every(x)[0], one(x)[0], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("memories", [1, 2, 4, 8])
def test_interference_falls_with_the_number_of_memories_as_theory_says(memories: int) -> None:
    theory = (64 / memories - 1) / 16
    assert abs(interference(memories) / theory - 1) <= 0.15


@torch.no_grad()
def test_what_is_written_to_one_memory_is_invisible_in_another() -> None:
    layer = mom(update="linear", conv=0, shared=False, topk=1)
    x = stream(6)
    state = layer.write(layer.init_state(3), x, torch.zeros(3, 6, dtype=torch.int64))
    assert float(layer.read(state, x, torch.zeros(3, 6, dtype=torch.int64)).abs().max()) > 0.01
    assert float(layer.read(state, x, torch.ones(3, 6, dtype=torch.int64)).abs().max()) == 0
    shared = mom(update="linear", conv=0, topk=1)
    state = shared.write(shared.init_state(3), x, torch.zeros(3, 6, dtype=torch.int64))
    assert float(shared.read(state, x, torch.ones(3, 6, dtype=torch.int64)).abs().max()) > 0.01


@pytest.mark.parametrize("update", UPDATES)
def test_reading_is_what_the_next_token_would_read(update: str) -> None:
    """`read` of a memory equals the read of a step that writes nothing: its value and key are zero."""
    layer = mom(update=update, topk=2)
    state = layer.write(layer.init_state(3), stream(12))
    query = stream(1, seed=5)
    chosen, weights = layer.routing(query)
    expected = torch.zeros(3, 8, dtype=torch.float64)
    for row in range(3):
        asked = torch.cat([layer.q(query[row, 0]), torch.zeros(16)])
        pairs = [*zip(chosen[row, 0].tolist(), weights[row, 0], strict=True), (4, torch.tensor(1.0))]
        for memory, weight in pairs:
            near = torch.cat([state.tail[row, memory], asked[None]])
            q = normalize(silu((near.T * layer.conv).sum(-1))[:8], dim=-1)
            expected[row] += weight * (q @ state.memory[row, memory, 0])
    torch.testing.assert_close(layer.read(state, query)[:, 0], expected, atol=1e-10, rtol=1e-10)


def test_routing_weights_and_the_balance_loss() -> None:
    layer, x = mom(balance=0.5), stream()
    chosen, weights = layer.routing(x)
    assert chosen.shape == weights.shape == (3, 50, 2)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 50, dtype=torch.float64))
    layer(x)
    loss = layer.aux_loss()
    assert loss is not None
    probabilities = (x @ layer.router.weight.T).softmax(-1)
    sent = torch.nn.functional.one_hot(chosen, 4).sum(2).double()
    expected = 0.5 * 4 * (sent.mean((0, 1)) * probabilities.mean((0, 1))).sum()
    torch.testing.assert_close(loss, expected)

    mask = torch.arange(50) < 20
    layer(torch.where(mask[:, None], x, 7.0), mask=mask.expand(3, -1))
    padded, _ = layer.aux_loss(), layer(x[:, :20])
    assert padded is not None
    torch.testing.assert_close(padded, layer.aux_loss())
    loss.backward()
    assert layer.router.weight.grad is not None


@torch.no_grad()
def test_one_memory_is_forgotten_or_moved() -> None:
    layer = mom()
    a, b = (layer.write(layer.init_state(3), stream(20, seed)) for seed in (1, 2))
    emptied = layer.forget(a, 1)
    assert float(emptied.memory[:, 1].abs().max()) == 0
    assert emptied.counts[:, 1].tolist() == [0, 0, 0]
    moved = layer.transplant(b, a, 1)
    for memory in range(5):
        source = b if memory == 1 else a
        assert torch.equal(moved.memory[:, memory], source.memory[:, memory])
        assert torch.equal(moved.tail[:, memory], source.tail[:, memory])
    with pytest.raises(InvalidInput, match="0 to 4"):
        layer.forget(a, 5)


@pytest.mark.parametrize("update", UPDATES)
@torch.no_grad()
def test_a_step_computes_the_chosen_memories_alone(update: str) -> None:
    """What cannot be multiplied, in the maps of the others, is never met; nor is their share counted."""
    layer, x = mom(update=update, memories=4, topk=1), stream(1)[:1, 0]
    state = layer.write(layer.init_state(1), stream(9)[:1])
    expected, after = layer.step(x, state)
    idle = [m for m in range(4) if m != int(layer.routing(x.unsqueeze(1))[0])]
    for weights in layer.parameters():
        if weights.dim() == 3:
            weights[idle] = torch.nan
    y, same = layer.step(x, state)
    assert torch.equal(y, expected)
    assert all(torch.equal(tensor, after.tensors()[name]) for name, tensor in same.tensors().items())

    def counted(memories: int) -> int:
        layer = mom(update=update, memories=memories, topk=2)
        with FlopCounterMode(display=False) as flops:
            layer.step(x, layer.init_state(1))
        return int(flops.get_total_flops()) - 2 * 8 * memories  # the router's

    assert counted(16) == counted(2)


def test_the_router_learns_where_to_write() -> None:
    """The last token asks: what was written to a memory that it reads has a share in the answer."""
    layer, x = mom(update="linear", conv=0, topk=2), stream(6)
    chosen, weights, _ = layer.router(x)
    weights = weights.detach().requires_grad_()
    layer._write_and_read(x, layer.init_state(3), None, chosen, weights)[0][:, -1].sum().backward()
    assert weights.grad is not None
    asked = (chosen[:, :-1].unsqueeze(-1) == chosen[:, -1:].unsqueeze(-2)).any(-1)
    assert torch.equal(weights.grad[:, :-1] != 0, asked)
    same = layer._write_and_read(x, layer.init_state(3), None, chosen, 0.5 * weights.detach())[1]
    written = layer._write_and_read(x, layer.init_state(3), None, chosen, weights.detach())[1]
    assert torch.equal(same.memory, written.memory)  # and is no factor of what is written


def test_an_idle_memory_is_warned_about() -> None:
    layer = mom(topk=1)
    state = layer.write(layer.init_state(3), stream(8), torch.zeros(3, 8, dtype=torch.int64))
    with pytest.warns(UserWarning, match="1, 2, 3"):
        shares = layer.load(state)
    assert shares.tolist() == [1, 0, 0, 0]


def test_idle_parameters_are_those_of_memories_not_chosen() -> None:
    layer = mom(memories=4, topk=1, update="linear", conv=0)
    assert layer.idle_parameters() == 3 * layer.kv[0].numel()
    assert mom(memories=4, topk=4).idle_parameters() == 0


def test_what_cannot_be_is_refused() -> None:
    for wrong in ({"topk": 5}, {"memories": 0}, {"update": "other"}, {"conv": -1}, {"balance": -0.1}):
        with pytest.raises(InvalidOption):
            MoMOptions(dim=8, **wrong)
    layer, x = mom(), stream(4)
    for memory in (torch.full((3, 4), 4), torch.zeros(3, 3, dtype=torch.int64), torch.zeros(3, 4)):
        with pytest.raises(InvalidInput, match="memory"):
            layer.pinned(x, memory)
    with torch.no_grad():
        layer.router.weight.fill_(torch.nan)
    with pytest.raises(InvalidInput, match="router"):
        layer(x)


def test_a_memory_that_fades_begins_by_keeping_most_of_what_it_holds() -> None:
    """As released: exp(A) · softplus from 0.001 to 1.6 a token, below 0.1 for half of all heads."""
    for name in ("gated-delta", "mom"):
        torch.manual_seed(0)
        layer = make(name, dim=512, heads=256, key_dim=2, value_dim=2)
        bias = layer.decay.bias if name == "gated-delta" else layer.decay_bias
        lost = (layer.rate.exp() * torch.nn.functional.softplus(bias)).detach()
        assert 0.0009 < float(lost.min()) < 0.01
        assert 0.02 < float(lost.median()) < 0.1
        assert float(lost.max()) < 1.6


def test_all_memories_begin_alike_and_part_as_they_learn() -> None:
    layer = mom()
    assert torch.equal(layer.kv, layer.kv[:1].expand_as(layer.kv))
    layer(stream())[0].square().mean().backward()
    first = layer.kv.grad[0]
    assert all(not torch.equal(first, gradient) for gradient in layer.kv.grad[1:])
