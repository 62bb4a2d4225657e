"""Every registered layer in every small configuration it names: what the laws are crossed with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mnemic.layers.layer import MemoryLayer
from mnemic.layers.state import LayerState
from mnemic.layers.table import LAYERS, layer_class, make

DIM, BATCH, TIME = 8, 3, 23


@dataclass(frozen=True)
class Case:
    name: str
    options: dict[str, Any]

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{key}={value}" for key, value in self.options.items())])

    def layer(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> MemoryLayer[Any]:
        """With weights large enough for every gate to matter."""
        torch.manual_seed(seed)
        return make(self.name, dim=DIM, **self.options).to(dtype).train()


CASES = [Case(name, dict(options)) for name in LAYERS for options in layer_class(name).small]


def stream(
    seed: int = 1, *, batch: int = BATCH, time: int = TIME, dtype: torch.dtype = torch.float64
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, time, DIM, generator=generator, dtype=torch.float64).to(dtype)


def holes(seed: int = 2) -> Tensor:
    """(BATCH, TIME): a row with left padding, a row of nothing but padding, a row with holes."""
    mask = torch.rand(BATCH, TIME, generator=torch.Generator().manual_seed(seed)) > 0.4
    mask[0] = torch.arange(TIME) >= 6
    mask[1] = False
    return mask


def pieces(case: Case) -> list[int]:
    """Lengths to cut a stream into: 1, primes, and one around each chunk or window of the configuration."""
    around = [
        value + off
        for key, value in case.options.items()
        if key in ("chunk", "window", "segment") and isinstance(value, int)
        for off in (-1, 0, 1)
    ]
    return sorted({1, 2, 5, 7, *(size for size in around if size > 0)})


def by_steps(
    layer: MemoryLayer[Any], x: Tensor, state: LayerState | None = None, mask: Tensor | None = None
) -> tuple[Tensor, LayerState]:
    state = layer.init_state(x.shape[0]) if state is None else state
    outputs = []
    for t in range(x.shape[1]):
        y, state = layer.step(x[:, t], state, mask=None if mask is None else mask[:, t])
        outputs.append(y)
    return torch.stack(outputs, 1), state


def in_pieces(
    layer: MemoryLayer[Any], x: Tensor, size: int, state: LayerState | None = None, mask: Tensor | None = None
) -> tuple[Tensor, LayerState]:
    outputs = []
    for start in range(0, x.shape[1], size):
        part = slice(start, start + size)
        y, state = layer(x[:, part], state, mask=None if mask is None else mask[:, part])
        outputs.append(y)
    assert state is not None
    return torch.cat(outputs, 1), state


def assert_same(
    found: tuple[Tensor, LayerState], expected: tuple[Tensor, LayerState], *, atol: float = 1e-10
) -> None:
    """Outputs and every tensor of the state."""
    torch.testing.assert_close(found[0], expected[0], atol=atol, rtol=atol)
    mine, theirs = found[1].tensors(), expected[1].tensors()
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert mine[name].dtype == theirs[name].dtype, name
        torch.testing.assert_close(
            mine[name], theirs[name], atol=atol, rtol=atol, msg=lambda said, name=name: f"{name}: {said}"
        )


def assert_identical(found: LayerState, expected: LayerState) -> None:
    mine, theirs = found.tensors(), expected.tensors()
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert mine[name].dtype == theirs[name].dtype, name
        assert torch.equal(mine[name], theirs[name]), name
