"""The closed form of Titans' memory against its definition, and what it becomes with fixed gates."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mnemic.layers.titans_rule import (
    Fast,
    Gates,
    Weights,
    advance,
    derived,
    descend,
    evaluate,
    explicit,
    products,
    read,
    scan,
    steps,
)

SIZE, TOKENS, ROWS = 32, 16, (2, 3)
SHAPES = {1: [32, 32], 2: [32, 40, 32], 3: [32, 40, 24, 32]}
DTYPES = {torch.float32: 1e-5, torch.float64: 1e-12}


def draw(depth: int, dtype: torch.dtype, seed: int = 0) -> tuple[Fast, Tensor, Tensor, Tensor, Gates]:
    """Non-zero weights, momentum and anchor, all different; random gates for every token."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*ROWS, *shape, generator=generator, dtype=torch.float64).to(dtype)

    def weights(scale: float) -> Weights:
        widths = SHAPES[depth]
        return tuple(scale * normal(a, b) / a**0.5 for a, b in pairwise(widths))

    keys, queries = (normalize(normal(TOKENS, SIZE), dim=-1) for _ in range(2))
    step, momentum, decay = (
        torch.rand(*ROWS, TOKENS, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3)
    )
    fast = Fast(weights(1), weights(0.8), weights(0.3))
    return fast, keys, normal(TOKENS, SIZE), queries, Gates(0.2 * step, momentum, decay)


def loop(
    fast: Fast, keys: Tensor, values: Tensor, queries: Tensor, gates: Gates, valid: Tensor | None = None
) -> tuple[Tensor, Fast]:
    outputs = []
    for t in range(keys.shape[-2]):
        here = slice(t, t + 1)
        momentum = None if gates.momentum is None else gates.momentum[..., here]
        at = Gates(gates.step[..., here], momentum, gates.decay[..., here])
        after = descend(fast, derived(fast.anchor, keys[..., here, :], values[..., here, :]), at)
        if valid is None or bool(valid[t]):
            fast = after
        outputs.append(evaluate(fast.weights, queries[..., here, :]))
    return torch.cat(outputs, -2), fast


def assert_fast(found: Fast, expected: Fast, atol: float) -> None:
    for mine, theirs in zip(
        found.weights + found.surprise, expected.weights + expected.surprise, strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=atol, rtol=0)


@pytest.mark.parametrize("depth", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("with_momentum", [True, False])
@pytest.mark.parametrize("rests", [True, False])
def test_a_chunk_at_once_equals_the_recurrences(
    depth: int, dtype: torch.dtype, with_momentum: bool, rests: bool
) -> None:
    fast, keys, values, queries, gates = draw(depth, dtype)
    if rests:
        fast = fast._replace(rest=tuple(weight[0] / 2 for weight in fast.weights))
    if not with_momentum:
        fast, gates = fast._replace(surprise=()), gates._replace(momentum=None)
    solved = scan(gates.momentum, gates.decay)
    moves = steps(fast.anchor, keys, values, gates.step)
    expected, after = loop(fast, keys, values, queries, gates)
    torch.testing.assert_close(read(fast, queries, solved, moves), expected, atol=DTYPES[dtype], rtol=0)
    assert_fast(advance(fast, solved, moves), after, DTYPES[dtype])


def test_tokens_that_are_not_there_change_nothing() -> None:
    fast, keys, values, queries, gates = draw(2, torch.float64)
    valid = torch.rand(TOKENS, generator=torch.Generator().manual_seed(1)) > 0.5
    solved = scan(gates.momentum, gates.decay, valid)
    moves = steps(fast.anchor, keys, values, gates.step)
    expected, after = loop(fast, keys, values, queries, gates, valid)
    torch.testing.assert_close(read(fast, queries, solved, moves), expected, atol=1e-12, rtol=0)
    assert_fast(advance(fast, solved, moves), after, 1e-12)


@pytest.mark.parametrize("clip", [None, 0.5])
def test_both_gradients_are_the_same_and_clipped_alike(clip: float | None) -> None:
    fast, keys, values, _, gates = draw(3, torch.float64)
    one = Gates(gates.step[..., :1], None, gates.decay[..., :1])
    found = [
        descend(fast, of(fast.anchor, keys[..., :1, :], values[..., :1, :]), one, clip=clip)
        for of in (derived, explicit)
    ]
    moves = steps(fast.anchor, keys[..., :1, :], values[..., :1, :], one.step, clip=clip)
    found.append(advance(fast._replace(surprise=()), scan(None, one.decay), moves))
    for other in found[1:]:
        assert_fast(other, found[0], 1e-12)
    moved = [
        (1 - one.decay[..., None]) * old - new
        for old, new in zip(fast.weights, found[0].weights, strict=True)
    ]
    size = torch.stack([m.square().sum((-2, -1)) for m in moved]).sum(0).sqrt() / one.step[..., 0]
    if clip is not None:
        torch.testing.assert_close(size, torch.full_like(size, clip))
    else:
        assert bool((size > 0.5).all())


def test_products_say_zero_and_do_not_underflow_as_ratios() -> None:
    factors = torch.tensor([0.5, 0.0, 0.25, 1e-30, 0.5])
    expected = torch.tensor(
        [
            [1, 0, 0, 0, 0],
            [0, 1, 0, 0, 0],
            [0, 0.25, 1, 0, 0],
            [0, 2.5e-31, 1e-30, 1, 0],
            [0, 1.25e-31, 5e-31, 0.5, 1],
        ]
    )
    torch.testing.assert_close(products(factors), expected, atol=0, rtol=1e-6)
    long = torch.full((4096,), 0.01)
    assert bool(torch.isfinite(products(long)).all())
    assert float(products(long).diagonal(-1).min()) == pytest.approx(0.01)


@pytest.mark.parametrize("zero", [False, True], ids=["gates between", "gates at their ends"])
def test_derivatives_are_right_also_of_gates_that_are_zero_or_one(zero: bool) -> None:
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    gates = [torch.rand(4, generator=generator, dtype=torch.float64) for _ in range(3)]
    if zero:
        gates[0][2], gates[1][1], gates[1][3], gates[2][0], gates[2][2] = 0, 0, 0, 1, 1
    given = [normal(3, 4), normal(4, 2), normal(3, 4), normal(4, 2), normal(3, 4), normal(4, 2)]
    given += [normal(4, 3), normal(4, 2), normal(4, 3), *(gate.requires_grad_() for gate in gates)]

    def run(
        a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, f: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        keys, values, queries, step, momentum, decay = rest
        fast, solved = Fast((a, b), (c, d), (e, f)), scan(momentum, decay)
        moves = steps(fast.anchor, keys, values, step, clip=3.0)
        after = advance(fast, solved, moves)
        return (read(fast, queries, solved, moves), *after.weights, *after.surprise)

    assert torch.autograd.gradcheck(run, given)


def test_clipping_has_a_derivative_where_the_gradient_is_zero() -> None:
    keys = torch.zeros(1, 4, requires_grad=True)
    weights = (torch.randn(4, 5, requires_grad=True), torch.randn(5, 3, requires_grad=True))
    moves = steps(weights, keys, torch.zeros(1, 3), torch.ones(1), clip=1.0)
    sum(m.sum() for m in moves.moves).backward()  # type: ignore[union-attr]
    assert all(bool(torch.isfinite(t.grad).all()) for t in (keys, *weights) if t.grad is not None)


# what the memory becomes, for a matrix


def matrix(
    keys: Tensor, values: Tensor, queries: Tensor, gates: Gates, *, chunk: int
) -> tuple[Tensor, Tensor]:
    """Reads and final weights of a matrix that begins as zeros, chunk by chunk."""
    zeros = (torch.zeros(SIZE, SIZE, dtype=torch.float64),)
    fast, outputs = Fast(zeros, zeros, () if gates.momentum is None else zeros), []
    for start in range(0, TOKENS, chunk):
        here = slice(start, start + chunk)
        solved = scan(None if gates.momentum is None else gates.momentum[here], gates.decay[here])
        moves = steps(fast.anchor, keys[here], values[here], gates.step[here])
        outputs.append(read(fast, queries[here], solved, moves))
        fast = advance(fast, solved, moves)
        fast = fast._replace(anchor=fast.weights)
    return torch.cat(outputs), fast.weights[0]


def one_row(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    _, keys, values, queries, gates = draw(1, torch.float64, seed)
    assert gates.momentum is not None
    return keys[0, 0], values[0, 0], queries[0, 0], gates.step[0, 0], gates.momentum[0, 0], gates.decay[0, 0]


def test_token_by_token_without_momentum_and_decay_it_is_the_delta_rule() -> None:
    keys, values, queries, step, _, _ = one_row()
    found, weights = matrix(keys, values, queries, Gates(step, None, torch.zeros_like(step)), chunk=1)
    state, expected = torch.zeros(SIZE, SIZE, dtype=torch.float64), []
    for k, v, q, theta in zip(keys, values, queries, step, strict=True):
        state = state + 2 * theta * torch.outer(k, v - k @ state)
        expected.append(q @ state)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-12, rtol=0)
    torch.testing.assert_close(weights, state, atol=1e-12, rtol=0)


def test_in_its_first_chunk_with_decay_it_is_gated_linear_attention() -> None:
    """At zero weights the gradient is -2 kᵀv, whatever was written since: a Hebbian sum that fades."""
    keys, values, queries, step, _, decay = one_row()
    found, weights = matrix(keys, values, queries, Gates(step, None, decay), chunk=TOKENS)
    state, expected = torch.zeros(SIZE, SIZE, dtype=torch.float64), []
    for k, v, q, theta, alpha in zip(keys, values, queries, step, decay, strict=True):
        state = (1 - alpha) * state + 2 * theta * torch.outer(k, v)
        expected.append(q @ state)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-12, rtol=0)
    torch.testing.assert_close(weights, state, atol=1e-12, rtol=0)


def test_momentum_of_one_never_stops_and_of_zero_is_none() -> None:
    keys, values, queries, step, momentum, _ = one_row()
    none, zero = torch.zeros_like(step), Gates(step, torch.zeros_like(step), torch.zeros_like(step))
    for chunk in (1, 4, TOKENS):
        with_zero = matrix(keys, values, queries, zero, chunk=chunk)
        without = matrix(keys, values, queries, Gates(step, None, none), chunk=chunk)
        for a, b in zip(with_zero, without, strict=True):
            torch.testing.assert_close(a, b, atol=1e-14, rtol=0)
    only_first = torch.where(torch.arange(TOKENS) == 0, step, 0)
    _, weights = matrix(keys, values, queries, Gates(only_first, torch.ones_like(momentum), none), chunk=4)
    once = 2 * step[0] * torch.outer(keys[0], values[0])
    torch.testing.assert_close(weights, TOKENS * once, atol=1e-12, rtol=0)


def test_a_decay_of_one_leaves_the_last_step_alone() -> None:
    keys, values, queries, step, _, _ = one_row()
    _, weights = matrix(keys, values, queries, Gates(step, None, torch.ones_like(step)), chunk=TOKENS)
    last = 2 * step[-1] * torch.outer(keys[-1], values[-1])
    torch.testing.assert_close(weights, last, atol=1e-14, rtol=0)
