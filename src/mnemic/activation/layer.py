"""One layer's cache under policies: what transformers calls, what the policies are shown, and eviction.

While nothing has been evicted the model's own attention call is repeated on the stored tensors, unchanged;
after that, attention is merged from the store's parts and from what a tier holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from mnemic.activation.attention import group_rows, merge_attention
from mnemic.activation.handle import Call, KVHandle, require_sdpa
from mnemic.activation.held import Held
from mnemic.activation.policy import Keep, Policy
from mnemic.activation.store import Store, fit
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
        self.is_initialized = self.forced = False
        self._store: Store | None = None
        self.demoted: TierLayer | None = None
        self.prompt = self.new = self.step = 0
        self.events = self.peak = 0
        self._slots: dict[str, Tensor] = {}
        self.head_state: dict[str, Tensor] = {}
        self._prompt_tokens: Tensor | None = None
        self._evicted: Tensor | None = None
        self._call: tuple[Tensor, Visible, float] | None = None  # during a call
        self._look: tuple[Tensor, Visible, float] | None = None  # its last queries, for `compress`

    # ------------------------------------------------------------------ what the model calls

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:  # noqa: ARG002
        self.dtype, self.device = key_states.dtype, key_states.device
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
        if self._store is None:
            self._store, self.prompt = Store(k, v), self.new
        else:
            self._store.append(k, v)
            self.step += self.new
        shape = (k.shape[0], key_states.shape[1], self.seen)
        return (
            KVHandle.of(self, (*shape, k.shape[3]), key_states),
            KVHandle.of(self, (*shape, v.shape[3]), value_states),
        )

    def attend(self, query: Tensor, handle_shape: torch.Size, call: Call) -> Tensor:
        """What `scaled_dot_product_attention` answers with. query: (B, Hq, q, D), or (B, H, G, D) if q =
        1.
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
        if not self.store.is_dense:
            out = self._merged(rows, visible, scale).reshape(*query.shape[:-1], -1)
        else:
            out = self._dense(query, handle_shape, call)
        self._consult((rows, visible, scale))
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
        if not count or self._store is None:
            return
        if not self.store.is_dense or count > self.store.tail.length:
            raise UnsupportedGeneration(
                "a cache that has evicted cannot be rolled back; assisted and prompt-lookup decoding need "
                "FullCache or a stock cache"
            )
        self.store.crop(count)
        for state in self._slots.values():
            state[:, :, self.store.slots :] = 0
        self.step = max(0, self.step - count)

    def reset(self) -> None:
        self._start()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.batch_select_indices(torch.arange(self.batch).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Sequence b becomes a copy of sequence indices[b]: segments, tail, tier and state together."""
        if self._store is None:
            return
        indices = indices.to(self.device)
        if indices.dtype == torch.bool:
            indices = indices.nonzero()[:, 0]
        wanted = (indices[:, None] * self.heads + torch.arange(self.heads, device=self.device)).flatten()
        self.store.select(indices, wanted)
        if self.demoted is not None:
            self.demoted.select(wanted)
        self._slots = {name: state[indices] for name, state in self._slots.items()}
        self.head_state = {name: state[indices] for name, state in self.head_state.items()}
        if self._prompt_tokens is not None and self._evicted is not None:
            self._prompt_tokens, self._evicted = self._prompt_tokens[indices], self._evicted[indices]
        self._look = None

    # ------------------------------------------------------------------ attention

    def _mask(self, mask: Tensor | None) -> Tensor | None:
        """The mask as (B, 1 | Hq, q, T): a packed call has (B, H, G, T) for q = 1."""
        if mask is None or mask.shape[1] == 1:
            return mask
        return mask.reshape(mask.shape[0], self.heads * self.groups, self.new, mask.shape[-1])

    def _dense(self, query: Tensor, handle_shape: torch.Size, call: Call) -> Tensor:
        """The model's own call on what it gave: the same kernel, the same tensors, the same bits."""
        k, v = self.store.dense(self.expand)
        if handle_shape[1] != k.shape[1]:  # the call came through repeat_kv
            k, v = (t.repeat_interleave(handle_shape[1] // t.shape[1], 1) for t in (k, v))
        mask, causal, grouped = call.mask, call.causal, call.enable_gqa
        return F.scaled_dot_product_attention(
            query, k, v, mask, is_causal=causal, scale=call.scale, enable_gqa=grouped
        )

    def _merged(self, rows: Tensor, visible: Visible, scale: float) -> Tensor:
        parts = [self.store.attend(rows, visible, scale)]
        if self.demoted is not None and (part := self.demoted.attend(rows, scale)) is not None:
            parts.append(part)
        return merge_attention(*parts)[0]

    # ------------------------------------------------------------------ policies

    def _consult(self, call: tuple[Tensor, Visible, float]) -> None:
        """After attention: every policy is shown what it asked for, then each in turn says what stays."""
        real = call[1].real()
        if real is not None:
            self.store.tail.mark(real)
        if self._prompt_tokens is None:
            everything = torch.full((self.batch,), self.new, device=self.device)
            self._prompt_tokens = everything if real is None else real.sum(1)
            self._evicted = torch.zeros(self.batch, self.heads, dtype=torch.int64, device=self.device)
            self._begin_state()
        self._fit_state()
        self.peak = max(self.peak, self.stored())
        self._call, self._look = call, None
        for policy in self.policies:
            self._show(policy, *call)
        for policy in self.policies:
            if policy.evicts and (keep := policy.select(self)) is not None:
                self.keep(keep)
        self._retain(*call)
        self._call = None

    def _show(self, policy: Policy, rows: Tensor, visible: Visible, scale: float) -> None:
        """The rows a policy asked for, in blocks, or none."""
        needs = policy.needs
        if not (needs.prompt if self.step == 0 else needs.step if self.new == 1 else needs.turn):
            policy.observe(self, None, 0)
            return
        for first in range(0, self.new, BLOCK):
            count = min(BLOCK, self.new - first)
            weights = self.store.weights(rows, visible, scale, first, count)
            shown = group_rows(torch.unflatten(weights, 1, (self.groups, count)), policy.aggregate)
            policy.observe(self, self.store.by_head(shown), first)

    def _retain(self, rows: Tensor, visible: Visible, scale: float) -> None:
        """Keep the queries that a later `compress` may look at, as many as the policies say."""
        count = min(self.new, max(policy.retains for policy in self.policies))
        if count > 1:
            mask = None if visible.mask is None else visible.mask[:, :, -count:].clone()
            last = torch.unflatten(rows, 1, (self.groups, self.new))[:, :, -count:]
            self._look = (last.flatten(1, 2).clone(), replace(visible, mask=mask, queries=count), scale)

    def apart(self, count: int) -> Tensor:
        """(B, H, G, count, S) float32: the call's last rows, for each query head alone."""
        call = self._call or self._look
        if call is None or call[1].queries < count:
            raise InvalidOption(
                f"the last {count} queries are gone. Let the policy see the prompt, or keep them for it: "
                f"FullCache(queries={count})"
            )
        weights = self.store.weights(*call, call[1].queries - count, count)
        return self.store.by_head(torch.unflatten(weights, 1, (self.groups, count)))

    def _begin_state(self) -> None:
        """What the policies remember; what is there already goes on."""
        slots: dict[str, Tensor] = {}
        heads: dict[str, Tensor] = {}
        for policy in self.policies:
            state = policy.init_state(self)
            slots, heads = slots | state.slots, heads | state.heads
        self._slots = {name: self._slots.get(name, each) for name, each in slots.items()}
        self.head_state = {name: self.head_state.get(name, each) for name, each in heads.items()}

    def _fit_state(self) -> None:
        self._slots = {name: fit(state, self.store.room) for name, state in self._slots.items()}

    # ------------------------------------------------------------------ LayerView

    @property
    def store(self) -> Store:
        assert self._store is not None  # noqa: S101  # asked for only after a first call
        return self._store

    @property
    def batch(self) -> int:
        return 0 if self._store is None else self._store.batch

    @property
    def heads(self) -> int:
        return 0 if self._store is None else self._store.heads

    @property
    def seen(self) -> int:
        return 0 if self._store is None else self._store.seen

    @property
    def slots(self) -> dict[str, Tensor]:
        return {name: state[:, :, : self.stored()] for name, state in self._slots.items()}

    def stored(self) -> int:
        return 0 if self._store is None else self._store.slots

    def positions(self) -> Tensor:
        return self.store.positions()

    def valid(self) -> Tensor:
        return self.store.valid()

    def counts(self) -> Tensor:
        return self.valid().sum(-1)

    def prompt_tokens(self) -> Tensor:
        assert self._prompt_tokens is not None  # noqa: S101
        return self._prompt_tokens

    def keys(self) -> Tensor:
        return self.store.keys()

    def values(self) -> Tensor:
        return self.store.values()

    # ------------------------------------------------------------------ eviction

    def keep(self, keep: Keep) -> None:
        """Store what `keep` names and free the rest. O(stored), the peak is one more copy of this layer."""
        held = self.store.held(self.slots)
        keep.check(held.valid)
        if self.tier is not None:
            self._demote(self.tier, held, keep)
        self._rebuild(held, keep)
        self.events += 1
        self._count(held.valid.sum(1) - keep.row_splits.diff())

    def compress(self, policy: Policy) -> None:
        """Let a policy choose once, between calls. Raises InvalidOption if it had to see what is over."""
        if self._store is None:
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
        if self._store is not None:
            self._begin_state()
            self._fit_state()

    def recall(self, pos: Tensor | None) -> int:
        """Bring demoted tokens back to where their positions put them; how many, over all rows."""
        tokens = {} if self.demoted is None else self.demoted.take(pos)
        if not tokens or not len(tokens["row"]):
            return 0
        held = self.store.held(self.slots).joined(tokens)
        self._rebuild(held, Keep.from_mask(self.store.by_head(held.valid)))
        self._count(-torch.bincount(tokens["row"], minlength=self.batch * self.heads))
        return len(tokens["row"])

    def _rebuild(self, held: Held, keep: Keep) -> None:
        """Store what `keep` names of `held`, and the policies' state with it."""
        self._slots |= {name: self.store.by_head(state) for name, state in held.moved_state(keep).items()}
        room = max(policy.headroom for policy in self.policies)
        self.store.replace(held.segments(keep, room), room)
        self._fit_state()

    def _demote(self, tier: Tier, held: Held, keep: Keep) -> None:
        if self.demoted is None:
            self.demoted = tier.open(self.batch * self.heads, self.layer_idx)
        gone = held.valid.clone()
        gone[keep.owner(), keep.index] = False
        self.demoted.put(*held.tokens(gone))

    def _count(self, gone: Tensor) -> None:
        self._evicted = self.evicted() + self.store.by_head(gone)

    def evicted(self) -> Tensor:
        """(B, H) int64: tokens that were evicted and not recalled."""
        assert self._evicted is not None  # noqa: S101
        return self._evicted

    # ------------------------------------------------------------------ accounts

    def tensors(self) -> list[Tensor]:
        """Everything this layer keeps alive between calls."""
        kept = [] if self._store is None else self._store.tensors()
        kept += [*self._slots.values(), *self.head_state.values()]
        kept += [] if self._look is None else [self._look[0]]
        kept += [] if self._look is None or self._look[1].mask is None else [self._look[1].mask]
        kept += [each for each in (self._evicted, self._prompt_tokens) if each is not None]
        return kept + ([] if self.demoted is None else self.demoted.tensors())
