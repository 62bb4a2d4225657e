"""The sparse feed-forward part is the dense one, and reads what is new and nothing else (experiment A)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch

from mnemic.parametric.disk_rows import ROW_BYTES, DiskRows, slot_bytes
from mnemic.parametric.flash_mlp import FlashMLP, Oracle, pack_mlp

WIDTH: Final = 256
NEURONS: Final = 2048
TOKENS: Final = 200
WINDOW: Final = 4
RHO: Final = 0.9  # of the inputs' AR(1)


def exact(folder: Path) -> dict[str, Any]:
    """Two hundred correlated inputs through one part with ReLU, its neurons named by an oracle."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = torch.Generator().manual_seed(0)
    up = torch.randn(NEURONS, WIDTH, generator=draw) / WIDTH**0.5
    down = torch.randn(WIDTH, NEURONS, generator=draw) / NEURONS**0.5
    bias = torch.full((NEURONS,), -1.5)
    row = 2 * WIDTH * 4
    pack_mlp(folder / "exact.rows", up, down)
    budget = NEURONS * (row + slot_bytes(WINDOW) + ROW_BYTES)
    different, resident_right, bytes_right, moved = 0.0, True, True, False
    active: list[set[int]] = []
    x = torch.randn(WIDTH, generator=draw)
    with DiskRows(folder / "exact.rows", budget=budget, window=WINDOW) as table:
        layer = FlashMLP(table, Oracle(up, bias), bias)
        place = table._rows.data_ptr()
        for _ in range(TOKENS):
            x = RHO * x + (1 - RHO**2) ** 0.5 * torch.randn(WIDTH, generator=draw)
            before = table.traffic.bytes_read
            different = max(
                different, float((layer(x[None])[0] - torch.relu(x @ up.T + bias) @ down.T).abs().max())
            )
            now = set((x @ up.T + bias > 0).nonzero()[:, 0].tolist())
            fresh = now.difference(*active[-WINDOW:])
            active.append(now)
            resident_right &= set(table.resident) == set().union(*active[-WINDOW:])
            bytes_right &= table.traffic.bytes_read - before == len(fresh) * row
            moved |= table._rows.data_ptr() != place
    (folder / "exact.rows").unlink()
    return {
        "different": different,
        "resident_right": resident_right,
        "bytes_right": bytes_right,
        "allocated_once": not moved,
        "active": sum(map(len, active)) / TOKENS / NEURONS,
    }
