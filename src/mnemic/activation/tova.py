"""TOVA (Oren et al. 2024, arXiv 2401.06104, §3): the tokens that the newest query attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from mnemic.activation.attention import group_rows
from mnemic.activation.cache import policy_cache
from mnemic.activation.choose import keep_best, room, time_to_choose
from mnemic.activation.policy import Keep, LayerView, Rows, State, require_aggregate, require_budget
from mnemic.cube.checks import require_count

if TYPE_CHECKING:
    from mnemic.activation.cache import PolicyCache
    from mnemic.activation.policy import Policy
    from mnemic.activation.tier import Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class TOVA:
    """Keep what the last query looked at most, and the newest `recent`.

    budget: tokens a head, or a share of the prompt; every `window` steps what is above it goes. recent: the
    newest that stay in any case (default: `window`). The paper evicts at every step (window=1), keeps no
    newest and averages over all heads of a layer; ours chooses for each KV head. protect_prompt: the prompt
    stays and is counted apart. State: one float32 a slot. Costs one attention row a step.
    """

    budget: int | float
    window: int = 64
    recent: int | None = None
    aggregate: str = "mean"
    protect_prompt: bool = True

    needs: ClassVar[Rows] = Rows(step=True, looked=1)
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
        return State(slots={"tova_row": torch.zeros(shape, device=layer.valid().device)})

    def observe(self, layer: LayerView, rows: Tensor | None, first: int) -> None:  # noqa: ARG002
        if rows is None:
            rows = group_rows(layer.apart(1), self.aggregate)
        layer.slots["tova_row"].copy_(rows[:, :, -1])

    def select(self, layer: LayerView) -> Keep | None:
        if not time_to_choose(layer, self.budget, self.window):
            return None
        recent = self.window if self.recent is None else self.recent
        valid, stay, budgets = room(layer, self.budget, newest=recent, protect_prompt=self.protect_prompt)
        row = group_rows(layer.apart(1), self.aggregate)[:, :, 0] if layer.forced else layer.slots["tova_row"]
        return keep_best(row, stay, valid, budgets)

    def cache(self, model: Any, *, then: Policy | None = None, demote: Tier | None = None) -> PolicyCache:
        """A fresh cache for one generation of `model`; `then`: the policy that goes on from there."""
        return policy_cache([self, *([] if then is None else [then])], model, demote=demote)
