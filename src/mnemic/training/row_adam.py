"""Adam for tables of rows: what was not read does not move, and each row counts its own steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from mnemic.cube.errors import InvalidInput, InvalidOption

MARKED: Final = 64  # rows of a table for an entry of its gradient, up to which marking beats sorting


class RowAdam(Optimizer):
    """AdamW over the rows of sparse gradients. O(rows read · width) a step, whatever the table's size.

    A row moves as under dense AdamW fed with only the gradients that reached it: its moments wait while it is
    not read (dense Adam goes on moving it), its bias correction counts its own steps (torch's SparseAdam
    counts everybody's, and moves a row read late for the first time three times too far), and weight decay
    touches it when it is read. All other rows keep their bits.

    rowwise: one second moment a row instead of one a number; the state is then half as large. only: int64
    ids, the only rows that may move. State: `first`, `second`, and `steps` int32 (rows,).
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        rowwise: bool = False,
        only: Tensor | None = None,
    ) -> None:
        if lr < 0 or eps < 0 or weight_decay < 0 or not all(0 <= beta < 1 for beta in betas):
            raise InvalidOption(
                "lr, eps and weight_decay are at least 0, betas from 0 to below 1; got "
                f"{lr}, {eps}, {weight_decay}, {betas}"
            )
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "rowwise": rowwise,
            "only": only,
        }  # fmt: skip
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Raises InvalidInput for a dense gradient: make the table with `sparse=True`."""
        if closure is not None:
            raise InvalidInput("RowAdam takes no closure")
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._move(table, group)

    def _move(self, table: Tensor, group: dict[str, Any]) -> None:
        ids, gradient = rows_of(table)
        if group["only"] is not None:
            kept = torch.isin(ids, group["only"])
            ids, gradient = ids[kept], gradient[kept]
        state = self.state[table]
        if not state:
            state["first"] = torch.zeros_like(table)
            state["second"] = torch.zeros_like(table[:, :1] if group["rowwise"] else table)
            state["steps"] = torch.zeros(table.shape[0], dtype=torch.int32, device=table.device)
        moved, first, second, steps = moved_rows(
            table[ids], gradient, state["first"][ids], state["second"][ids], state["steps"][ids], group
        )
        for held, new in ((table, moved), (state["first"], first), (state["second"], second)):
            held.index_copy_(0, ids, new)
        state["steps"].index_copy_(0, ids, steps)


def moved_rows(
    rows: Tensor, gradient: Tensor, first: Tensor, second: Tensor, steps: Tensor, group: Mapping[str, Any]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One step of Adam for rows (n, width): the rows, their moments and their numbers of steps after it.

    second: (n, width), or (n, 1) where a row has one for all its numbers. group: lr, betas, eps,
    weight_decay.
    """
    beta1, beta2 = group["betas"]
    steps = steps + 1
    square = gradient.square()
    if second.shape[1] == 1 < gradient.shape[1]:
        square = square.mean(1, keepdim=True)
    first = first.lerp(gradient, 1 - beta1)
    second = second.lerp(square, 1 - beta2)
    age = steps.to(gradient.dtype).unsqueeze(1)
    denominator = (second / (1 - beta2**age)).sqrt_().add_(group["eps"])
    moved = rows * (1 - group["lr"] * group["weight_decay"])
    moved = moved - group["lr"] * (first / (1 - beta1**age)) / denominator
    return moved, first, second, steps


def rows_of(table: Tensor) -> tuple[Tensor, Tensor]:
    """Ids (n,) and gradients (n, width) of the rows that were read, each row once. Raises InvalidInput."""
    gradient = table.grad
    if gradient is None or not gradient.is_sparse:
        raise InvalidInput("RowAdam moves rows of sparse gradients: make the table with sparse=True")
    if not gradient.is_coalesced():
        gradient = summed(gradient)
        table.grad = gradient
    return gradient.indices()[0], gradient.values()


def summed(gradient: Tensor) -> Tensor:
    """A sparse gradient of rows with each row once: `coalesce`, without sorting where the table is short.

    Marks the rows that were read and adds up: O(rows of the table + entries · width). Of a table much longer
    than what is read of it, sorting that is less.
    """
    rows, entries = gradient.shape[0], gradient._nnz()
    if gradient.is_coalesced() or rows > MARKED * entries:
        return gradient.coalesce()
    ids = gradient._indices()[0]
    place = torch.zeros(rows, dtype=torch.int64, device=ids.device).index_fill_(0, ids, 1)
    read = place.nonzero().squeeze(1)
    place.index_copy_(0, read, torch.arange(len(read), device=ids.device))
    values = gradient._values()
    total = values.new_zeros(len(read), *values.shape[1:]).index_add_(0, place[ids], values)
    return torch.sparse_coo_tensor(
        read.unsqueeze(0), total, gradient.shape, is_coalesced=True, check_invariants=False
    )
