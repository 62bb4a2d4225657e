"""No eviction: the stock cache's tokens, in storage that grows without copying all of it at every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from mnemic.activation.cache import policy_cache
from mnemic.activation.policy import Keep, LayerView, Rows, State
from mnemic.activation.segments import SPARE
from mnemic.cube.checks import require_count

if TYPE_CHECKING:
    from mnemic.activation.cache import PolicyCache
    from mnemic.activation.policy import Policy
    from mnemic.activation.tier import Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class FullCache:
    """Keep everything. The baseline, and what `PolicyCache.compress` starts from.

    queries: how many of a prompt's last queries stay for `compress`: (B, Hq, queries, D) a layer.
    Rolling back (assisted decoding) works, as with the stock cache. Cost of a step: O(new tokens).
    """

    queries: int = 0

    needs: ClassVar[Rows] = Rows.NONE
    aggregate: ClassVar[str] = "max"
    evicts: ClassVar[bool] = False
    headroom: ClassVar[int] = SPARE

    def __post_init__(self) -> None:
        require_count(minimum=0, queries=self.queries)

    @property
    def retains(self) -> int:
        return self.queries

    def init_state(self, layer: LayerView) -> State:  # noqa: ARG002
        return State()

    def observe(self, layer: LayerView, rows: Tensor | None, first: int) -> None:
        pass

    def select(self, layer: LayerView) -> Keep | None:  # noqa: ARG002
        return None

    def cache(self, model: Any, *, then: Policy | None = None, demote: Tier | None = None) -> PolicyCache:
        """A fresh cache for one generation of `model`; `then`: the policy that goes on from there."""
        return policy_cache([self, *([] if then is None else [then])], model, demote=demote)
