"""Short causal convolution, one kernel a channel, with the last inputs as its state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mnemic.layers.packing import last_slots


def begin_conv(weight: Tensor) -> None:
    """Each token as it is, nothing of those before it. weight (channels, width), written in place.

    Ours; released layers draw all taps alike, ± 1 / √width. Then a key is another one beside other
    neighbours, and a query finds it only once training has made them small. Which of them help is learned.
    """
    with torch.no_grad():
        nn.init.zeros_(weight)[:, -1] = 1


def causal_conv(
    x: Tensor, weight: Tensor, tail: Tensor, counts: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """y_t = Σ_i weight_i x_{t - width + 1 + i}, and the tail after `counts` (batch,) real tokens (None: all).

    x (batch, time, channels), weight (channels, width), tail (batch, width - 1, channels), in the dtype it
    keeps. A sum of shifted products: on a CPU several times faster than a grouped convolution of this width.
    """
    time, width = x.shape[1], weight.shape[1]
    along = torch.cat([tail.to(x.dtype), x], 1)
    y = along[:, :time] * weight[:, 0]
    for i in range(1, width):
        y = y + along[:, i : i + time] * weight[:, i]
    kept = last_slots(along.unsqueeze(1), width - 1, counts).squeeze(1)
    return y, kept.to(tail.dtype)


def conv_once(x: Tensor, weight: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    """The definition for one token: x (batch, channels)."""
    last = torch.cat([tail, x.unsqueeze(1).to(tail.dtype)], 1)  # (batch, width, channels)
    return torch.einsum("bwc,cw->bc", last.to(x.dtype), weight), last[:, 1:]
