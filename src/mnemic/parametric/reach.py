"""Where a compiled memory speaks: near what it was made from, by the distance to a fixed number of centres.

Ours: the paper has no such gate. A kNN memory is silent where its nearest key is far; a compiled one keeps no
keys, so it keeps their centres. They are learned from its own states alone, and only how near is near enough
is set by what has nothing to do with it: a classifier of the two took half of another text for its own.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

CENTRES: Final = 4096
ROUNDS: Final = 4
PASSED: Final = 0.01  # of unrelated states, at most
CHUNK: Final = 2048


class Reach(nn.Module):
    """centres [count, width]; radius []: a squared distance. [n, width] to (n,): 1 within it, else 0."""

    centres: Tensor
    radius: Tensor

    def __init__(self, centres: Tensor, radius: Tensor) -> None:
        super().__init__()
        self.register_buffer("centres", centres)
        self.register_buffer("radius", radius)

    def forward(self, states: Tensor) -> Tensor:
        """O(n · centres · width), whatever it was learned from."""
        return (_nearest(states, self.centres)[0] <= self.radius).float()


def learn_reach(own: Tensor, others: Tensor, *, seed: int = 0) -> Reach:
    """Centres of `own` [n, width] by k-means, or all of it where it is less; a radius that leaves out all but
    PASSED of `others`. O(ROUNDS · n · centres · width).
    """
    draw = torch.Generator().manual_seed(seed)
    centres = own[torch.randperm(len(own), generator=draw)[:CENTRES]].clone()
    for _ in range(ROUNDS if len(own) > len(centres) else 0):
        places = _nearest(own, centres)[1]
        count = torch.bincount(places, minlength=len(centres))[:, None]
        sums = torch.zeros_like(centres).index_add_(0, places, own)
        centres = torch.where(count > 0, sums / count.clamp(min=1), centres)
    return Reach(centres, torch.quantile(_nearest(others, centres)[0], PASSED))


def _nearest(states: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance to the nearest centre, and which it is: (n,) each."""
    lengths = centres.pow(2).sum(1)
    found = [(lengths - 2 * part @ centres.T).min(1) for part in states.split(CHUNK)]
    distances = torch.cat([one.values for one in found]) + states.pow(2).sum(1)
    return distances.clamp(min=0), torch.cat([one.indices for one in found])
