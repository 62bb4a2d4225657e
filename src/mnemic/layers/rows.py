"""A table of rows read by number: few rows a token of a table that may be larger than memory.

`RowTable` is what a memory layer or a store of weights needs of it; where the rows lie is the table's affair.
`MemoryRows` keeps them in memory, as one parameter.
"""

from __future__ import annotations

import os
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from mnemic.cube.errors import InvalidInput, InvalidOption


@runtime_checkable
class RowTable(Protocol):
    """`shape` is (rows, width). Ids are int64 from 0 to rows - 1; others raise InvalidInput.

    A reader asks for the ids of a whole batch at once, repeats and all: a table that reads slowly reads each
    row once. What `get` gave does not change when rows are put later.
    """

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def dtype(self) -> torch.dtype:
        """Of what `get` returns; rows may lie narrower."""
        ...

    @property
    def row_bytes(self) -> int:
        """Bytes read for one row where it lies."""
        ...

    def get(self, ids: Tensor) -> Tensor:
        """ids (…) any shape, repeats allowed -> (…, width). Gradients reach a table only if it trains."""
        ...

    def put(self, ids: Tensor, rows: Tensor) -> None:
        """Replace rows: ids (n,) without repeats, rows (n, width). Every other row stays bit by bit."""
        ...


class MemoryRows(nn.Module):
    """Rows in memory: `weight` (rows, width), trained like any parameter.

    sparse: its gradient holds the rows that were read and no others (a sparse tensor, for RowAdam and
    SGD); otherwise it is dense, for any optimiser. O(rows read · width). Raises InvalidOption when the table
    is larger than this machine's memory.
    """

    def __init__(
        self,
        rows: int,
        width: int,
        *,
        sparse: bool = True,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.sparse = sparse
        require_room(rows, width, (dtype or torch.get_default_dtype()).itemsize)
        self.weight = nn.Parameter(torch.empty(rows, width, dtype=dtype, device=device))
        self.reset_parameters()

    def reset_parameters(self, std: float = 0.02) -> None:
        nn.init.normal_(self.weight, std=std)

    @property
    def shape(self) -> tuple[int, int]:
        rows, width = self.weight.shape
        return rows, width

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype

    @property
    def row_bytes(self) -> int:
        return self.weight.shape[1] * self.weight.element_size()

    def get(self, ids: Tensor) -> Tensor:
        require_ids(ids, self.weight.shape[0])
        return embedding(ids, self.weight, sparse=self.sparse)

    @torch.no_grad()
    def put(self, ids: Tensor, rows: Tensor) -> None:
        require_distinct(ids, self.weight.shape[0])
        if rows.shape != (ids.shape[0], self.weight.shape[1]):
            raise InvalidInput(
                f"rows must have shape {(ids.shape[0], self.weight.shape[1])}, got {tuple(rows.shape)}"
            )
        self.weight.index_copy_(0, ids, rows.to(self.weight))

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}, sparse={self.sparse}"


def require_ids(ids: Tensor, rows: int) -> None:
    """Raise InvalidInput unless all are whole numbers from 0 to rows - 1."""
    if ids.dtype not in (torch.int64, torch.int32):
        raise InvalidInput(f"ids of rows are int64, got {ids.dtype}")
    if ids.numel() == 0 or ids.device.type == "meta":
        return
    least, most = (int(bound) for bound in ids.aminmax())
    if least < 0 or most >= rows:
        raise InvalidInput(f"ids of rows are 0 to {rows - 1}, got {least if least < 0 else most}")


def require_distinct(ids: Tensor, rows: int) -> None:
    """Raise InvalidInput unless ids (n,) are in range and none comes twice."""
    require_ids(ids, rows)
    if ids.dim() != 1 or ids.unique().numel() != ids.numel():
        raise InvalidInput("ids of rows to be replaced are one dimension without repeats")


def require_room(rows: int, width: int, element_bytes: int) -> None:
    """Raise InvalidOption, with the estimate, when a table cannot fit into this machine's memory."""
    wanted, there = rows * width * element_bytes, _memory_bytes()
    if there is not None and wanted > there:
        raise InvalidOption(
            f"a table of {rows:,} rows of {width} takes {wanted / 1e9:,.1f} GB, and this machine has "
            f"{there / 1e9:,.1f} GB: take fewer keys, narrower rows, or a table on disk"
        )


def _memory_bytes() -> int | None:
    """Of the machine; None where the system does not say."""
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names or "SC_PAGE_SIZE" not in names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
