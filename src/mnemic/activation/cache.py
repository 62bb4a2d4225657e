"""The cache of one generation under policies: what `policy.cache(model)` makes and `generate` takes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicSlidingWindowLayer, get_layer_types_and_kwargs

from mnemic.activation.handle import require_sdpa
from mnemic.activation.layer import PolicyLayer
from mnemic.cube.errors import (
    InvalidOption,
    UnsupportedGeneration,
    UnsupportedModel,
)

if TYPE_CHECKING:
    from mnemic.activation.policy import Policy
    from mnemic.activation.tier import Tier

SLIDING = ("sliding_attention", "chunked_attention")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerReport:
    """One layer. kept, evicted: tokens of each sequence and head (`kept[sequence][head]`), padding not
    counted.

    protected: of those kept, tokens of the prompt. demoted: tokens in a tier, all rows together. events: how
    often something was evicted. peak: the most slots a row ever held, counted before eviction.
    """

    layer: int
    kind: str
    kept: list[list[int]]
    evicted: list[list[int]]
    prompt: list[list[int]]
    demoted: int
    events: int
    peak: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a cache holds: `seen` tokens of each sequence were given; `bytes` is `resident_bytes()`."""

    seen: int
    bytes: int
    layers: list[LayerReport]
    skipped: list[int]
    """layers with a sliding window, which keep the stock cache"""

    def __str__(self) -> str:
        lines = [
            f"{self.seen} tokens seen, {self.bytes:,} bytes; layers with a sliding window: {self.skipped}"
        ]
        for layer in self.layers:
            kept = ", ".join("/".join(map(str, heads)) for heads in layer.kept)
            lines.append(f"layer {layer.layer}: kept {kept}; {layer.events} evictions, {layer.bytes:,} bytes")
        return "\n".join(lines)


class PolicyCache(Cache):  # type: ignore[misc]  # transformers is not checked
    """Layers of `PolicyLayer`, or of the stock sliding window. Made by a policy's `cache`, for one
    generation.
    """

    layers: list[Any]

    def activate_past_recording(self) -> None:
        """Called by decoding that rolls the cache back, before its first token."""
        if not self.is_croppable:
            raise UnsupportedGeneration(
                "assisted and prompt-lookup decoding roll the cache back, and one that evicts cannot be: use "
                "FullCache, a stock cache, or plain decoding"
            )
        super().activate_past_recording()

    def policy_layers(self) -> list[PolicyLayer]:
        return [layer for layer in self.layers if isinstance(layer, PolicyLayer)]

    def compress(self, policy: Policy) -> None:
        """Evict once, now, by `policy`; generation goes on under the cache's own.

        What looks at a prompt's last rows (SnapKV, TaskKV, TOVA) needs them kept: `FullCache(queries=…)`.
        What must see every row (H2O, LazyEviction) works on a cache made by a policy of its own kind. Else
        raises InvalidOption, before anything is evicted.
        """
        for layer in self.policy_layers():
            layer.compress(policy)

    def go_on_under(self, *policies: Policy) -> None:
        """Evict by other policies from here on: after a prompt read under `FullCache`, for example."""
        for layer in self.policy_layers():
            layer.go_on_under(policies)

    def recall(self, positions: Sequence[int] | None = None) -> int:
        """Bring tokens that were demoted back into memory (all, or those at these positions).

        How many tokens, counted once for each layer and head that had lost them. Exact from a DiskTier, as
        near as int8 allows from an Int8Tier.
        """
        wanted = None if positions is None else torch.tensor(list(positions), dtype=torch.int32)
        return sum(layer.recall(wanted) for layer in self.policy_layers())

    def resident_bytes(self) -> int:
        """Bytes of every distinct storage this cache keeps alive: segments, the tail with its spare capacity,
        positions and policy state. A slice that keeps its parent alive counts in full.
        """
        return _distinct_bytes([tensor for layer in self.layers for tensor in _tensors(layer)])

    def report(self) -> Report:
        """What is kept, evicted and spent, layer by layer. O(stored)."""
        return Report(
            seen=self.get_seq_length(),
            bytes=self.resident_bytes(),
            layers=[_layer_report(layer) for layer in self.policy_layers()],
            skipped=[i for i, layer in enumerate(self.layers) if not isinstance(layer, PolicyLayer)],
        )

    def clone(self) -> PolicyCache:
        """An independent copy: writing to one never shows in the other. O(resident bytes)."""
        return copy.deepcopy(self)


def policy_cache(
    policies: Sequence[Policy], model: Any, *, demote: Tier | None = None, granularity: str | None = None
) -> PolicyCache:
    """A cache for `model` under these policies, each consulted in order after every call.

    granularity: "kv" stores keys once for each KV head; "query" once for each query head, for research, and
    counts them so. Default: what the policies say.
    Raises UnsupportedModel, UnsupportedAttention or UnsupportedGeneration naming what cannot work.
    """
    config = _checked(model)
    types, options = get_layer_types_and_kwargs(config)
    groups = config.num_attention_heads // (
        getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    )
    grains = {granularity} if granularity else {getattr(policy, "granularity", "kv") for policy in policies}
    if grains - {"kv", "query"}:
        raise InvalidOption(f'granularity must be "kv" or "query", got {granularity!r:.80}')
    if len(grains) > 1:
        raise InvalidOption("policies that work together must have the same granularity")
    expand = groups if grains == {"query"} else 1
    layers: list[Any] = []
    for index, (kind, kwargs) in enumerate(zip(types, options, strict=True)):
        if kind in SLIDING:
            layers.append(DynamicSlidingWindowLayer(**kwargs))
        elif kind == "full_attention":
            layers.append(
                PolicyLayer(
                    policies,
                    layer_idx=index,
                    layers=len(types),
                    groups=groups // expand,
                    expand=expand,
                    tier=demote,
                    implementation=lambda: str(config._attn_implementation),
                )
            )
        else:
            raise UnsupportedModel(
                f"layer {index} of {type(model).__name__} is of kind {kind!r} (shared or compressed keys, or "
                f"a recurrent state); policies know full_attention, and leave {' and '.join(SLIDING)} alone"
            )
    if not any(isinstance(layer, PolicyLayer) for layer in layers):
        raise UnsupportedModel(
            f"every layer of {type(model).__name__} has a sliding window: nothing to evict"
        )
    return PolicyCache(layers=layers)


def _checked(model: Any) -> Any:
    """The text config of a model that policies can serve."""
    name = type(model).__name__
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        raise UnsupportedModel(f"expected a transformers model, got {name}")
    if hasattr(model, "_orig_mod") or getattr(model, "_compiled_call_impl", None) is not None:
        raise UnsupportedModel("a compiled model cannot run under a cache policy; use the model as it was")
    if config.is_encoder_decoder:
        raise UnsupportedModel(f"{name} is an encoder-decoder; policies serve decoder-only models")
    text = config.get_text_config(decoder=True)
    require_sdpa(text._attn_implementation)
    if getattr(text, "attn_logit_softcapping", None):
        raise UnsupportedModel(
            f"{name} caps attention scores (softcap), which attention in parts cannot apply"
        )
    if getattr(text, "kv_lora_rank", None):
        raise UnsupportedModel(f"{name} keeps latent keys (MLA), not keys by head; no policy serves that")
    if getattr(text, "num_kv_shared_layers", None):
        raise UnsupportedModel(f"{name} shares keys between layers, so that no layer may evict for itself")
    return text


def _tensors(layer: Any) -> list[Tensor]:
    if isinstance(layer, PolicyLayer):
        return layer.tensors()
    return [tensor for tensor in (layer.keys, layer.values) if tensor is not None]


def _distinct_bytes(tensors: Sequence[Tensor]) -> int:
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def _layer_report(layer: PolicyLayer) -> LayerReport:
    empty = not layer.seen
    return LayerReport(
        layer=layer.layer_idx,
        kind="full_attention",
        kept=[] if empty else layer.counts().tolist(),
        evicted=[] if empty else layer.evicted().tolist(),
        prompt=[] if empty else ((layer.positions() < layer.prompt) & layer.valid()).sum(-1).tolist(),
        demoted=0 if layer.demoted is None else layer.demoted.held_tokens(),
        events=layer.events,
        peak=layer.peak,
        bytes=_distinct_bytes(layer.tensors()),
    )
