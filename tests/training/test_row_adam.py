"""RowAdam: dense Adam on the rows that are read, and nothing at all on the others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mnemic.cube.errors import InvalidInput, InvalidOption
from mnemic.layers.rows import MemoryRows
from mnemic.training.row_adam import MARKED, RowAdam, summed

ROWS, WIDTH, STEPS = 12, 5, 30


def table(rows: int = ROWS, seed: int = 0) -> MemoryRows:
    torch.manual_seed(seed)
    return MemoryRows(rows, WIDTH, dtype=torch.float64)


def draws(seed: int = 1) -> tuple[list[Tensor], list[Tensor]]:
    """Ids read at each step, with repeats and never the last two rows; and what each read is pulled by."""
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(0, ROWS - 2, (4, 3), generator=generator) for _ in range(STEPS)]
    pulls = [torch.randn(4, 3, WIDTH, generator=generator, dtype=torch.float64) for _ in range(STEPS)]
    return ids, pulls


def trained(rows: MemoryRows, optimiser: torch.optim.Optimizer) -> list[dict[int, Tensor]]:
    """The gradient of each row at each step."""
    found = []
    for ids, pull in zip(*draws(), strict=True):
        optimiser.zero_grad()
        (rows.get(ids) * pull).sum().backward()
        gradient = rows.weight.grad
        assert gradient is not None
        gradient = gradient.coalesce()
        found.append(dict(zip(gradient.indices()[0].tolist(), gradient.values().clone(), strict=True)))
        optimiser.step()
    return found


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1, "lr": 0.02}], ids=str)
def test_a_row_moves_as_under_dense_adam_fed_with_its_own_gradients(options: dict[str, Any]) -> None:
    rows, lr = table(), options.get("lr", 1e-3)
    before = rows.weight.detach().clone()
    gradients = trained(rows, RowAdam([rows.weight], **options))
    for row in range(ROWS):
        alone = torch.nn.Parameter(before[row].clone())
        dense = torch.optim.AdamW([alone], lr=lr, weight_decay=options.get("weight_decay", 0.0))
        for step in gradients:
            if row in step:
                alone.grad = step[row]
                dense.step()
        torch.testing.assert_close(rows.weight[row], alone, atol=1e-14, rtol=1e-12)
    assert torch.equal(rows.weight[-2:], before[-2:])  # never read: not a bit


def test_a_table_that_is_read_whole_moves_as_under_dense_adam() -> None:
    tables = [table(), MemoryRows(ROWS, WIDTH, sparse=False, dtype=torch.float64)]
    tables[1].weight.data.copy_(tables[0].weight.data)
    optimisers: list[torch.optim.Optimizer] = [
        RowAdam([tables[0].weight], lr=0.01, weight_decay=0.1),
        torch.optim.AdamW([tables[1].weight], lr=0.01, weight_decay=0.1),
    ]
    everything = torch.arange(ROWS)
    for step in range(STEPS):
        pull = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        for rows, optimiser in zip(tables, optimisers, strict=True):
            optimiser.zero_grad()
            (rows.get(everything).square() * pull).sum().backward()
            optimiser.step()
    torch.testing.assert_close(tables[0].weight, tables[1].weight, atol=1e-13, rtol=1e-11)


def test_only_the_chosen_rows_move() -> None:
    rows = table()
    before = rows.weight.detach().clone()
    trained(rows, RowAdam([rows.weight], only=torch.tensor([2, 5, 11])))
    moved = (rows.weight != before).any(1).nonzero().flatten().tolist()
    assert moved == [2, 5]  # 11 is never read


def test_one_second_moment_a_row_is_adam_with_the_mean_square() -> None:
    rows = table()
    optimiser = RowAdam([rows.weight], lr=0.1, rowwise=True)
    before = rows.weight.detach()[3].clone()
    pull = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)
    (rows.get(torch.tensor([3])) * pull).sum().backward()
    optimiser.step()
    expected = before - 0.1 * pull / (pull.square().mean().sqrt() + 1e-8)
    torch.testing.assert_close(rows.weight[3].detach(), expected, atol=1e-12, rtol=1e-12)
    state = optimiser.state[rows.weight]
    assert state["second"].shape == (ROWS, 1)


def test_what_it_cannot_use_is_refused() -> None:
    rows = MemoryRows(ROWS, WIDTH, sparse=False)
    optimiser = RowAdam([rows.weight])
    rows.get(torch.tensor([1])).sum().backward()
    with pytest.raises(InvalidInput, match="sparse=True"):
        optimiser.step()
    with pytest.raises(InvalidInput, match="closure"):
        optimiser.step(lambda: 0.0)
    for wrong in ({"lr": -1.0}, {"betas": (1.0, 0.9)}, {"weight_decay": -0.1}):
        with pytest.raises(InvalidOption):
            RowAdam([rows.weight], **wrong)


@pytest.mark.parametrize("length", [ROWS, 12 * MARKED + 1], ids=["marked", "sorted"])
def test_a_gradient_is_summed_as_coalesce_sums_it(length: int) -> None:
    rows, (ids, pulls) = table(length), draws()
    (rows.get(ids[0]) * pulls[0]).sum().backward()
    gradient = rows.weight.grad
    assert gradient is not None
    found, expected = summed(gradient), gradient.coalesce()
    assert found.is_coalesced()
    assert torch.equal(found.indices(), expected.indices())
    torch.testing.assert_close(found.values(), expected.values(), atol=1e-14, rtol=1e-14)
