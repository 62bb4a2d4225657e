"""A text that was read once, in a fresh cache for each generation."""

from __future__ import annotations

from typing import Any

import pytest

from language_models import TEXT, needs_torch, tiny_llama
from mnemic.cube.errors import InvalidOption, ModelError, PromptMismatch, UnsupportedModel

pytestmark = needs_torch


def read(local: Any, text: str = TEXT) -> Any:
    from mnemic.activation.kv import prefill

    return prefill(local, local.encode(text))


def test_the_model_goes_on_as_if_it_had_read_the_text_again() -> None:
    import torch

    from mnemic.models.hf import cache_keyword

    local = tiny_llama()
    kv = read(local)
    rest = local.encode("Who is allergic?")
    whole = torch.tensor([[*kv.ids.tolist(), *rest]])
    with torch.no_grad():
        wanted = local.model(whole).logits[:, kv.tokens :]
        found = local.model(torch.tensor([rest]), **{cache_keyword(local.model): kv.cache(local)}).logits
    assert (wanted - found).abs().max() < 1e-4
    assert kv.tokens == len(local.encode(TEXT))
    assert kv.nbytes == 2 * 4 * 2 * 8 * kv.tokens * 4  # layers, kv heads, head_dim, tokens, float32


def test_a_cache_is_a_copy_and_can_serve_a_batch() -> None:
    import torch

    local = tiny_llama()
    kv = read(local)
    before = [one.clone() for one in (*kv.keys, *kv.values)]
    cache = kv.cache(local, rows=3)
    for layer in cache.layers:
        assert layer.keys.shape[0] == 3
        layer.keys.zero_()
        layer.values.add_(1)
    assert all(torch.equal(one, two) for one, two in zip(before, (*kv.keys, *kv.values), strict=True))
    assert kv.cache(local).get_seq_length() == kv.tokens


def test_layers_with_windows_and_moving_frequencies_are_refused_by_name() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    from mnemic.models.local import LocalModel

    plain = tiny_llama()
    config = MistralConfig(**{**plain.model.config.to_dict(), "sliding_window": 16, "model_type": "mistral"})
    windowed = LocalModel(MistralForCausalLM(config), plain.tokenizer, name="windowed")
    with pytest.raises(UnsupportedModel, match="windowed has layers of sliding_attention"):
        read(windowed)
    dynamic = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    with pytest.raises(UnsupportedModel, match="dynamic RoPE"):
        read(tiny_llama(rope_parameters=dynamic))


def test_nothing_and_too_much_are_refused() -> None:
    local = tiny_llama(max_position_embeddings=32)
    with pytest.raises(InvalidOption, match="nothing to read"):
        read(local, "")
    with pytest.raises(ModelError, match="do not fit"):
        read(local, TEXT * 3)


def test_a_prompt_has_to_begin_with_the_memory_and_go_on() -> None:
    kv = read(tiny_llama())
    ids = kv.ids.tolist()
    kv.check_prompt([*ids, 5])
    with pytest.raises(PromptMismatch, match="ends after"):
        kv.check_prompt(ids)
    with pytest.raises(PromptMismatch, match="differs at token 3 of"):
        kv.check_prompt([*ids[:3], ids[3] + 1, *ids[4:], 5])


def test_a_system_message_ends_at_a_boundary_or_is_refused() -> None:
    from mnemic.activation.kv import SYSTEM, text_ids

    local = tiny_llama()
    ids = text_ids(local, TEXT, form=SYSTEM)
    asked = [{"role": "system", "content": TEXT}, {"role": "user", "content": " leading blank"}]
    assert local.prompt_ids(asked)[: len(ids)] == ids
    local.tokenizer.chat_template, kept = (
        "{% for m in messages %}{% if m['role'] == 'user' %}<|im_start|>{{ m['content'] }}{% endif %}{% "
        "endfor %}{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}{% endif %}{% "
        "endfor %}",
        local.tokenizer.chat_template,
    )
    try:
        with pytest.raises(PromptMismatch, match="does not begin a conversation with the system message"):
            text_ids(local, TEXT, form=SYSTEM)
    finally:
        local.tokenizer.chat_template = kept
    with pytest.raises(InvalidOption, match="system, plain"):
        text_ids(local, TEXT, form="other")
