"""Titans, memory as a gate (Behrouz et al. 2025, arXiv 2501.00663, §4.2; "MAG")."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mnemic.layers.titans_windowed import Attend, WindowedMemory, normed


class MemoryAsGate(WindowedMemory):
    """A window and the memory over the same tokens: o = out(norm(window) · sigmoid(norm(M(q)))).

    O(time · (|W| + window · dim)).
    """

    name = "titans-mag"

    def _make(self, dim: int) -> None:
        self.norm_attention, self.norm_memory = nn.RMSNorm(dim, eps=1e-6), nn.RMSNorm(dim, eps=1e-6)

    def _mix(self, x: Tensor, read: Tensor, attend: Attend) -> tuple[Tensor, dict[str, Any]]:
        near, window = attend(x)
        gate = normed(self.norm_memory, read).sigmoid()
        return self.out(self.norm_attention(near) * gate.to(near.dtype)), window
