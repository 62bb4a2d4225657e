"""KVzip: the choice is what a repetition of the text looks at, over all heads, within one budget."""

from __future__ import annotations

import pytest
import torch

from activation.tiny import gemma, gone, hiding, llama, run, stock, text
from mnemic.activation.full import FullCache
from mnemic.activation.kvzip import KVzip
from mnemic.activation.lazy import LazyEviction
from mnemic.activation.policy import Policy
from mnemic.cube.errors import InvalidOption


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("options", [{}, {"bucket": 1}, {"layerwise": True}], ids=str)
def test_the_budget_is_spent_over_all_heads_and_never_overspent(
    fraction: float, options: dict[str, int]
) -> None:
    model, ids = llama(layers=4, heads=8, kv=4), text(2, 120)
    cache = KVzip(budget=fraction, **options).read(model, ids)
    layers = cache.report().layers
    for b in range(2):
        apart = [sum(layer.kept[b]) for layer in layers]
        assert sum(apart) <= int(fraction * 120 * 4) * 4 if "layerwise" in options else fraction * 120 * 16
        assert sum(apart) >= fraction * 120 * 16 - 4 * 32
        if options == {"layerwise": True}:
            assert set(apart) == {int(fraction * 120 * 4)}
    assert all(set(range(4)) <= set(view.positions()[0, 0].tolist()) for view in cache.policy_layers())
    if options == {}:
        assert len({tuple(layer.kept[0]) for layer in layers}) > 1, "heads and layers differ"
        stored = sum(one.k.numel() for view in cache.policy_layers() for one in view.store.segments)
        spare = 4 * 8 * KVzip.headroom  # layers, rows, and the tail's room in each
        assert stored == 16 * (sum(sum(map(sum, layer.kept)) for layer in layers) + spare), "really freed"


def test_scores_are_the_most_that_any_query_of_the_repetition_pays() -> None:
    """By the definition: eager attention over the text and the text again."""
    model, ids = llama(layers=2), text(1, 40)
    cache = KVzip(budget=0.3, sinks=2, bucket=1).read(model, ids)
    with torch.no_grad():
        model.set_attn_implementation("eager")
        rows = model(input_ids=torch.cat([ids, ids], 1), output_attentions=True).attentions
    scores = torch.stack([layer[0, :, 40:, :40].amax(1).unflatten(0, (2, 3)).amax(1) for layer in rows])
    scores[:, :, :2] = torch.inf
    wanted = torch.zeros_like(scores, dtype=torch.bool)
    wanted.view(-1)[scores.flatten().topk(int(0.3 * 40 * 4)).indices] = True
    for layer, mask in zip(cache.policy_layers(), wanted, strict=True):
        for head in range(2):
            held = layer.positions()[0, head][layer.valid()[0, head]]
            assert held.tolist() == mask[head].nonzero()[:, 0].tolist()


def test_what_it_frees_equals_the_same_set_hidden_by_masks() -> None:
    model, ids = llama(), text(2, 110)
    cache = KVzip(budget=0.4).read(model, ids[:, :90])
    found = run(model, ids[:, 90:], cache, [8, *[1] * 12])
    reference = stock(model)
    run(model, ids[:, :90], reference, [90])
    hidden = gone(cache)
    with hiding(model, {layer: mask[:, :, :90] for layer, mask in hidden.items()}):
        expected = run(model, ids[:, 90:], reference, [8, *[1] * 12])
    assert (found - expected).abs().max() < 1e-4


def test_everything_is_the_full_cache_and_generation_goes_on() -> None:
    model, ids = llama(), text(1, 60)
    longer = torch.cat([ids, text(1, 5, seed=3)], 1)
    whole = model.generate(longer, max_new_tokens=12, do_sample=False)
    cache = KVzip(budget=1.0).read(model, ids)
    assert torch.equal(
        model.generate(longer, past_key_values=cache, max_new_tokens=12, do_sample=False), whole
    )
    then: Policy = LazyEviction(budget=12, window=4)
    cache = KVzip(budget=0.5).read(model, ids, then=then)
    model.generate(longer, past_key_values=cache, max_new_tokens=30, do_sample=False)
    assert all(layer.events >= 3 for layer in cache.report().layers)


def test_rows_of_a_batch_choose_for_themselves_and_an_instruction_may_stand_between() -> None:
    model, ids = llama(), text(2, 70)
    together = KVzip(budget=0.4).read(model, ids)
    for b in range(2):
        alone = KVzip(budget=0.4).read(model, ids[b : b + 1])
        assert [layer.kept[b] for layer in together.report().layers] == [
            layer.kept[0] for layer in alone.report().layers
        ]
    asked = KVzip(budget=0.4).read(model, ids, ask=text(2, 6, seed=8))
    assert asked.get_seq_length() == 70
    assert sum(sum(layer.kept[0]) for layer in asked.report().layers) <= 0.4 * 70 * 6


def test_sliding_layers_are_left_as_they_are() -> None:
    model, ids = gemma(), text(1, 60)
    cache = KVzip(budget=0.5).read(model, ids)
    assert cache.report().skipped == [0, 1, 2]
    before = stock(model)
    run(model, ids, before, [60])
    assert torch.equal(cache.layers[0].keys, before.layers[0].keys)


def test_what_cannot_be_asked_is_refused() -> None:
    model = llama()
    for wrong in ({"budget": 0.0}, {"budget": 1.5}, {"budget": True}, {"bucket": 0}, {"sinks": -1}):
        with pytest.raises(InvalidOption):
            KVzip(**wrong)
    for ids in (text(1, 5)[0], text(1, 5)[:, :0]):
        with pytest.raises(InvalidOption, match="ids must be"):
            KVzip().read(model, ids)
    cache = FullCache().cache(model)
    run(model, text(1, 20), cache, [20])
    with pytest.raises(InvalidOption, match="read"):
        cache.compress(KVzip())
