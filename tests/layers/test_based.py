"""BASED: the Taylor features, the window, the planner and merging."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import pad

from mnemic.cube.errors import IncompatibleMemory, InvalidOption
from mnemic.layers.base_conv import BaseConv
from mnemic.layers.based import BasedOptions, pattern, plan
from mnemic.layers.linear_attention import LinearAttention
from mnemic.layers.stack import StackConfig, StackForCausalLM
from mnemic.layers.table import make
from mnemic.layers.taylor import TaylorLinearAttention, TaylorOptions, features
from mnemic.layers.window import SlidingWindow


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("d", [1, 8, 16, 24])
def test_features_are_the_second_order_expansion_of_exp(d: int, compressed: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(500, d, generator=generator) for _ in range(2))
    q, k = (3 * x / x.norm(dim=-1, keepdim=True) for x in (q, k))
    s = (q * k).sum(-1) / math.sqrt(d)
    found = (features(q, compressed) * features(k, compressed)).sum(-1)
    torch.testing.assert_close(found, 1 + s + s.square() / 2, atol=1e-5, rtol=1e-5)
    assert float(found.min()) >= 0.5 - 1e-6
    assert features(q, compressed).shape[-1] == TaylorOptions(dim=8, key_dim=d, compressed=compressed).rows


def test_the_dimensions_are_those_of_the_paper() -> None:
    assert [TaylorOptions(dim=8, key_dim=d).rows for d in (8, 16, 24, 32)] == [45, 153, 325, 561]
    assert TaylorOptions(dim=8, key_dim=16, compressed=False).rows == 273


def test_both_maps_give_the_same_layer() -> None:
    small, full = (
        TaylorLinearAttention(TaylorOptions(dim=12, heads=2, key_dim=5, compressed=c)).double()
        for c in (True, False)
    )
    full.load_state_dict(small.state_dict())
    x = torch.randn(2, 40, 12, dtype=torch.float64)
    torch.testing.assert_close(small(x)[0], full(x)[0], atol=1e-10, rtol=1e-10)
    assert small(x)[1].size_bytes() < full(x)[1].size_bytes()


@pytest.mark.parametrize("window", [1, 5, 40, 64])
def test_a_window_is_full_attention_under_a_band(window: int) -> None:
    torch.manual_seed(0)
    full = make("attention", dim=8, heads=2).double()
    local = make("window", dim=8, heads=2, window=window).double()
    local.load_state_dict(full.state_dict())
    x = torch.randn(2, 40, 8, dtype=torch.float64)
    assert isinstance(local, SlidingWindow)
    from mnemic.layers.attention import project

    q, k, v = project(local.qkv, x, 2, torch.arange(40).expand(2, -1))
    scores = q @ k.mT / 2
    distance = torch.arange(40).unsqueeze(1) - torch.arange(40)
    hidden = (distance < 0) | (distance >= window)  # the current token counts
    read = scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v
    expected = local.out(read.transpose(1, 2).flatten(2))
    torch.testing.assert_close(local(x)[0], expected, atol=1e-12, rtol=1e-12)
    if window >= 40:
        torch.testing.assert_close(local(x)[0], full(x)[0], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("name", ["taylor", "linear", "hebbian"])
def test_states_of_disjoint_streams_add_up(name: str) -> None:
    layer = make(name, dim=8, key_dim=4).double()
    a, b, q = (torch.randn(2, n, 8, dtype=torch.float64) for n in (7, 5, 3))
    (_, one), (_, other) = layer(a), layer(b)
    merged = layer.merge(one, other)  # type: ignore[operator]
    together = layer(torch.cat([a, b], 1))[1]
    backwards = layer(torch.cat([b, a], 1))[1]
    for whole in (together, backwards):
        torch.testing.assert_close(layer(q, merged)[0], layer(q, whole)[0], atol=1e-12, rtol=1e-12)
    assert merged.seen.tolist() == [12, 12]
    with pytest.raises(IncompatibleMemory, match="key_dim"):
        layer.merge(one, make(name, dim=8, key_dim=3).double()(b)[1])  # type: ignore[operator]


@torch.no_grad()
def test_a_taylor_memory_is_sharper_than_elu_at_equal_keys() -> None:
    """Reading one of many stored pairs back: the larger feature space mixes less in."""
    errors = {}
    for name in ("taylor", "linear"):
        torch.manual_seed(0)
        layer = make(name, dim=24, key_dim=16, value_dim=8).double()
        assert isinstance(layer, TaylorLinearAttention | LinearAttention)
        eye = torch.eye(24, dtype=torch.float64)  # a token is [key (16), value (8)]; the maps pick them out
        layer.qk.weight.copy_(torch.cat([eye[:16], eye[:16]]) * 4)
        layer.v.weight.copy_(eye[16:])
        layer.out.weight.copy_(eye[:, :8])
        keys = torch.nn.functional.normalize(torch.randn(64, 20, 16, dtype=torch.float64), dim=-1)
        values = torch.randn(64, 20, 8, dtype=torch.float64)
        x = torch.cat([keys, values], -1)
        _, state = layer(x)
        asked = torch.cat([keys[:, 3], torch.zeros(64, 8, dtype=torch.float64)], -1)
        read = layer.step(asked, state)[0][:, :8]
        errors[name] = float((read - values[:, 3]).square().mean())
    assert errors["taylor"] < 0.9 * errors["linear"]


def test_the_share_of_pairs_beyond_the_expansion_is_counted() -> None:
    layer = TaylorLinearAttention(TaylorOptions(dim=8, key_dim=4))
    x = torch.randn(2, 30, 8)
    assert layer.share_below(torch.zeros_like(x)) == 0
    with torch.no_grad():
        layer.qk.weight.mul_(20)
    assert 0.1 < layer.share_below(x) < 0.6


def test_a_plan_fits_its_budget_and_uses_it() -> None:
    last = 0
    for budget in (2_000, 20_000, 200_000, 2_000_000):
        options = plan(budget, dim=64, heads=4)
        used = options.state_bytes(1_000)
        assert last < used <= budget
        larger = BasedOptions(dim=64, heads=4, key_dim=options.key_dim + 1, window=options.window)
        assert larger.state_bytes(0) > budget or options.key_dim == 64
        last = used
    with pytest.raises(InvalidOption, match="smallest takes"):
        plan(10, dim=64)


def test_the_published_stack() -> None:
    names = pattern()
    assert [i for i, name in enumerate(names) if name == "taylor"] == [1, 6, 11, 16, 21]
    assert [i for i, name in enumerate(names) if name == "window"] == [2, 7, 12, 17, 22]
    assert names.count("base-conv") == 17
    assert StackConfig(layers=pattern(7), dim=16).num_hidden_layers == 7


@pytest.mark.parametrize("gate", [0.5, 1.0])
def test_an_open_gate_lets_the_tokens_before_through_from_the_start(gate: float) -> None:
    layer = make("base-conv", dim=16, gate=gate)
    assert isinstance(layer, BaseConv)
    with torch.no_grad():
        layer.project.weight.zero_()  # what is left is the gate
    x = torch.randn(2, 9, 16)
    near = (pad(x, (0, 0, 2, 0)).unfold(1, 3, 1) * layer.conv).sum(-1)
    torch.testing.assert_close(layer(x)[0], gate * near + x)


def test_a_gate_that_was_trained_is_not_opened_again_by_loading(tmp_path: Path) -> None:
    model = StackForCausalLM(StackConfig(layers=[{"layer": "base-conv", "gate": 1.0}], dim=8, vocab_size=9))
    layer = model.memory_layers()[0]
    assert isinstance(layer, BaseConv)
    with torch.no_grad():
        layer.project.bias.copy_(torch.arange(8.0))
    model.save_pretrained(tmp_path)
    loaded = StackForCausalLM.from_pretrained(tmp_path).memory_layers()[0]
    assert torch.equal(loaded.project.bias, layer.project.bias)
