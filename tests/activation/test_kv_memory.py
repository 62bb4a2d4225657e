"""A text that was read once, in a fresh cache for each generation."""

from __future__ import annotations

from typing import Any

import pytest

from language_models import TEXT, needs_torch, tiny_gemma, tiny_llama
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


def test_layers_with_recurrent_states_and_moving_frequencies_are_refused_by_name() -> None:
    from transformers import Lfm2Config, Lfm2ForCausalLM

    from mnemic.models.local import LocalModel

    config = Lfm2Config(
        vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, layer_types=["conv", "full_attention"],
    )  # fmt: skip
    with pytest.raises(UnsupportedModel, match="mixed has layers of conv"):
        read(LocalModel(Lfm2ForCausalLM(config), tiny_llama().tokenizer, name="mixed"))
    dynamic = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    with pytest.raises(UnsupportedModel, match="dynamic RoPE"):
        read(tiny_llama(rope_parameters=dynamic))


@pytest.mark.parametrize("length", [9, 16, 17, 120])
def test_sliding_windows_are_exact_whatever_the_text_is_longer_than(length: int) -> None:
    """Gemma 3: windows of 16 beside full attention; short of, at, one past and far past the window."""
    import torch

    from mnemic.activation.kv import prefill

    local = tiny_gemma()
    ids = torch.randint(3, 300, (1, length + 40), generator=torch.Generator().manual_seed(length))
    kv = prefill(local, ids[0, :length].tolist())
    assert [layer.shape[2] for layer in kv.keys] == [length] * 4
    with torch.no_grad():
        whole = local.model(ids).logits[:, length:]
        for rows in (1, 2):
            cache = kv.cache(local, rows=rows)
            assert cache.layers[0].keys.shape[2] == min(length, 15)
            found = local.model(ids[:, length:].expand(rows, -1), past_key_values=cache).logits
            assert (found - whole).abs().max() < 1e-4
        options = {"max_new_tokens": 20, "min_new_tokens": 20, "do_sample": False}
        mounted = local.model.generate(ids, past_key_values=kv.cache(local), **options)
        assert torch.equal(mounted, local.model.generate(ids, **options))


def test_memories_with_sliding_windows_are_composed_exactly_or_not_at_all() -> None:
    from mnemic.activation.kv import SYSTEM, prefill, system_text
    from mnemic.activation.kv_compose import compose

    local = tiny_gemma()
    both = [
        prefill(local, local.encode(system_text(local, text), control=True), form=SYSTEM)
        for text in ("Ana moved to Porto in March.", "Tom is allergic to walnuts.")
    ]
    assert compose(local, both).tokens == both[0].tokens + both[1].tokens
    for how in ("rotated", "selective"):
        with pytest.raises(UnsupportedModel, match="only be composed exactly"):
            compose(local, both, how=how)


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
