"""Rotary positions (Su et al. 2021): scores of rotated q and k depend on their distance alone."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(x: Tensor, positions: Tensor, *, base: float = 10_000.0) -> Tensor:
    """x (batch, heads, time, head_dim), positions int (batch, time). Halves are paired, as in GPT-NeoX.

    Angles are computed in float32 or better, also for bfloat16 inputs and under autocast.
    """
    half = x.shape[-1] // 2
    precise = torch.float64 if x.dtype == torch.float64 else torch.float32
    frequencies = base ** (-torch.arange(half, device=x.device, dtype=precise) / half)
    angles = positions.to(precise)[:, None, :, None] * frequencies  # (batch, 1, time, half)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
