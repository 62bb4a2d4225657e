"""A policy on given attention rows, without a model: which slots would it still hold?

The policies are the real ones. A `Simulated` layer shows them rows and slots as a cache's layer does, and
drops what they say; every row r has one sequence and one head.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from mnemic.activation.policy import Keep, Policy


class Simulated:
    """One layer of `heads` rows after a prompt of `prompt` tokens. Implements `LayerView`."""

    def __init__(self, policy: Policy, *, heads: int, prompt: int) -> None:
        self.policy = policy
        self.layer_idx, self.layers, self.batch, self.heads, self.groups = 0, 1, 1, heads, 1
        self.seen = self.new = self.prompt = prompt
        self.step, self.forced, self.peak = 0, False, 0
        self._positions = torch.arange(prompt, dtype=torch.int32).expand(1, heads, -1).contiguous()
        state = policy.init_state(self)
        self.slots, self.head_state = state.slots, state.heads
        self._row: Tensor | None = None

    def start(self, last_row: Tensor) -> None:
        """The prompt is over; last_row: (heads, prompt) attention of its last query."""
        self._look(last_row)

    def token(self, row: Tensor) -> Tensor:
        """One step: `row` (heads, T) is the attention over all T tokens given so far, this one included.

        Returns (heads, T) bool: which of them were still held. The policy is shown the row renormalised over
        those.
        """
        self.seen, self.new, self.step = self.seen + 1, 1, self.step + 1
        own = torch.full((1, self.heads, 1), self.seen - 1, dtype=torch.int32)
        self._positions = torch.cat([self._positions, own], 2)
        self.slots = {
            name: torch.cat([each, each.new_zeros(1, self.heads, 1)], 2) for name, each in self.slots.items()
        }
        held = torch.zeros(self.heads, self.seen, dtype=torch.bool)
        held.scatter_(1, self._positions[0].long(), True)
        self._look(row)
        return held

    def _look(self, row: Tensor) -> None:
        seen = row.gather(1, self._positions[0].long())
        self._row = (seen / seen.sum(1, keepdim=True).clamp_min(1e-30))[None]
        self.peak = max(self.peak, self.stored())
        wanted = self.policy.needs.prompt if self.step == 0 else self.policy.needs.step
        self.policy.observe(self, self._row[:, :, None] if wanted else None, 0)
        if self.policy.evicts and (keep := self.policy.select(self)) is not None:
            self._keep(keep)

    def _keep(self, keep: Keep) -> None:
        index = keep.index.view(self.heads, -1)[None]  # equal budgets: every row keeps as many
        self._positions = self._positions.gather(2, index)
        self.slots = {name: each.gather(2, index) for name, each in self.slots.items()}

    # LayerView

    def positions(self) -> Tensor:
        return self._positions

    def valid(self) -> Tensor:
        return torch.ones_like(self._positions, dtype=torch.bool)

    def counts(self) -> Tensor:
        return self.valid().sum(-1)

    def stored(self) -> int:
        return self._positions.shape[2]

    def prompt_tokens(self) -> Tensor:
        return torch.tensor([self.prompt])

    def keys(self) -> Tensor:
        raise NotImplementedError("a simulation has attention rows and no keys")

    values = keys

    def apart(self, count: int) -> Tensor:
        if self._row is None or count != 1:
            raise NotImplementedError("a simulation has one row at a time")
        return self._row[:, :, None, None]


def retained(policy: Policy, rows: Tensor, *, prompt: int) -> Tensor:
    """(heads, steps) share of each step's attention that falls on slots still held.

    rows: (heads, T, T) attention of a text whose first `prompt` tokens are given at once.
    """
    layer = Simulated(policy, heads=rows.shape[0], prompt=prompt)
    layer.start(rows[:, prompt - 1, :prompt])
    found = []
    for t in range(prompt, rows.shape[1]):
        row = rows[:, t, : t + 1]
        found.append((row * layer.token(row)).sum(1))
    return torch.stack(found, 1)


def held_when(policy: Policy, rows: Iterable[Tensor], *, prompt: int) -> Iterable[tuple[Simulated, Tensor]]:
    """Step by step: the layer, and which tokens it still held when the step's row came. One head."""
    layer = Simulated(policy, heads=1, prompt=prompt)
    layer.start(torch.zeros(1, prompt))  # the prompt has drawn no attention yet
    for row in rows:
        yield layer, layer.token(row[None])[0]


def summary(shares: Tensor) -> dict[str, Any]:
    """Mean and 5th percentile over heads and the last third of steps: shares (heads, steps)."""
    last = shares[:, shares.shape[1] * 2 // 3 :].flatten()
    return {"mean": float(last.mean()), "p5": float(last.quantile(0.05))}
