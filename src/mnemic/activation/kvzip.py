"""KVzip (Kim et al. 2025, arXiv 2505.23416): keep of a text what the model needs to say it again.

The text is read twice: once as always, and once more behind itself, as if the model repeated it. What the
repetition never looks at is no use for any question about the text, and goes. So the choice knows no
question, and serves every one that comes later: for memory that is read once and asked often.

Ours: the repetition is one piece, with no instruction before it unless one is given (the paper's pieces of
2,048 tokens ask for it in words). Heads are really cut to different lengths, and their budgets are rounded so
that heads share segments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import torch
from torch import Tensor

from mnemic.activation.cache import policy_cache
from mnemic.activation.choose import keep_best, share_out
from mnemic.activation.policy import Keep, LayerView, Rows, State
from mnemic.activation.segments import SPARE
from mnemic.cube.checks import require_count
from mnemic.cube.errors import InvalidOption
from mnemic.models.hf import cache_keyword

if TYPE_CHECKING:
    from mnemic.activation.cache import PolicyCache
    from mnemic.activation.policy import Policy
    from mnemic.activation.tier import Tier

SCORE: Final = "kvzip_score"


@dataclass(frozen=True, slots=True, kw_only=True)
class KVzip:
    """Read a text with `read`; generation goes on from the cache that it gives, and only appends.

    budget: share in (0, 1] of the text's tokens, summed over all heads of all layers, which divide it by
    where the best scores are; with layerwise=True each layer has the same. sinks: first tokens that every
    head keeps. bucket: heads hold multiples of so many tokens, so that they share segments; 1: as many as
    they should.

    A token's score in a head is the most attention that any query of the repetition pays it, over the query
    heads that share the KV head. Costs a second prefill of twice the length, and for as long as that takes
    a second copy of the whole cache.
    """

    budget: float = 0.5
    sinks: int = 4
    bucket: int = 32
    layerwise: bool = False

    needs: ClassVar[Rows] = Rows.NONE
    aggregate: ClassVar[str] = "max"
    evicts: ClassVar[bool] = True
    retains: ClassVar[int] = 0
    headroom: ClassVar[int] = SPARE

    def __post_init__(self) -> None:
        require_count(bucket=self.bucket)
        require_count(minimum=0, sinks=self.sinks)
        if isinstance(self.budget, bool) or not isinstance(self.budget, int | float):
            raise InvalidOption(f"budget is a share in (0, 1], got {self.budget!r:.80}")
        if not 0 < self.budget <= 1:
            raise InvalidOption(f"budget is a share in (0, 1], got {self.budget!r:.80}")

    def read(
        self,
        model: Any,
        ids: Tensor,
        *,
        ask: Tensor | None = None,
        then: Policy | None = None,
        demote: Tier | None = None,
    ) -> PolicyCache:
        """The cache of `ids` (B, N), equally long and without padding, cut to the budget.

        ask: ids (B, m) between the text and its repetition, such as "Repeat the text."; default none. then:
        the policy that generation goes on under. `model.generate(longer_ids, past_key_values=cache)` follows,
        where longer_ids begin with `ids`. Raises InvalidOption, and what a policy's `cache` raises.
        """
        if ids.ndim != 2 or not ids.shape[1]:
            raise InvalidOption(f"ids must be (rows, tokens) with at least one token, got {tuple(ids.shape)}")
        cache = policy_cache([self], model, demote=demote)
        name = cache_keyword(model)
        with torch.no_grad():
            model(input_ids=ids, logits_to_keep=1, **{name: cache})
            again = cache.clone()
            again.go_on_under(_Listening())
            repeated = ids if ask is None else torch.cat([ask, ids], 1)
            model(input_ids=repeated, logits_to_keep=1, **{name: again})
        heard = [layer.slots[SCORE][:, :, : ids.shape[1]] for layer in again.policy_layers()]
        for layer, keep in zip(cache.policy_layers(), self._keeps(torch.stack(heard)), strict=True):
            if keep is not None:
                layer.keep(keep)
        if then is not None:
            cache.go_on_under(self, then)
        return cache

    def _keeps(self, scores: Tensor) -> list[Keep | None]:
        """What stays in each layer; scores: (L, B, H, N)."""
        layers, batch, heads, tokens = scores.shape
        scores = scores.clone()
        scores[..., : self.sinks] = torch.inf
        if self.layerwise:
            budgets = self._shared(scores.flatten(0, 1)).view(layers, batch, heads)
        else:
            apart = scores.transpose(0, 1).flatten(1, 2)  # (B, L * H, N)
            budgets = self._shared(apart).view(batch, layers, heads).transpose(0, 1)
        valid = torch.ones(batch, heads, tokens, dtype=torch.bool, device=scores.device)
        pairs = zip(scores, budgets, strict=True)
        return [keep_best(score, torch.zeros_like(valid), valid, budget) for score, budget in pairs]

    def _shared(self, scores: Tensor) -> Tensor:
        """Budgets (groups, rows): as many as each row has of its group's best; scores: (groups, rows, N)."""
        groups, rows, tokens = scores.shape
        each = int(self.budget * tokens)
        total = int(self.budget * tokens * rows)
        best = scores.flatten(1).topk(total, dim=-1).indices // tokens
        mass = torch.zeros(groups, rows, device=scores.device)
        mass.scatter_add_(1, best, torch.ones_like(best, dtype=mass.dtype))
        return share_out(
            mass,
            torch.full((groups,), total, device=scores.device),
            floor=torch.full_like(mass, min(self.sinks, each), dtype=torch.int64),
            ceiling=torch.full_like(mass, tokens, dtype=torch.int64),
            bucket=min(self.bucket, max(1, each // 8)),
        )

    def init_state(self, layer: LayerView) -> State:  # noqa: ARG002
        return State()

    def observe(self, layer: LayerView, rows: Tensor | None, first: int) -> None:
        pass

    def select(self, layer: LayerView) -> Keep | None:
        """Nothing in generation: what stays was chosen when the text was read."""
        if layer.forced:
            raise InvalidOption("KVzip has to hear a text again before it can choose: use KVzip(…).read")
        return None


class _Listening:
    """Notes the most attention that each slot is paid in a later call of several tokens."""

    needs: ClassVar[Rows] = Rows(turn=True)
    aggregate: ClassVar[str] = "max"
    evicts: ClassVar[bool] = False
    retains: ClassVar[int] = 0
    headroom: ClassVar[int] = SPARE

    def init_state(self, layer: LayerView) -> State:
        shape = (layer.batch, layer.heads, layer.stored())
        return State(slots={SCORE: torch.zeros(shape, device=layer.valid().device)})

    def observe(self, layer: LayerView, rows: Tensor | None, first: int) -> None:  # noqa: ARG002
        if rows is not None:
            score = layer.slots[SCORE]
            torch.maximum(score, rows.amax(2), out=score)

    def select(self, layer: LayerView) -> Keep | None:  # noqa: ARG002
        return None
