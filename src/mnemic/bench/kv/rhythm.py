"""Synthetic recurrence: does a policy hold what falls silent and comes back? One head, no model, seconds.

64 prompt tokens, 40 of them "conditions" that are looked at every P steps (P from 40 to 150); sinks and
recent tokens draw most attention, in one of two patterns; the rest is spread evenly. Half-way, in the phase
variant, half of the conditions stop and 40 newer tokens take their place. Score: the share of scheduled looks
whose slot is still there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from mnemic.activation.h2o import H2O
from mnemic.activation.lazy import LazyEviction
from mnemic.activation.policy import Policy
from mnemic.activation.random_eviction import RandomEviction
from mnemic.activation.streaming import StreamingLLM
from mnemic.activation.tova import TOVA
from mnemic.bench.kv.simulate import held_when

PROMPT: Final = 64
STEPS: Final = 1_500
BUDGET: Final = 160
WINDOW: Final = 64
LOOK: Final = 0.02
WARM, CHANGE, SETTLED = 600, 1_000, 1_300

Plan = dict[int, tuple[int, int, int, int]]
"""token -> (period, phase, first step, step after the last)"""


def policies(seed: int = 0) -> dict[str, Policy]:
    """The table's rows; all protect the newest 64 and no prompt."""
    same: dict[str, Any] = {"budget": BUDGET, "window": WINDOW, "protect_prompt": False}
    lazy: dict[str, Any] = {**same, "alpha": 5e-3}
    return {
        "lazy, gated": LazyEviction(**lazy),
        "lazy, code": LazyEviction(**lazy, score="code"),
        "lazy, paper": LazyEviction(**lazy, score="paper"),
        "last use alone": LazyEviction(**lazy, score="last"),
        "h2o": H2O(**same),
        "h2o, every step": H2O(**(same | {"window": 1}), recent=WINDOW),
        "tova": TOVA(**same),
        "streaming": StreamingLLM(**same),
        "random": RandomEviction(**same, seed=seed),
    }


def conditions(seed: int, *, phase: bool) -> Plan:
    """Which tokens are looked at, and when."""
    rng = np.random.default_rng(seed)
    found: Plan = {}
    for token in rng.choice(np.arange(4, PROMPT), 40, replace=False):
        period = int(rng.integers(40, 151))
        found[int(token)] = (period, int(rng.integers(period)), 1, STEPS + 1)
    if phase:
        for token in list(found)[:20]:
            found[token] = (*found[token][:2], 1, CHANGE)
        for step in rng.choice(np.arange(900, 1_000), 40, replace=False):
            period = int(rng.integers(40, 151))
            found[PROMPT - 1 + int(step)] = (period, int(rng.integers(period)), CHANGE, STEPS + 1)
    return found


def looks(plan: Plan, step: int) -> list[int]:
    """The tokens that are looked at in a step."""
    return [
        token
        for token, (period, phase, first, end) in plan.items()
        if first <= step < end and step % period == phase
    ]


def rows(plan: Plan, pattern: str) -> Iterator[Tensor]:
    """(T,) attention of every step; pattern: "burst" or "irregular"."""
    for step in range(1, STEPS + 1):
        length = PROMPT + step
        row = np.zeros(length)
        row[:4] += 0.3 / 4
        ages = np.arange(8) if pattern == "burst" else np.arange(0, 24, 3)
        row[length - 1 - ages] += 0.3 / len(ages)
        for token in looks(plan, step):
            row[token] += LOOK
        row += max(0.0, 1.0 - row.sum()) / length
        yield torch.from_numpy(row).float()


def score(policy: Policy, seed: int, pattern: str, *, phase: bool) -> dict[str, float]:
    """`all`: share of looks after step 600 that were held; `new`: of the newer conditions, after step
    1,300.
    """
    plan = conditions(seed, phase=phase)
    old, new = [], []
    peak = 0
    for step, (layer, held) in enumerate(held_when(policy, rows(plan, pattern), prompt=PROMPT), start=1):
        peak = layer.peak
        for token in looks(plan, step):
            if step > WARM:
                old.append(bool(held[token]))
            if step > SETTLED and token >= PROMPT:
                new.append(bool(held[token]))
    return {"all": float(np.mean(old)), "new": float(np.mean(new)) if new else float("nan"), "peak": peak}


def run(seeds: tuple[int, ...] = (0, 1), report: Any = None) -> dict[str, Any]:
    """Every policy, both patterns, stationary and with the change; a list over seeds in each cell."""
    table: dict[str, Any] = {}
    for name in policies():
        cells: dict[str, list[float]] = {}
        for seed in seeds:
            for pattern in ("burst", "irregular"):
                still = score(policies(seed)[name], seed, pattern, phase=False)
                moved = score(policies(seed)[name], seed, pattern, phase=True)
                cells.setdefault(f"{pattern} stationary", []).append(still["all"])
                cells.setdefault(f"{pattern} phase", []).append(moved["all"])
                cells.setdefault(f"{pattern} new", []).append(moved["new"])
                cells.setdefault("peak", []).append(max(still["peak"], moved["peak"]))
        table[name] = cells
        if report is not None:
            report(name)
    return table
