"""Task-KV (He et al. 2025, arXiv 2501.15113): which heads keep everything depends on the prompt.

A head's semantic vector is the attention-weighted sum of the values that a prompt's last queries look at.
Heads far from their layer's mean ("heterogeneous") keep the whole prompt; the others keep sinks, the newest
tokens and the middle tokens that draw most attention. One decision a prompt, no calibration.

Ours: under GQA distances are averaged over the query heads that share a KV head, and KV heads are chosen. The
closest-head rule replaces the last of the farthest instead of adding to them. Where the schedule's heads do
not fit the budget there are fewer of them, and the report says so; the budget is never overspent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from mnemic.activation.cache import policy_cache
from mnemic.activation.policy import Keep, LayerView, Rows, State
from mnemic.activation.snapkv import pooled
from mnemic.cube.checks import require_count
from mnemic.cube.errors import BudgetTooSmall, InvalidOption, ModelError

if TYPE_CHECKING:
    from mnemic.activation.cache import PolicyCache
    from mnemic.activation.policy import Policy
    from mnemic.activation.tier import Tier

HEADS = ("far", "near", "random")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskKV:
    """Cut the prompt, once: full cache for the heads that carry the task, a selection for the rest.

    budget: share in (0, 1] of the prompt's tokens, summed over a layer's heads. beta: share of heads with
    full cache in the bottom layer; m: their number in the top one; linear between. sinks, recent: what the
    other heads keep at both ends (the paper's 16 and 256 are for long prompts). window: last queries that are
    looked at; top_t: tokens in a semantic vector; kernel: neighbours over which middle scores are averaged.
    metric: "l2" as published, or "cosine", which ignores how large a head's values are.

    strict: raise BudgetTooSmall instead of giving fewer heads the full cache. granularity: "kv", or "query"
    for research: keys stored once for each query head, and counted so. heads: "far"; "near" and "random" are
    for ablation, as is closest=False (no closest head among the full). extra_center: the closest head is
    added instead of replacing the f-th farthest.

    A prompt of at most window + sinks + recent tokens is left whole. Decoding only appends: combine with
    `then=LazyEviction(…)`. Costs one (window x N) block of attention rows a layer, in the prompt alone.
    """

    budget: float = 0.4
    beta: float = 0.25
    m: int = 1
    sinks: int = 4
    recent: int = 64
    window: int = 32
    top_t: int = 256
    kernel: int = 7
    metric: str = "l2"
    strict: bool = False
    granularity: str = "kv"
    extra_center: bool = False
    closest: bool = True
    middle: bool = True
    heads: str = "far"
    seed: int = 0

    aggregate: ClassVar[str] = "mean"
    evicts: ClassVar[bool] = True
    retains: ClassVar[int] = 0
    headroom: ClassVar[int] = 64

    def __post_init__(self) -> None:
        require_count(window=self.window, top_t=self.top_t, kernel=self.kernel)
        require_count(minimum=0, m=self.m, sinks=self.sinks, recent=self.recent, seed=self.seed)
        for name, value in (("budget", self.budget), ("beta", self.beta)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
                raise InvalidOption(f"{name} is a share in (0, 1], got {value!r:.80}")
        if self.kernel % 2 == 0:
            raise InvalidOption(f"kernel must be odd, so that a token lies in its middle; got {self.kernel}")
        for name, given, known in (
            ("metric", self.metric, ("l2", "cosine")),
            ("granularity", self.granularity, ("kv", "query")),
            ("heads", self.heads, HEADS),
        ):
            if given not in known:
                raise InvalidOption(f"{name} must be one of {', '.join(known)}, got {given!r:.80}")

    @property
    def needs(self) -> Rows:
        return Rows.last(self.window)

    def init_state(self, layer: LayerView) -> State:
        """For `decisions`: distances, which heads are full, and how many the schedule asked for."""
        shape, device = (layer.batch, layer.heads), layer.valid().device
        return State(
            heads={
                "taskkv_distance": torch.zeros(shape, device=device),
                "taskkv_full": torch.ones(shape, dtype=torch.bool, device=device),
                "taskkv_asked": torch.zeros(shape[0], 1, dtype=torch.int32, device=device),
            }
        )

    def observe(self, layer: LayerView, rows: Tensor | None, first: int) -> None:
        pass

    def select(self, layer: LayerView) -> Keep | None:
        if layer.step or layer.stored() < layer.seen or layer.new == 1:
            return None  # one decision a prompt
        window = min(self.window, layer.new)
        columns = layer.apart(window).mean(3)  # (B, H, G, N)
        if bool(columns.isnan().any()):
            raise ModelError(
                f"attention of layer {layer.layer_idx} holds NaN; the model's output is unusable"
            )
        valid, values = layer.valid(), layer.values()
        mask = torch.zeros_like(valid)
        for b in range(layer.batch):
            slots = valid[b, 0].nonzero()[:, 0]
            kept = self._choose(layer, b, columns[b][:, :, slots], values[b][:, slots])
            mask[b, :, slots] = kept
        return None if bool((mask == valid).all()) else Keep.from_mask(mask)

    def _choose(self, layer: LayerView, b: int, columns: Tensor, values: Tensor) -> Tensor:
        """columns (H, G, N), values (H, N, D) of one sequence -> (H, N) bool, exactly the budget."""
        heads, _, tokens = columns.shape
        kept = torch.ones(heads, tokens, dtype=torch.bool, device=columns.device)
        total = int(self.budget * tokens * heads)
        distance = self._distances(columns, values)
        layer.head_state["taskkv_distance"][b] = distance
        asked = scheduled(heads, layer.layers, self.beta, self.m, layer.layer_idx)
        layer.head_state["taskkv_asked"][b] = asked
        if total >= heads * tokens or tokens <= self.window + self.sinks + self.recent:
            return kept
        count = self._affordable(asked, heads, tokens, total)
        full = self._full_heads(distance, count, layer)
        layer.head_state["taskkv_full"][b] = full
        rest = (~full).nonzero()[:, 0]
        if not len(rest):
            return kept
        left = total - tokens * int(full.sum())
        sizes = torch.full((len(rest),), left // len(rest), device=columns.device)
        sizes[: left % len(rest)] += 1
        kept[rest] = self._selection(pooled(columns.mean(1)[None], self.kernel)[0][rest], sizes)
        return kept

    def _distances(self, columns: Tensor, values: Tensor) -> Tensor:
        """(H,) float32: how far each KV head's query heads lie from the layer's mean, on average."""
        weights, index = columns.topk(min(self.top_t, columns.shape[2]), dim=-1)  # (H, G, t)
        chosen = values.float()[torch.arange(len(values), device=values.device)[:, None, None], index]
        vectors = (weights[..., None] * chosen).sum(2)  # (H, G, D)
        centre = vectors.mean((0, 1))
        if self.metric == "cosine":
            return (1 - torch.cosine_similarity(vectors, centre.expand_as(vectors), dim=-1)).mean(1)
        return (vectors - centre).pow(2).sum(-1).sqrt().mean(1)

    def _affordable(self, asked: int, heads: int, tokens: int, total: int) -> int:
        """How many heads can be full: fewer than the schedule asks for if they would eat the others' ends."""
        ends = self.sinks + self.recent
        count = min(asked, heads)
        extra = 1 if self.extra_center and self.closest and self.heads == "far" else 0
        while count and (count + extra * (count > 1)) * (tokens - ends) + heads * ends > total:
            count -= 1
        if self.strict and (count < asked or heads * ends > total):
            raise BudgetTooSmall(
                f"budget={self.budget} of {tokens} tokens in {heads} heads is {total} entries; {asked} full "
                f"heads with {ends} tokens in each other need {asked * tokens + (heads - asked) * ends}. "
                "Raise the budget, lower beta, sinks or recent, or set strict=False"
            )
        return count

    def _full_heads(self, distance: Tensor, count: int, layer: LayerView) -> Tensor:
        """(H,) bool"""
        if self.heads == "random":
            generator = torch.Generator().manual_seed(self.seed * 1_000 + layer.layer_idx)
            order = torch.randperm(len(distance), generator=generator).to(distance.device)
        else:
            order = distance.argsort(dim=-1, descending=self.heads == "far", stable=True)
        full = torch.zeros(len(distance), dtype=torch.bool, device=distance.device)
        full[order[:count]] = True
        if self.heads == "far" and self.closest and count >= 2 and not full.all():
            if not self.extra_center:
                full[order[count - 1]] = False
            full[order[-1]] = True
        return full

    def _selection(self, scores: Tensor, sizes: Tensor) -> Tensor:
        """Sinks, the newest, and the middle's best: scores (h, N), sizes (h,) -> (h, N) bool."""
        tokens = scores.shape[1]
        place = torch.arange(tokens, device=scores.device)
        sinks = torch.minimum(sizes, torch.full_like(sizes, self.sinks))[:, None]
        recent = torch.minimum(sizes[:, None] - sinks, torch.full_like(sinks, self.recent))
        if not self.middle:  # ablation: the newest instead
            return (place < sinks) | (place >= tokens - (sizes[:, None] - sinks))
        ends = (place < sinks) | (place >= tokens - recent)
        ranked = scores.masked_fill(ends, torch.inf)
        order = ranked.flip(-1).argsort(dim=-1, descending=True, stable=True)
        rank = torch.empty_like(order).scatter_(-1, order, place.expand_as(order)).flip(-1)
        return rank < sizes[:, None]

    def cache(self, model: Any, *, then: Policy | None = None, demote: Tier | None = None) -> PolicyCache:
        """A fresh cache for one generation of `model`; `then`: the policy that goes on from there."""
        return policy_cache([self, *([] if then is None else [then])], model, demote=demote)


def scheduled(heads: int, layers: int, beta: float, m: int, layer: int) -> int:
    """Heads with full cache in a layer: n·beta at the bottom, m at the top, linear between, at least one."""
    bottom = heads * beta
    drop = (bottom - m) / (layers - 1) * layer if layers > 1 else 0.0
    return max(1, min(heads, int(bottom - drop + 0.5)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What TaskKV decided for one layer and sequence. asked: full heads by the schedule; full: those
    chosen.
    """

    layer: int
    sequence: int
    asked: int
    full: frozenset[int]
    distances: tuple[float, ...]


def decisions(cache: PolicyCache) -> list[Decision]:
    """What TaskKV chose, layer by layer. Raises InvalidOption for a cache that is not one of its own."""
    found = []
    for layer in cache.policy_layers():
        state = layer.head_state
        if "taskkv_full" not in state:
            raise InvalidOption("this cache is not one of TaskKV's, or has seen no prompt yet")
        for b in range(layer.batch):
            found.append(
                Decision(
                    layer=layer.layer_idx,
                    sequence=b,
                    asked=int(state["taskkv_asked"][b, 0]),
                    full=frozenset(state["taskkv_full"][b].nonzero()[:, 0].tolist()),
                    distances=tuple(state["taskkv_distance"][b].tolist()),
                )
            )
    return found


def overlap(one: PolicyCache, other: PolicyCache) -> list[float]:
    """Jaccard overlap of the full heads of two prompts (sequence 0), layer by layer."""
    pairs = zip(decisions(one), decisions(other), strict=True)
    return [len(a.full & b.full) / max(1, len(a.full | b.full)) for a, b in pairs if a.sequence == 0]
