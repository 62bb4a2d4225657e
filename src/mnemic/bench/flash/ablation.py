"""What each idea saves of reading, on gigabytes that the page cache does not help with (experiment B)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnemic.parametric.disk_rows import ROW_BYTES, DiskRows, Traffic, pack_rows, slot_bytes
from mnemic.parametric.row_file import PIECE

STAY: Final = 0.6  # of the neurons that fire, this share fires at the next token as well
ZIPF: Final = 1.1
ACTIVE: Final = 0.05
CONFIGURATIONS: Final = ("naive", "predictor", "window", "bundles")
Step = Callable[[str, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Of the model that is imitated; naive_tokens: its every row is read for so many tokens only."""

    layers: int = 24
    neurons: int = 8192
    width: int = 1024
    tokens: int = 64
    naive_tokens: int = 3
    window: int = 4
    threads: int = 8


def rates(neurons: int) -> NDArray[np.float64]:
    """How often each neuron fires: Zipf, ACTIVE on average. One that never rests fires 0.714 of the time:
    it fires again with STAY, and at once after a rest.
    """
    shape = np.arange(1, neurons + 1) ** -ZIPF
    low, high = 0.0, float(neurons)
    most = 1 / (2 - STAY)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(middle * shape, most).mean() < ACTIVE else (low, middle)
    return np.asarray(np.minimum(low * shape, most), dtype=np.float64)


def trace(size: Size, layer: int, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """Which neurons of a layer fire, token by token: a chain whose long-run shares are `rates`."""
    draw = np.random.default_rng([seed, layer])
    share = draw.permutation(rates(size.neurons))
    wake = (1 - STAY) * share / (1 - share)  # so that `share` is what it settles at
    active = draw.random(size.neurons) < share
    for _ in range(size.tokens):
        yield np.flatnonzero(active)
        active = draw.random(size.neurons) < np.where(active, STAY, wake)


def ablation(folder: Path, size: Size, *, step: Step = lambda *_: None) -> dict[str, Any]:
    """Bytes, reads and seconds a token by configuration. Writes, and deletes, a file for each layer's halves
    and bundles: twice the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    for layer in range(size.layers):
        _pack(folder, layer, size)
    step("flash", f"packed in {time.perf_counter() - started:.0f} s")
    found: dict[str, Any] = {"size": {name: getattr(size, name) for name in Size.__slots__}}
    try:
        for name in CONFIGURATIONS:
            found[name] = _measure(folder, name, size)
            row = found[name]
            step("flash", f"{name}: {row['mb']:.1f} MB, {row['reads']:.0f} reads, {row['ms']:.1f} ms a token")
    finally:
        for path in folder.glob("ablation-*.rows"):
            path.unlink()
    return found


def _measure(folder: Path, name: str, size: Size) -> dict[str, Any]:
    bundled, window = name == "bundles", size.window if name in ("window", "bundles") else 1
    files = ("bundle",) if bundled else ("up", "down")
    tokens = size.naive_tokens if name == "naive" else size.tokens
    spent, traffic = 0.0, Traffic()
    every = torch.arange(size.neurons)
    cold = ""
    for layer in range(size.layers):
        tables = [_open(folder / f"ablation-{layer}-{one}.rows", size, window) for one in files]
        cold = tables[0].cold_by
        for number, active in enumerate(trace(size, layer)):
            if number == tokens:
                break
            ids = every if name == "naive" else torch.from_numpy(active)
            started = time.perf_counter()
            for table in tables:
                if name in ("naive", "predictor"):
                    table.forget()
                for _ in table.pieces(ids, 1024):
                    pass
            spent += time.perf_counter() - started
        traffic = sum((table.traffic for table in tables), traffic)
        for table in tables:
            table.close()
    return {
        "tokens": tokens,
        "cold_by": cold,
        "mb": traffic.bytes_read / tokens / 1e6,
        "reads": traffic.reads / tokens,
        "hit_rate": traffic.hit_rate,
        "ms": 1000 * spent / tokens,
        "gb_per_s": traffic.bytes_read / spent / 1e9,
    }


def _open(path: Path, size: Size, window: int) -> DiskRows:
    """With room for the window: the question is what is read, not what is evicted for want of room."""
    bundled = "bundle" in path.name
    row = size.width * 4 * (1 + bundled)
    budget = size.neurons * (row + slot_bytes(window) + ROW_BYTES) + size.threads * PIECE
    return DiskRows(path, budget=budget, window=window, uncached=True, threads=size.threads)


def _pack(folder: Path, layer: int, size: Size) -> None:
    draw = torch.Generator().manual_seed(layer)

    def pieces(width: int) -> Iterator[Tensor]:
        for _ in range(0, size.neurons, 1024):
            yield torch.randn(min(1024, size.neurons), width, generator=draw)

    for name, times in (("up", 1), ("down", 1), ("bundle", 2)):
        width = size.width * times
        path = folder / f"ablation-{layer}-{name}.rows"
        pack_rows(path, pieces(width), shape=(size.neurons, width), dtype="float32")
