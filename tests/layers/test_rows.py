"""Rows read by number: values, gradients of the rows that were read, replacement."""

from __future__ import annotations

import pytest
import torch

from mnemic.cube.errors import InvalidInput, InvalidOption
from mnemic.layers.rows import MemoryRows, RowTable


def table(*, sparse: bool = True) -> MemoryRows:
    torch.manual_seed(0)
    return MemoryRows(7, 3, sparse=sparse, dtype=torch.float64)


def test_rows_come_back_in_the_shape_of_their_ids() -> None:
    rows = table()
    assert isinstance(rows, RowTable)
    assert (rows.shape, rows.dtype, rows.row_bytes) == ((7, 3), torch.float64, 24)
    ids = torch.tensor([[0, 6], [3, 3]])
    assert torch.equal(rows.get(ids), rows.weight.detach()[ids])
    assert rows.get(torch.empty(2, 0, dtype=torch.int64)).shape == (2, 0, 3)


def test_a_sparse_gradient_is_the_dense_one_and_holds_only_what_was_read() -> None:
    ids = torch.tensor([[0, 6], [3, 3]])
    found = []
    for sparse in (True, False):
        rows = table(sparse=sparse)
        (rows.get(ids) * torch.arange(12.0).view(2, 2, 3)).sum().backward()
        found.append(rows.weight.grad)
    mine, dense = found
    assert mine is not None
    assert dense is not None
    assert mine.is_sparse
    assert mine.coalesce().indices().tolist() == [[0, 3, 6]]
    assert torch.equal(mine.to_dense(), dense)


def test_replaced_rows_change_and_no_others() -> None:
    rows = table()
    before, given = rows.weight.detach().clone(), rows.get(torch.tensor([2])).detach()
    rows.put(torch.tensor([5, 2]), torch.ones(2, 3))
    assert torch.equal(rows.weight[[2, 5]], torch.ones(2, 3, dtype=torch.float64))
    left = [0, 1, 3, 4, 6]
    assert torch.equal(rows.weight[left], before[left])
    assert torch.equal(given, before[[2]])


@pytest.mark.parametrize("ids", [[7], [-1]])
def test_ids_out_of_range_are_refused(ids: list[int]) -> None:
    with pytest.raises(InvalidInput, match="0 to 6"):
        table().get(torch.tensor(ids))
    with pytest.raises(InvalidInput, match="0 to 6"):
        table().put(torch.tensor(ids), torch.ones(1, 3))


def test_what_cannot_be_put_is_refused_and_nothing_written() -> None:
    rows = table()
    before = rows.weight.detach().clone()
    with pytest.raises(InvalidInput, match="repeats"):
        rows.put(torch.tensor([1, 1]), torch.ones(2, 3))
    with pytest.raises(InvalidInput, match="shape"):
        rows.put(torch.tensor([1]), torch.ones(1, 4))
    with pytest.raises(InvalidInput, match="int64"):
        rows.get(torch.tensor([1.0]))
    assert torch.equal(rows.weight, before)


def test_a_table_larger_than_memory_is_refused_with_its_size() -> None:
    with pytest.raises(InvalidOption, match="GB"):
        MemoryRows(10**9, 10**6)
