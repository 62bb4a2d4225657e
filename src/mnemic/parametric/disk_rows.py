"""Rows on disk: a table larger than memory, read by number, that keeps the rows of its last few reads.

Windowing and swap-with-last are those of LLM in a flash (§3); a `RowTable` as memory layers use it. What lies
in the file is `row_file`'s affair.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnemic.cube.checks import require_count
from mnemic.cube.errors import BudgetTooSmall, InvalidInput, InvalidOption
from mnemic.layers.rows import require_distinct, require_ids
from mnemic.parametric.row_file import SUM_BYTES, RowFile, pack_rows

__all__ = ["ROW_BYTES", "DiskRows", "Traffic", "pack_rows", "slot_bytes"]
ROW_BYTES: Final = SUM_BYTES + 4 + 2  # in memory for every row of the file: check sum, place, use count
Ids = NDArray[np.int64]


def slot_bytes(window: int) -> int:
    """In memory for every row that may be resident, beside the row: its id, and in the ids of each read that
    is kept.
    """
    return 8 * (1 + window)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What was asked and what it cost. asked: distinct rows of each `get`; hits: of these, resident."""

    gets: int = 0
    asked: int = 0
    hits: int = 0
    reads: int = 0
    bytes_read: int = 0
    evicted: int = 0

    @property
    def hit_rate(self) -> float:
        return self.hits / self.asked if self.asked else 0.0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})


class DiskRows:
    """A table on disk whose resident rows never take more than `budget` bytes, bookkeeping and sums included.

    window: rows of the last so many `get`s stay, fewer where the budget is short; what one `get` reads beyond
    the budget is handed over and not kept. writable: `put` is allowed, to one process at a time. uncached:
    every read is one of the disk, not of the system's page cache (`cold_by`). threads: that read at once.

    Rows live in one array that is allocated once; the last row moves into the place of one that goes. A
    failed read changes nothing that is resident. Raises InvalidFile for a file that is cut, damaged or
    another kind, BudgetTooSmall naming the least budget, VaultBusy when another process writes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        budget: int,
        window: int = 4,
        writable: bool = False,
        uncached: bool = False,
        threads: int = 1,
    ) -> None:
        require_count(budget=budget, window=window)
        self._file = file = RowFile(path, writable=writable, uncached=uncached, threads=threads)
        self._fixed = file.resident_bytes + file.count * (ROW_BYTES - SUM_BYTES)
        self._slot = file.row_bytes + slot_bytes(window)
        if budget < (least := self._fixed + self._slot):
            file.close()
            raise BudgetTooSmall(
                f"budget={budget:,} bytes cannot hold the bookkeeping of {file.count:,} rows and one of "
                f"them: {least:,} at least"
            )
        self._capacity = min(file.count, (budget - self._fixed) // self._slot)
        self._rows = torch.empty(self._capacity, file.width, dtype=file.dtype)
        self._ids = np.full(self._capacity, -1, dtype=np.int64)
        self._places = np.full(file.count, -1, dtype=np.int32)  # id -> place in _rows; its inverse is _ids
        self._uses = np.zeros(file.count, dtype=np.uint16)  # how many of the kept sets have an id
        self._used = self._needed = 0  # places that are taken; ids that have a use
        self._kept: deque[Ids] = deque()
        self._window = window
        self.traffic = Traffic()

    # --- RowTable

    @property
    def shape(self) -> tuple[int, int]:
        return self._file.count, self._file.width

    @property
    def dtype(self) -> torch.dtype:
        return self._file.dtype

    @property
    def row_bytes(self) -> int:
        return self._file.row_bytes

    def get(self, ids: Tensor) -> Tensor:
        """ids (…) -> (…, width), a copy. Reads each missing row once, neighbours by one read."""
        require_ids(ids, self._file.count)
        flat = ids.reshape(-1).cpu().numpy().astype(np.int64, copy=False)
        wanted, back = np.unique(flat, return_inverse=True)
        out, missing, fresh = self._gather(wanted)
        self._advance(wanted)
        self._settle(missing, fresh)
        self._count(gets=1)
        return out[torch.from_numpy(back.reshape(-1))].view(*ids.shape, self._file.width)

    def pieces(self, ids: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """One `get` handed over `size` rows at a time: (ids, rows), ascending, each id once.

        Nothing of the whole is in memory but what is resident: at most 2 · size rows besides. Exhaust it
        before the next read.
        """
        require_ids(ids, self._file.count)
        require_count(size=size)
        wanted = np.unique(ids.reshape(-1).cpu().numpy().astype(np.int64, copy=False))
        self._advance(wanted)
        self._count(gets=1)
        for start in range(0, len(wanted), size):
            part = wanted[start : start + size]
            out, missing, fresh = self._gather(part)
            self._settle(missing, fresh)
            yield torch.from_numpy(part), out

    def put(self, ids: Tensor, rows: Tensor) -> None:
        """Replace rows, on disk and where they are resident. Raises InvalidOption unless it is writable."""
        require_distinct(ids, self._file.count)
        if not self._file.writable:
            raise InvalidOption(f"{self._file.path} was opened for reading; open it with writable=True")
        if rows.shape != (ids.shape[0], self._file.width):
            raise InvalidInput(
                f"rows must have shape {(ids.shape[0], self._file.width)}, got {tuple(rows.shape)}"
            )
        order = ids.cpu().argsort()
        kept = rows.detach().cpu()[order].to(self.dtype)
        where = ids.cpu()[order].numpy().astype(np.int64, copy=False)
        self._file.write(where, kept)
        places = self._places[where]
        here = places >= 0
        self._rows[torch.from_numpy(places[here].astype(np.int64))] = kept[torch.from_numpy(here)]

    # --- what it holds

    @property
    def resident(self) -> list[int]:
        """Ids of the rows that are in memory."""
        return sorted(self._ids[: self._used].tolist())

    @property
    def resident_bytes(self) -> int:
        """Allocated for rows, their bookkeeping, check sums and direct reads: at most the budget."""
        return self._capacity * self._slot + self._fixed

    @property
    def capacity(self) -> int:
        """How many rows may be resident."""
        return self._capacity

    @property
    def cold_by(self) -> str:
        """How reads pass the page cache by: O_DIRECT or DONTNEED; empty where they do not."""
        return self._file.cold_by

    def forget(self) -> None:
        """Nothing is resident any more: the next read is one of the file."""
        while self._kept:
            self._forget(self._kept.popleft())

    def close(self) -> None:
        """The file is let go; used afterwards it raises OSError."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- inside

    def _gather(self, wanted: Ids) -> tuple[Tensor, Ids, Tensor]:
        """The rows of ascending ids, and those of them that had to be read. Changes nothing but `traffic`."""
        places = self._places[wanted]
        here = places >= 0
        missing = wanted[~here]
        fresh, reads = self._file.read(missing)
        self._count(
            asked=len(wanted),
            hits=len(wanted) - len(missing),
            reads=reads,
            bytes_read=len(missing) * self.row_bytes,
        )
        if len(missing) == len(wanted):
            return fresh, missing, fresh
        out = torch.empty(len(wanted), self._file.width, dtype=self.dtype)
        out[torch.from_numpy(here)] = self._rows[torch.from_numpy(places[here].astype(np.int64))]
        out[torch.from_numpy(~here)] = fresh
        return out, missing, fresh

    def _advance(self, wanted: Ids) -> None:
        """Let the window move on to `wanted`: what no kept read had goes."""
        self._needed += int((self._uses[wanted] == 0).sum())
        self._uses[wanted] += 1
        self._kept.append(wanted)
        while len(self._kept) > self._window or (self._needed > self._capacity and len(self._kept) > 1):
            self._forget(self._kept.popleft())
        if self._needed > self._capacity:  # this one read alone is too much: keep its beginning
            self._kept[-1] = wanted[: self._capacity].copy()
            self._forget(wanted[self._capacity :])

    def _settle(self, missing: Ids, fresh: Tensor) -> None:
        """Place rows that were read and are to stay."""
        stay = self._uses[missing] > 0
        ids, start = missing[stay], self._used
        end = start + len(ids)
        self._rows[start:end] = fresh[torch.from_numpy(stay)]
        self._ids[start:end] = ids
        self._places[ids] = np.arange(start, end, dtype=np.int32)
        self._used = end

    def _forget(self, ids: Ids) -> None:
        self._uses[ids] -= 1
        gone = ids[self._uses[ids] == 0]
        self._needed -= len(gone)
        holes = self._places[gone]
        holes = holes[holes >= 0].astype(np.int64)
        self._places[gone] = -1
        end = self._used - len(holes)
        last = np.arange(end, self._used)  # of those that remain, the ones in the last places move
        movers, holes_below = last[~np.isin(last, holes)], holes[holes < end]
        self._rows[torch.from_numpy(holes_below)] = self._rows[torch.from_numpy(movers)]
        self._ids[holes_below] = self._ids[movers]
        self._places[self._ids[holes_below]] = holes_below
        self._ids[end : self._used] = -1
        self._used = end
        self._count(evicted=len(holes))

    def _count(self, **more: int) -> None:
        was = self.traffic
        self.traffic = replace(was, **{name: getattr(was, name) + one for name, one in more.items()})
