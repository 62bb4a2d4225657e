"""A memory layer whose table of values is larger than what it may hold: trained and served from disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from mnemic.layers.rows import MemoryRows
from mnemic.layers.ultramem import UltraMem, UltraMemOptions
from mnemic.parametric.disk_rows import DiskRows, pack_rows
from mnemic.parametric.row_training import DiskAdam, LearningRows
from mnemic.training.row_adam import RowAdam

SHARE: Final = 4  # the table is so many times what may be in memory of it
TOKENS: Final = 64
Step = Callable[[str, str], None]


def values(
    folder: Path, *, dim: int = 128, keys: int = 256, steps: int = 30, step: Step = lambda *_: None
) -> dict[str, Any]:
    """One layer (UltraMemV2) trained twice from the same weights, its table in memory and on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("values.rows", "moments.rows"):
        (folder / name).unlink(missing_ok=True)
    torch.manual_seed(0)
    options = UltraMemOptions(dim=dim, keys=keys)
    held = UltraMem(options)
    own = held.values
    assert isinstance(own, MemoryRows)  # noqa: S101
    weights = own.weight.detach().clone()
    rows, width = weights.shape
    pack_rows(folder / "values.rows", iter(weights.split(4096)), shape=(rows, width), dtype="float32")
    budget = weights.numel() * 4 // SHARE
    state = {name: one.clone() for name, one in held.state_dict().items() if not name.startswith("values.")}
    in_memory, memory_s = _train(held, RowAdam([own.weight], lr=1e-2), steps)
    with DiskRows(folder / "values.rows", budget=budget, writable=True) as disk:
        table = LearningRows(disk)
        layer = UltraMem(options, values=table)
        layer.load_state_dict(state)
        adam = DiskAdam(table, folder / "moments.rows", budget=2 * budget, lr=1e-2)
        on_disk, disk_s = _train(layer, adam, steps)
        adam.close()
        resident, traffic = disk.resident_bytes + adam.moments.resident_bytes, disk.traffic
        different = 0.0
        for start in range(0, rows, 8192):
            ids = torch.arange(start, min(rows, start + 8192))
            different = max(different, float((disk.get(ids) - own.weight.detach()[ids]).abs().max()))
    with DiskRows(folder / "values.rows", budget=budget) as disk, torch.no_grad():
        layer.values = disk
        x = _inputs(dim, steps)
        served = float((layer.eval()(x)[0] - held.eval()(x)[0]).abs().max())
    found = {
        "table_bytes": weights.numel() * 4,
        "budget": budget,
        "resident": resident,
        "losses_memory": in_memory,
        "losses_disk": on_disk,
        "rows_differ": different,
        "served_differ": served,
        "memory_ms": 1000 * memory_s / steps,
        "disk_ms": 1000 * disk_s / steps,
        "hit_rate": traffic.hit_rate,
        "mb_read": traffic.bytes_read / 1e6,
    }
    step(
        "flash",
        f"a table on disk: loss {on_disk[0]:.4f} to {on_disk[-1]:.4f}, rows differ by {different:.1e}",
    )
    return found


def _train(layer: UltraMem, optimiser: Any, steps: int) -> tuple[list[float], float]:
    """Only the table is trained: towards a fixed map of its inputs."""
    dim = layer.options.dim
    goal = torch.randn(dim, dim, generator=torch.Generator().manual_seed(1)) / dim**0.5
    losses, started = [], time.process_time()
    layer.train()
    for number in range(steps):
        x = _inputs(dim, number)
        loss = (layer(x)[0] - x @ goal).square().mean()
        optimiser.zero_grad()
        layer.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses, time.process_time() - started


def _inputs(dim: int, number: int) -> Tensor:
    return torch.randn(1, TOKENS, dim, generator=torch.Generator().manual_seed(number % 5))
