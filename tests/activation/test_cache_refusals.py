"""What no policy can serve is refused by name, before the first token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, MambaConfig, MambaForCausalLM

from activation.tiny import gemma, llama, run, text
from mnemic.activation.full import FullCache
from mnemic.activation.lazy import LazyEviction
from mnemic.activation.policy import Keep
from mnemic.activation.registry import POLICIES, policy_class
from mnemic.activation.streaming import StreamingLLM
from mnemic.cube.errors import (
    InvalidOption,
    UnsupportedAttention,
    UnsupportedGeneration,
    UnsupportedModel,
)

POLICY = LazyEviction(budget=20, window=4, protect_prompt=False)


def test_other_attention_is_refused_at_once_and_when_a_model_is_switched() -> None:
    model, ids = llama(), text(1, 30)
    cache = POLICY.cache(model)
    for implementation in ("eager", "flex_attention"):
        model.set_attn_implementation(implementation)
        with pytest.raises(UnsupportedAttention, match=implementation):
            POLICY.cache(model)
    model.set_attn_implementation("eager")
    with pytest.raises(UnsupportedAttention, match="sdpa"):
        run(model, ids, cache, [30])
    assert cache.get_seq_length() == 0


def test_softcap_is_refused() -> None:
    config = Gemma2Config(
        vocab_size=11, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=1,
        num_key_value_heads=1, head_dim=16,
    )  # fmt: skip
    model = Gemma2ForCausalLM(config)
    with pytest.raises((UnsupportedModel, UnsupportedAttention)):
        POLICY.cache(model)
    model.config._attn_implementation_internal = "sdpa"
    with pytest.raises(UnsupportedModel, match="softcap"):
        POLICY.cache(model)


def test_recurrent_layers_are_refused_by_name() -> None:
    model = MambaForCausalLM(MambaConfig(vocab_size=11, hidden_size=16, num_hidden_layers=2))
    with pytest.raises((UnsupportedModel, UnsupportedAttention)):
        POLICY.cache(model)
    hybrid = llama()
    hybrid.config.layer_types = ["full_attention", "linear_attention", "full_attention"]
    with pytest.raises(UnsupportedModel, match=r"layer 1 .*'linear_attention'"):
        POLICY.cache(hybrid)


@pytest.mark.parametrize(
    ("field", "value", "said"), [("kv_lora_rank", 8, "MLA"), ("num_kv_shared_layers", 1, "shares")]
)
def test_latent_and_shared_keys_are_refused(field: str, value: int, said: str) -> None:
    model = llama()
    setattr(model.config, field, value)
    with pytest.raises(UnsupportedModel, match=said):
        POLICY.cache(model)


def test_a_model_of_sliding_windows_alone_is_refused() -> None:
    model = gemma()
    model.config.layer_types = ["sliding_attention"] * 4
    with pytest.raises(UnsupportedModel, match="nothing to evict"):
        POLICY.cache(model)


def test_what_is_not_a_model_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="str"):
        POLICY.cache("smollm2")


def test_decoding_that_rolls_back_is_refused_before_the_first_token() -> None:
    model, ids = llama(), text(1, 30).repeat(1, 2)
    cache = POLICY.cache(model)
    for options in ({"prompt_lookup_num_tokens": 3}, {"assistant_model": llama(layers=1)}):
        with pytest.raises(UnsupportedGeneration, match="prompt-lookup"):
            model.generate(ids, past_key_values=cache, max_new_tokens=8, do_sample=False, **options)
        assert cache.get_seq_length() == 0
    expected = model.generate(ids, max_new_tokens=12, do_sample=False)
    found = model.generate(
        ids,
        past_key_values=FullCache().cache(model),
        max_new_tokens=12,
        do_sample=False,
        prompt_lookup_num_tokens=3,
    )
    assert torch.equal(found, expected)


def test_crop_works_until_something_is_evicted() -> None:
    model, ids = llama(), text(1, 60)
    cache = POLICY.cache(model)
    whole = run(model, ids[:, :19], FullCache().cache(model), [15, 1, 1, 1, 1])
    run(model, ids[:, :15], cache, [15])
    run(model, text(1, 2, seed=8), cache, [1, 1])
    cache.crop(-2)
    assert torch.equal(run(model, ids[:, 15:19], cache, [1] * 4), whole[:, 15:])
    run(model, ids, cache, [30])
    with pytest.raises(UnsupportedGeneration, match="rolled back"):
        cache.crop(-1)


def test_training_through_a_cache_is_refused() -> None:
    model, ids = llama(), text(1, 10)
    with pytest.raises(UnsupportedGeneration, match="no_grad"):
        model(input_ids=ids, past_key_values=POLICY.cache(model))


def test_a_compiled_model_is_refused() -> None:
    model = llama()
    with pytest.raises(UnsupportedModel, match="compiled"):
        POLICY.cache(torch.compile(model))
    model.compile()
    with pytest.raises(UnsupportedModel, match="compiled"):
        POLICY.cache(model)


def test_a_handle_says_what_read_it() -> None:
    model, ids = llama(), text(1, 10)
    cache = POLICY.cache(model)
    run(model, ids, cache, [10])
    k, v = cache.layers[0].update(torch.randn(1, 2, 1, 16), torch.randn(1, 2, 1, 16))
    assert (k.shape, k.dtype, v.shape[-2]) == ((1, 2, 11, 16), torch.float32, 11)
    for read in (
        lambda: k + 1,
        lambda: k.sum(),
        lambda: torch.cat([k, k], 2),
        lambda: k.contiguous(),
        lambda: k[0].T,
    ):
        with pytest.raises(UnsupportedAttention):
            read()
    with pytest.raises(UnsupportedAttention, match="prefix"):
        torch.nn.functional.scaled_dot_product_attention(
            torch.randn(1, 6, 1, 16), k, torch.randn(1, 6, 11, 16)
        )


@pytest.mark.parametrize("name", [name for name in POLICIES if name not in ("full", "taskkv")])
@pytest.mark.parametrize("budget", [0, -3, 0.0, 1.5, True, "512", None])
def test_budgets_that_mean_nothing_are_refused(name: str, budget: Any) -> None:
    with pytest.raises(InvalidOption, match="budget"):
        policy_class(name)(budget=budget)


def test_options_are_checked_when_a_policy_is_made() -> None:
    for make in (
        lambda: LazyEviction(budget=64, window=64),
        lambda: LazyEviction(budget=64, window=0),
        lambda: LazyEviction(budget=64, window=4, alpha=0.0),
        lambda: LazyEviction(budget=64, window=4, score="best"),
        lambda: LazyEviction(budget=64, window=4, aggregate="sum"),
        lambda: policy_class("taskkv")(budget=1.5),
        lambda: policy_class("taskkv")(metric="l1"),
        lambda: policy_class("snapkv")(budget=0.5, kernel=4),
        lambda: StreamingLLM(budget=4, sinks=4),
        lambda: policy_class("best"),
    ):
        with pytest.raises(InvalidOption):
            make()


def test_a_policy_that_names_what_is_not_there_is_refused() -> None:
    model, ids = llama(layers=1), text(1, 30)
    cache = FullCache().cache(model)
    run(model, ids, cache, [30])
    layer = cache.policy_layers()[0]
    with pytest.raises(InvalidOption, match="ascending"):
        layer.keep(Keep(torch.tensor([3, 2, 0, 1]), torch.tensor([0, 2, 4])))
    with pytest.raises(InvalidOption, match="rows"):
        layer.keep(Keep(torch.tensor([0, 1]), torch.tensor([0, 2])))
