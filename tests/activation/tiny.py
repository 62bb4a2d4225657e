"""Small random-weight models, and the reference they are held to: the stock model under hand-made masks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    AttentionInterface,
    DynamicCache,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

VOCABULARY = 101
warnings.filterwarnings("ignore", message=".*past_key_values.*", category=FutureWarning)


def llama(
    *, dtype: torch.dtype = torch.float32, layers: int = 3, heads: int = 6, kv: int = 2, seed: int = 0
) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=heads * 16, intermediate_size=64, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv, head_dim=16, max_position_embeddings=32_768,
        initializer_range=0.3, pad_token_id=0, bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(dtype).eval()


def gemma(*, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    config = Gemma3TextConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=64, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=1, head_dim=16,
        sliding_window=16, query_pre_attn_scalar=16,
        initializer_range=0.3,
        layer_types=["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"],
        pad_token_id=0, bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    return Gemma3ForCausalLM(config).eval()


def text(batch: int, length: int, *, seed: int = 1) -> Tensor:
    return torch.randint(1, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def left_padded(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Token ids and the 2-D mask of sequences of different lengths."""
    longest = max(len(row) for row in rows)
    ids = torch.stack([F.pad(row, (longest - len(row), 0)) for row in rows])
    mask = torch.stack([F.pad(torch.ones_like(row), (longest - len(row), 0)) for row in rows])
    return ids, mask


@torch.no_grad()
def run(model: Any, ids: Tensor, cache: Any, steps: list[int], mask: Tensor | None = None) -> Tensor:
    """Logits of all tokens, fed in calls of `steps` tokens."""
    found, at = [], 0
    for count in steps:
        part = ids[:, at : at + count]
        at += count
        given = (
            {} if mask is None else {"attention_mask": mask[:, :at], "position_ids": _places(mask, at, count)}
        )
        found.append(model(input_ids=part, past_key_values=cache, **given).logits)
    return torch.cat(found, 1)


def _places(mask: Tensor, end: int, count: int) -> Tensor:
    return (mask[:, :end].cumsum(1) - 1).clamp_min(0)[:, -count:]


def stock(model: Any) -> DynamicCache:
    return DynamicCache(config=model.config)


HIDDEN: dict[int, Tensor] = {}
ATTENDED: tuple[list[Tensor], list[Tensor], list[Tensor]] | None = None


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: float, **_: Any
) -> Any:
    """Plain attention with, in each layer, the (B, H, T) slots of HIDDEN hidden from new queries."""
    groups = query.shape[1] // key.shape[1]
    k, v = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    q_length, length = query.shape[2], key.shape[2]
    seen = torch.ones(q_length, length, dtype=torch.bool).tril(length - q_length)[None, None]
    seen = seen if mask is None else seen & mask
    if module.layer_idx in HIDDEN:
        gone = HIDDEN[module.layer_idx]
        gone = gone.repeat_interleave(query.shape[1] // gone.shape[1], 1)[:, :, None]
        seen = seen & ~F.pad(gone, (0, length - gone.shape[-1]))
    scores = (query.float() @ k.float().mT * scaling).masked_fill(~seen, torch.finfo(torch.float32).min)
    out = (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).contiguous()
    if ATTENDED is not None:
        hidden = seen.expand(*query.shape[:2], q_length, length)
        exact = F.scaled_dot_product_attention(query.float(), k.float(), v.float(), hidden, scale=scaling)
        fused = F.scaled_dot_product_attention(query, k, v, hidden, scale=scaling)
        for found, one in zip(ATTENDED, (exact.transpose(1, 2), fused.transpose(1, 2), out), strict=True):
            found.append(one.flatten(2).float())
    return out, None


AttentionInterface.register("mnemic_reference", _attention)
AttentionMaskInterface.register("mnemic_reference", sdpa_mask)


@contextmanager
def hiding(model: Any, gone: dict[int, Tensor]) -> Iterator[None]:
    """The stock model with its own cache, where `gone[layer]` (B, H, T) is hidden by masks."""
    HIDDEN.clear()
    HIDDEN.update(gone)
    before = model.config._attn_implementation
    model.set_attn_implementation("mnemic_reference")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
        HIDDEN.clear()


@contextmanager
def attended() -> Iterator[tuple[list[Tensor], list[Tensor], list[Tensor]]]:
    """What attention makes of the masked set while `hiding`, layer by layer (B, q, Hq * D) as float32: in
    float32, by the stock kernel in the model's dtype, and eagerly in the model's dtype.
    """
    global ATTENDED
    ATTENDED = ([], [], [])
    try:
        yield ATTENDED
    finally:
        ATTENDED = None


def gone(cache: Any) -> dict[int, Tensor]:
    """(B, H, T) bool of every layer: what a policy's cache no longer holds of what it was given."""
    found = {}
    for layer in cache.policy_layers():
        held = torch.zeros(layer.batch, layer.heads, layer.seen, dtype=torch.bool)
        valid, positions = layer.valid(), layer.positions().long()
        for b in range(layer.batch):
            for h in range(layer.heads):
                held[b, h, positions[b, h][valid[b, h]]] = True
        found[layer.layer_idx] = ~held
    return found
