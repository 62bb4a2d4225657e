"""Titans, memory as a layer (Behrouz et al. 2025, arXiv 2501.00663, §4.3; "MAL")."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mnemic.layers.titans_windowed import Attend, WindowedMemory, normed


class MemoryAsLayer(WindowedMemory):
    """The memory compresses, and a window looks at what it says: o = out(window(norm(M(q)))).

    O(time · (|W| + window · dim)).
    """

    name = "titans-mal"

    def _make(self, dim: int) -> None:
        self.norm = nn.RMSNorm(dim, eps=1e-6)

    def _mix(self, x: Tensor, read: Tensor, attend: Attend) -> tuple[Tensor, dict[str, Any]]:
        seen, window = attend(normed(self.norm, read).to(x.dtype))
        return self.out(seen), window
