"""H2O (Zhang et al. 2023, arXiv 2306.14048, §4): the tokens that have drawn the most attention so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from mnemic.activation.cache import policy_cache
from mnemic.activation.choose import keep_best, room, time_to_choose
from mnemic.activation.policy import Keep, LayerView, Rows, State, require_aggregate, require_budget
from mnemic.cube.checks import require_count

if TYPE_CHECKING:
    from mnemic.activation.cache import PolicyCache
    from mnemic.activation.policy import Policy
    from mnemic.activation.tier import Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class H2O:
    """Keep the newest and the heavy hitters: attention summed over all queries, the prompt's included.

    budget: tokens a head, or a share of the prompt; every `window` steps what is above it goes. recent: the
    newest that stay in any case (default: `window`). aggregate: over the query heads that share a KV head.
    protect_prompt: the prompt stays and is counted apart.

    The prompt's rows come in blocks of 64: (B, Hq, 64, N) float32 is the most that is ever held, never N x N.
    State: one float32 a slot. The paper evicts at every step (window=1) and halves the budget between both
    parts; with the window of other policies it is comparable to them, and better (docs/policies).
    """

    budget: int | float
    window: int = 64
    recent: int | None = None
    aggregate: str = "mean"
    protect_prompt: bool = True

    needs: ClassVar[Rows] = Rows.ALL
    evicts: ClassVar[bool] = True
    retains: ClassVar[int] = 0

    def __post_init__(self) -> None:
        require_count(window=self.window)
        if self.recent is not None:
            require_count(recent=self.recent)
        require_budget(self.budget, window=self.recent or self.window)
        require_aggregate(self.aggregate)

    @property
    def headroom(self) -> int:
        return self.window

    def init_state(self, layer: LayerView) -> State:
        shape = (layer.batch, layer.heads, layer.stored())
        return State(slots={"h2o_mass": torch.zeros(shape, device=layer.valid().device)})

    def observe(self, layer: LayerView, rows: Tensor | None, first: int) -> None:  # noqa: ARG002
        if rows is not None:
            layer.slots["h2o_mass"].add_(rows.sum(2))

    def select(self, layer: LayerView) -> Keep | None:
        if not time_to_choose(layer, self.budget, self.window):
            return None
        recent = self.window if self.recent is None else self.recent
        valid, stay, budgets = room(layer, self.budget, newest=recent, protect_prompt=self.protect_prompt)
        return keep_best(layer.slots["h2o_mass"], stay, valid, budgets)

    def cache(self, model: Any, *, then: Policy | None = None, demote: Tier | None = None) -> PolicyCache:
        """A fresh cache for one generation of `model`; `then`: the policy that goes on from there."""
        return policy_cache([self, *([] if then is None else [then])], model, demote=demote)
