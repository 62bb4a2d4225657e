"""Training a table on disk: only the rows that were read have gradients, and only they are written.

What an optimiser keeps of a row lies in a second file. In memory is what the two tables' budgets allow, and
the rows of one step.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import embedding

from mnemic.cube.checks import require_positive
from mnemic.cube.errors import InvalidInput, InvalidOption
from mnemic.parametric.disk_rows import DiskRows, pack_rows
from mnemic.training.row_adam import moved_rows


class LearningRows:
    """A `RowTable` on disk whose rows get gradients: what a memory layer reads its values from in training.

    Without gradients (torch.no_grad) it is the table. `table` is opened with writable=True.
    """

    def __init__(self, table: DiskRows) -> None:
        self.table = table
        self._told: list[tuple[Tensor, Tensor]] = []  # ids and gradients, as they arrive

    @property
    def shape(self) -> tuple[int, int]:
        return self.table.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.table.dtype

    @property
    def row_bytes(self) -> int:
        return self.table.row_bytes

    def get(self, ids: Tensor) -> Tensor:
        """ids (…) -> (…, width). Gradients are kept as they arrive, until `gradients` are taken."""
        if not torch.is_grad_enabled():
            return self.table.get(ids)
        unique, back = ids.unique(return_inverse=True)
        leaf = self.table.get(unique).requires_grad_()
        leaf.register_hook(lambda gradient: self._told.append((unique, gradient.float())))
        return embedding(back, leaf)

    def put(self, ids: Tensor, rows: Tensor) -> None:
        self.table.put(ids, rows)

    def gradients(self) -> tuple[Tensor, Tensor]:
        """Ids (n,) ascending and the gradients (n, width) of their rows, summed over all that arrived since
        the last call.
        """
        told, self._told = self._told, []
        if not told:
            return torch.empty(0, dtype=torch.int64), torch.empty(0, self.shape[1])
        ids, back = torch.cat([one for one, _ in told]).unique(return_inverse=True)
        total = torch.zeros(len(ids), self.shape[1])
        return ids, total.index_add_(0, back, torch.cat([one for _, one in told]))


class DiskAdam:
    """Adam for `LearningRows`, the same as `RowAdam` row by row. O(rows read · width) a step.

    path: of the moments, [first | second | steps] a row, made on first use; budget: of bytes in memory for
    them. rowwise: one second moment a row instead of one a number.
    """

    def __init__(
        self,
        rows: LearningRows,
        path: str | os.PathLike[str],
        *,
        budget: int,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        rowwise: bool = False,
        uncached: bool = False,
    ) -> None:
        require_positive(lr=lr, eps=eps)
        if weight_decay < 0 or not all(0 <= beta < 1 for beta in betas):
            raise InvalidOption(
                f"weight_decay is at least 0, betas from 0 to below 1; got {weight_decay!r:.40}, "
                f"{betas!r:.80}"
            )
        count, width = rows.shape
        self._rows, self._second = rows, 1 if rowwise else width
        total = width + self._second + 1
        self.group = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        if not os.path.exists(path):
            pack_rows(path, _zeros(count, total), shape=(count, total), dtype="float32")
        self.moments = DiskRows(path, budget=budget, writable=True, uncached=uncached)
        if self.moments.shape != (count, total):
            found = self.moments.shape
            self.moments.close()
            raise InvalidInput(
                f"{os.fspath(path)} holds the moments of a table of {found[0]:,} rows in {found[1]} numbers; "
                f"this one has {count:,} and needs {total}. Delete it to begin anew"
            )

    def step(self) -> int:
        """Move the rows that have gradients; how many. Raises InvalidInput when one is no number."""
        ids, gradient = self._rows.gradients()
        if not len(ids):
            return 0
        if not bool(torch.isfinite(gradient).all()):
            raise InvalidInput("a gradient is no finite number; nothing was written. Train at a lower rate")
        width = self._rows.shape[1]
        first, second, steps = self.moments.get(ids).split([width, self._second, 1], dim=1)
        held = self._rows.table.get(ids).float()
        moved, first, second, steps = moved_rows(held, gradient, first, second, steps[:, 0], self.group)
        self.moments.put(ids, torch.cat([first, second, steps[:, None]], dim=1))
        self._rows.put(ids, moved)
        return len(ids)

    def zero_grad(self) -> None:
        """Gradients that arrived since the last step are forgotten."""
        self._rows.gradients()

    def close(self) -> None:
        self.moments.close()


def _zeros(count: int, width: int) -> Iterator[Tensor]:
    for start in range(0, count, 4096):
        yield torch.zeros(min(4096, count - start), width)
