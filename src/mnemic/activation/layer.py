"""One layer's cache under policies: storage, attention over it, and what the policies are shown.

Attention of a layer is `merge_attention` of its pieces: body segments, the tail, and what a tier holds. While
nothing has been evicted there is only the tail, and the model's own call is repeated on it, unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from mnemic.activation.attention import Part, attend, group_rows, merge_attention
from mnemic.activation.handle import Call, KVHandle, require_sdpa
from mnemic.activation.held import Held
from mnemic.activation.policy import Keep, Policy
from mnemic.activation.segments import Segment, Tail, select_rows
from mnemic.activation.tier import Tier, TierLayer
from mnemic.activation.visible import Visible
from mnemic.cube.errors import InvalidOption, UnsupportedAttention, UnsupportedGeneration, UnsupportedModel

BLOCK = 64  # attention rows that are held at a time


class PolicyLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is not checked
    """The keys and values of one layer, and its policies' state. Implements `LayerView` for the policies.

    groups: query heads that share a row's keys. expand: rows stored for each KV head (1, or `groups` of the
    model with granularity="query"; then groups is 1). implementation: the model's attention now, which may be
    switched at any time.
    """

    is_sliding = False
    is_compileable = False
    supports_early_init = False

    def __init__(
        self,
        policies: Sequence[Policy],
        *,
        layer_idx: int,
        layers: int,
        groups: int,
        expand: int,
        tier: Tier | None,
        implementation: Callable[[], str],
    ) -> None:
        super().__init__()
        del self.keys, self.values  # what others keep as tensors are methods of the view here
        self.policies, self.layer_idx, self.layers = tuple(policies), layer_idx, layers
        self.groups, self.expand, self.tier = groups, expand, tier
        self.implementation = implementation
        self._start()

    def _start(self) -> None:
        self.is_initialized = False
        self.body: list[Segment] = []
        self.body_slots = 0
        self._order: Tensor | None = None  # where each row lies among the segments, if not in order
        self.tail: Tail | None = None
        self.demoted: TierLayer | None = None
        self.seen = self.prompt = self.new = self.step = 0
        self.batch = self.heads = 0
        self._slots: dict[str, Tensor] = {}
        self.head_state: dict[str, Tensor] = {}
        self._padding = 0  # slots of padding ever appended, an upper bound
        self._prompt_tokens: Tensor | None = None
        self.events = self.peak = 0
        self.evicted: Tensor | None = None
        self.forced = False
        self._call: tuple[Tensor, Visible, float] | None = None  # during a call
        self._look: tuple[Tensor, Visible, float] | None = None  # its last queries, for `compress`

    # ------------------------------------------------------------------ what the model calls

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:  # noqa: ARG002
        self.dtype, self.device = key_states.dtype, key_states.device
        self.batch, self.heads = key_states.shape[0], key_states.shape[1] * self.expand
        self.evicted = torch.zeros(self.batch, self.heads, dtype=torch.int64, device=self.device)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Store new keys and values (B, H, q, D); the answer stands for all T of them in attention."""
        if torch.compiler.is_compiling():
            raise UnsupportedModel(
                "a compiled model cannot run under a cache policy; use the model as it was"
            )
        require_sdpa(self.implementation())
        if torch.is_grad_enabled() and key_states.requires_grad:
            raise UnsupportedGeneration(
                "a cache policy keeps no gradients: call the model under torch.no_grad(), as generate does"
            )
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        k, v = key_states, value_states
        if self.expand > 1:
            k, v = k.repeat_interleave(self.expand, 1), v.repeat_interleave(self.expand, 1)
        self.new = k.shape[2]
        if self.tail is None:
            self.tail, self.prompt = Tail(k, v), self.new
        else:
            self.tail.append(k, v)
            self.step += self.new
        self.seen += self.new
        shape = (self.batch, key_states.shape[1], self.seen)
        return (
            KVHandle.of(self, (*shape, k.shape[3]), key_states),
            KVHandle.of(self, (*shape, v.shape[3]), value_states),
        )

    def attend(self, query: Tensor, handle_shape: torch.Size, call: Call) -> Tensor:
        """What `scaled_dot_product_attention` answers with. query: (B, Hq, q, D), or
        (B, H, G, D) if q = 1.
        """
        if call.dropout:
            raise UnsupportedGeneration("a cache policy is for inference: call model.eval(), dropout is on")
        if handle_shape[2] != self.seen or query.shape[0] != self.batch:
            raise UnsupportedAttention(
                f"attention reads {handle_shape[2]} of {self.seen} tokens, or another batch than the one "
                "stored; no cache policy can serve that"
            )
        scale = query.shape[-1] ** -0.5 if call.scale is None else call.scale
        rows = query.reshape(self.batch * self.heads, self.groups * self.new, query.shape[-1])
        visible = Visible(
            mask=self._mask(call.mask),
            causal=call.causal,
            batch=self.batch,
            heads=self.heads,
            groups=self.groups,
            queries=self.new,
            seen=self.seen,
        )
        if self.body:
            out = self._merged(rows, visible, scale).reshape(*query.shape[:-1], -1)
        else:
            out = self._dense(query, handle_shape, call)
        self._consult(rows, visible, scale)
        return out

    def get_seq_length(self) -> int:
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.seen + query_length, 0

    def get_max_length(self) -> int:
        return -1

    @property
    def is_croppable(self) -> bool:
        return not any(policy.evicts for policy in self.policies)

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last -tokens_to_remove tokens: only while nothing has been evicted."""
        if tokens_to_remove > 0:
            raise InvalidOption("crop takes the negative number of tokens to remove")
        count = -tokens_to_remove
        if not count or self.tail is None:
            return
        if self.body or count > self.tail.length:
            raise UnsupportedGeneration(
                "a cache that has evicted cannot be rolled back; assisted and prompt-lookup decoding need "
                "FullCache or a stock cache"
            )
        self.tail.crop(count)
        for state in self._slots.values():
            state[:, :, self.tail.length :] = 0
        self.seen -= count
        self.step = max(0, self.step - count)

    def reset(self) -> None:
        self._start()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.batch_select_indices(torch.arange(self.batch).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Sequence b becomes a copy of sequence indices[b]: segments, tail, tier and state together."""
        if self.tail is None or self.evicted is None:
            return
        self._look = None
        indices = indices.to(self.device)
        if indices.dtype == torch.bool:
            indices = indices.nonzero()[:, 0]
        wanted = (indices[:, None] * self.heads + torch.arange(self.heads, device=self.device)).flatten()
        total = self.batch * self.heads
        moved = [select_rows(segment, wanted, total) for segment in self.body]
        self._set_body([segment for segment in moved if segment is not None], len(wanted))
        if self.demoted is not None:
            self.demoted.select(wanted)
        self.tail.select(indices)
        self._slots = {name: state[indices] for name, state in self._slots.items()}
        self.head_state = {name: state[indices] for name, state in self.head_state.items()}
        if self._prompt_tokens is not None:
            self._prompt_tokens = self._prompt_tokens[indices]
        self.evicted = self.evicted[indices]
        self.batch = len(indices)

    # ------------------------------------------------------------------ attention

    def _mask(self, mask: Tensor | None) -> Tensor | None:
        """The mask as (B, 1 | Hq, q, T): a packed call has (B, H, G, T) for q = 1."""
        if mask is None or mask.shape[1] == 1:
            return mask
        return mask.reshape(mask.shape[0], self.heads * self.groups, self.new, mask.shape[-1])

    def _dense(self, query: Tensor, handle_shape: torch.Size, call: Call) -> Tensor:
        """The model's own call on what it gave: the same kernel, the same tensors, the same bits."""
        assert self.tail is not None  # noqa: S101  # update came first
        k, v = (t[:, :: self.expand, : self.tail.length] for t in (self.tail.k, self.tail.v))
        if handle_shape[1] != k.shape[1]:  # the call came through repeat_kv
            k, v = (t.repeat_interleave(handle_shape[1] // t.shape[1], 1) for t in (k, v))
        return F.scaled_dot_product_attention(
            query,
            k,
            v,
            attn_mask=call.mask,
            is_causal=call.causal,
            scale=call.scale,
            enable_gqa=call.enable_gqa,
        )

    def _merged(self, rows: Tensor, visible: Visible, scale: float) -> Tensor:
        assert self.tail is not None  # noqa: S101
        parts = [self._body_part(rows, visible, scale)]
        if self.tail.length:
            k, v = self.tail.rows()
            bias = visible.bias(None, self._tail_positions(), 0, self.new)
            parts.append(attend(rows, k, v, bias, scale))
        if self.demoted is not None and (part := self.demoted.attend(rows, scale)) is not None:
            parts.append(part)
        return merge_attention(*parts)[0]

    def _body_part(self, rows: Tensor, visible: Visible, scale: float) -> Part:
        if self._order is None:
            segment = self.body[0]
            return segment.attend(rows, visible.bias(None, segment.pos, 0, self.new), scale)
        found = [
            segment.attend(rows[segment.rows], visible.bias(segment.rows, segment.pos, 0, self.new), scale)
            for segment in self.body
        ]
        out, peak, total = (torch.cat(apart)[self._order] for apart in zip(*found, strict=True))
        return out, peak, total

    def _tail_positions(self) -> Tensor:
        """(B·H, tail) int32, one row seen from every row."""
        assert self.tail is not None  # noqa: S101
        first = self.seen - self.tail.length
        own = torch.arange(first, self.seen, dtype=torch.int32, device=self.device)
        return own.expand(self.batch * self.heads, -1)

    def _weights(self, rows: Tensor, visible: Visible, scale: float, first: int, count: int) -> Tensor:
        """(B·H, G·count, S) float32: attention of queries [first, first + count) over the stored slots."""
        assert self.tail is not None  # noqa: S101
        q = torch.unflatten(rows, 1, (self.groups, -1))[:, :, first : first + count].flatten(1, 2).float()
        scores = q.new_full((*q.shape[:2], self.stored()), -torch.inf)
        for segment in self.body:
            own = q if self._order is None else q[segment.rows]
            bias = visible.bias(None if self._order is None else segment.rows, segment.pos, first, count)
            found = own @ segment.k.float().mT * scale
            found = found if bias is None else found + bias
            if self._order is None:
                scores[:, :, : self.body_slots] = found
            else:
                scores[segment.rows, :, : found.shape[2]] = found
        if self.tail.length:
            found = q @ self.tail.rows()[0].float().mT * scale
            bias = visible.bias(None, self._tail_positions(), first, count)
            scores[:, :, self.body_slots :] = found if bias is None else found + bias
        peak = scores.amax(-1, keepdim=True)
        weights = torch.exp(scores - peak.masked_fill(peak.isinf(), 0.0))
        return weights / weights.sum(-1, keepdim=True).clamp_min(1e-38)

    # ------------------------------------------------------------------ policies

    def _consult(self, rows: Tensor, visible: Visible, scale: float) -> None:
        assert self.tail is not None  # noqa: S101
        real = visible.real()
        if real is not None:
            self.tail.mark(real)
        if self._prompt_tokens is None:
            everything = torch.full((self.batch,), self.new, device=self.device)
            self._prompt_tokens = everything if real is None else real.sum(1)
            for policy in self.policies:
                state = policy.init_state(self)
                self._slots |= state.slots
                self.head_state |= state.heads
        self._fit_state()
        self.peak = max(self.peak, self.stored())
        self._call = (rows, visible, scale)
        for policy in self.policies:
            self._show(policy)
        for policy in self.policies:
            if policy.evicts and (keep := policy.select(self)) is not None:
                self.keep(keep)
        self._retain()
        self._call = None

    def _show(self, policy: Policy) -> None:
        """The rows a policy asked for, in blocks, or none."""
        assert self._call is not None  # noqa: S101
        rows, visible, scale = self._call
        needs = policy.needs
        if not (needs.prompt if self.step == 0 else needs.step if self.new == 1 else needs.turn):
            policy.observe(self, None, 0)
            return
        for first in range(0, self.new, BLOCK):
            count = min(BLOCK, self.new - first)
            weights = self._weights(rows, visible, scale, first, count)
            shown = group_rows(torch.unflatten(weights, 1, (self.groups, count)), policy.aggregate)
            policy.observe(self, self._by_head(shown), first)

    def _retain(self) -> None:
        """Keep the queries that a later `compress` may look at, as many as the policies say."""
        assert self._call is not None  # noqa: S101
        rows, visible, scale = self._call
        count = min(self.new, max(policy.retains for policy in self.policies))
        if count < 2:
            self._look = None
            return
        mask = None if visible.mask is None else visible.mask[:, :, -count:].clone()
        last = torch.unflatten(rows, 1, (self.groups, self.new))[:, :, -count:].flatten(
            1, 2
        )  # flatten copies
        self._look = (last, replace(visible, mask=mask, queries=count), scale)

    def apart(self, count: int) -> Tensor:
        """(B, H, G, count, S) float32: the call's last rows, for each query head alone."""
        call = self._call or self._look
        if call is None or call[1].queries < count:
            raise InvalidOption(
                f"the last {count} queries are gone. Let the policy see the prompt, or keep them for it: "
                f"FullCache(queries={count})"
            )
        weights = self._weights(*call, call[1].queries - count, count)
        return self._by_head(torch.unflatten(weights, 1, (self.groups, count)))

    def _fit_state(self) -> None:
        """As many slots as body and tail have room for, new ones zero."""
        assert self.tail is not None  # noqa: S101
        room = self.body_slots + self.tail.capacity
        for name, state in self._slots.items():
            if state.shape[2] < room:
                self._slots[name] = F.pad(state, (0, room - state.shape[2]))

    # ------------------------------------------------------------------ LayerView

    @property
    def slots(self) -> dict[str, Tensor]:
        return {name: state[:, :, : self.stored()] for name, state in self._slots.items()}

    def stored(self) -> int:
        return self.body_slots + (0 if self.tail is None else self.tail.length)

    def positions(self) -> Tensor:
        return self._padded(lambda segment: segment.pos, self._tail_positions())

    def valid(self) -> Tensor:
        assert self.tail is not None  # noqa: S101
        real = torch.ones(self.batch, self.tail.length, dtype=torch.bool, device=self.device)
        if self.tail.real is not None:
            real = self.tail.real[:, : self.tail.length]
        return self._padded(
            lambda segment: torch.ones_like(segment.pos, dtype=torch.bool),
            real.repeat_interleave(self.heads, 0),
        )

    def counts(self) -> Tensor:
        return self.valid().sum(-1)

    def prompt_tokens(self) -> Tensor:
        assert self._prompt_tokens is not None  # noqa: S101
        return self._prompt_tokens

    def keys(self) -> Tensor:
        assert self.tail is not None  # noqa: S101
        return self._padded(lambda segment: segment.k, self.tail.rows()[0])

    def values(self) -> Tensor:
        assert self.tail is not None  # noqa: S101
        return self._padded(lambda segment: segment.v, self.tail.rows()[1])

    def _padded(self, of: Any, tail: Tensor) -> Tensor:
        """(B, H, S, …): one row for each of the body's segments, filled up with zeros, then the tail."""
        if not self.body:
            whole = tail
        elif self._order is None:
            whole = torch.cat([of(self.body[0]), tail], 1)
        else:
            whole = tail.new_zeros(len(tail), self.stored(), *tail.shape[2:])
            whole[:, self.body_slots :] = tail
            for segment in self.body:
                whole[segment.rows, : segment.pos.shape[1]] = of(segment)
        return self._by_head(whole)

    def _by_head(self, rows: Tensor) -> Tensor:
        """(B·H, …) to (B, H, …)"""
        return torch.unflatten(rows, 0, (self.batch, self.heads))

    # ------------------------------------------------------------------ eviction

    def keep(self, keep: Keep) -> None:
        """Store what `keep` names and free the rest. O(stored), the peak is one more copy of this layer."""
        assert self.evicted is not None  # noqa: S101  # a call came first
        held = self._held()
        keep.check(held.valid)
        counts = keep.row_splits.diff()
        if self.tier is not None:
            self._demote(held, keep)
        self.evicted += self._by_head(held.valid.sum(1) - counts)
        self._rebuild(held, keep)
        self.events += 1

    def compress(self, policy: Policy) -> None:
        """Let a policy choose once, between calls. Raises InvalidOption if it had to see what is over."""
        if self.tail is None:
            return
        state = policy.init_state(self)
        fresh = [name for name in state.slots if name not in self._slots]
        if fresh and (policy.needs.prompt or (policy.needs.step and not policy.needs.looked)):
            raise InvalidOption(
                f"{type(policy).__name__} reads attention as it happens. Let it see the prompt: "
                f"{type(policy).__name__}(…).cache(model)"
            )
        self._slots, self.head_state = state.slots | self._slots, state.heads | self.head_state
        self._fit_state()
        self.forced = True
        try:
            if (keep := policy.select(self)) is not None:
                self.keep(keep)
        finally:
            self.forced, self._look = False, None
            self._slots = {name: each for name, each in self._slots.items() if name not in fresh}

    def go_on_under(self, policies: Sequence[Policy]) -> None:
        """From here on by these policies; state that they do not share with the old ones starts anew."""
        self.policies = tuple(policies)
        if self.tail is None:
            return
        slots: dict[str, Tensor] = {}
        heads: dict[str, Tensor] = {}
        for policy in self.policies:
            state = policy.init_state(self)
            slots, heads = slots | state.slots, heads | state.heads
        self._slots = {name: self._slots.get(name, each) for name, each in slots.items()}
        self.head_state = {name: self.head_state.get(name, each) for name, each in heads.items()}
        self._fit_state()

    def recall(self, pos: Tensor | None) -> int:
        """Bring demoted tokens back to where their positions put them; how many, over all rows."""
        tokens = {} if self.demoted is None else self.demoted.take(pos)
        if self.evicted is None or not tokens or not len(tokens["row"]):
            return 0
        held = self._held().joined(tokens)
        self._rebuild(held, Keep.from_mask(self._by_head(held.valid)))
        self.evicted -= self._by_head(torch.bincount(tokens["row"], minlength=self.batch * self.heads))
        return len(tokens["row"])

    def _held(self) -> Held:
        """Everything stored, padded to the longest row."""
        k, v, pos, valid = (
            each().flatten(0, 1) for each in (self.keys, self.values, self.positions, self.valid)
        )
        return Held(k=k, v=v, pos=pos, valid=valid, state={n: s.flatten(0, 1) for n, s in self.slots.items()})

    def _rebuild(self, held: Held, keep: Keep) -> None:
        """A new body of what `keep` names, policy state with it, and an empty tail."""
        assert self.tail is not None  # noqa: S101
        self._slots |= {name: self._by_head(state) for name, state in held.moved_state(keep).items()}
        self._set_body(held.segments(keep), self.batch * self.heads)
        self.tail.empty(max(policy.headroom for policy in self.policies))
        self._fit_state()

    def _demote(self, held: Held, keep: Keep) -> None:
        assert self.tier is not None  # noqa: S101
        if self.demoted is None:
            self.demoted = self.tier.open(self.batch * self.heads, self.layer_idx)
        gone = held.valid.clone()
        gone[keep.owner(), keep.index] = False
        self.demoted.put(*held.tokens(gone))

    def _set_body(self, body: list[Segment], rows: int) -> None:
        self.body = body
        self.body_slots = max((segment.pos.shape[1] for segment in self.body), default=0)
        if len(self.body) == 1 and len(self.body[0].rows) == rows:
            self._order = None
        else:
            self._order = torch.cat([segment.rows for segment in self.body]).argsort() if self.body else None

    # ------------------------------------------------------------------ accounts

    def tensors(self) -> list[Tensor]:
        """Everything this layer keeps alive between calls."""
        kept = [tensor for segment in self.body for tensor in segment.tensors()]
        kept += [] if self.tail is None else self.tail.tensors()
        kept += [*self._slots.values(), *self.head_state.values()]
        kept += [] if self._look is None else [self._look[0]]
        kept += [] if self._look is None or self._look[1].mask is None else [self._look[1].mask]
        kept += [each for each in (self._order, self.evicted, self._prompt_tokens) if each is not None]
        return kept + ([] if self.demoted is None else self.demoted.tensors())
