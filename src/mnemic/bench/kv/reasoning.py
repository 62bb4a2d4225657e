"""LazyEviction on real attention: what a policy would have retained of it, and what generation comes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
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
from mnemic.bench.kv.measure import Keep, answer_logits, at_once, call
from mnemic.bench.kv.simulate import retained

WINDOW: Final = 32
BUDGET: Final = 128


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
    model: Any,
    items: Sequence[Item],
    shares: Sequence[float],
    report: Callable[[str], None],
    keep: Keep = at_once,
) -> dict[str, dict[str, list[dict[str, float]]]]:
    """policy -> share -> a row for each text: mean and 5th percentile, over all heads of all layers and the
    last third of steps, of the attention that falls on what is still held. Budgets are shares of the text.
    """
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for item in items:
        cells = keep(f"mass {item.name}", partial(_mass, model, item, shares))
        for name, by_share in (cells or {}).items():
            for share, cell in by_share.items():
                found.setdefault(name, {}).setdefault(share, []).append(cell)
        report(item.name)
    return found


def _mass(model: Any, item: Item, shares: Sequence[float]) -> dict[str, dict[str, dict[str, float]]]:
    """policy -> share -> a cell, on one text."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    rows = attention_rows(model, torch.tensor([item.prompt + item.answer]))
    for share in shares:
        for name, policy in simulated_policies(int(share * rows.shape[1])).items():
            mass = retained(policy, rows, prompt=len(item.prompt))
            last = mass[:, mass.shape[1] * 2 // 3 :].flatten()
            cell = {"mean": float(last.mean()), "p5": float(np.quantile(last.numpy(), 0.05))}
            found.setdefault(name, {})[str(share)] = cell
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
    model: Any,
    prompts: Sequence[list[int]],
    *,
    new_tokens: int,
    report: Callable[[str], None],
    keep: Keep = at_once,
) -> dict[str, Any]:
    """Generation as the full cache's where the budget holds everything, bounded where it does not, and how
    likely the full cache's own continuation is under each compressed cache.
    """
    rows = []
    for number, prompt in enumerate(prompts):
        rows.append(keep(f"prompt {number}", partial(_generated, model, prompt, new_tokens)))
        report(f"prompt {number}")
    rows = [row for row in rows if row is not None]
    losses = {name: [row["nll"][name] for row in rows] for name in (rows[0]["nll"] if rows else ())}
    return {
        "prompts": len(rows),
        "identical": sum(row["identical"] for row in rows),
        "peak above the prompt": max((row["peak"] for row in rows), default=0),
        "allowed": BUDGET + WINDOW,
        "nll": {name: [float(np.mean(found)), float(np.std(found))] for name, found in losses.items()},
    }


@torch.no_grad()
def _generated(model: Any, prompt: list[int], new_tokens: int) -> dict[str, Any]:
    """One prompt: whether a roomy budget gave the full cache's tokens, the most slots, and the NLLs."""
    same: dict[str, Any] = {"budget": BUDGET, "window": WINDOW}
    policies: dict[str, Policy] = {
        "full": FullCache(),
        "lazy": LazyEviction(**same),
        "h2o": H2O(**same),
        "streaming": StreamingLLM(**same),
        "random": RandomEviction(**same),
    }
    ids, nll, peak = torch.tensor([prompt]), {}, 0
    options: dict[str, Any] = {"max_new_tokens": new_tokens, "do_sample": False, "eos_token_id": None}
    whole = model.generate(ids, past_key_values=FullCache().cache(model), **options)
    roomy = LazyEviction(budget=4_096, window=WINDOW).cache(model)
    identical = torch.equal(model.generate(ids, past_key_values=roomy, **options), whole)
    answer = whole[:, len(prompt) :]
    for name, policy in policies.items():
        cache = policy_cache([policy], model)
        call(model, ids, cache)
        logits = answer_logits(model, answer, cache, step=WINDOW)
        nll[name] = float(F.cross_entropy(logits, answer[0, 1:]))
        if name == "lazy":
            peak = max(layer.peak for layer in cache.report().layers) - len(prompt)
    return {"identical": int(identical), "peak": peak, "nll": nll}
