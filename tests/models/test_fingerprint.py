"""A fingerprint differs in the part that was changed, and in no other."""

from __future__ import annotations

from typing import Any

import pytest

from language_models import needs_torch, tiny_llama
from mnemic.cube.errors import InvalidOption

pytestmark = needs_torch


def of(local: Any, **options: Any) -> Any:
    from mnemic.models.fingerprint import fingerprint

    return fingerprint(local, **options)


def test_the_same_model_made_twice_has_the_same() -> None:
    one, two = tiny_llama(), tiny_llama()
    assert of(one) == of(two)
    two.tokenizer(["a", "longer text"], padding=True, truncation=True, max_length=3)  # a matter of that call
    two.model.train().eval()
    assert of(one).differing(of(two)) == []


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"seed": 1}, ["weights"]),
        ({"rms_norm_eps": 1e-3}, ["config"]),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, ["rope"]),
    ],
)
def test_it_names_what_differs(options: dict[str, Any], parts: list[str]) -> None:
    assert of(tiny_llama()).differing(of(tiny_llama(**options))) == parts


def test_dtype_template_and_tokenizer() -> None:
    import copy

    import torch

    from mnemic.models.local import LocalModel

    mine = tiny_llama()
    half = tiny_llama()
    half.model.to(torch.bfloat16)
    assert of(mine).differing(of(half)) == ["weights", "dtype"]
    tokenizer = copy.deepcopy(mine.tokenizer)
    tokenizer.chat_template += " "
    assert of(mine).differing(of(LocalModel(mine.model, tokenizer, name="x"))) == ["template"]
    tokenizer = copy.deepcopy(mine.tokenizer)
    tokenizer.add_tokens(["walnuts"])
    assert of(mine).differing(of(LocalModel(mine.model, tokenizer, name="x"))) == ["tokenizer"]


def test_one_number_that_changes_is_noticed_at_once_or_when_all_is_read() -> None:
    import torch

    local = tiny_llama()
    before = of(local)
    weight = local.model.model.layers[2].mlp.up_proj.weight
    with torch.no_grad():
        weight[3, 4] += 1e-3
    assert before.differing(of(local)) == ["weights"]
    with torch.no_grad():
        weight[3, 4] -= 1e-3
    again = of(local)
    weight.data[0, 0] += 1.0  # past torch's counter
    assert of(local) == again
    assert of(local, verify="full").differing(again) == ["weights"]
    with pytest.raises(InvalidOption, match="fast"):
        of(local, verify="never")


def test_it_is_remembered_until_something_is_written() -> None:
    import time

    local = tiny_llama(hidden_size=512, intermediate_size=2048, vocab_size=8000)
    start = time.perf_counter()
    first = of(local)
    whole = time.perf_counter() - start
    start = time.perf_counter()
    assert of(local) == first
    assert time.perf_counter() - start < whole / 2


def test_as_a_dict_and_back() -> None:
    from mnemic.models.fingerprint import Fingerprint

    found = of(tiny_llama())
    assert Fingerprint.of_dict(found.as_dict()) == found
    for bad in ({}, [], {**found.as_dict(), "more": "x"}, {**found.as_dict(), "rope": 7}):
        with pytest.raises(ValueError, match="fingerprint"):
            Fingerprint.of_dict(bad)
