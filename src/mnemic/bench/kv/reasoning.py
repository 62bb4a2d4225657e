"""LazyEviction on real attention: what a policy would have retained of it, and what generation comes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mnemic.activation.cache import policy_cache
from mnemic.activation.full import FullCache
from mnemic.activation.h2o import H2O
from mnemic.activation.lazy import LazyEviction
from mnemic.activation.policy import Policy
from mnemic.activation.random_eviction import RandomEviction
from mnemic.activation.streaming import StreamingLLM
from mnemic.activation.tova import TOVA
from mnemic.bench.kv.items import Item
from mnemic.bench.kv.measure import answer_logits, call
from mnemic.bench.kv.simulate import retained

WINDOW: Final = 32


def simulated_policies(budget: int) -> dict[str, Policy]:
    """All with the newest 32 kept; "per step" evicts at every step, the others at every 32nd."""
    same: dict[str, Any] = {"budget": budget, "window": WINDOW, "protect_prompt": False}
    every: dict[str, Any] = same | {"window": 1}
    return {
        "lazy, gated": LazyEviction(**same),
        "lazy, code": LazyEviction(**same, score="code"),
        "lazy, paper": LazyEviction(**same, score="paper"),
        "last use alone": LazyEviction(**same, score="last"),
        "h2o": H2O(**same),
        "h2o, per step": H2O(**every, recent=WINDOW),
        "tova": TOVA(**same),
        "tova, per step": TOVA(**every, recent=WINDOW),
        "streaming": StreamingLLM(**same),
        "streaming, per step": StreamingLLM(**every),
        "random": RandomEviction(**same),
    }


def retained_mass(
    model: Any, items: Sequence[Item], shares: Sequence[float], report: Callable[[str], None]
) -> dict[str, dict[str, list[dict[str, float]]]]:
    """policy -> share -> a row for each text: mean and 5th percentile, over all heads of all layers and the
    last third of steps, of the attention that falls on what is still held. Budgets are shares of the text.
    """
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for item in items:
        rows = attention_rows(model, torch.tensor([item.prompt + item.answer]))
        for share in shares:
            for name, policy in simulated_policies(int(share * rows.shape[1])).items():
                mass = retained(policy, rows, prompt=len(item.prompt))
                last = mass[:, mass.shape[1] * 2 // 3 :].flatten()
                cell = {"mean": float(last.mean()), "p5": float(np.quantile(last.numpy(), 0.05))}
                found.setdefault(name, {}).setdefault(str(share), []).append(cell)
        report(item.name)
    return found


def attention_rows(model: Any, ids: Tensor) -> Tensor:
    """(layers · query heads, T, T) float32 of the eager model."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            rows = model(input_ids=ids, output_attentions=True).attentions
    finally:
        model.set_attn_implementation(before)
    return torch.cat([layer[0] for layer in rows]).float()


def end_to_end(
    model: Any, prompts: Sequence[list[int]], *, new_tokens: int, report: Callable[[str], None]
) -> dict[str, Any]:
    """Generation as the full cache's where the budget holds everything, bounded where it does not, and how
    likely the full cache's own continuation is under each compressed cache.
    """
    same: dict[str, Any] = {"budget": 128, "window": WINDOW}
    policies: dict[str, Policy] = {
        "full": FullCache(),
        "lazy": LazyEviction(**same),
        "h2o": H2O(**same),
        "streaming": StreamingLLM(**same),
        "random": RandomEviction(**same),
    }
    identical, peaks = 0, []
    losses: dict[str, list[float]] = {name: [] for name in policies}
    with torch.no_grad():
        for number, prompt in enumerate(prompts):
            ids = torch.tensor([prompt])
            options: dict[str, Any] = {"max_new_tokens": new_tokens, "do_sample": False, "eos_token_id": None}
            whole = model.generate(ids, past_key_values=FullCache().cache(model), **options)
            roomy = LazyEviction(budget=4_096, window=WINDOW).cache(model)
            identical += int(torch.equal(model.generate(ids, past_key_values=roomy, **options), whole))
            answer = whole[:, len(prompt) :]
            for name, policy in policies.items():
                cache = policy_cache([policy], model)
                call(model, ids, cache)
                logits = answer_logits(model, answer, cache, step=WINDOW)
                losses[name].append(float(F.cross_entropy(logits, answer[0, 1:])))
                if name == "lazy":
                    peaks.append(max(layer.peak for layer in cache.report().layers) - len(prompt))
            report(f"prompt {number}")
    return {
        "prompts": len(prompts),
        "identical": identical,
        "peak above the prompt": max(peaks),
        "allowed": 128 + WINDOW,
        "nll": {name: [float(np.mean(found)), float(np.std(found))] for name, found in losses.items()},
    }
