"""What layers begin with: nothing that hides from a query what was told, until training has removed it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import softplus

from mnemic.cube.errors import IncompatibleMemory
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.stack import StackConfig, StackForCausalLM
from mnemic.layers.table import make


def with_weights_of(layer: MemoryLayer[Any], **options: Any) -> MemoryLayer[Any]:
    """A layer of other options with the same weights, wherever both have them in one shape."""
    other = make(layer.name, dim=8, **options).double()
    mine, wanted = layer.state_dict(), other.state_dict()
    shared = {
        name: mine[name] for name, value in wanted.items() if name in mine and mine[name].shape == value.shape
    }
    other.load_state_dict(wanted | shared)
    return other


@pytest.mark.parametrize(
    ("name", "alone"),
    [("delta", 1), ("gated-delta", 1), ("mom", 1), ("titans-lmm", 0), ("titans-mag", 0), ("titans-mac", 0)],
)
def test_a_key_begins_as_the_same_whatever_stands_before_it(name: str, alone: int) -> None:
    torch.manual_seed(0)
    convolved, x = make(name, dim=8, heads=2, conv=4).double(), torch.randn(2, 20, 8).double()
    without = with_weights_of(convolved, heads=2, conv=alone)
    torch.testing.assert_close(convolved(x)[0], without(x)[0], atol=1e-12, rtol=1e-12)


def test_the_gate_begins_open_and_learns() -> None:
    torch.manual_seed(0)
    gated, x = make("delta", dim=8, heads=2, gated=True).double(), torch.randn(2, 20, 8).double()
    y, expected = gated(x)[0], with_weights_of(gated, heads=2, gated=False)(x)[0]
    torch.testing.assert_close(y, expected, atol=1e-7, rtol=1e-7)
    y.square().sum().backward()
    assert float(gated.output.gate.weight.grad.abs().min()) > 0


@pytest.mark.parametrize("name", ["delta", "gated-delta", "mom"])
def test_keys_are_bent_into_a_corner_only_where_there_is_room_or_it_is_asked_for(name: str) -> None:
    assert not make(name, dim=16).spec.options["qk_silu"]
    assert make(name, dim=64).spec.options["qk_silu"]
    assert not make(name, dim=64, heads=4).spec.options["qk_silu"]
    assert make(name, dim=64, qk_silu=False).spec.options["qk_silu"] is False
    bent, straight, x = make(name, dim=8, qk_silu=True), make(name, dim=8), torch.randn(1, 5, 8)
    with pytest.raises(IncompatibleMemory, match="qk_silu"):
        straight(x, bent(x)[1])


@pytest.mark.parametrize("heads", [1, 4])
def test_no_head_begins_by_forgetting_at_once(heads: int) -> None:
    layer = make("gated-delta", dim=8, heads=heads)
    lost = (layer.rate.exp() * softplus(layer.decay.bias)).detach()
    assert 0.001 < float(lost.min()) < 0.05
    assert float(lost.max()) < 1
    assert lost.sort()[0].equal(lost)  # from slow to fast


def test_what_a_checkpoint_brought_is_not_begun_anew(tmp_path: Any) -> None:
    config = StackConfig(layers=["gated-delta", "mom", "titans-lmm"], dim=8, vocab_size=9)
    model = StackForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.rand_like(parameter))
    model.save_pretrained(tmp_path)
    again = StackForCausalLM.from_pretrained(tmp_path)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
