"""Bytes, matmuls and rows: what a policy costs, counted."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from activation.tiny import llama, run, stock, text
from mnemic.activation.attention import attend, attend_definition, empty_part, merge_attention
from mnemic.activation.full import FullCache
from mnemic.activation.h2o import H2O
from mnemic.activation.lazy import LazyEviction
from mnemic.activation.policy import Rows
from mnemic.activation.random_eviction import RandomEviction
from mnemic.activation.streaming import StreamingLLM
from mnemic.activation.taskkv import TaskKV
from mnemic.activation.tova import TOVA

DIM = 16
TOKEN = 2 * DIM * 4  # bytes of one token's keys and values in one head, float32


class Watch(TorchDispatchMode):
    """Every operation by name, and the largest result."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, int] = {}
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.calls[name] = self.calls.get(name, 0) + 1
        for one in out if isinstance(out, tuple) else (out,):
            if isinstance(one, torch.Tensor):
                self.largest = max(self.largest, one.numel())
        return out

    def matmuls(self) -> int:
        return sum(self.calls.get(name, 0) for name in ("mm", "bmm", "addmm", "baddbmm", "matmul"))


def test_a_dense_cache_is_its_tokens_and_the_tail_it_has_room_for() -> None:
    model = llama()
    cache = FullCache().cache(model)
    run(model, text(2, 100), cache, [100])
    counters = 4 * 8 + 2 * 8  # evicted (2, 2) and prompt tokens (2,), int64
    assert cache.resident_bytes() == 3 * (2 * 2 * 100 * TOKEN + counters)
    run(model, text(2, 1), cache, [1])
    assert cache.resident_bytes() == 3 * (2 * 2 * 164 * TOKEN + counters)  # 64 more


def test_ragged_heads_free_what_was_predicted() -> None:
    """keys + values + int32 positions of what is kept, row indices, and a tail of the policy's headroom."""
    model, ids = llama(), text(1, 150)
    policy = TaskKV(budget=0.6, window=8, sinks=2, recent=6)
    cache = policy.cache(model)
    run(model, ids, cache, [150])
    for layer in cache.report().layers:
        kept = sum(layer.kept[0])
        assert kept == int(0.6 * 150 * 2)
        assert len(set(layer.kept[0])) == 2
        tail = 2 * policy.headroom * TOKEN
        order, rows, evicted, prompt = 2 * 8, 2 * 8, 2 * 8, 8
        decided = 2 * 4 + 2 * 1 + 4  # distances, full, asked
        assert layer.bytes == kept * (TOKEN + 4) + tail + order + rows + evicted + prompt + decided
    assert cache.resident_bytes() == sum(layer.bytes for layer in cache.report().layers)


def test_policy_state_is_counted() -> None:
    model, ids = llama(), text(1, 100)
    cache = LazyEviction(budget=40, window=16, protect_prompt=False).cache(model)
    run(model, ids, cache, [60, *[1] * 40])
    [layer, *_] = cache.report().layers
    slots = 40 + 16
    assert layer.bytes == 2 * (slots * (TOKEN + 8) + 40 * 4) + 2 * 8 + 2 * 8 + 8


def test_a_view_that_keeps_its_parent_alive_counts_in_full() -> None:
    model = llama()
    cache = FullCache().cache(model)
    run(model, text(1, 100), cache, [100])
    before = cache.resident_bytes()
    for layer in cache.policy_layers():
        [segment] = layer.store.segments
        segment.k = segment.k[:, :10]
    assert cache.resident_bytes() == before


BOUNDED = {
    "lazy": LazyEviction(budget=48, window=16, protect_prompt=False),
    "h2o": H2O(budget=48, window=16, protect_prompt=False),
    "streaming": StreamingLLM(budget=48, window=16, protect_prompt=False),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_memory_does_not_grow_with_time(name: str) -> None:
    model = llama(layers=1)
    cache = BOUNDED[name].cache(model)
    run(model, text(1, 40), cache, [40])
    run(model, text(1, 100), cache, [1] * 100)
    early = cache.resident_bytes()
    run(model, text(1, 400), cache, [1] * 400)
    assert (cache.resident_bytes(), cache.get_seq_length()) == (early, 540)
    assert cache.report().layers[0].peak == 48 + 16


@pytest.mark.slow
def test_step_ten_thousand_is_as_step_one_thousand() -> None:
    """Bytes equal, process memory within 2 MB, the last 500 steps at most 1.2 times the first 500."""
    model = llama(layers=2)
    cache = BOUNDED["lazy"].cache(model)
    run(model, text(1, 40), cache, [40])
    token = text(1, 1)

    def steps(count: int) -> float:
        began = time.process_time()
        with torch.inference_mode():
            for _ in range(count):
                model.model(input_ids=token, past_key_values=cache)
        return time.process_time() - began

    steps(100)
    first = steps(500)
    steps(400)
    bytes_early, rss_early = cache.resident_bytes(), resident_set()
    steps(8_500)
    last = steps(500)
    gc.collect()
    grown = resident_set() - rss_early
    print(f"{bytes_early} and {cache.resident_bytes()} bytes, RSS +{grown / 1e6:.2f} MB, x{last / first:.2f}")
    assert cache.resident_bytes() == bytes_early
    assert grown < 2e6
    assert last / first <= 1.2


def resident_set() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_no_need_of_rows_means_no_extra_matmul() -> None:
    model, ids = llama(), text(1, 80)
    counts = {}
    policies = {
        "stock": None, "full": FullCache(),
        "random": RandomEviction(budget=24, window=8, protect_prompt=False),
        "streaming": StreamingLLM(budget=24, window=8, protect_prompt=False),
        "tova": TOVA(budget=24, window=8, protect_prompt=False),
    }  # fmt: skip
    for name, policy in policies.items():
        if policy is not None and name != "tova":
            assert policy.needs == Rows.NONE
        cache = stock(model) if policy is None else policy.cache(model)
        with Watch() as watch:
            run(model, ids, cache, [50, *[1] * 30])
        counts[name] = watch.matmuls()
    assert counts["full"] == counts["random"] == counts["streaming"] == counts["stock"]
    assert counts["tova"] > counts["stock"]


def test_h2o_never_holds_a_square() -> None:
    """At 1,200 tokens no tensor of a prefill is as large as one head's (N, N) rows."""
    model, tokens = llama(layers=1, heads=2, kv=1), 1_200
    with Watch() as watch:
        cache = H2O(budget=0.5, protect_prompt=False).cache(model)
        run(model, text(1, tokens), cache, [tokens])
    assert watch.largest < tokens * tokens / 4
    [layer] = cache.policy_layers()
    assert layer.slots["h2o_mass"].shape[2] == tokens // 2


@pytest.mark.parametrize("aggregate", ["max", "mean"])
def test_recomputed_rows_are_eagers(aggregate: str) -> None:
    """H2O's mass and TOVA's row against the attentions that an eager model reports: 1e-5."""
    model, ids = llama(), text(2, 90)
    h2o = H2O(budget=500, aggregate=aggregate).cache(model)
    tova = TOVA(budget=500, aggregate=aggregate).cache(model)
    for cache in (h2o, tova):
        run(model, ids, cache, [80, *[1] * 10])
    model.set_attn_implementation("eager")
    with torch.no_grad():
        eager = model(input_ids=ids, output_attentions=True).attentions
    for layer, rows in enumerate(eager):
        apart = rows.unflatten(1, (2, 3))
        grouped = apart.amax(2) if aggregate == "max" else apart.mean(2)  # (B, H, T, T)
        assert torch.allclose(h2o.layers[layer].slots["h2o_mass"], grouped.sum(2), atol=1e-4)
        assert torch.allclose(tova.layers[layer].slots["tova_row"], grouped[:, :, -1], atol=1e-5)


def test_merging_is_associative_commutative_and_has_an_identity() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(6, 3, DIM), torch.randn(6, 50, DIM) * 3, torch.randn(6, 50, DIM)
    whole = attend_definition(q, k, v, None, 0.25)
    a, b, c = (attend(q, k[:, i:j], v[:, i:j], None, 0.25) for i, j in ((0, 7), (7, 30), (30, 50)))
    orders = [merge_attention(a, b, c), merge_attention(c, a, b), merge_attention(merge_attention(a, b), c),
              merge_attention(a, merge_attention(empty_part(q, DIM), merge_attention(c, b)))]  # fmt: skip
    for out, peak, total in orders:
        assert torch.allclose(out, whole[0], atol=1e-5)
        assert torch.allclose(peak + total.log(), whole[1] + whole[2].log(), atol=1e-5)


def test_the_fused_part_is_the_definition() -> None:
    torch.manual_seed(1)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        q, k, v = (torch.randn(4, n, DIM).to(dtype) for n in (6, 33, 33))
        out, peak, total = attend(q, k, v, None, 0.3)
        expected, peak_, total_ = attend_definition(q, k, v, None, 0.3)
        assert torch.allclose(out.float(), expected.float(), atol=tolerance)
        assert torch.allclose(peak + total.log(), peak_ + total_.log(), atol=tolerance)
        assert (peak.dtype, total.dtype) == (torch.float32, torch.float32)


def test_a_hidden_row_is_zeros_and_not_nan() -> None:
    q, k, v = torch.randn(1, 2, DIM), torch.randn(1, 5, DIM), torch.randn(1, 5, DIM)
    out, _, total = attend(q, k, v, torch.full((1, 2, 5), -torch.inf), 1.0)
    assert torch.equal(out, torch.zeros_like(out))
    assert torch.equal(total, torch.zeros(1, 2))
