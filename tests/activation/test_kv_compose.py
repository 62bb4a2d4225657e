"""Several memories as one: exact when read again, labelled when only turned, exact again when all is anew."""

from __future__ import annotations

from typing import Any

import pytest

from language_models import needs_torch, tiny_llama
from mnemic.cube.errors import IncompatibleMemory, InvalidOption, PromptMismatch, UnsupportedModel

pytestmark = needs_torch
TEXTS = ("Ana moved to Porto in March.", "Tom is allergic to walnuts.", "The locker code of Ida is 4711.")


def memories(local: Any, form: str = "system") -> list[Any]:
    from mnemic.activation.kv import prefill, text_ids

    return [prefill(local, text_ids(local, text, form=form), form=form) for text in TEXTS]


def test_read_again_as_one_it_is_the_whole_text() -> None:
    import torch

    from mnemic.activation.kv import prefill
    from mnemic.activation.kv_compose import compose

    local = tiny_llama()
    told = [{"role": "system", "content": text} for text in TEXTS]
    whole = prefill(local, local.encode(local.render(told, answer=False), control=True), form="system")
    made = compose(local, memories(local))
    assert made.ids.tolist() == whole.ids.tolist()
    assert made.label == "exact"
    assert all(torch.equal(one, two) for one, two in zip(made.keys, whole.keys, strict=True))


def test_turned_keys_are_right_where_nothing_could_be_attended_to() -> None:
    """The first layer sees only tokens and positions; deeper ones lack what stood before."""
    from mnemic.activation.kv_compose import compose

    local = tiny_llama()
    exact, turned = compose(local, memories(local)), compose(local, memories(local), how="rotated")
    assert turned.label == "rotated"
    assert (exact.keys[0] - turned.keys[0]).abs().max() < 1e-5
    assert (exact.values[0] - turned.values[0]).abs().max() < 1e-5
    assert (exact.keys[3] - turned.keys[3]).abs().max() > 1e-2
    first = memories(local)[0].tokens
    assert (exact.keys[3][:, :, :first] - turned.keys[3][:, :, :first]).abs().max() < 1e-5


def test_the_more_is_computed_anew_the_closer_it_gets_and_all_is_exact() -> None:
    from mnemic.activation.kv import probe_tokens
    from mnemic.activation.kv_compose import compose

    local = tiny_llama()
    probe = probe_tokens(local, "system")
    made = [compose(local, memories(local), how="rotated", probe=probe)]
    for ratio in (0.3, 1.0):
        made.append(compose(local, memories(local), how="selective", ratio=ratio, probe=probe))
    assert [one.label for one in made] == ["rotated", "selective 30%", "selective 100%"]
    turned, some, everything = (one.error for one in made)
    assert turned.kv > some.kv > everything.kv
    assert turned.max_logit > 1e-2
    assert everything.max_logit < 1e-3
    assert everything.same_top == 1.0
    assert made[0].error.tokens == len(probe)
    assert compose(local, memories(local), how="rotated").error is None


def test_one_alone_is_itself() -> None:
    from mnemic.activation.kv_compose import compose

    local = tiny_llama()
    one = memories(local)[0]
    assert compose(local, [one], how="rotated") is one


def test_a_template_with_one_start_token_a_conversation() -> None:
    from mnemic.activation.kv_compose import compose

    local = tiny_llama()
    kept = local.tokenizer.chat_template
    local.tokenizer.chat_template = (
        "{{ '<|im_start|>' }}{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] + "
        "'<|endoftext|>' }}{% endfor %}{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
    )
    try:
        exact, turned = compose(local, memories(local)), compose(local, memories(local), how="rotated")
        told = [{"role": "system", "content": text} for text in TEXTS]
        assert exact.ids.tolist() == local.encode(local.render(told, answer=False), control=True)
        assert turned.ids.tolist() == exact.ids.tolist()
        assert turned.ids.tolist().count(1) == 1
        assert (exact.keys[0] - turned.keys[0]).abs().max() < 1e-5
    finally:
        local.tokenizer.chat_template = kept


def test_texts_that_run_into_one_another_are_refused() -> None:
    from mnemic.activation.kv import prefill
    from mnemic.activation.kv_compose import compose

    local = tiny_llama()
    split = [prefill(local, local.encode(text)) for text in ("Ana moved to Por", "to in March.")]
    assert local.encode("Ana moved to Porto in March.") != [
        token for kv in split for token in kv.ids.tolist()
    ]
    with pytest.raises(PromptMismatch, match="cuts the text into other tokens"):
        compose(local, split)


def test_memories_of_other_models_forms_and_mounts_are_refused() -> None:
    from dataclasses import replace

    from mnemic.activation.kv_compose import compose

    local = tiny_llama()
    mine, theirs = memories(local), memories(tiny_llama(seed=1))
    with pytest.raises(IncompatibleMemory, match="weights") as refused:
        compose(local, [mine[0], theirs[1]], how="rotated")
    assert refused.value.part == "weights"
    with pytest.raises(IncompatibleMemory, match="form"):
        compose(local, [mine[0], memories(local, "plain")[1]])
    with pytest.raises(IncompatibleMemory, match="stack"):
        compose(local, [mine[0], replace(mine[1], stack="0" * 64)])


def test_positions_that_are_not_rotations_are_noticed() -> None:
    from mnemic.activation.kv_compose import compose

    local = tiny_llama()
    for module in local.model.modules():
        if hasattr(module, "inv_freq"):
            real = module.forward
            module.forward = lambda x, position_ids, real=real: real(x, position_ids * position_ids)
    with pytest.raises(UnsupportedModel, match="does not turn keys by position"):
        compose(local, memories(local), how="rotated")


def test_options_are_checked() -> None:
    from mnemic.activation.kv_compose import compose

    local = tiny_llama()
    for options in ({"how": "glued"}, {"ratio": 0.0}, {"ratio": 1.5}):
        with pytest.raises(InvalidOption):
            compose(local, memories(local), **options)
    with pytest.raises(InvalidOption, match="at least one"):
        compose(local, [])
