"""Keys and values in 8 or 4 bits, as KIVI does it (Liu et al. 2024, §3): keys by channel, values by token.

A key's channel has its own range, because a few channels are much larger than the others; a value's token has
its own. x ≈ zero + scale · q, q in 0 … 2^bits - 1; scale and zero are float16.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch

from mnemic.cube.errors import InvalidOption

GROUP: Final = 64  # tokens that share a key channel's range
BITS: Final = {"int8": 8, "int4": 4}


class Packed(NamedTuple):
    """q: uint8, two to a byte at 4 bits; scale, zero: float16."""

    q: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor


def pack_keys(x: torch.Tensor, bits: int) -> Packed:
    """[1, heads, tokens, head_dim] -> ranges of [1, heads, groups, 1, head_dim], GROUP tokens each.

    The relative error of a value is about its channel's range / 2^(bits + 1). Raises InvalidOption where
    float16 cannot hold a range, or head_dim is odd at 4 bits.
    """
    tokens = x.shape[2]
    grouped = _grouped(x)
    packed = _pack(grouped, grouped.amin(3, keepdim=True), grouped.amax(3, keepdim=True), bits)
    return packed._replace(q=packed.q.flatten(2, 3)[:, :, :tokens].contiguous())


def unpack_keys(packed: Packed, bits: int, dtype: torch.dtype) -> torch.Tensor:
    q = _halves(packed.q) if bits == 4 else packed.q
    tokens = q.shape[2]
    grouped = _grouped(q)
    return _unpack(grouped, packed, dtype).flatten(2, 3)[:, :, :tokens].contiguous()


def pack_values(x: torch.Tensor, bits: int) -> Packed:
    """[1, heads, tokens, head_dim] -> ranges of [1, heads, tokens, 1]."""
    return _pack(x, x.amin(3, keepdim=True), x.amax(3, keepdim=True), bits)


def unpack_values(packed: Packed, bits: int, dtype: torch.dtype) -> torch.Tensor:
    return _unpack(_halves(packed.q) if bits == 4 else packed.q, packed, dtype)


def packed_key_shapes(heads: int, tokens: int, head_dim: int, bits: int) -> dict[str, tuple[int, ...]]:
    """What `pack_keys` gives for such tensors, by name."""
    width = head_dim // 2 if bits == 4 else head_dim
    ranges = (1, heads, -(-tokens // GROUP), 1, head_dim)
    return {"keys.q": (1, heads, tokens, width), "keys.scale": ranges, "keys.zero": ranges}


def packed_value_shapes(heads: int, tokens: int, head_dim: int, bits: int) -> dict[str, tuple[int, ...]]:
    """What `pack_values` gives for such tensors, by name."""
    width = head_dim // 2 if bits == 4 else head_dim
    ranges = (1, heads, tokens, 1)
    return {"values.q": (1, heads, tokens, width), "values.scale": ranges, "values.zero": ranges}


def _grouped(x: torch.Tensor) -> torch.Tensor:
    """[1, heads, tokens, d] -> [1, heads, groups, GROUP, d]; the last group repeats its last token."""
    short = -x.shape[2] % GROUP
    if short:
        x = torch.cat([x, x[:, :, -1:].expand(-1, -1, short, -1)], dim=2)
    return x.reshape(*x.shape[:2], -1, GROUP, x.shape[3])


def _pack(x: torch.Tensor, low: torch.Tensor, high: torch.Tensor, bits: int) -> Packed:
    if bits == 4 and x.shape[-1] % 2:
        raise InvalidOption(
            f"heads of {x.shape[-1]} numbers cannot be stored in 4 bits, two to a byte; use int8"
        )
    top = 2**bits - 1
    zero = low.to(torch.float16)
    scale = ((high.float() - zero.float()) / top).clamp_min(6e-8).to(torch.float16)
    if not (torch.isfinite(scale).all() and torch.isfinite(zero).all()):
        raise InvalidOption("keys or values are beyond float16's range; store them exactly")
    q = ((x.float() - zero.float()) / scale.float()).round().clamp_(0, top).to(torch.uint8)
    if bits == 4:
        q = q[..., ::2] | (q[..., 1::2] << 4)
    return Packed(q, scale, zero)


def _unpack(q: torch.Tensor, packed: Packed, dtype: torch.dtype) -> torch.Tensor:
    return (q.float() * packed.scale.float() + packed.zero.float()).to(dtype)


def _halves(q: torch.Tensor) -> torch.Tensor:
    return torch.stack([q & 15, q >> 4], dim=-1).flatten(-2)
