"""What each policy keeps, and that budgets mean what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from activation.tiny import llama, run, text
from mnemic.activation.calibrate import calibrate
from mnemic.activation.choose import keep_best, share_out
from mnemic.activation.full import FullCache
from mnemic.activation.h2o import H2O
from mnemic.activation.kvzip import KVzip
from mnemic.activation.lazy import LazyEviction, gaps_of
from mnemic.activation.policy import Keep
from mnemic.activation.random_eviction import RandomEviction
from mnemic.activation.registry import POLICIES, policy_class
from mnemic.activation.snapkv import SnapKV
from mnemic.activation.streaming import StreamingLLM
from mnemic.activation.taskkv import TaskKV
from mnemic.activation.tier import DiskTier, Int8Tier
from mnemic.activation.tova import TOVA
from mnemic.cube.errors import InvalidOption

DECODING = {
    "streaming": StreamingLLM,
    "h2o": H2O,
    "tova": TOVA,
    "random": RandomEviction,
    "lazy": LazyEviction,
}


def held(cache: Any, layer: int = 0) -> list[list[int]]:
    view = cache.policy_layers()[layer]
    return [p[v].tolist() for p, v in zip(view.positions()[0], view.valid()[0], strict=True)]


def test_every_policy_has_its_row_in_the_table() -> None:
    classes = {policy_class(name) for name in POLICIES}
    assert {*DECODING.values(), FullCache, SnapKV, TaskKV, KVzip} == classes


@pytest.mark.parametrize("name", DECODING)
def test_a_budget_covers_all_but_a_protected_prompt(name: str) -> None:
    model = llama()
    for protect, extra in ((True, 50), (False, 0)):
        cache = DECODING[name](budget=24, window=8, protect_prompt=protect).cache(model)
        run(model, text(1, 50), cache, [50])
        for _ in range(8):
            run(model, text(1, 8, seed=_), cache, [1] * 8)
            for layer in cache.report().layers:
                assert set(layer.kept[0]) <= {24 + extra} or sum(layer.evicted[0]) == 0
                assert (layer.prompt[0] == [50, 50]) or not protect
        assert max(layer.peak for layer in cache.report().layers) <= max(50, 24 + 8) + extra


@pytest.mark.parametrize("name", DECODING)
def test_the_newest_always_stay_and_a_share_is_of_the_prompt(name: str) -> None:
    model = llama()
    cache = DECODING[name](budget=0.5, window=8, protect_prompt=False).cache(model)
    run(model, text(1, 80), cache, [80, *[1] * 0])
    for heads in held(cache):
        assert len(heads) == 40
        assert heads == sorted(heads)
        assert heads[-1:] == [79]
        assert name == "streaming" or heads[-8:] == list(range(72, 80))


def test_streaming_keeps_sinks_and_the_newest() -> None:
    model = llama()
    cache = StreamingLLM(budget=20, sinks=3, window=5, protect_prompt=False).cache(model)
    run(model, text(1, 60), cache, [40, *[1] * 20])
    assert held(cache) == [[0, 1, 2, *range(43, 60)]] * 2


def test_h2o_keeps_what_has_drawn_most_attention() -> None:
    model, ids = llama(), text(1, 60)
    watch = H2O(budget=500).cache(model)
    run(model, ids, watch, [60])
    mass = watch.layers[0].slots["h2o_mass"][0]
    cache = H2O(budget=20, window=8, protect_prompt=False).cache(model)
    run(model, ids, cache, [60])
    for heads, weights in zip(held(cache), mass, strict=True):
        assert set(heads) == {*weights[:52].topk(12).indices.tolist(), *range(52, 60)}


def test_random_is_drawn_once_and_differs_by_seed() -> None:
    model, ids = llama(), text(1, 60)
    found = []
    for seed in (0, 0, 1):
        cache = RandomEviction(budget=20, window=4, seed=seed, protect_prompt=False).cache(model)
        run(model, ids, cache, [60])
        found.append(held(cache))
    assert found[0] == found[1] != found[2]
    assert found[0][0] != found[0][1]


def test_snapkv_cuts_the_prompt_once_and_lets_decoding_append() -> None:
    model = llama()
    cache = SnapKV(budget=30, window=8).cache(model)
    run(model, text(1, 90), cache, [80, *[1] * 10])
    for heads in held(cache):
        assert len(heads) == 40
        assert heads[-18:] == list(range(72, 90))


def test_adaptive_heads_are_ragged_in_buckets_and_cost_no_more() -> None:
    model = llama(layers=4, heads=8, kv=4)
    for layer in model.model.layers:
        layer.self_attn.k_proj.weight.data[:16] = 0  # the first head looks at all alike, the others at few
    cache = SnapKV(budget=0.4, window=16, kernel=1, adaptive=True).cache(model)
    run(model, text(1, 400), cache, [400])
    plain = SnapKV(budget=0.4, window=16).cache(model)
    run(model, text(1, 400), plain, [400])
    sizes = [layer.kept[0] for layer in cache.report().layers]
    assert all(sum(heads) <= 640 for heads in sizes)
    assert all(heads[0] == max(heads) > 160 > min(heads) >= 80 for heads in sizes)
    assert cache.resident_bytes() <= plain.resident_bytes() + 4_096


def test_a_prefill_policy_hands_over_to_a_decode_policy() -> None:
    model = llama()
    cache = SnapKV(budget=32, window=8).cache(
        model, then=LazyEviction(budget=48, window=8, protect_prompt=False)
    )
    run(model, text(1, 80), cache, [80])
    assert [len(heads) for heads in held(cache)] == [32, 32]
    run(model, text(1, 40), cache, [1] * 40)
    assert [len(heads) for heads in held(cache)] == [48, 48]
    assert max(map(max, held(cache))) == 119


def test_compress_is_what_the_policy_would_have_done_in_the_prompt() -> None:
    model, ids = llama(), text(1, 90)
    options: dict[str, Any] = {"budget": 0.3, "window": 8}
    for policy in (
        SnapKV(**options),
        TaskKV(budget=0.7, window=8, sinks=2, recent=4),
        TOVA(**options, protect_prompt=False),
        RandomEviction(**options, protect_prompt=False),
    ):
        during = policy.cache(model)
        run(model, ids, during, [90])
        after = FullCache(queries=8).cache(model)
        run(model, ids, after, [90])
        after.compress(policy)
        assert held(after) == held(during)
        more = text(1, 5, seed=5)
        assert torch.equal(run(model, more, after, [1] * 5), run(model, more, during, [1] * 5))
    seen = H2O(budget=1 << 40).cache(model)
    during = H2O(**options, protect_prompt=False).cache(model)
    for cache in (seen, during):
        run(model, ids, cache, [90])
    seen.compress(H2O(**options, protect_prompt=False))
    assert held(seen) == held(during)
    late = FullCache().cache(model)
    run(model, ids, late, [90])
    with pytest.raises(InvalidOption, match="queries=8"):
        late.compress(SnapKV(budget=0.3, window=8))
    with pytest.raises(InvalidOption, match="as it happens"):
        late.compress(H2O(budget=20, window=8))


def test_a_cache_can_go_on_under_another_policy() -> None:
    model, ids, more = llama(), text(1, 60), text(1, 40, seed=2)
    policy = LazyEviction(budget=24, window=8, protect_prompt=False)
    switched, expected = FullCache().cache(model), policy.cache(model)
    run(model, ids, switched, [60])
    switched.go_on_under(policy)
    switched.compress(policy)
    run(model, ids, expected, [60])
    assert torch.equal(run(model, more, switched, [1] * 40), run(model, more, expected, [1] * 40))
    assert held(switched) == held(expected)


def test_ties_fall_to_the_newer_token() -> None:
    valid = torch.ones(1, 1, 6, dtype=torch.bool)
    keep = keep_best(torch.zeros(1, 1, 6), torch.zeros_like(valid), valid, torch.tensor([[2]]))
    assert keep is not None
    assert keep.index.tolist() == [4, 5]
    assert keep_best(torch.zeros(1, 1, 6), torch.zeros_like(valid), valid, torch.tensor([[6]])) is None


def test_budgets_are_shared_in_buckets_within_their_bounds() -> None:
    mass = torch.tensor([[1.0, 10.0, 0.0, 5.0], [1.0, 1.0, 1.0, 1.0]])
    floor, ceiling = torch.full((2, 4), 50), torch.full((2, 4), 300)
    budgets = share_out(mass, torch.tensor([640, 640]), floor=floor, ceiling=ceiling, bucket=32)
    assert budgets.sum(1).tolist() == [640, 640]
    assert budgets[0, 1] > budgets[0, 3] > budgets[0, 0] >= budgets[0, 2] >= 50
    assert budgets[1].tolist() == [160] * 4


# --------------------------------------------------------------------- LazyEviction


def test_rhythm_is_tracked_on_the_models_own_attention() -> None:
    """Against a plain loop over the rows of an eager model; a turn of several tokens counts as steps."""
    model, ids, alpha = llama(), text(1, 60), 0.02
    cache = LazyEviction(budget=500, window=8, alpha=alpha).cache(model)
    run(model, ids, cache, [30, *[1] * 10, 7, *[1] * 13])
    model.set_attn_implementation("eager")
    with torch.no_grad():
        eager = model(input_ids=ids, output_attentions=True).attentions
    for layer, rows in enumerate(eager):
        weights = rows.unflatten(1, (2, 3)).amax(2)[0]  # (H, T, T)
        last, longest = torch.zeros(2, 60, dtype=torch.int32), torch.zeros(2, 60, dtype=torch.int32)
        for step in range(1, 31):
            last[:, 29 + step] = step - 1
            for head in range(2):
                for token in range(30 + step):
                    if weights[head, 29 + step, token] >= alpha:
                        longest[head, token] = max(int(longest[head, token]), step - int(last[head, token]))
                        last[head, token] = step
        assert torch.equal(cache.layers[layer].slots["lazy_last"][0], last)
        assert torch.equal(cache.layers[layer].slots["lazy_longest"][0], longest)
    assert len(gaps_of(cache)) == 3 * 2 * 60


def test_lazy_evicts_only_at_its_windows_and_peaks_below_both() -> None:
    model = llama()
    cache = LazyEviction(budget=32, window=16, protect_prompt=False).cache(model)
    run(model, text(1, 20), cache, [20])
    events, sizes = [], []
    for _ in range(80):
        run(model, text(1, 1, seed=_), cache, [1])
        [layer, *_rest] = cache.report().layers
        events.append(layer.events)
        sizes.append(layer.kept[0][0])
    assert [i + 1 for i in range(1, 80) if events[i] > events[i - 1]] == [16, 32, 48, 64, 80]
    assert (max(sizes) <= 47, cache.report().layers[0].peak) == (True, 48)


def test_never_used_tokens_go_first_and_the_newer_of_equals_stays() -> None:
    model = llama(layers=1)
    cache = LazyEviction(budget=12, window=4, alpha=2.0, protect_prompt=False).cache(model)
    run(model, text(1, 40), cache, [20, *[1] * 20])
    assert held(cache) == [list(range(28, 40))] * 2


def test_calibrate_measures_window_and_alpha() -> None:
    model = llama()
    found = calibrate(model, [text(1, 20), text(1, 15, seed=2)], new_tokens=40)
    assert 1 <= found.window <= 40
    assert 0 < found.alpha < 1
    assert (sum(found.gaps), found.tokens) == (found.tokens, 3 * 2 * (60 + 55))
    fixed = calibrate(model, [text(1, 20)], new_tokens=40, alpha=0.9)
    assert fixed.gaps[0] > sum(found.gaps) / found.tokens  # almost nothing is used at that level
    assert found.policy(budget=512).window == found.window


# --------------------------------------------------------------------- demotion


@pytest.mark.parametrize("tier", ["disk", "int8"])
def test_what_is_demoted_comes_back_by_recall(tier: str, tmp_path: Path) -> None:
    model, ids = llama(), text(2, 60)
    place = DiskTier(folder=str(tmp_path)) if tier == "disk" else Int8Tier()
    policy = LazyEviction(budget=20, window=4, protect_prompt=False)
    cache, plain = policy.cache(model, demote=place), policy.cache(model)
    dropped = FullCache().cache(model)
    for each in (cache, plain, dropped):
        run(model, ids, each, [60])
    assert held(cache) == held(plain)
    assert cache.report().layers[0].demoted == 2 * 2 * 40
    more = text(2, 3, seed=4)
    if tier == "disk":
        assert len(list(tmp_path.glob("*/*.safetensors"))) == 3
        assert torch.equal(run(model, more, cache.clone(), [1] * 3), run(model, more, plain.clone(), [1] * 3))
    else:
        with_int8 = run(model, more, cache.clone(), [1] * 3) - run(model, more, dropped.clone(), [1] * 3)
        without = run(model, more, plain.clone(), [1] * 3) - run(model, more, dropped.clone(), [1] * 3)
        assert with_int8.abs().max() < 0.1 * without.abs().max()
    assert cache.recall([5, 6, 7]) == sum(heads.count(p) == 0 for heads in held_all(plain) for p in (5, 6, 7))
    assert all({5, 6, 7} <= set(heads) for heads in held_all(cache))
    cache.recall()
    assert held_all(cache) == [list(range(60))] * 12
    recalled, lost, whole = (run(model, more, each, [1] * 3) for each in (cache, plain, dropped))
    tolerance = 1e-4 if tier == "disk" else 0.2 * (lost - whole).abs().max()
    assert (recalled - whole).abs().max() < tolerance


def held_all(cache: Any) -> list[list[int]]:
    return [
        p[v].tolist()
        for layer in cache.policy_layers()
        for p, v in zip(layer.positions().flatten(0, 1), layer.valid().flatten(0, 1), strict=True)
    ]


def test_demoted_tokens_follow_their_beam(tmp_path: Path) -> None:
    model, ids = llama(), text(2, 50)
    for tier in (DiskTier(folder=str(tmp_path)), Int8Tier()):
        cache = StreamingLLM(budget=20, window=4, protect_prompt=False).cache(model, demote=tier)
        run(model, ids, cache, [50])
        before = [layer.keys().clone() for layer in everything(model, ids)]
        cache.reorder_cache(torch.tensor([1, 1, 0]))
        cache.recall()
        for layer, keys in zip(cache.policy_layers(), before, strict=True):
            atol = 0 if isinstance(tier, DiskTier) else 0.1
            assert torch.allclose(layer.keys(), keys[[1, 1, 0]], atol=atol)


def everything(model: Any, ids: torch.Tensor) -> list[Any]:
    cache = FullCache().cache(model)
    run(model, ids, cache, [50])
    return cache.policy_layers()


def test_keep_from_a_mask() -> None:
    keep = Keep.from_mask(torch.tensor([[[True, False, True], [False, False, False]]]))
    assert (keep.index.tolist(), keep.row_splits.tolist()) == ([0, 2], [0, 2, 2])
