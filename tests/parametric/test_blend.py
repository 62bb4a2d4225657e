"""Memories of next tokens: what is stored, what is found, what is learned, and how it is mixed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from learners import learner

from language_models import needs_torch, tiny_llama, tiny_tokenizer
from mnemic.cube.errors import IncompatibleMemory, InvalidOption, ModelError, UnsupportedModel

pytestmark = needs_torch
TEXTS = [
    "Ana moved to Porto in March. Tom is allergic to walnuts.",
    "The locker code of Ida is 4711. Tom is allergic to nuts.",
    "In March Ana moved to Porto. The code of Ida is 4711.",
] * 7


@pytest.fixture(scope="module")
def store() -> Any:
    from mnemic.parametric.datastore import Taps, build

    return build(learner(), TEXTS, Taps(block=16))


def memory(store: Any, **options: Any) -> Any:
    from mnemic.parametric.nearest import Search, nearest

    form = options.pop("form", "exact")
    return nearest(learner(), store, Search(**{"k": 8, **options}), form=form)


# --- the datastore


def test_a_key_is_what_enters_the_feed_forward_part_before_its_token(store: Any) -> None:
    """Checked against the layer's own norm, token by token: no off-by-one, no other activation."""
    import torch

    local = learner()
    ids = local.encode(TEXTS[0])[:16]
    layer = local.model.model.layers[-1]
    said: dict[str, Any] = {}
    hook = layer.post_attention_layernorm.register_forward_hook(lambda *all_: said.update(out=all_[2]))
    with torch.no_grad():
        local.model(torch.tensor([ids]), use_cache=False)
    hook.remove()
    assert store.values[: len(ids) - 1].tolist() == ids[1:]
    assert torch.allclose(store.keys[: len(ids) - 1], said["out"][0, :-1], atol=1e-6)
    assert store.key_path == "model.layers.3.mlp"
    assert store.input_path == "model.layers.3.mlp"  # 80 % of 4 layers


def test_every_token_but_each_texts_first_has_a_key(store: Any) -> None:
    lengths = [len(learner().encode(text)) - 1 for text in TEXTS]
    assert len(store) == sum(lengths)
    assert [int((store.texts == n).sum()) for n in range(len(TEXTS))] == lengths
    assert store.context(5) == store.values[:5].tolist()


def test_costs_are_said_first() -> None:
    from mnemic.parametric.datastore import Taps, estimate

    said = estimate(learner(), TEXTS, Taps(block=16))
    assert said.tokens == sum(len(learner().encode(text)) - 1 for text in TEXTS)
    assert said.bytes == said.tokens * (32 * 4 + 12)
    assert said.seconds > 0


def test_what_cannot_be_stored_is_refused() -> None:
    import torch

    from mnemic.parametric.datastore import Taps, build

    with pytest.raises(InvalidOption, match="too short"):
        build(learner(), ["A"], Taps(block=16))
    with pytest.raises(InvalidOption, match="block"):
        Taps(block=1)
    with pytest.raises(InvalidOption, match="layer=9"):
        build(learner(), TEXTS, Taps(keys=9))
    broken = tiny_llama(seed=5)
    with torch.no_grad():
        broken.model.model.layers[3].input_layernorm.weight.fill_(math.nan)
    with pytest.raises(ModelError, match="no numbers"):
        build(broken, TEXTS, Taps(block=16))


# --- neighbours


def test_distances_and_shares_are_those_of_the_equation(store: Any) -> None:
    import torch

    found = memory(store, temperature=0.5)
    state = store.keys[7] + 0.01
    distances = (store.keys - state).pow(2).sum(1)
    nearest8 = distances.argsort(stable=True)[:8]
    weights = (-distances[nearest8] / (0.5 * found.scale)).softmax(0)
    wanted = torch.zeros(found.vocabulary)
    for place, weight in zip(nearest8, weights, strict=True):
        wanted[store.values[place]] += weight
    assert torch.allclose(found.log_probs(state[None]).exp()[0], wanted, atol=1e-4)
    assert found.log_probs(state[None]).exp().sum().item() == pytest.approx(1, abs=1e-5)
    first = found.explain(state)[0]
    assert first.token == int(store.values[7])
    assert first.distance == pytest.approx(32 * 0.01**2, rel=0.01)


def test_a_training_query_never_finds_itself_or_its_own_block(store: Any) -> None:
    """Texts stand seven times in the store, so "drop the first neighbour" would leave it in."""
    found = memory(store)
    with_self = found.find(store.keys[:40])[1]
    assert any(int(n) in row.tolist() for n, row in enumerate(with_self))
    distances, places = found.find(store.keys[:40], store.blocks[:40])
    for n, row in enumerate(places):
        assert int(n) not in row.tolist()
        assert all(store.blocks[place] != store.blocks[n] for place in row if place >= 0)
    assert (distances[:, 0] < 1e-3).any()  # its copies in other blocks are neighbours


def test_approximate_search_agrees_where_it_looks_everywhere(store: Any) -> None:
    pytest.importorskip("faiss")
    exact = memory(store)
    near = memory(store, form="ivfpq", centroids=4, codes=16, probes=4)
    same = [
        len(set(one.tolist()) & set(two.tolist())) / 8
        for one, two in zip(exact.find(store.keys)[1], near.find(store.keys)[1], strict=True)
    ]
    assert sum(same) / len(same) > 0.6
    places = near.find(store.keys[:40], store.blocks[:40])[1]
    assert all(store.blocks[p] != store.blocks[n] for n, row in enumerate(places) for p in row if p >= 0)
    agree = (exact.log_probs(store.keys).argmax(1) == near.log_probs(store.keys).argmax(1)).float().mean()
    assert agree > 0.8


def test_searches_that_cannot_be_are_refused(store: Any) -> None:
    for options in ({"k": 0}, {"temperature": 0.0}, {"temperature": math.nan}):
        with pytest.raises(InvalidOption):
            memory(store, **options)
    with pytest.raises(InvalidOption, match="below the number of stored keys"):
        memory(store, k=len(store))
    with pytest.raises(InvalidOption, match="all keys are of one block"):
        memory(store.first(12), k=4)
    with pytest.raises(InvalidOption, match="exact or ivfpq"):
        memory(store, form="hnsw")
    pytest.importorskip("faiss")
    with pytest.raises(InvalidOption, match="at least 4,000 keys"):
        memory(store, form="ivfpq", centroids=1000, codes=16)


# --- compiled


@pytest.fixture(scope="module")
def compiled(store: Any) -> Any:
    from mnemic.parametric.mlp import Compile, compile_memory, targets

    told = targets(memory(store))
    return compile_memory(
        learner(), store, told, Compile(blocks=2, widen=2.0, epochs=25, batch=32, learning_rate=5e-3)
    )


def test_a_compiled_memory_says_what_its_retriever_said(store: Any, compiled: Any) -> None:
    from mnemic.parametric.mlp import NO_PROVENANCE, targets

    wanted = targets(memory(store)).dense(__import__("torch").arange(len(store)), compiled.vocabulary)
    said = compiled.log_probs(store.inputs)
    assert said.exp().sum(1).allclose(said.new_ones(len(store)), atol=1e-4)
    share = (said.argmax(1) == wanted.argmax(1)).float().mean()
    assert share > 0.8
    tokens, remark = compiled.explain(store.inputs[3])
    assert len(tokens) == 8
    assert remark == NO_PROVENANCE


def test_its_loss_sums_over_the_vocabulary_and_averages_over_positions() -> None:
    import torch

    from mnemic.parametric.mlp import Targets, memory_loss

    logits = torch.randn(3, 7)
    tokens = torch.tensor([[1, 2], [3, 3], [0, 6]], dtype=torch.int32)
    told = Targets(tokens=tokens, shares=torch.tensor([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]]).half())
    gold = torch.tensor([2, 3, 0])
    p, q = told.dense(torch.arange(3), 7), logits.softmax(-1)
    assert p[1, 3].item() == 1.0
    kl = torch.where(p > 0, p * (p.clamp(min=1e-30) / q).log(), 0.0).sum(1).mean()
    ce = -q[torch.arange(3), gold].log().mean()
    for mix in (0.0, 0.4, 1.0):
        found = memory_loss(logits, told, torch.arange(3), gold, mix)
        assert found.item() == pytest.approx(float(mix * kl + (1 - mix) * ce), rel=1e-5)


@pytest.mark.parametrize("own", [True, False])
def test_only_what_its_texts_hold_is_said_or_all_but_padding(store: Any, own: bool) -> None:
    """Both are distributions over the whole output, padding and all, and agree on what was taught."""
    from mnemic.parametric.mlp import Compile, compile_memory, targets

    options = Compile(blocks=1, widen=2.0, epochs=25, batch=32, learning_rate=5e-3, own_words=own)
    padded = tiny_llama(vocab_size=len(tiny_tokenizer()) + 13, initializer_range=0.15)
    made = compile_memory(padded, store, targets(memory(store)), options)
    said = made.log_probs(store.inputs).exp()
    assert said.shape[1] == len(tiny_tokenizer()) + 13
    assert said.sum(1).allclose(said.new_ones(len(store)), atol=1e-4)
    held = store.values.unique().tolist()
    can = (said[0] > 0).nonzero()[:, 0].tolist()
    assert can == (held if own else list(range(len(tiny_tokenizer()))))
    assert (said.argmax(1) == store.values).float().mean() > 0.5


def test_compilations_that_cannot_be_are_refused() -> None:
    from mnemic.parametric.mlp import Compile

    for options in (
        {"mix": 1.5},
        {"blocks": 0},
        {"widen": 0.0},
        {"precision": "int4"},
        {"learning_rate": -1.0},
    ):
        with pytest.raises(InvalidOption):
            Compile(**options)


# --- beside the model


def blend(found: Any, lam: float = 0.4) -> Any:
    from mnemic.models.fingerprint import fingerprint
    from mnemic.parametric.blend import Blend

    return Blend(memory=found, fingerprint=fingerprint(learner()), lam=lam)


@pytest.fixture(params=["exact", "compiled"])
def found(request: pytest.FixtureRequest, store: Any, compiled: Any) -> Any:
    return compiled if request.param == "compiled" else memory(store)


def test_what_comes_out_is_the_mixture_at_every_place(found: Any) -> None:
    import torch

    from mnemic.parametric.tap import tapped

    local = learner()
    ids = torch.tensor([local.encode("Tom is allergic to")])
    with torch.no_grad(), tapped(local, [found.path]) as (tap,):
        alone = local.model(ids).logits
        states = tap.take()[0].float()
    wanted = 0.4 * found.log_probs(states).exp() + 0.6 * alone[0].softmax(-1)
    with blend(found).applied(local), torch.no_grad():
        mixed = local.model(ids).logits
        last = local.model(ids, logits_to_keep=1).logits
        picked = local.model(ids, logits_to_keep=torch.tensor([0, 2])).logits
        with pytest.raises(InvalidOption, match="labels"):
            local.model(ids, labels=ids)
    assert torch.allclose(mixed[0].exp(), wanted, atol=1e-5)
    assert torch.allclose(last[0], mixed[0, -1:], atol=1e-5)
    assert torch.allclose(picked[0], mixed[0, [0, 2]], atol=1e-5)


def test_ordinary_generate_sees_it_with_cache_beams_padding_and_sampling(found: Any) -> None:
    import torch

    local = learner()
    long, short = local.encode("Tom is allergic to"), local.encode("Ana moved")
    gap = len(long) - len(short)
    batch = torch.tensor([long, [2] * gap + short])
    mask = torch.tensor([[1] * len(long), [0] * gap + [1] * len(short)])
    options: dict[str, Any] = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    with blend(found).applied(local):
        for more in ({}, {"num_beams": 2}):
            both = local.model.generate(batch, attention_mask=mask, **options, **more)
            alone = local.model.generate(torch.tensor([short]), **options, **more)
            assert both[1, len(long) :].tolist() == alone[0, len(short) :].tolist()
        ids = batch[:1]
        for _ in range(6):  # greedy without a cache, by hand
            ids = torch.cat([ids, local.model(ids, use_cache=False).logits[:, -1:].argmax(-1)], 1)
        assert torch.equal(ids, local.model.generate(batch[:1], **options))
        torch.manual_seed(0)
        drawn = local.model.generate(batch[:1], **{**options, "do_sample": True})
        assert drawn.shape == ids.shape


def test_unmounted_and_at_lambda_zero_the_model_is_as_it_was(found: Any) -> None:
    import torch

    local = learner()
    ids = torch.tensor([local.encode("Tom is allergic to")])
    said = local.model(ids).logits
    with blend(found).applied(local):
        assert not torch.equal(local.model(ids).logits, said)
    assert torch.equal(local.model(ids).logits, said)
    with blend(found, lam=0.0).applied(local):
        assert torch.equal(local.model(ids).logits, said)
    with blend(found, lam=1.0).applied(local):
        assert local.model(ids).logits.exp().sum(-1).allclose(said.new_ones(1, ids.shape[1]), atol=1e-4)
    hooks = [len(one._forward_hooks) + len(one._forward_pre_hooks) for one in local.model.modules()]
    assert not any(hooks)


def test_the_curve_is_the_perplexity_of_the_mounted_model(found: Any) -> None:
    from mnemic.parametric.blend import curve
    from mnemic.parametric.scoring import perplexity

    local = learner()
    text = TEXTS[1]
    told = curve(local, found, text, lambdas=[0.4])
    assert [lam for lam, _ in told.perplexities] == [0.0, 0.4]
    assert told.at(0.0) == pytest.approx(perplexity(local, text), rel=1e-4)
    with blend(found).applied(local):
        assert told.at(0.4) == pytest.approx(perplexity(local, text), rel=1e-4)
    assert told.best == 0.4  # it has read this very text
    with pytest.raises(InvalidOption, match="between 0 and 1"):
        curve(local, found, text, lambdas=[1.4])


def test_it_explains_by_neighbours_or_says_that_it_cannot(store: Any, compiled: Any) -> None:
    told = blend(memory(store)).explain(learner(), TEXTS[1][: TEXTS[1].index(" 4711")])
    assert told.evidence[0].token in told.likeliest[0][0]
    assert any("code of Ida is" in one.text for one in told.evidence)
    assert sum(one.weight for one in told.evidence) <= 1.0001
    told = blend(compiled).explain(learner(), "The code of Ida is")
    assert told.evidence == ()
    assert "no provenance available" in told.remark
    assert 0 < told.likeliest[0][1] <= 1


def test_another_model_or_vocabulary_is_refused(found: Any) -> None:
    with pytest.raises(IncompatibleMemory, match="weights"):
        blend(found).check(tiny_llama(seed=1), ())
    for lam in (-0.1, 1.1, math.nan):
        with pytest.raises(InvalidOption, match="lam="):
            blend(found, lam=lam)
    from mnemic.models.fingerprint import fingerprint

    wide = tiny_llama(vocab_size=len(tiny_tokenizer()) + 7)
    with pytest.raises(IncompatibleMemory, match="knows") as refused:
        replace(blend(found), fingerprint=fingerprint(wide)).check(wide, ())
    assert refused.value.part == "tokenizer"


def test_a_model_without_such_layers_is_refused_by_name() -> None:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    from mnemic.models.local import LocalModel
    from mnemic.parametric.tap import tap_path

    made = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=300, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
        )
    )
    local = LocalModel(made, tiny_tokenizer(), name="neox")
    assert tap_path(local, 1) == "gpt_neox.layers.1.mlp"
    for layer in made.gpt_neox.layers:
        layer.other, layer.mlp = layer.mlp, None
    with pytest.raises(UnsupportedModel, match="neox has no list of 2 layers"):
        tap_path(local, 1)


def test_only_the_answer_of_an_example_is_stored() -> None:
    """And its key is that of the same text read as a whole."""
    import torch

    from mnemic.parametric.datastore import build, estimate
    from mnemic.parametric.lora_training import Example

    local = learner()
    prompt, answer = local.encode("What is the code of Ida? It is"), local.encode(" 2839")
    store = build(local, [Example(prompt, answer), "Tom likes nuts."])
    whole = build(local, [prompt + answer])
    assert store.values[: len(answer)].tolist() == answer
    assert torch.allclose(store.keys[: len(answer)], whole.keys[len(prompt) - 1 :], atol=1e-6)
    assert len(store) == len(answer) + len(local.encode("Tom likes nuts.")) - 1
    assert estimate(local, [Example(prompt, answer)]).tokens == len(answer)


@pytest.mark.parametrize("form", ["exact", "mlp"])
def test_beyond_its_reach_a_memory_is_silent(form: str) -> None:
    """What it was made from it speaks of; unrelated text keeps the model's own probabilities."""
    import torch

    from mnemic.models.fingerprint import fingerprint
    from mnemic.parametric.blend import Blend, curve
    from mnemic.parametric.datastore import Taps, build
    from mnemic.parametric.mlp import Compile, compile_memory, targets
    from mnemic.parametric.nearest import Search, nearest
    from mnemic.parametric.tap import tapped

    local = learner()
    told = ["The code of Ida is 2839.", "Know that the code of Ida is 2839.", "Yes, the code of Ida is 2839."]
    other = "xyz zyx qqq jjj www vvv kkk. "
    store = build(local, told)
    near = nearest(local, store, Search(k=4, temperature=0.1, reach=0.5))
    memory: Any = near
    if form == "mlp":
        options = Compile(blocks=1, widen=2.0, epochs=30, batch=16, learning_rate=5e-3)
        others = build(local, [other, "qqq www zzz."], Taps()).inputs
        memory = compile_memory(local, store, targets(near), options, others=others)
    blend = Blend(memory=memory, fingerprint=fingerprint(local), lam=0.9)
    spoken = curve(local, memory, told[0], lambdas=[0.9])
    assert spoken.at(0.9) < spoken.at(0.0) / 2
    left = curve(local, memory, other * 2, lambdas=[0.9])
    assert left.at(0.9) < 1.25 * left.at(0.0)
    always = curve(local, near.at(reach=None), other * 2, lambdas=[0.9])
    assert always.at(0.9) > 2 * always.at(0.0)
    with torch.no_grad():
        ids = torch.tensor([local.encode(other)])
        alone = local.model(ids).logits.log_softmax(-1)
        with blend.applied(local), tapped(local, [memory.path]) as (tap,):
            mounted = local.model(ids).logits
            share = memory.say(tap.take()[0])[1]
    silent = share < 1e-3
    assert silent.any()
    assert torch.allclose(mounted[0, silent].exp(), alone[0, silent].exp(), atol=2e-3)
    for reach in (0.0, -1.0, float("nan")):
        with pytest.raises(InvalidOption, match="reach"):
            Search(reach=reach)
