"""Tokens a second of decoding, policies against the stock cache, at one context length, in alternating
rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import DynamicCache

from mnemic.activation.cache import PolicyCache
from mnemic.activation.full import FullCache
from mnemic.activation.h2o import H2O
from mnemic.activation.lazy import LazyEviction
from mnemic.activation.policy import Policy
from mnemic.activation.snapkv import SnapKV
from mnemic.activation.taskkv import TaskKV


def policies() -> dict[str, Policy | None]:
    """One that evicts nothing, one uniform, two ragged, two that look at every step; half of the prompt
    stays.

    None: the stock cache.
    """
    return {
        "stock": None,
        "full": FullCache(),
        "snapkv": SnapKV(budget=0.5),
        "snapkv-adaptive": SnapKV(budget=0.5, adaptive=True),
        "taskkv": TaskKV(budget=0.5),
        "lazy": LazyEviction(budget=0.5, protect_prompt=False),
        "h2o": H2O(budget=0.5, protect_prompt=False),
    }


def decode(
    model: Any,
    lengths: Sequence[int],
    *,
    steps: int,
    rounds: int,
    report: Callable[[str], None],
    vocabulary: int,
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """length -> policy -> numbers: "tokens_per_s" and "tokens_per_cpu_s", one a round, and "mb" at the start.

    Processor time is what other programs disturb less. The prompt is read once; every cache starts from a
    copy of it.
    """
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for length in lengths:
        ids = torch.randint(5, vocabulary, (1, length), generator=torch.Generator().manual_seed(length))
        with torch.no_grad():
            start = FullCache(queries=32).cache(model)
            model.model(input_ids=ids, past_key_values=start)
            report(f"{length} prompt")
            caches = {name: _started(model, start, policy) for name, policy in policies().items()}
            cells: dict[str, dict[str, list[float]]] = {
                name: {"tokens_per_s": [], "tokens_per_cpu_s": [], "mb": [_bytes(cache) / 1e6]}
                for name, cache in caches.items()
            }
            token = ids[:, -1:]
            for number in range(rounds):
                for name, cache in caches.items():
                    model(input_ids=token, past_key_values=cache)  # warm
                    began, spent = time.perf_counter(), time.process_time()
                    for _ in range(steps):
                        model(input_ids=token, past_key_values=cache)
                    cells[name]["tokens_per_s"].append(steps / (time.perf_counter() - began))
                    cells[name]["tokens_per_cpu_s"].append(steps / (time.process_time() - spent))
                report(f"{length} round {number}")
        found[str(length)] = cells
    return found


def _started(model: Any, start: PolicyCache, policy: Policy | None) -> Any:
    """The prompt's cache as this policy would go on with it."""
    if policy is None:
        stock = DynamicCache(config=model.config)
        for layer in start.policy_layers():
            stock.update(layer.keys(), layer.values(), layer.layer_idx)
        return stock
    cache = start.clone()
    cache.go_on_under(policy)
    if policy.evicts:
        cache.compress(policy)
    return cache


def _bytes(cache: Any) -> int:
    if hasattr(cache, "resident_bytes"):
        return int(cache.resident_bytes())
    return sum(t.untyped_storage().nbytes() for layer in cache.layers for t in (layer.keys, layer.values))
