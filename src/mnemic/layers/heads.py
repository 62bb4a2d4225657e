"""What layers with heads share: their sizes, splitting, norms, and a state that is one matrix a head."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu

from mnemic.layers.options import LayerOptions, option, require_divisible
from mnemic.layers.state import LayerSpec, LayerState, require_batch

COUNTER_BYTES = 4  # of `seen`, a sequence
OPEN = 1.2784645  # SiLU of it is 1
ROOMY = 32  # dimensions of a key from which on a corner of them has room


@dataclass(frozen=True, kw_only=True)
class HeadOptions(LayerOptions):
    """`key_dim` and `value_dim` are a head's, dim // heads unless given. `chunk` changes speed alone."""

    heads: int = 1
    key_dim: int | None = None
    value_dim: int | None = None
    chunk: int = option(64, meaning=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.key_dim is None or self.value_dim is None:
            require_divisible(dim=self.dim, heads=self.heads)

    @property
    def key_size(self) -> int:
        return self.key_dim or self.dim // self.heads

    @property
    def value_size(self) -> int:
        return self.value_dim or self.dim // self.heads

    def state_bytes(self, tokens: int, *, batch: int = 1, element_bytes: int = 4) -> int:
        floats = self.heads * self.key_size * self.value_size
        return batch * (floats * accumulator_bytes(element_bytes) + COUNTER_BYTES)


@dataclass(frozen=True, kw_only=True)
class UnitKeyOptions(HeadOptions):
    """`qk_silu`: a SiLU on queries and keys before they become unit vectors, as published for heads of 128.

    It turns them into one corner, where in few dimensions there is no room: to write one key is to erase
    others. So ours, unless told: from 32 dimensions of a key on.
    """

    qk_silu: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.qk_silu is None:
            object.__setattr__(self, "qk_silu", self.key_size >= ROOMY)


@dataclass(frozen=True, kw_only=True)
class MatrixState(LayerState):
    """`memory` (batch, heads, key_dim, value_dim), float32 or float64: what keys were bound to."""

    memory: Tensor


def empty_matrices(
    spec: LayerSpec,
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    device: torch.device,
) -> MatrixState:
    """Zeros of (batch, heads, key_dim, value_dim), and nothing seen."""
    return MatrixState(
        spec=spec,
        seen=torch.zeros(shape[0], dtype=torch.int32, device=device),
        memory=torch.zeros(shape, dtype=dtype, device=device),
    )


def merged(spec: LayerSpec, a: MatrixState, b: MatrixState) -> MatrixState:
    """The sum of two memories of disjoint streams that each began empty: exact, in any order."""
    spec.require(a.spec)
    spec.require(b.spec)
    require_batch(a, b.batch)
    return replace(a, seen=a.seen + b.seen, memory=a.memory + b.memory)


def accumulator_bytes(element_bytes: int) -> int:
    """Bytes of a number summed over time, given those of the layer's dtype."""
    return max(element_bytes, 4)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(batch, time, heads · size) to (batch, heads, time, size); (batch, ·) to (batch, heads, size)."""
    x = x.unflatten(-1, (heads, -1))
    return x.transpose(1, 2) if x.dim() == 4 else x


def join_heads(x: Tensor) -> Tensor:
    """The inverse of split_heads."""
    return (x.transpose(1, 2) if x.dim() == 4 else x).flatten(-2)


def silence(valid: Tensor | None, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Zero (batch, heads, time, …) where `valid` (batch, time) is False: padding that writes nothing."""
    if valid is None:
        return tensors
    return tuple(
        torch.where(valid.view(valid.shape[0], 1, valid.shape[1], *[1] * (t.dim() - 3)), t, 0)
        for t in tensors
    )


def full_precision(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Inside, autocast is off: sums over time keep the dtype they were given."""
    return torch.autocast(device_type=device.type, enabled=False)


def counts_of(x: Tensor, valid: Tensor | None) -> Tensor:
    """Real tokens of each row, int64 (batch,)."""
    if valid is not None:
        return valid.sum(1)
    return torch.full((x.shape[0],), x.shape[1], dtype=torch.int64, device=x.device)


class GatedOutput(nn.Module):
    """RMS norm of each head's read, times SiLU of W x + b if `gated`, then a linear map back to `dim`.

    The gate begins open, W = 0 and SiLU(b) = 1. Published gates have no b and a W that is drawn: they begin
    near zero, with a sign of each token's own, and recall waits until that is unlearned.
    """

    def __init__(self, *, dim: int, heads: int, value_dim: int, gated: bool = True) -> None:
        super().__init__()
        self.value_dim = value_dim
        self.scale = nn.Parameter(torch.ones(value_dim))
        self.gate = nn.Linear(dim, heads * value_dim) if gated else None
        self.out = nn.Linear(heads * value_dim, dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The norm and the gate; the output map resets itself."""
        nn.init.ones_(self.scale)
        if self.gate is not None:
            nn.init.zeros_(self.gate.weight)
            nn.init.constant_(self.gate.bias, OPEN)

    def forward(self, read: Tensor, x: Tensor) -> Tensor:
        """read (batch, heads, [time,] value_dim) in the dtype of the sums, x (batch, [time,] dim)."""
        normed = rms_norm(read, (self.value_dim,), self.scale.to(read.dtype), 1e-6)
        said = join_heads(normed).to(x.dtype)
        y: Tensor = self.out(said if self.gate is None else said * silu(self.gate(x)))
        return y
