"""Rows on disk: a table larger than memory, read by number, that keeps the rows of its last few reads.

Windowing and swap-with-last are those of LLM in a flash (§3); a `RowTable` as memory layers use it. The file:
a header of 4,096 bytes, the rows one after another, a CRC-32 for each. A row is checked whenever it is read
from disk.
"""

from __future__ import annotations

import json
import mmap
import os
import zlib
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnemic.cube.checks import require_count
from mnemic.cube.errors import InvalidFile, InvalidInput, InvalidOption, VaultBusy
from mnemic.layers.rows import require_distinct, require_ids

FORMAT: Final = "mnemic-rows-1"
HEADER: Final = 4096
_DTYPES: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SLOT_BYTES: Final = 200  # of the bookkeeping of a resident row, an upper bound: id, slot, use count


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What was asked and what it cost. asked: distinct rows of each `get`, summed; hits: of these, "
    "resident."""

    gets: int = 0
    asked: int = 0
    hits: int = 0
    reads: int = 0
    bytes_read: int = 0
    evicted: int = 0

    @property
    def hit_rate(self) -> float:
        return self.hits / self.asked if self.asked else 0.0


def pack_rows(
    path: str | os.PathLike[str], rows: Iterable[Tensor], *, shape: tuple[int, int], dtype: str
) -> None:
    """Write a table from pieces [n, width], in order; one piece is in memory at a time. O(bytes).

    Raises InvalidOption, and InvalidInput when the pieces are not of this shape; no file is left then.
    """
    count, width = shape
    require_count(rows=count, width=width)
    if dtype not in _DTYPES:
        raise InvalidOption(f"dtype={dtype!r:.40} must be one of {', '.join(_DTYPES)}")
    target, part = Path(path), Path(f"{os.fspath(path)}.part")
    sums = np.zeros(count, dtype=np.uint32)
    done = 0
    try:
        with part.open("wb") as file:
            file.write(_header(count, width, dtype))
            for piece in rows:
                if piece.ndim != 2 or piece.shape[1] != width or done + len(piece) > count:
                    raise InvalidInput(
                        f"a piece is {tuple(piece.shape)}; the table has {count - done} rows left"
                    )
                for row in _bytes(piece.to(_DTYPES[dtype])):
                    sums[done] = zlib.crc32(row)
                    file.write(row)
                    done += 1
            if done != count:
                raise InvalidInput(f"the pieces hold {done:,} rows, and {count:,} were announced")
            file.write(sums.tobytes())
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


class DiskRows:
    """A table on disk whose resident rows never take more than `budget` bytes, bookkeeping and sums included.

    window: rows of the last so many `get`s stay, fewer where the budget is short; what one `get` reads beyond
    the budget is handed over and not kept. writable: `put` is allowed, to one process at a time. uncached:
    ask the system to forget what was read, so that a later read is one of the disk (measurements).

    Rows live in one array that is allocated once; the last row moves into the place of one that goes. A
    failed read changes nothing that is resident. Raises InvalidFile for a file that is cut, damaged or
    another kind, InvalidOption naming the least budget, VaultBusy when another process writes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        budget: int,
        window: int = 4,
        writable: bool = False,
        uncached: bool = False,
    ) -> None:
        require_count(budget=budget, window=window)
        self._path = Path(path)
        self._file = os.open(self._path, os.O_RDWR if writable else os.O_RDONLY)
        try:
            self._count, self._width, self._dtype = self._read_header()
            _lock(self._file, self._path, writable=writable)
            self._sums = self._read_sums()
            one = self.row_bytes + SLOT_BYTES
            least = self._sums.nbytes + one
            if budget < least:
                raise InvalidOption(
                    f"budget={budget:,} bytes cannot hold the {self._count:,} check sums and one row: "
                    f"{least:,} at "
                    "least"
                )
            self._capacity = min(self._count, (budget - self._sums.nbytes) // one)
            self._rows = torch.empty(self._capacity, self._width, dtype=self._dtype)
            self._ids = np.full(self._capacity, -1, dtype=np.int64)
        except BaseException:
            os.close(self._file)
            raise
        self._slots: dict[int, int] = {}  # id -> place in _rows; its inverse is _ids
        self._uses: Counter[int] = Counter()  # how many of the kept sets have an id
        self._kept: deque[NDArray[np.int64]] = deque()
        self._window, self._writable, self._uncached = window, writable, uncached
        self.traffic = Traffic()

    # --- RowTable

    @property
    def shape(self) -> tuple[int, int]:
        return self._count, self._width

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    @property
    def row_bytes(self) -> int:
        return self._width * self._dtype.itemsize

    def get(self, ids: Tensor) -> Tensor:
        """ids (…) -> (…, width), a copy. Reads each missing row once, neighbours by one read."""
        require_ids(ids, self._count)
        flat = ids.reshape(-1).cpu().numpy()
        wanted, back = np.unique(flat, return_inverse=True)
        missing = np.array([one for one in wanted if int(one) not in self._slots], dtype=np.int64)
        fresh, reads = self._read(missing)
        out = torch.empty(len(wanted), self._width, dtype=self._dtype)
        here = np.isin(wanted, missing, invert=True)
        if here.any():
            out[torch.from_numpy(here)] = self._rows[[self._slots[int(one)] for one in wanted[here]]]
        out[torch.from_numpy(~here)] = fresh
        evicted = self._keep(wanted, missing, fresh)
        was = self.traffic
        self.traffic = replace(
            was,
            gets=was.gets + 1,
            asked=was.asked + len(wanted),
            hits=was.hits + int(here.sum()),
            reads=was.reads + reads,
            bytes_read=was.bytes_read + len(missing) * self.row_bytes,
            evicted=was.evicted + evicted,
        )
        return out[torch.from_numpy(back.reshape(-1))].view(*ids.shape, self._width)

    def put(self, ids: Tensor, rows: Tensor) -> None:
        """Replace rows, on disk and where they are resident. Raises InvalidOption unless it is writable."""
        require_distinct(ids, self._count)
        if not self._writable:
            raise InvalidOption(f"{self._path} was opened for reading; open it with writable=True")
        if rows.shape != (ids.shape[0], self._width):
            raise InvalidInput(f"rows must have shape {(ids.shape[0], self._width)}, got {tuple(rows.shape)}")
        kept = rows.detach().cpu().to(self._dtype)
        for id, row, content in zip(ids.tolist(), kept, _bytes(kept), strict=True):
            _write(self._file, content, HEADER + id * self.row_bytes)
            self._sums[id] = zlib.crc32(content)
            _write(self._file, self._sums[id : id + 1].tobytes(), self._sums_at + 4 * id)
            if id in self._slots:
                self._rows[self._slots[id]] = row

    # --- what it holds

    @property
    def resident(self) -> list[int]:
        """Ids of the rows that are in memory."""
        return sorted(self._slots)

    @property
    def resident_bytes(self) -> int:
        """Allocated for rows, their bookkeeping and the check sums: at most the budget."""
        return self._capacity * (self.row_bytes + SLOT_BYTES) + self._sums.nbytes

    def close(self) -> None:
        """The file is let go; used afterwards it raises OSError."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- inside

    @property
    def _sums_at(self) -> int:
        return HEADER + self._count * self.row_bytes

    def _keep(self, wanted: NDArray[np.int64], missing: NDArray[np.int64], fresh: Tensor) -> int:
        """Let the window move on: evict what no kept read had, then place what was read. How many went."""
        self._kept.append(wanted)
        self._uses.update(wanted.tolist())
        gone = 0
        while len(self._kept) > self._window or (len(self._uses) > self._capacity and len(self._kept) > 1):
            gone += self._forget(self._kept.popleft())
        if len(self._uses) > self._capacity:  # this one read alone is too much: keep its beginning
            spare = wanted[self._capacity :]
            self._kept[-1] = wanted[: self._capacity]
            gone += self._forget(spare)
        for id, row in zip(missing.tolist(), fresh, strict=True):
            if id in self._uses:
                place = len(self._slots)
                self._rows[place] = row
                self._ids[place] = id
                self._slots[id] = place
        return gone

    def _forget(self, ids: NDArray[np.int64]) -> int:
        gone = 0
        for id in ids.tolist():
            self._uses[id] -= 1
            if self._uses[id]:
                continue
            del self._uses[id]
            place = self._slots.pop(id, None)
            if place is None:
                continue
            last = len(self._slots)  # of those that remain, the one in the last place moves
            if place != last:
                moved = int(self._ids[last])
                self._rows[place] = self._rows[last]
                self._ids[place] = moved
                self._slots[moved] = place
            self._ids[last] = -1
            gone += 1
        return gone

    def _read(self, ids: NDArray[np.int64]) -> tuple[Tensor, int]:
        """Rows by ascending id, and by how many reads. Raises InvalidFile for one that was damaged."""
        size = self.row_bytes
        content = bytearray(len(ids) * size)
        reads = at = 0
        for run in np.split(ids, np.flatnonzero(np.diff(ids) > 1) + 1) if len(ids) else ():
            start = HEADER + int(run[0]) * size
            piece = _read_all(self._file, len(run) * size, start)
            if len(piece) < len(run) * size:
                self._refuse(f"it ends at row {int(run[0]) + len(piece) // size}")
            content[at : at + len(piece)] = piece
            reads, at = reads + 1, at + len(piece)
            if self._uncached and hasattr(os, "posix_fadvise"):
                first = start // mmap.PAGESIZE * mmap.PAGESIZE
                os.posix_fadvise(self._file, first, start + len(piece) - first, os.POSIX_FADV_DONTNEED)
        for place, id in enumerate(ids.tolist()):
            if zlib.crc32(memoryview(content)[place * size : (place + 1) * size]) != self._sums[id]:
                self._refuse(f"row {id} does not match its check sum")
        if not len(ids):
            return torch.empty(0, self._width, dtype=self._dtype), 0
        return torch.frombuffer(content, dtype=self._dtype).view(len(ids), self._width), reads

    def _read_header(self) -> tuple[int, int, torch.dtype]:
        raw = _read_all(self._file, HEADER, 0)
        try:
            told = json.loads(raw.rstrip(b"\0 "))
            count, width, dtype = told["rows"], told["width"], _DTYPES[told["dtype"]]
            if told["format"] != FORMAT or not (isinstance(count, int) and isinstance(width, int)):
                raise ValueError(f"format={told['format']!r:.40}")
            if count < 1 or width < 1:
                raise ValueError(f"{count} rows of {width}")
        except (ValueError, KeyError, TypeError) as error:
            self._refuse(f"its header cannot be read ({error})")
        wanted = HEADER + count * (width * dtype.itemsize + 4)
        if (size := os.fstat(self._file).st_size) != wanted:
            self._refuse(f"{count:,} rows of {width} take {wanted:,} bytes, and it has {size:,}")
        return count, width, dtype

    def _read_sums(self) -> NDArray[np.uint32]:
        return np.frombuffer(
            bytearray(_read_all(self._file, 4 * self._count, self._sums_at)), dtype=np.uint32
        )

    def _refuse(self, why: str) -> NoReturn:
        raise InvalidFile(f"{self._path} is not a sound table of rows: {why}. Pack it again: pack_rows(…)")


def _header(count: int, width: int, dtype: str) -> bytes:
    told = json.dumps({"format": FORMAT, "rows": count, "width": width, "dtype": dtype}).encode()
    return told.ljust(HEADER, b" ")


def _bytes(rows: Tensor) -> list[memoryview]:
    """Each row's bytes."""
    flat = rows.contiguous().view(torch.uint8).reshape(len(rows), -1).numpy()
    return [memoryview(row).cast("B") for row in flat]


def _read_all(file: int, size: int, offset: int) -> bytes:
    """Up to `size` bytes: fewer at the end of the file."""
    out = b""
    while len(out) < size:
        piece = os.pread(file, size - len(out), offset + len(out))
        if not piece:
            break
        out = out + piece if out else piece
    return out


def _write(file: int, content: Any, offset: int) -> None:
    view = memoryview(content)
    while len(view):
        done = os.pwrite(file, view, offset)
        view, offset = view[done:], offset + done


def _lock(file: int, path: Path, *, writable: bool) -> None:
    """Many may read or one may write. Where the system has no such locks, nothing is held."""
    if os.name != "posix":
        return
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_EX if writable else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise VaultBusy(
            f"{path} is {'in use' if writable else 'being written'} by another table or process; close that "
            "first"
        ) from error
