"""Task-KV's experiments: are the chosen heads the right ones, do they depend on the task, what is each part
worth?
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from statistics import fmean
from typing import Any, Final

import torch
import torch.nn.functional as F

from mnemic.activation.cache import policy_cache
from mnemic.activation.full import FullCache
from mnemic.activation.policy import Policy
from mnemic.activation.random_eviction import RandomEviction
from mnemic.activation.snapkv import SnapKV
from mnemic.activation.streaming import StreamingLLM
from mnemic.activation.taskkv import TaskKV, decisions
from mnemic.bench.kv.items import Item
from mnemic.bench.kv.measure import Keep, answer_logits, at_once, call

WINDOW: Final = 32


RANDOM: Final = 5


def variants(share: float, seed: int) -> dict[str, list[Policy]]:
    """Task-KV, its heads chosen wrongly, its parts left out, and the baselines, at one budget.

    Several random choices of heads, because much depends on which heads they are.
    """
    own: dict[str, Any] = {
        "budget": share, "beta": 0.3, "m": 1, "top_t": 256, "window": WINDOW, "sinks": 4, "recent": 32,
        "granularity": "query",
    }  # fmt: skip
    plain: dict[str, Any] = {"budget": share, "protect_prompt": False, "window": WINDOW}
    return {
        "taskkv": [TaskKV(**own)],
        "taskkv, nearest heads": [TaskKV(**own, heads="near")],
        "taskkv, random heads": [
            TaskKV(**own, heads="random", seed=RANDOM * seed + i) for i in range(RANDOM)
        ],
        "taskkv, by cosine": [TaskKV(**own, metric="cosine")],
        "taskkv, no closest head": [TaskKV(**own, closest=False)],
        "taskkv, closest added": [TaskKV(**own, extra_center=True)],
        "taskkv, no middle": [TaskKV(**own, middle=False)],
        "snapkv": [SnapKV(budget=share, window=WINDOW)],
        "streaming": [StreamingLLM(**plain)],
        "random tokens": [RandomEviction(**plain, seed=seed)],
    }


def reread(
    model: Any,
    items: Sequence[Item],
    shares: Sequence[float],
    report: Callable[[str], None],
    keep: Keep = at_once,
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """policy -> share -> for each text: KL to the full cache and the NLL's increase on a passage read again.

    Keys are stored for each query head, for all alike, so that there are heads to choose from. `kls`: of each
    variant's choices, one by one; base: the full cache's own NLL of the passage.
    """
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for seed, item in enumerate(items):
        cells = keep(f"reread {item.name}", partial(_reread, model, item, shares, seed))
        for name, by_share in (cells or {}).items():
            for share, cell in by_share.items():
                found.setdefault(name, {}).setdefault(share, []).append(cell)
        report(item.name)
    return found


@torch.no_grad()
def _reread(model: Any, item: Item, shares: Sequence[float], seed: int) -> dict[str, dict[str, Any]]:
    """policy -> share -> a cell, on one text."""
    found: dict[str, dict[str, Any]] = {}
    prompt, answer = torch.tensor([item.prompt]), torch.tensor([item.answer])
    start = policy_cache([FullCache(queries=WINDOW)], model, granularity="query")
    call(model, prompt, start)
    truth = answer_logits(model, answer, start.clone(), step=len(item.answer)).log_softmax(-1)
    base = float(F.nll_loss(truth, answer[0, 1:]))
    for share in shares:
        for name, policies in variants(share, seed).items():
            kls, losses, kept = [], [], 0
            for policy in policies:
                cache = start.clone()
                cache.compress(policy)
                logits = answer_logits(model, answer, cache, step=len(item.answer)).log_softmax(-1)
                kl = F.kl_div(logits, truth, log_target=True, reduction="none").sum(-1).mean()
                kls.append(float(kl))
                losses.append(float(F.nll_loss(logits, answer[0, 1:])) - base)
                kept = sum(sum(layer.kept[0]) for layer in cache.report().layers)
            cell = {"kl": fmean(kls), "kls": kls, "loss": fmean(losses), "base": base, "kept": kept}
            found.setdefault(name, {})[str(share)] = cell
    return found


def families(encode: Callable[[str], list[int]], *, seed: int = 0) -> dict[str, list[list[int]]]:
    """Five prompts each of copying, arithmetic in words, and sorting, of like length."""
    rng = random.Random(seed)  # noqa: S311  # not for secrets
    words = ["river", "stone", "lamp", "paper", "engine", "violet", "harbour", "copper", "winter", "saddle"]
    names = ["Ana", "Tom", "Mia", "Leo", "Eva", "Max", "Ida", "Ben"]
    goods = ["apples", "pens", "books", "coins", "stamps"]

    def copying() -> str:
        said = " ".join(rng.choice(words) for _ in range(60))
        return f"Repeat the following text word for word.\n{said}\nThe text again:\n"

    def counting() -> str:
        steps = [
            f"{rng.choice(names)} has {rng.randrange(3, 90)} {rng.choice(goods)} "
            f"and buys {rng.randrange(2, 40)} more."
            for _ in range(8)
        ]
        return f"Solve the problem step by step.\n{' '.join(steps)} How many are there in all?\nAnswer:\n"

    def sorting() -> str:
        said = ", ".join(str(rng.randrange(1, 999)) for _ in range(45))
        return f"Sort the list from small to large.\n{said}\nSorted:\n"

    made = {"copy": copying, "arithmetic": counting, "sort": sorting}
    return {name: [encode(make()) for _ in range(5)] for name, make in made.items()}


def task_dependence(model: Any, prompts: dict[str, list[list[int]]]) -> dict[str, Any]:
    """Overlap (Jaccard) of the full heads of two prompts: mean within a family and between families, by
    layer.
    """
    policy = TaskKV(
        budget=0.6, beta=0.3, m=1, window=WINDOW, sinks=4, recent=32, closest=False, granularity="query"
    )
    chosen: list[tuple[str, list[frozenset[int]]]] = []
    with torch.no_grad():
        for family, several in prompts.items():
            for prompt in several:
                cache = policy.cache(model)
                call(model, torch.tensor([prompt]), cache)
                chosen.append((family, [decision.full for decision in decisions(cache)]))
    layers = len(chosen[0][1])
    within: list[list[float]] = [[] for _ in range(layers)]
    between: list[list[float]] = [[] for _ in range(layers)]
    for (one, a), (other, b) in combinations(chosen, 2):
        for layer in range(layers):
            overlap = len(a[layer] & b[layer]) / len(a[layer] | b[layer])
            (within if one == other else between)[layer].append(overlap)
    apart = [(sum(w) / len(w), sum(b) / len(b)) for w, b in zip(within, between, strict=True)]
    shares = [
        [sum(head in full[layer] for _, full in chosen) / len(chosen) for head in range(heads_of(model))]
        for layer in range(layers)
    ]
    return {
        "within": sum(w for w, _ in apart) / layers,
        "between": sum(b for _, b in apart) / layers,
        "layers": apart,
        "how often full": shares,
    }


def heads_of(model: Any) -> int:
    return int(model.config.get_text_config(decoder=True).num_attention_heads)
