"""Rows in a file: a header of 4,096 bytes, the rows one after another, a CRC-32 for each.

Knows nothing of what stays in memory. A row is checked whenever it is read.
"""

from __future__ import annotations

import json
import mmap
import os
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnemic.cube.checks import require_count
from mnemic.cube.errors import InvalidFile, InvalidInput, InvalidOption, VaultBusy

FORMAT: Final = "mnemic-rows-1"
HEADER: Final = 4096
DTYPES: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SUM_BYTES: Final = 4  # of a row's check sum, in memory while the file is open
BLOCK: Final = 4096  # offsets, lengths and addresses of direct reads are multiples of it
PIECE: Final = 64 << 10  # bytes of one direct read, and of each thread's buffer for it
Run = tuple[int, int, int]  # first id, how many, place of the first in what is read


def pack_rows(
    path: str | os.PathLike[str], rows: Iterable[Tensor], *, shape: tuple[int, int], dtype: str
) -> None:
    """Write a table from pieces [n, width], in order; one piece is in memory at a time. O(bytes).

    Raises InvalidOption, and InvalidInput when the pieces are not of this shape; no file is left then.
    """
    count, width = shape
    require_count(rows=count, width=width)
    if dtype not in DTYPES:
        raise InvalidOption(f"dtype={dtype!r:.40} must be one of {', '.join(DTYPES)}")
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
                content = _bytes(piece.to(DTYPES[dtype]))
                sums[done : done + len(piece)] = _sums(content, len(piece))
                file.write(content)
                done += len(piece)
            if done != count:
                raise InvalidInput(f"the pieces hold {done:,} rows, and {count:,} were announced")
            file.write(sums.tobytes())
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


class RowFile:
    """An open file of rows. Many may read one, or one may write it.

    uncached: reads are those of the disk, by O_DIRECT where the file system has it, else by asking the
    system to forget what was read; `cold_by` says which. threads: that read at once.

    Raises InvalidFile for a file that is cut, damaged or another kind, VaultBusy when another writes.
    """

    def __init__(self, path: str | os.PathLike[str], *, writable: bool, uncached: bool, threads: int) -> None:
        require_count(threads=threads)
        self.path, self.writable, self.threads = Path(path), writable, threads
        self._file = os.open(self.path, os.O_RDWR if writable else os.O_RDONLY)
        self._direct = -1
        self._pool: ThreadPoolExecutor | None = None
        try:
            self.count, self.width, self.dtype = self._read_header()
            _lock(self._file, self.path, writable=writable)
            self._sums = self._read_sums()
            if uncached:
                self._direct = _open_direct(self.path)
            self.cold_by = ("O_DIRECT" if self._direct >= 0 else "DONTNEED") if uncached else ""
            self._buffers = [mmap.mmap(-1, PIECE) for _ in range(threads)] if self._direct >= 0 else []
            if threads > 1:
                self._pool = ThreadPoolExecutor(threads, thread_name_prefix="mnemic-rows")
        except BaseException:
            self.close()
            raise

    @property
    def row_bytes(self) -> int:
        return self.width * self.dtype.itemsize

    @property
    def resident_bytes(self) -> int:
        """Check sums, and what direct reads go through."""
        return int(self._sums.nbytes) + len(self._buffers) * PIECE

    def read(self, ids: NDArray[np.int64]) -> tuple[Tensor, int]:
        """Rows by ascending ids without repeats, and by how many reads. Neighbours are read at once.

        Raises InvalidFile for a row that was damaged.
        """
        if not len(ids):
            return torch.empty(0, self.width, dtype=self.dtype), 0
        out = torch.empty(len(ids), self.width, dtype=self.dtype)
        content = memoryview(_bytes(out))
        starts = np.flatnonzero(np.diff(ids, prepend=ids[0] - 2) > 1)
        ends = np.append(starts[1:], len(ids))
        runs = [(int(ids[a]), int(b - a), int(a)) for a, b in zip(starts, ends, strict=True)]
        runs = [part for run in runs for part in self._split(run)]
        if self._pool is None or len(runs) == 1:
            self._read_runs(runs, content, 0)
        else:
            size = -(-len(runs) // self.threads)
            tasks = [
                self._pool.submit(self._read_runs, runs[n * size : (n + 1) * size], content, n)
                for n in range(self.threads)
            ]
            errors = [task.exception() for task in tasks]  # all have ended before any is told
            for error in errors:
                if error is not None:
                    raise error
        if wrong := np.flatnonzero(_sums(content, len(ids)) != self._sums[ids]).tolist():
            self.refuse(f"row {int(ids[wrong[0]])} does not match its check sum")
        return out, len(runs)

    def write(self, ids: NDArray[np.int64], rows: Tensor) -> None:
        """Replace rows, by ascending ids without repeats. A row that is half written when the machine stops
        is known by its check sum.
        """
        content = memoryview(_bytes(rows))
        self._sums[ids] = _sums(content, len(ids))
        size = self.row_bytes
        if not len(ids):
            return
        starts = np.flatnonzero(np.diff(ids, prepend=ids[0] - 2) > 1).tolist()
        for a, b in zip(starts, [*starts[1:], len(ids)], strict=True):
            first, last = int(ids[a]), int(ids[b - 1]) + 1
            _write(self._file, content[a * size : b * size], HEADER + first * size)
            _write(self._file, self._sums[first:last].tobytes(), self._sums_at + SUM_BYTES * first)

    def refuse(self, why: str) -> NoReturn:
        raise InvalidFile(f"{self.path} is not a sound table of rows: {why}. Pack it again: pack_rows(…)")

    def close(self) -> None:
        """The file is let go; used afterwards it raises OSError."""
        if self._pool is not None:
            self._pool.shutdown()
        for file in (self._file, self._direct):
            if file >= 0:
                os.close(file)
        self._file = self._direct = -1

    # --- inside

    @property
    def _sums_at(self) -> int:
        return HEADER + self.count * self.row_bytes

    def _split(self, run: Run) -> list[Run]:
        """A direct read fits a thread's buffer; a row that does not is read in parts of its own."""
        if self._direct < 0:
            return [run]
        first, count, place = run
        most = max(1, (PIECE - 2 * BLOCK) // self.row_bytes)
        return [(first + n, min(most, count - n), place + n) for n in range(0, count, most)]

    def _read_runs(self, runs: Sequence[Run], content: memoryview, thread: int) -> None:
        size = self.row_bytes
        for first, count, place in runs:
            target = content[place * size : (place + count) * size]
            start = HEADER + first * size
            done = (
                self._read_direct(start, target, thread) if self._direct >= 0 else self._read(start, target)
            )
            if done < len(target):
                self.refuse(f"it ends at row {first + done // size}")

    def _read(self, start: int, target: memoryview) -> int:
        done = 0
        while done < len(target):
            got = os.preadv(self._file, [target[done:]], start + done)
            if not got:
                break
            done += got
        if self.cold_by and hasattr(os, "posix_fadvise"):
            first = start // mmap.PAGESIZE * mmap.PAGESIZE
            os.posix_fadvise(self._file, first, start + done - first, os.POSIX_FADV_DONTNEED)
        return done

    def _read_direct(self, start: int, target: memoryview, thread: int) -> int:
        """Whole blocks around what is asked, through an aligned buffer."""
        buffer = memoryview(self._buffers[thread])
        done = 0
        while done < len(target):
            at = (start + done) // BLOCK * BLOCK
            skip = start + done - at
            wanted = min(PIECE, -(-(skip + len(target) - done) // BLOCK) * BLOCK)
            got = min(os.preadv(self._direct, [buffer[:wanted]], at) - skip, len(target) - done)
            if got <= 0:
                break
            target[done : done + got] = buffer[skip : skip + got]
            done += got
        return done

    def _read_header(self) -> tuple[int, int, torch.dtype]:
        raw = _read_all(self._file, HEADER, 0)
        try:
            told = json.loads(raw.rstrip(b"\0 "))
            count, width, dtype = told["rows"], told["width"], DTYPES[told["dtype"]]
            if told["format"] != FORMAT or not (isinstance(count, int) and isinstance(width, int)):
                raise ValueError(f"format={told['format']!r:.40}")
            if count < 1 or width < 1:
                raise ValueError(f"{count} rows of {width}")
        except (ValueError, KeyError, TypeError) as error:
            self.refuse(f"its header cannot be read ({error})")
        wanted = HEADER + count * (width * dtype.itemsize + SUM_BYTES)
        if (size := os.fstat(self._file).st_size) != wanted:
            self.refuse(f"{count:,} rows of {width} take {wanted:,} bytes, and it has {size:,}")
        return count, width, dtype

    def _read_sums(self) -> NDArray[np.uint32]:
        raw = _read_all(self._file, SUM_BYTES * self.count, self._sums_at)
        return np.frombuffer(bytearray(raw), dtype=np.uint32)


def _header(count: int, width: int, dtype: str) -> bytes:
    told = json.dumps({"format": FORMAT, "rows": count, "width": width, "dtype": dtype}).encode()
    return told.ljust(HEADER, b" ")


def _bytes(rows: Tensor) -> Any:
    """The memory of a tensor, to be read from or into."""
    return rows.contiguous().view(torch.uint8).reshape(-1).numpy().data.cast("B")


def _sums(content: memoryview, rows: int) -> NDArray[np.uint32]:
    if not rows:
        return np.zeros(0, dtype=np.uint32)
    size = len(content) // rows
    sums = (zlib.crc32(content[at : at + size]) for at in range(0, rows * size, size))
    return np.fromiter(sums, dtype=np.uint32, count=rows)


def _open_direct(path: Path) -> int:
    """A descriptor whose reads pass the page cache by, or -1 where there are none."""
    if not hasattr(os, "O_DIRECT"):
        return -1
    try:
        file = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        return -1
    try:
        os.preadv(file, [mmap.mmap(-1, BLOCK)], 0)
    except OSError:
        os.close(file)
        return -1
    return file


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
