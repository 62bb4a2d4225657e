"""A policy's cache is the stock cache, bit for bit, until it evicts; after that, the same set hidden by
masks.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from activation.tiny import attended, gemma, gone, hiding, left_padded, llama, run, stock, text
from mnemic.activation.full import FullCache
from mnemic.activation.h2o import H2O
from mnemic.activation.lazy import LazyEviction
from mnemic.activation.random_eviction import RandomEviction
from mnemic.activation.snapkv import SnapKV
from mnemic.activation.streaming import StreamingLLM
from mnemic.activation.taskkv import TaskKV
from mnemic.activation.tova import TOVA

IDLE = {
    "full": FullCache(),
    "streaming": StreamingLLM(budget=500, window=8),
    "h2o": H2O(budget=500, window=8),
    "tova": TOVA(budget=500, window=8),
    "snapkv": SnapKV(budget=500),
    "random": RandomEviction(budget=500, window=8),
    "lazy": LazyEviction(budget=500, window=8),
    "taskkv": TaskKV(budget=1.0),
}
EVICTING = {
    "streaming": StreamingLLM(budget=24, window=8, protect_prompt=False),
    "h2o": H2O(budget=24, window=8, protect_prompt=False),
    "tova": TOVA(budget=24, window=8, protect_prompt=False),
    "snapkv": SnapKV(budget=0.5, window=8),
    "snapkv-adaptive": SnapKV(budget=0.5, window=8, adaptive=True),
    "random": RandomEviction(budget=24, window=8, protect_prompt=False),
    "lazy": LazyEviction(budget=24, window=8, protect_prompt=False),
    "taskkv": TaskKV(budget=0.5, window=8, sinks=2, recent=6),
    "taskkv-query": TaskKV(budget=0.5, window=8, sinks=2, recent=6, granularity="query"),
}
STEPS = [70, *[1] * 20, 7, *[1] * 5]


@pytest.mark.parametrize("name", IDLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_evicted_is_bit_equal(name: str, dtype: torch.dtype) -> None:
    model, ids = llama(dtype=dtype), text(2, sum(STEPS))
    assert torch.equal(run(model, ids, IDLE[name].cache(model), STEPS), run(model, ids, stock(model), STEPS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_left_padded_batch_is_bit_equal(dtype: torch.dtype) -> None:
    model = llama(dtype=dtype)
    ids, mask = left_padded([text(1, n, seed=n)[0] for n in (60, 41, 17)])
    ids, mask = torch.cat([ids, text(3, 12)], 1), torch.cat([mask, torch.ones(3, 12, dtype=torch.long)], 1)
    steps = [60, *[1] * 5, 3, *[1] * 4]
    for policy in IDLE.values():
        found = run(model, ids, policy.cache(model), steps, mask)
        assert torch.equal(found, run(model, ids, stock(model), steps, mask))


def test_beams_give_the_same_sequences() -> None:
    model, ids = llama(), text(2, 30)
    options: dict[str, Any] = {
        "num_beams": 3,
        "max_new_tokens": 15,
        "do_sample": False,
        "num_return_sequences": 3,
    }
    expected = model.generate(ids, **options)
    for policy in (FullCache(), LazyEviction(budget=500, window=4), H2O(budget=500, window=4)):
        assert torch.equal(model.generate(ids, past_key_values=policy.cache(model), **options), expected)


def test_sliding_layers_keep_the_stock_cache_and_are_listed() -> None:
    model, ids = gemma(), text(2, 60)
    steps = [40, *[1] * 12, 8]
    cache = FullCache().cache(model)
    assert torch.equal(run(model, ids, cache, steps), run(model, ids, stock(model), steps))
    assert cache.report().skipped == [0, 1, 2]
    cache = StreamingLLM(budget=20, window=4, protect_prompt=False).cache(model)
    run(model, ids, cache, steps)
    [layer] = cache.report().layers
    assert (layer.layer, layer.evicted[0][0] > 30) == (3, True)


@pytest.mark.parametrize("name", EVICTING)
def test_freed_storage_equals_the_same_set_hidden_by_masks(name: str) -> None:
    """Prompt, steps, a turn of several tokens and further steps on the evicted cache; float32."""
    model, ids = llama(), text(2, 140)
    cache = EVICTING[name].cache(model)
    assert_equals_masked(model, ids, cache, STEPS, tolerance=1e-4)
    assert sum(map(sum, cache.report().layers[0].evicted)) > 20


@pytest.mark.parametrize("name", ["lazy", "h2o", "taskkv", "snapkv-adaptive"])
def test_freed_storage_equals_masks_in_a_padded_batch(name: str) -> None:
    model = llama()
    ids, mask = left_padded([text(1, n, seed=n)[0] for n in (70, 52, 33)])
    ids, mask = torch.cat([ids, text(3, 70)], 1), torch.cat([mask, torch.ones(3, 70, dtype=torch.long)], 1)
    assert_equals_masked(model, ids, EVICTING[name].cache(model), STEPS, mask=mask, tolerance=1e-4)


def assert_equals_masked(
    model: Any, ids: torch.Tensor, cache: Any, steps: list[int], *, tolerance: float, mask: Any = None
) -> None:
    """After every call the stock model sees, by masks, exactly what the cache still holds."""
    reference, at = stock(model), 0
    for count in steps:
        part, end = ids[:, at : at + count], at + count
        given: dict[str, Any] = {}
        if mask is not None:
            places = (mask[:, :end].cumsum(1) - 1).clamp_min(0)[:, at:]
            given = {"attention_mask": mask[:, :end], "position_ids": places}
        with torch.no_grad(), hiding(model, gone(cache) if at else {}):
            expected = model(input_ids=part, past_key_values=reference, **given).logits
        with torch.no_grad():
            found = model(input_ids=part, past_key_values=cache, **given).logits
        real = torch.ones(found.shape[:2], dtype=torch.bool) if mask is None else mask[:, at:end].bool()
        assert (found - expected)[real].abs().max() < tolerance
        at = end


@torch.no_grad()
def errors_in_bf16(name: str, seed: int) -> torch.Tensor:
    """Squared errors of what attention gives in steps on an evicted cache, and of the same set hidden by
    masks from the stock kernel, and from eager attention; all from float32 attention over the very same
    bfloat16 queries, keys and values.
    """
    model, ids = llama(dtype=torch.bfloat16, layers=1, seed=seed), text(1, 160, seed=seed)
    cache, reference, at = EVICTING[name].cache(model), stock(model), 0
    freed: list[torch.Tensor] = []
    watch = model.model.layers[0].self_attn.o_proj.register_forward_pre_hook(
        lambda _, given: freed.append(given[0].float())
    )
    off = torch.zeros(3)
    for count in [80, *[1] * 80]:
        hidden = gone(cache) if at else {}
        part = ids[:, at : at + count]
        freed.clear()
        model(input_ids=part, past_key_values=cache)
        forms = [freed[0]]
        with hiding(model, hidden), attended() as (exact, fused, eager):
            model(input_ids=part, past_key_values=reference)
        forms += [fused[0], eager[0]]
        if at:
            off += torch.stack([(form - exact[0]).pow(2).sum() for form in forms])
        at += count
    watch.remove()
    return off


@pytest.mark.parametrize("name", EVICTING)
def test_bf16_freed_is_no_further_from_float32_than_masked(name: str) -> None:
    """It is the stock kernel on fewer tokens, so that only the order of its sums differs from the masked
    one's: a thousandth of the error, up or down. Merging rounded parts would be off by half as much again.
    """
    freed, fused, eager = sum((errors_in_bf16(name, seed) for seed in (1, 2)), torch.zeros(3)).tolist()
    assert freed <= fused * 1.002
    assert freed <= eager


@pytest.mark.parametrize("name", ["lazy", "h2o", "tova", "random", "streaming", "snapkv", "taskkv"])
def test_a_sequence_is_the_same_alone_and_in_a_padded_batch(name: str) -> None:
    model = llama()
    rows = [text(1, n, seed=n)[0] for n in (64, 47, 40)]
    ids, mask = left_padded(rows)
    together = model.generate(
        ids,
        attention_mask=mask,
        past_key_values=EVICTING[name].cache(model),
        max_new_tokens=24,
        do_sample=False,
    )
    for row, tokens in zip(rows, together, strict=True):
        cache = EVICTING[name].cache(model)
        alone = model.generate(row[None], past_key_values=cache, max_new_tokens=24, do_sample=False)
        assert torch.equal(alone[0, len(row) :], tokens[-24:])


def test_beams_on_an_evicting_cache_equal_beams_run_by_hand() -> None:
    """Reordering moves segments, tail and state: every beam goes on as its sequence would alone."""
    model, ids = llama(), text(1, 50)
    policy = LazyEviction(budget=30, window=4, protect_prompt=False)
    cache = policy.cache(model)
    run(model, ids, cache, [50])
    cache.batch_repeat_interleave(3)
    more = text(3, 10, seed=9)
    first = run(model, more, cache, [1] * 10)
    cache.reorder_cache(torch.tensor([2, 0, 0]))
    last = text(1, 9, seed=4)
    after = run(model, last.expand(3, -1), cache, [1] * 9)
    for beam, origin in enumerate([2, 0, 0]):
        alone = policy.cache(model)
        run(model, ids, alone, [50])
        assert torch.allclose(
            run(model, more[origin : origin + 1], alone, [1] * 10)[0], first[origin], atol=1e-4
        )
        assert torch.allclose(run(model, last, alone, [1] * 9)[0], after[beam], atol=1e-4)


def test_turns_of_generate_continue_an_evicted_cache() -> None:
    """Full ids, or new ids with a mask of full length: generate takes both, and both give the same."""
    model, ids = llama(), text(1, 60)
    policy = LazyEviction(budget=32, window=8, protect_prompt=False)
    caches = [policy.cache(model), policy.cache(model)]
    first = [model.generate(ids, past_key_values=c, max_new_tokens=20, do_sample=False) for c in caches]
    assert torch.equal(*first)
    question = torch.cat([first[0], text(1, 6, seed=3)], 1)
    whole = model.generate(question, past_key_values=caches[0], max_new_tokens=10, do_sample=False)
    held = caches[1].get_seq_length()
    new = model.generate(
        question[:, held:], attention_mask=torch.ones_like(question), past_key_values=caches[1],
        max_new_tokens=10, do_sample=False,
    )  # fmt: skip
    assert torch.equal(whole[0, -10:], new[0, -10:])


def test_two_generations_share_nothing_and_reset_forgets() -> None:
    model, ids = llama(), text(1, 60)
    policy = H2O(budget=24, window=4, protect_prompt=False)
    cache = policy.cache(model)
    first = run(model, ids, cache, [40, *[1] * 20])
    second = run(model, ids, policy.cache(model), [40, *[1] * 20])
    assert torch.equal(first, second)
    cache.reset()
    assert (cache.get_seq_length(), cache.resident_bytes()) == (0, 0)
    assert torch.equal(run(model, ids, cache, [40, *[1] * 20]), first)


def test_a_clone_goes_its_own_way() -> None:
    model, ids = llama(), text(1, 60)
    cache = LazyEviction(budget=24, window=4, protect_prompt=False).cache(model)
    run(model, ids, cache, [50])
    copy = cache.clone()
    one, other = text(1, 9, seed=2), text(1, 9, seed=3)
    run(model, one, cache, [1] * 9)
    expected = LazyEviction(budget=24, window=4, protect_prompt=False).cache(model)
    run(model, ids, expected, [50])
    assert torch.equal(run(model, other, copy, [1] * 9), run(model, other, expected, [1] * 9))
