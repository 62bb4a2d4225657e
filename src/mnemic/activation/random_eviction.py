"""Random eviction beside a protected prompt: the control that any scorer has to beat (arXiv 2609.03430)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from mnemic.activation.cache import policy_cache
from mnemic.activation.choose import keep_best, room, time_to_choose
from mnemic.activation.policy import Keep, LayerView, Rows, State, require_budget
from mnemic.cube.checks import require_count

if TYPE_CHECKING:
    from mnemic.activation.cache import PolicyCache
    from mnemic.activation.policy import Policy
    from mnemic.activation.tier import Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomEviction:
    """Keep the newest `window` and, of the rest, tokens drawn by lot, for each layer and head apart.

    budget: tokens a head, or a share of the prompt. A token's lot is a hash of (seed, layer, head, position):
    it is drawn once for its life, the same in a batch as alone. protect_prompt: the prompt stays and is
    counted apart.
    """

    budget: int | float
    window: int = 64
    seed: int = 0
    protect_prompt: bool = True

    needs: ClassVar[Rows] = Rows.NONE
    aggregate: ClassVar[str] = "max"
    evicts: ClassVar[bool] = True
    retains: ClassVar[int] = 0

    def __post_init__(self) -> None:
        require_count(window=self.window)
        require_count(minimum=0, seed=self.seed)
        require_budget(self.budget, window=self.window)

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
        valid, stay, budgets = room(
            layer, self.budget, newest=self.window, protect_prompt=self.protect_prompt
        )
        padding = (layer.prompt - layer.prompt_tokens())[:, None, None]
        heads = torch.arange(layer.heads, device=valid.device)[None, :, None]
        lots = _hashed(
            _hashed(_hashed(layer.positions() - padding) + heads) + self.seed * 1_000 + layer.layer_idx
        )
        return keep_best(lots, stay, valid, budgets)

    def cache(self, model: Any, *, then: Policy | None = None, demote: Tier | None = None) -> PolicyCache:
        """A fresh cache for one generation of `model`; `then`: the policy that goes on from there."""
        return policy_cache([self, *([] if then is None else [then])], model, demote=demote)


def _hashed(x: Tensor) -> Tensor:
    """A mixing of the bits of whole numbers into [0, 2^24), exact in float32 (Mueller's hash)."""
    x = x.long() & 0xFFFFFFFF
    for _ in range(2):
        x = (((x >> 16) ^ x) * 0x45D9F3B) & 0xFFFFFFFF
    return ((x >> 16) ^ x) & 0xFFFFFF
