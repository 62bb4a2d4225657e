"""Window and threshold for LazyEviction, measured on a few prompts of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from mnemic.activation.cache import policy_cache
from mnemic.activation.lazy import LazyEviction, gaps_of
from mnemic.activation.policy import Keep, LayerView, Rows, State
from mnemic.cube.checks import require_count
from mnemic.cube.errors import InvalidOption

SAMPLE = 256  # attention weights kept of each row


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What `calibrate` found. window: the `share` quantile of the longest gaps of tokens that were used
    again.

    alpha: the threshold it was measured with. gaps: how many tokens have which longest gap: `gaps[g]`, g up
    to the longest; `gaps[0]` were never used. tokens: how many were looked at, over layers and heads.
    """

    window: int
    alpha: float
    share: float
    gaps: list[int]
    tokens: int

    def policy(self, budget: int | float) -> LazyEviction:
        return LazyEviction(budget=budget, window=self.window, alpha=self.alpha)


def calibrate(
    model: Any,
    prompts: Sequence[Tensor],
    *,
    new_tokens: int = 256,
    share: float = 0.8,
    alpha: float | None = None,
    level: float = 0.95,
) -> Calibration:
    """Generate greedily from each prompt ((1, N) token ids) with a full cache, and measure its rhythm.

    window: the paper's rule (the 80th percentile of the longest gaps, on 2-20 samples). alpha: given, or the
    `level` quantile of attention weights in decoding, so that a token counts as used in the top 5 % (ours;
    the paper names a value for each model). Costs one generation a prompt, two with alpha left open.
    """
    require_count(new_tokens=new_tokens)
    for name, value in (("share", share), ("level", level)):
        if not 0 < value < 1:
            raise InvalidOption(f"{name} must lie in (0, 1), got {value!r:.80}")
    if not prompts:
        raise InvalidOption("calibrate needs at least one prompt of token ids, (1, N)")
    if alpha is None:
        watch = _Weights()
        for prompt in prompts:
            _generate(model, prompt, policy_cache([watch], model), new_tokens)
        alpha = max(1e-8, float(torch.cat(watch.seen).quantile(level)))
    endless = LazyEviction(budget=1 << 40, window=1, alpha=alpha)
    longest = []
    for prompt in prompts:
        cache = endless.cache(model)
        _generate(model, prompt, cache, new_tokens)
        longest.append(gaps_of(cache))
    gaps = torch.cat(longest)
    used = gaps[gaps > 0].float()
    window = max(1, int(used.quantile(share))) if len(used) else 1
    return Calibration(
        window=window, alpha=alpha, share=share, gaps=torch.bincount(gaps).tolist(), tokens=len(gaps)
    )


def _generate(model: Any, prompt: Tensor, cache: Any, new_tokens: int) -> None:
    with torch.no_grad():
        logits = model(input_ids=prompt, past_key_values=cache).logits
        for _ in range(new_tokens):
            token = logits[:, -1:].argmax(-1)
            logits = model(input_ids=token, past_key_values=cache).logits


@dataclass(frozen=True, slots=True)
class _Weights:
    """Evicts nothing and samples the attention weights it is shown."""

    seen: list[Tensor] = field(default_factory=list)

    needs: ClassVar[Rows] = Rows(step=True)
    aggregate: ClassVar[str] = "max"
    evicts: ClassVar[bool] = False
    headroom: ClassVar[int] = 64
    retains: ClassVar[int] = 0

    def init_state(self, layer: LayerView) -> State:  # noqa: ARG002
        return State()

    def observe(self, layer: LayerView, rows: Tensor | None, first: int) -> None:  # noqa: ARG002
        if rows is not None:
            flat = rows[layer.valid()[:, :, None].expand_as(rows)]
            self.seen.append(flat[:: max(1, len(flat) // SAMPLE)].clone())

    def select(self, layer: LayerView) -> Keep | None:  # noqa: ARG002
        return None

    def cache(self, model: Any, *, demote: Any = None) -> Any:
        return policy_cache([self], model, demote=demote)
