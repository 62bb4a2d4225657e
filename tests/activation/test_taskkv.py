"""Task-KV: the separator, the schedule, the allocation, and that the budget is never overspent."""

from __future__ import annotations

import pytest
import torch

from activation.tiny import left_padded, llama, run, text
from mnemic.activation.cache import policy_cache
from mnemic.activation.full import FullCache
from mnemic.activation.snapkv import SnapKV
from mnemic.activation.taskkv import TaskKV, decisions, overlap, scheduled
from mnemic.cube.errors import BudgetTooSmall, InvalidOption

SMALL = {"window": 8, "sinks": 2, "recent": 6, "top_t": 20}


def test_the_depth_schedule_is_the_formula() -> None:
    assert [scheduled(32, 32, 0.25, 4, r) for r in (0, 31)] == [8, 4]
    assert [scheduled(9, 30, 0.3, 1, r) for r in (0, 29)] == [3, 1]
    assert scheduled(3, 30, 0.1, 0, 29) == 1  # at least one
    assert scheduled(4, 1, 0.5, 1, 0) == 2


def test_the_worked_budget() -> None:
    """n = 9 query heads, N = 640: at 0.4 three full heads and 64 each; at 0.2 only one full head fits."""
    model, ids = llama(layers=3, heads=9, kv=3), text(1, 640)
    options = {"beta": 0.3, "m": 1, "sinks": 4, "recent": 32, "granularity": "query"}
    cache = TaskKV(budget=0.4, **options).cache(model)
    run(model, ids, cache, [640])
    [bottom, *_] = cache.report().layers
    assert sorted(bottom.kept[0]) == [64] * 6 + [640] * 3
    cache = TaskKV(budget=0.2, **options).cache(model)
    run(model, ids, cache, [640])
    [bottom, *_] = cache.report().layers
    assert (sum(bottom.kept[0]), bottom.kept[0].count(640), min(bottom.kept[0])) == (1_152, 1, 64)
    assert (decisions(cache)[0].asked, len(decisions(cache)[0].full)) == (3, 1)
    with pytest.raises(BudgetTooSmall, match="strict=False"):
        run(model, ids, TaskKV(budget=0.2, strict=True, **options).cache(model), [640])


@pytest.mark.parametrize("fraction", [0.15, 0.2, 0.4, 0.6])
@pytest.mark.parametrize("grain", ["kv", "query"])
def test_the_budget_is_spent_and_never_overspent(fraction: float, grain: str) -> None:
    model, ids = llama(layers=4, heads=8, kv=4), text(2, 120)
    for extra in (False, True):
        cache = TaskKV(budget=fraction, granularity=grain, beta=0.5, extra_center=extra, **SMALL).cache(model)
        run(model, ids, cache, [120])
        for layer in cache.report().layers:
            for heads in layer.kept:
                assert sum(heads) == int(fraction * 120 * len(heads))
        for view in cache.policy_layers():
            valid, positions = view.valid(), view.positions()
            for row_valid, row in zip(valid.flatten(0, 1), positions.flatten(0, 1), strict=True):
                held = set(row[row_valid].tolist())
                assert {0, 1, *range(114, 120)} <= held
        model.generate(ids, past_key_values=cache, max_new_tokens=5, do_sample=False)


def test_everything_is_the_full_cache() -> None:
    model, ids = llama(), text(1, 90)
    full = run(model, ids, FullCache().cache(model), [80, *[1] * 10])
    for grain in ("kv", "query"):
        cache = TaskKV(budget=1.0, granularity=grain, **SMALL).cache(model)
        assert torch.equal(run(model, ids, cache, [80, *[1] * 10]), full)


def test_distances_are_those_of_the_definition() -> None:
    """Recomputed from eager attention and values, step by step as the paper writes it."""
    model, ids = llama(layers=2), text(1, 70)
    cache, full = TaskKV(budget=0.7, **SMALL).cache(model), FullCache().cache(model)
    run(model, ids, cache, [70])
    run(model, ids, full, [70])
    model.set_attn_implementation("eager")
    with torch.no_grad():
        eager = model(input_ids=ids, output_attentions=True).attentions
    for decision, rows, layer in zip(decisions(cache), eager, full.policy_layers(), strict=True):
        values = layer.values()[0].repeat_interleave(3, 0)  # (Hq, N, D)
        vectors = []
        for head in range(6):
            column = rows[0, head, -8:].mean(0)
            best = column.topk(20).indices
            vectors.append((column[best, None] * values[head, best]).sum(0))
        centre = torch.stack(vectors).mean(0)
        far = torch.stack([(vector - centre).norm() for vector in vectors]).unflatten(0, (2, 3)).mean(1)
        assert torch.allclose(torch.tensor(decision.distances), far, atol=1e-5)
        assert decision.full == {int(far.argmax())}


def test_the_closest_head_joins_the_farthest() -> None:
    model, ids = llama(layers=2, heads=8, kv=8), text(1, 100)
    options = {"beta": 0.5, "m": 4, "budget": 0.8, **SMALL}
    for closest, extra in ((True, False), (True, True), (False, False)):
        cache = TaskKV(closest=closest, extra_center=extra, **options).cache(model)
        run(model, ids, cache, [100])
        for decision in decisions(cache):
            order = sorted(range(8), key=lambda h: -decision.distances[h])
            expected = set(order[:4])
            if closest:
                expected = {*order[: 4 if extra else 3], order[-1]}
            assert decision.full == expected


def test_short_prompts_are_left_whole_and_decided_once() -> None:
    model = llama()
    cache = TaskKV(budget=0.5, **SMALL).cache(model)
    run(model, text(1, 16), cache, [16])
    assert sum(cache.report().layers[0].evicted[0]) == 0
    run(model, text(1, 60), cache, [60])
    assert sum(cache.report().layers[0].evicted[0]) == 0


def test_sequences_of_a_batch_choose_for_themselves() -> None:
    model = llama(layers=4, heads=8, kv=4)
    rows = [text(1, n, seed=n)[0] for n in (120, 77)]
    ids, mask = left_padded(rows)
    together = TaskKV(budget=0.5, **SMALL).cache(model)
    run(model, ids, together, [120], mask)
    for b, row in enumerate(rows):
        alone = TaskKV(budget=0.5, **SMALL).cache(model)
        run(model, row[None], alone, [len(row)])
        both = [d.full for d in decisions(together) if d.sequence == b]
        assert both == [d.full for d in decisions(alone)]
        assert [sum(layer.kept[b]) for layer in together.report().layers] == [len(row) * 2] * 4


def test_head_sets_of_two_prompts_can_be_compared() -> None:
    model = llama(layers=4, heads=8, kv=8)
    caches = []
    for seed in (1, 1, 2):
        caches.append(TaskKV(budget=0.5, **SMALL).cache(model))
        run(model, text(1, 100, seed=seed), caches[-1], [100])
    assert overlap(caches[0], caches[1]) == [1.0] * 4
    assert sum(overlap(caches[0], caches[2])) < 4
    other = FullCache().cache(model)
    run(model, text(1, 9), other, [9])
    with pytest.raises(InvalidOption, match="TaskKV"):
        decisions(other)


def test_granularity_is_counted_at_the_size_it_has() -> None:
    model, ids = llama(), text(1, 100)
    sizes = {}
    for grain in ("kv", "query"):
        cache = policy_cache([SnapKV(budget=0.5, window=8)], model, granularity=grain)
        run(model, ids, cache, [100])
        sizes[grain] = sum(
            segment.k.numel() for layer in cache.policy_layers() for segment in layer.store.segments
        )
    assert sizes["query"] == 3 * sizes["kv"]
