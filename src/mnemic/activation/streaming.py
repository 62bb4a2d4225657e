"""StreamingLLM (Xiao et al. 2024, arXiv 2309.17453, §3): the first tokens and the newest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from mnemic.activation.cache import policy_cache
from mnemic.activation.choose import keep_best, oldest, room, time_to_choose
from mnemic.activation.policy import Keep, LayerView, Rows, State, require_budget
from mnemic.cube.checks import require_count

if TYPE_CHECKING:
    from mnemic.activation.cache import PolicyCache
    from mnemic.activation.policy import Policy
    from mnemic.activation.tier import Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamingLLM:
    """Keep `sinks` first tokens and the newest, `budget` tokens a head in all. No attention row is looked at.

    budget: tokens, or a share of the prompt; every `window` steps what is above it goes. protect_prompt: the
    prompt stays and is counted apart. Positions stay true (the paper renumbers them inside its cache).
    """

    budget: int | float
    sinks: int = 4
    window: int = 64
    protect_prompt: bool = True

    needs: ClassVar[Rows] = Rows.NONE
    aggregate: ClassVar[str] = "max"
    evicts: ClassVar[bool] = True
    retains: ClassVar[int] = 0

    def __post_init__(self) -> None:
        require_count(minimum=0, sinks=self.sinks)
        require_count(window=self.window)
        require_budget(self.budget, window=self.sinks)

    @property
    def headroom(self) -> int:
        return self.window

    def init_state(self, layer: LayerView) -> State:  # noqa: ARG002
        return State()

    def observe(self, layer: LayerView, rows: Tensor | None, first: int) -> None:
        pass

    def select(self, layer: LayerView) -> Keep | None:
        if not time_to_choose(layer, self.budget, self.window):
            return None
        valid, stay, budgets = room(layer, self.budget, newest=1, protect_prompt=self.protect_prompt)
        return keep_best(layer.positions(), stay | oldest(valid, self.sinks), valid, budgets)

    def cache(self, model: Any, *, then: Policy | None = None, demote: Tier | None = None) -> PolicyCache:
        """A fresh cache for one generation of `model`; `then`: the policy that goes on from there."""
        return policy_cache([self, *([] if then is None else [then])], model, demote=demote)
