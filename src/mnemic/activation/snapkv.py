"""SnapKV (Li et al. 2024, arXiv 2404.14469, §4) with, as an option, Ada-KV's budgets (Feng et al. 2024,
arXiv 2407.11550): a prompt is cut to what its own last queries look at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mnemic.activation.attention import group_rows
from mnemic.activation.cache import policy_cache
from mnemic.activation.choose import keep_best, room, share_out
from mnemic.activation.policy import Keep, LayerView, Rows, State, require_aggregate, require_budget
from mnemic.cube.checks import require_count
from mnemic.cube.errors import InvalidOption

if TYPE_CHECKING:
    from mnemic.activation.cache import PolicyCache
    from mnemic.activation.policy import Policy
    from mnemic.activation.tier import Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapKV:
    """Cut the prompt, once, to its last `window` tokens and those they attend to; decoding only appends.

    budget: tokens a head (the window included), or a share of the prompt. Scores are the mean attention of
    the window's queries, averaged over `kernel` neighbours. A later call of several tokens is cut again.

    adaptive: heads of a layer share budget · heads tokens by how many of the layer's best tokens are theirs
    (Ada-KV's idea), each at least `floor` of its equal share, in multiples of 32 (or of an eighth of the
    budget, if that is less) so that heads share segments: ragged heads, whose bytes are really freed.
    """

    budget: int | float
    window: int = 32
    kernel: int = 7
    aggregate: str = "mean"
    adaptive: bool = False
    floor: float = 0.5

    needs: ClassVar[Rows] = Rows(looked=1)
    evicts: ClassVar[bool] = True
    retains: ClassVar[int] = 0
    headroom: ClassVar[int] = 64

    def __post_init__(self) -> None:
        require_count(window=self.window, kernel=self.kernel)
        if self.kernel % 2 == 0:
            raise InvalidOption(f"kernel must be odd, so that a token lies in its middle; got {self.kernel}")
        if not 0 <= self.floor <= 1:
            raise InvalidOption(f"floor is a share in [0, 1], got {self.floor!r:.80}")
        require_budget(self.budget, window=self.window)
        require_aggregate(self.aggregate)

    def init_state(self, layer: LayerView) -> State:  # noqa: ARG002
        return State()

    def observe(self, layer: LayerView, rows: Tensor | None, first: int) -> None:
        pass

    def select(self, layer: LayerView) -> Keep | None:
        if layer.new == 1:
            return None
        valid, stay, budgets = room(layer, self.budget, newest=self.window, protect_prompt=False)
        if bool((valid.sum(-1) <= budgets).all()):
            return None
        scores = group_rows(layer.apart(min(self.window, layer.new)), self.aggregate).mean(2)
        scores = pooled(scores, self.kernel)
        if self.adaptive:
            budgets = self._shared(scores, stay, valid, budgets)
        return keep_best(scores, stay, valid, budgets)

    def _shared(self, scores: Tensor, stay: Tensor, valid: Tensor, budgets: Tensor) -> Tensor:
        """The same tokens in all, divided by where the layer's best scores lie: (B, H)."""
        apart = scores.masked_fill(stay | ~valid, -torch.inf)
        total, counts = budgets.sum(1), valid.sum(-1)
        free = (total - stay.sum((1, 2))).clamp_min(0)
        best = apart.flatten(1).argsort(dim=-1, descending=True, stable=True).argsort(-1) < free[:, None]
        mass = (best.view_as(apart) & valid).sum(-1).float()
        bucket = max(1, min(32, int(budgets.min()) // 8))
        floor = torch.minimum((budgets * self.floor).long().maximum(stay.sum(-1)), counts).minimum(budgets)
        return share_out(mass, total, floor=floor, ceiling=counts, bucket=bucket)

    def cache(self, model: Any, *, then: Policy | None = None, demote: Tier | None = None) -> PolicyCache:
        """A fresh cache for one generation of `model`; `then`: the policy that goes on from there."""
        return policy_cache([self, *([] if then is None else [then])], model, demote=demote)


def pooled(scores: Tensor, kernel: int) -> Tensor:
    """Each slot's mean over its `kernel` neighbours, as SnapKV has it: (B, H, S)."""
    return F.avg_pool1d(scores.flatten(0, 1)[:, None], kernel, 1, kernel // 2)[:, 0].view_as(scores)
