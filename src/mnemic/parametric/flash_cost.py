"""What reading weights from flash costs (LLM in a flash §2): bytes over a throughput that depends on the "
"piece."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from mnemic.cube.checks import require_count, require_positive
from mnemic.cube.errors import InvalidOption

GB: Final = 1e9
CHUNKS: Final = (4096, 32_768, 262_144, 1 << 20)


def io_ms(gb: float, gb_per_s: float) -> float:
    """Milliseconds to read so many GB: what the paper's Table 2 counts for a token."""
    require_positive(gb_per_s=gb_per_s)
    if gb < 0:
        raise InvalidOption(f"gb={gb!r:.40} must be at least 0")
    return 1000 * gb / gb_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """A read of `chunk` bytes takes latency + chunk / bandwidth: throughput grows with the piece.

    latency_s: to the first byte; bandwidth: bytes a second.
    """

    latency_s: float
    bandwidth: float

    def __post_init__(self) -> None:
        require_positive(bandwidth=self.bandwidth)
        if not 0 <= self.latency_s < 60:
            raise InvalidOption(f"latency_s={self.latency_s!r:.40} must be seconds from 0 to 60")

    def at(self, chunk: float) -> float:
        """Bytes a second in pieces of `chunk` bytes."""
        require_positive(chunk=chunk)
        return chunk / (self.latency_s + chunk / self.bandwidth)

    def seconds(self, reads: int, bytes_read: int) -> float:
        """Of so many reads of so many bytes in all."""
        return reads * self.latency_s + bytes_read / self.bandwidth


def fit(grid: Mapping[int, float]) -> Throughput:
    """From measured {bytes of a piece: bytes a second}, by least squares on the time of a read, relative.

    Raises InvalidOption for fewer than two sizes.
    """
    if len(grid) < 2:
        raise InvalidOption("a fit needs the throughput of at least two sizes of pieces")
    chunk = np.array(list(grid), dtype=float)
    took = chunk / np.array(list(grid.values()), dtype=float)
    design = np.stack([1 / took, chunk / took], axis=1)  # rows weighted, so that small pieces count as much
    (latency, per_byte), *_ = np.linalg.lstsq(design, np.ones(len(chunk)), rcond=None)
    return Throughput(latency_s=max(float(latency), 0.0), bandwidth=1 / max(float(per_byte), 1e-15))


def measure(
    path: str | os.PathLike[str], chunks: Sequence[int] = CHUNKS, *, reads: int = 64, seed: int = 0
) -> dict[int, float]:
    """Bytes a second of scattered reads from a file that is there, by size of the piece.

    The system is asked to forget the file before each size; where it does not, memory is what is measured.
    O(reads · chunks). Raises InvalidOption for a file smaller than a piece.
    """
    require_count(reads=reads)
    size = Path(path).stat().st_size
    draw = np.random.default_rng(seed)
    out = {}
    with Path(path).open("rb", buffering=0) as file:
        for chunk in chunks:
            if size < chunk:
                raise InvalidOption(f"{path} has {size:,} bytes; it cannot be read in pieces of {chunk:,}")
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            places = draw.integers(0, size - chunk + 1, size=reads)
            started = time.perf_counter()
            for place in places:
                os.pread(file.fileno(), chunk, int(place))
            out[chunk] = reads * chunk / max(time.perf_counter() - started, 1e-9)
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """window: how many tokens' neurons stay, 0 where not even one token's fit. resident_bytes: with them."""

    window: int
    resident_bytes: int
    bytes_per_token: float

    @property
    def fits(self) -> bool:
        return self.window > 0


def plan(union: Sequence[float], *, neuron_bytes: int, always_bytes: int, budget: int) -> Plan:
    """The largest window that a budget holds.

    union[k - 1]: mean number of different neurons that k neighbouring tokens need together, over all layers;
    it is concave, so that a larger window reads less: union[k] - union[k - 1] new neurons a token.
    always_bytes: attention, embeddings, predictors, KV. Needs one more value than the largest window.
    """
    require_count(neuron_bytes=neuron_bytes, budget=budget)
    if len(union) < 2 or any(b < a for a, b in pairwise(union)):
        raise InvalidOption("union must hold the counts for 1, 2, … tokens, none smaller than the one before")
    best = Plan(window=0, resident_bytes=always_bytes, bytes_per_token=union[0] * neuron_bytes)
    for window in range(1, len(union)):
        resident = always_bytes + round(union[window - 1] * neuron_bytes)
        if resident <= budget:
            fresh = union[window] - union[window - 1]
            best = Plan(window=window, resident_bytes=resident, bytes_per_token=fresh * neuron_bytes)
    return best
