"""LazyEviction (arXiv 2506.15969): in long reasoning, tokens fall silent and come back. Evict rarely, and by
each token's own rhythm.

Where ours differs from the published program: the gated score is the default (the published ones keep for
ever what was once used in two consecutive steps: `cube.recurrence.importance`); steps and gaps are int32,
never the model's dtype; one decision for each KV head, not for each query head, which would store keys G
times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from mnemic.activation.cache import policy_cache
from mnemic.activation.choose import keep_best, room, time_to_choose
from mnemic.activation.policy import Keep, LayerView, Rows, State, require_aggregate, require_budget
from mnemic.cube.checks import require_count, require_positive
from mnemic.cube.errors import InvalidOption
from mnemic.cube.recurrence import SCORES, advance, importance

if TYPE_CHECKING:
    from mnemic.activation.cache import PolicyCache
    from mnemic.activation.policy import Policy
    from mnemic.activation.tier import Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class LazyEviction:
    """Every `window` steps, keep the newest `window` tokens and those whose silence is within their rhythm.

    A token is used in a step if its attention is at least `alpha`; `last` is its last use, `longest` the
    longest gap it has come back from. budget: tokens a head, or a share of the prompt; between two events a
    row holds up to budget + window. protect_prompt: the prompt stays and is counted apart.

    alpha: with few tokens stored the even share 1/n may exceed it, and everything counts as used; with
    `relative`, the threshold is max(alpha, relative / n). score: "gated", "code", "paper" or "last".
    aggregate: over the query heads that share a KV head.

    Costs one attention row a step and 8 bytes a slot. Window and alpha for a model: `calibrate`.
    """

    budget: int | float
    window: int = 64
    alpha: float = 1e-3
    score: str = "gated"
    aggregate: str = "max"
    relative: float | None = None
    protect_prompt: bool = True

    needs: ClassVar[Rows] = Rows(turn=True, step=True)
    evicts: ClassVar[bool] = True
    retains: ClassVar[int] = 0

    def __post_init__(self) -> None:
        require_count(window=self.window)
        require_budget(self.budget, window=self.window)
        require_positive(alpha=self.alpha)
        if self.relative is not None:
            require_positive(relative=self.relative)
        require_aggregate(self.aggregate)
        if self.score not in SCORES:
            raise InvalidOption(f"score must be one of {', '.join(SCORES)}, got {self.score!r:.80}")

    @property
    def headroom(self) -> int:
        return self.window

    def init_state(self, layer: LayerView) -> State:
        shape, device = (layer.batch, layer.heads, layer.stored()), layer.valid().device
        names = ("lazy_last", "lazy_longest")
        return State(slots={name: torch.zeros(shape, dtype=torch.int32, device=device) for name in names})

    def observe(self, layer: LayerView, rows: Tensor | None, first: int) -> None:
        """Each row is one step; the prompt's are step 0 and count as arrival alone."""
        if layer.step == 0 or rows is None:
            return
        last, longest = layer.slots["lazy_last"], layer.slots["lazy_longest"]
        threshold = self._threshold(layer)
        slots = last.shape[2]
        for i, row in enumerate(rows.unbind(2)):
            behind = layer.new - first - i  # this query's own slot is the `behind`-th from the end
            step = layer.step - behind + 1
            last[:, :, slots - behind] = step - 1
            used, gaps = advance(last, longest, row >= threshold, step, torch)
            last.copy_(used)
            longest.copy_(gaps)

    def _threshold(self, layer: LayerView) -> float:
        if self.relative is None:
            return self.alpha
        return max(self.alpha, self.relative / max(1, layer.stored()))

    def select(self, layer: LayerView) -> Keep | None:
        if not time_to_choose(layer, self.budget, self.window):
            return None
        valid, stay, budgets = room(
            layer, self.budget, newest=self.window, protect_prompt=self.protect_prompt
        )
        last, longest = layer.slots["lazy_last"], layer.slots["lazy_longest"]
        return keep_best(importance(last, longest, layer.step, self.score, torch), stay, valid, budgets)

    def cache(self, model: Any, *, then: Policy | None = None, demote: Tier | None = None) -> PolicyCache:
        """A fresh cache for one generation of `model`; `then`: the policy that goes on from there."""
        return policy_cache([self, *([] if then is None else [then])], model, demote=demote)


def gaps_of(cache: PolicyCache) -> Tensor:
    """(tokens,) int32: the longest gap of every token a LazyEviction cache holds, over all layers and
    heads.
    """
    found = []
    for layer in cache.policy_layers():
        if "lazy_longest" in layer.slots:
            found.append(layer.slots["lazy_longest"][layer.valid()])
    if not found:
        raise InvalidOption("this cache is not one of LazyEviction's, or has seen no prompt yet")
    return torch.cat(found)
