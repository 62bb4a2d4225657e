"""The laws of the protocol, for every registered layer in every small configuration."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from layer_matrix import (
    BATCH,
    CASES,
    DIM,
    TIME,
    Case,
    assert_identical,
    assert_same,
    by_steps,
    holes,
    in_pieces,
    pieces,
    stream,
)
from torch import Tensor

from mnemic.cube.errors import IncompatibleMemory, InvalidInput
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.state import LayerState

pytestmark = pytest.mark.parametrize("case", CASES, ids=str)
Form = Callable[[MemoryLayer[Any], Tensor, LayerState | None, Tensor | None], tuple[Tensor, LayerState]]


def carried(layer: MemoryLayer[Any]) -> LayerState:
    """A state in the middle of a stream, rows of different lengths."""
    mask = torch.arange(9) < torch.tensor([[9], [4], [7]])
    state: LayerState = layer(stream(7, time=9, dtype=next(layer.parameters()).dtype), mask=mask)[1]
    return state.detach()


@pytest.mark.parametrize("mask", [None, holes()], ids=["dense", "holes"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@torch.no_grad()
def test_the_fast_form_and_the_steps_equal_the_definition(
    case: Case, dtype: torch.dtype, mask: Tensor | None
) -> None:
    layer, x = case.layer(dtype), stream(dtype=dtype)
    atol = 1e-10 if dtype == torch.float64 else 2e-5
    for state in (None, carried(layer)):
        expected = layer.reference(x, state, mask=mask)
        assert_same(layer(x, state, mask=mask), expected, atol=atol)
        assert_same(by_steps(layer, x, state, mask), expected, atol=atol)


@pytest.mark.parametrize("mask", [None, holes()], ids=["dense", "holes"])
@torch.no_grad()
def test_any_split_equals_the_whole(case: Case, mask: Tensor | None) -> None:
    layer, x = case.layer(), stream()
    for state in (None, carried(layer)):
        expected = layer(x, state, mask=mask)
        for size in pieces(case):
            assert_same(in_pieces(layer, x, size, state, mask), expected)


@pytest.mark.parametrize("mask", [None, holes()], ids=["dense", "holes"])
def test_gradients_agree_and_reach_the_carried_state(case: Case, mask: Tensor | None) -> None:
    def gradients(form: Form) -> dict[str, Tensor]:
        layer, x = case.layer(), stream().requires_grad_()
        state = carried(layer).map(lambda t: t.clone().requires_grad_(t.is_floating_point()))
        y, after = form(layer, x, state, mask)
        out = {"y": y, **{name: t for name, t in after.tensors().items() if t.is_floating_point()}}
        weights = torch.Generator().manual_seed(5)
        loss = sum(
            (t * torch.randn(t.shape, generator=weights, dtype=torch.float64)).sum() for t in out.values()
        )
        assert isinstance(loss, Tensor)
        loss.backward()
        wanted = {f"state.{n}": t for n, t in state.tensors().items() if t.is_floating_point() and t.numel()}
        wanted |= {"x": x, **dict(layer.named_parameters())}
        wanted = {name: t for name, t in wanted.items() if not name.startswith(layer.only_at_start)}
        assert not [name for name, t in wanted.items() if t.grad is None], "no gradient"
        return {name: t.grad for name, t in wanted.items() if t.grad is not None}

    expected = gradients(lambda layer, x, state, mask: layer.reference(x, state, mask=mask))
    forms: dict[str, Form] = {
        "forward": lambda layer, x, state, mask: layer(x, state, mask=mask),
        "steps": by_steps,
        "pieces of 7": lambda layer, x, state, mask: in_pieces(layer, x, 7, state, mask),
    }
    for form, run in forms.items():
        for name, gradient in gradients(run).items():
            torch.testing.assert_close(
                gradient, expected[name], atol=1e-9, rtol=1e-7,
                msg=lambda said, form=form, name=name: f"{form}, {name}: {said}",
            )  # fmt: skip
    assert any(float(g.abs().max()) > 0 for name, g in expected.items() if not name.startswith("state."))


@torch.no_grad()
def test_padding_is_as_if_it_were_not_there(case: Case) -> None:
    """Each row alone, without its padding, gives the same outputs and the same state."""
    layer, x, mask = case.layer(), stream(), holes()
    noise = torch.full_like(x, torch.nan)  # whatever stands at padding, even this
    y, after = layer(torch.where(mask.unsqueeze(-1), x, noise), mask=mask)
    assert bool((y[~mask] == 0).all())
    for row in range(BATCH):
        alone, state = layer(x[row : row + 1, mask[row]])
        torch.testing.assert_close(y[row, mask[row]], alone[0], atol=1e-10, rtol=1e-10)
        for name, tensor in after.select(torch.tensor([row])).tensors().items():
            torch.testing.assert_close(tensor, state.tensors()[name], atol=1e-10, rtol=1e-10)
    assert after.seen.tolist() == mask.sum(1).tolist()


@torch.no_grad()
def test_a_row_of_padding_keeps_its_state_bit_by_bit(case: Case) -> None:
    layer, x = case.layer(torch.float32), stream(dtype=torch.float32)
    before = carried(layer)
    for rows in (torch.tensor([True, False, True]), torch.zeros(BATCH, dtype=torch.bool)):
        kept = (~rows).nonzero().flatten()
        mask = rows.unsqueeze(1).expand(BATCH, TIME)
        assert_identical(layer(x, before, mask=mask)[1].select(kept), before.select(kept))
        assert_identical(layer.step(x[:, 0], before, mask=rows)[1].select(kept), before.select(kept))
        assert_identical(
            layer.reference(x[:, :2], before, mask=mask[:, :2])[1].select(kept), before.select(kept)
        )
    empty, same = layer(x[:, :0], before)
    assert empty.shape == (BATCH, 0, DIM)
    assert_identical(same, before)


@torch.no_grad()
def test_nothing_is_written_into_an_input(case: Case) -> None:
    layer, x = case.layer(torch.float32), stream(dtype=torch.float32)
    state = carried(layer)
    weights = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    before, given = state.clone(), x.clone()
    layer(x, state, mask=holes())
    layer.step(x[:, 0], state)
    layer.reference(x[:, :3], state)
    state.select(torch.tensor([2, 0]))
    assert_identical(state, before)
    assert torch.equal(x, given)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in layer.state_dict().items())


@torch.no_grad()
def test_a_layer_keeps_nothing_of_a_stream(case: Case) -> None:
    """Two streams by turns through one module equal each alone."""
    layer, (a, b) = case.layer(), (stream(3), stream(4))
    alone = [in_pieces(layer, x, 5) for x in (a, b)]
    states: list[LayerState | None] = [None, None]
    outputs: list[list[Tensor]] = [[], []]
    for start in range(0, TIME, 5):
        for which, x in enumerate((a, b)):
            y, states[which] = layer(x[:, start : start + 5], states[which])
            outputs[which].append(y)
    for which in (0, 1):
        assert torch.equal(torch.cat(outputs[which], 1), alone[which][0])


@torch.no_grad()
def test_no_output_depends_on_a_later_token(case: Case) -> None:
    layer, x = case.layer(), stream()
    for t in (1, 6, TIME - 1):
        changed = x.clone()
        changed[:, t:] += 1.5
        torch.testing.assert_close(layer(changed)[0][:, :t], layer(x)[0][:, :t], atol=1e-12, rtol=1e-12)


@torch.no_grad()
def test_the_state_is_as_large_as_its_options_say(case: Case) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        layer = case.layer(dtype)
        options = layer.Options.read({"dim": DIM, **case.options})
        for time in (0, 1, 7, TIME):
            state = layer(stream(time=time, dtype=dtype))[1]
            said = options.state_bytes(time, batch=BATCH, element_bytes=dtype.itemsize)
            assert state.size_bytes() == said, (dtype, time)


@torch.no_grad()
def test_bfloat16_keeps_float32_sums_and_stays_near_float32(case: Case) -> None:
    layer = case.layer(torch.bfloat16)
    exact = copy.deepcopy(layer).float()
    x = stream(dtype=torch.bfloat16)
    y, state = layer(x)
    assert y.dtype == torch.bfloat16
    first = layer.init_state(BATCH).tensors()
    assert {n: t.dtype for n, t in state.tensors().items()} == {n: t.dtype for n, t in first.items()}
    expected = exact(x.float())[0]
    scale = float(expected.std())
    assert float((y.float() - expected).abs().mean()) < 0.04 * scale
    stepped, by_step = by_steps(layer, x)
    assert float((stepped.float() - expected).abs().mean()) < 0.04 * scale
    assert {n: t.dtype for n, t in by_step.tensors().items()} == {n: t.dtype for n, t in first.items()}


@torch.no_grad()
def test_autocast_and_inference_mode(case: Case) -> None:
    layer, x = case.layer(torch.float32), stream(dtype=torch.float32)
    expected, state = layer(x)
    with torch.inference_mode():
        y, after = layer(x)
        assert_same((y, after), (expected, state), atol=1e-6)
        layer.step(x[:, 0], after)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, after = layer(x)
        layer.step(x[:, 0], after)
    first = layer.init_state(BATCH).tensors()
    assert {n: t.dtype for n, t in after.tensors().items()} == {n: t.dtype for n, t in first.items()}
    assert float((y.float() - expected).abs().mean()) < 0.06 * float(expected.std())


def test_rows_are_selected_repeated_and_joined_again(case: Case) -> None:
    layer, x = case.layer(), stream()
    state = carried(layer)
    index = torch.tensor([2, 0, 0, 1])
    y, after = layer(x[index], state.select(index))
    expected, whole = layer(x, state)
    torch.testing.assert_close(y, expected[index], atol=1e-10, rtol=1e-10)
    for name, tensor in whole.select(index).tensors().items():
        torch.testing.assert_close(after.tensors()[name], tensor, atol=1e-10, rtol=1e-10)
    copied = state.clone()
    assert_identical(copied, state)
    assert not {t.data_ptr() for t in copied.tensors().values() if t.numel()} & {
        t.data_ptr() for t in state.tensors().values() if t.numel()
    }
    assert not any(t.requires_grad for t in after.detach().tensors().values())


def test_a_state_of_another_configuration_is_refused(case: Case) -> None:
    layer, x = case.layer(), stream()
    state = layer.init_state(BATCH)
    for name in layer.spec.options:
        other = replace(layer.spec, options={**layer.spec.options, name: "another"})
        for use in (layer.forward, layer.reference):
            with pytest.raises(IncompatibleMemory, match=name):
                use(x, replace(state, spec=other))
        with pytest.raises(IncompatibleMemory, match=name):
            layer.step(x[:, 0], replace(state, spec=other))
    with pytest.raises(IncompatibleMemory, match="version"):
        layer(x, replace(state, spec=replace(layer.spec, version=layer.version + 1)))
    equal = replace(state, spec=type(layer.spec).from_json(layer.spec.to_json()))
    assert_same(layer(x, equal), layer(x, state))


def test_bad_input_is_refused_before_anything_is_written(case: Case) -> None:
    layer, x = case.layer(torch.float32), stream(dtype=torch.float32)
    state = layer.init_state(BATCH)
    bad = x.clone()
    bad[1, 3, 2] = torch.nan
    for wrong in (x[..., :-1], x[0], bad, x.long()):
        with pytest.raises(InvalidInput):
            layer(wrong, state)
    with pytest.raises(InvalidInput, match="3"):
        layer(x[:2], state)
    with pytest.raises(InvalidInput, match="2"):
        layer.step(x[:2, 0], state)
    for mask in (torch.ones(BATCH, TIME - 1, dtype=torch.bool), torch.ones(BATCH, TIME)):
        with pytest.raises(InvalidInput, match="mask"):
            layer(x, state, mask=mask)
    if not layer.uses_positions:
        with pytest.raises(InvalidInput, match="positions"):
            layer(x, state, positions=torch.arange(TIME).expand(BATCH, TIME))
