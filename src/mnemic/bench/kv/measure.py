"""Every policy on every item at equal budgets: how likely the right tokens stay, and what the cache weighs.

A prompt is prefilled once with everything kept; each policy then cuts a copy of that cache (H2O, which must
see every row, and KVzip, which reads twice, prefill for themselves). Decode policies are fed the answer in
calls of one window: nothing is evicted inside a window, so that is the same as token by token, and many times
faster.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from mnemic.activation.cache import policy_cache
from mnemic.activation.full import FullCache
from mnemic.activation.h2o import H2O
from mnemic.activation.kvzip import KVzip
from mnemic.activation.lazy import LazyEviction
from mnemic.activation.policy import Policy
from mnemic.activation.random_eviction import RandomEviction
from mnemic.activation.snapkv import SnapKV
from mnemic.activation.streaming import StreamingLLM
from mnemic.activation.taskkv import TaskKV
from mnemic.activation.tova import TOVA
from mnemic.bench.kv.items import Item

WINDOW: Final = 32
Row = dict[str, Any]
Keep = Callable[[str, Callable[[], Any]], Any]  # `Parts.keep`


def at_once(name: str, measure: Callable[[], Any]) -> Any:  # noqa: ARG001
    """Where nothing is kept for another run."""
    return measure()


def prompt_policies(share: float) -> dict[str, Policy]:
    """Cut a prompt to `share` of its tokens; windows and newest tokens are counted within it, for all
    alike.
    """
    same: dict[str, Any] = {"budget": share, "window": WINDOW, "protect_prompt": False}
    return {
        "snapkv": SnapKV(budget=share, window=WINDOW),
        "snapkv-adaptive": SnapKV(budget=share, window=WINDOW, adaptive=True),
        "taskkv": TaskKV(budget=share, window=WINDOW, recent=WINDOW),
        "kvzip": KVzip(budget=share),
        "h2o": H2O(**same),
        "tova": TOVA(**same),
        "streaming": StreamingLLM(**same),
        "random": RandomEviction(**same),
    }


def decode_policies(tokens: int, prompt: int) -> dict[str, Policy]:
    """Hold at most `tokens` tokens of output, with the same window for all.

    The prompt is protected, and counted apart; those named "-all" hold as many tokens, and let those of the
    prompt compete with the others.
    """
    held = max(tokens, WINDOW + 1)
    same: dict[str, Any] = {"budget": held, "window": WINDOW}
    every: dict[str, Any] = {"budget": prompt + held, "window": WINDOW, "protect_prompt": False}
    return {
        "lazy": LazyEviction(**same),
        "lazy-code": LazyEviction(**same, score="code"),
        "h2o": H2O(**same),
        "tova": TOVA(**same),
        "streaming": StreamingLLM(**same),
        "random": RandomEviction(**same),
        "lazy-all": LazyEviction(**every),
        "h2o-all": H2O(**every),
        "tova-all": TOVA(**every),
    }


def measure(
    model: Any,
    items: Sequence[Item],
    budgets: Sequence[float],
    out: Path,
    report: Callable[[str], None],
    *,
    at_most: int | None = None,
) -> list[Row]:
    """Rows for every item, policy and budget; `out` (JSON lines) is appended to, and goes on where it
    ended. at_most: items that are measured now; the others' rows are missing.
    """
    fresh_items = 0
    done = _read(out)
    rows = [row for row in done.values() if any(row["name"] == item.name for item in items)]
    for item in items:
        wanted = {(item.name, "full", 1.0)} | {
            (item.name, name, share) for share in budgets for name in _policies(item, share)
        }
        if wanted <= done.keys() or fresh_items == at_most:
            continue
        fresh_items += 1
        with torch.no_grad():
            fresh = [row for row in _item(model, item, budgets) if _key(row) not in done]
        with out.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in fresh)
        rows += fresh
        report(item.name)
    return rows


def _policies(item: Item, share: float) -> dict[str, Policy]:
    if item.decode:
        return decode_policies(int(share * len(item.answer)), len(item.prompt))
    return prompt_policies(share)


def _item(model: Any, item: Item, budgets: Sequence[float]) -> Iterator[Row]:
    prompt, answer = torch.tensor([item.prompt]), torch.tensor([item.answer])
    full = FullCache(queries=WINDOW).cache(model)
    call(model, prompt, full)
    start = full.clone()
    masses = H2O(budget=1 << 40).cache(model)
    if not item.decode:
        call(model, prompt, masses)
    truth = answer_logits(model, answer, full, step=len(item.answer))
    yield _row(item, "full", 1.0, truth, truth, answer, full.resident_bytes())
    for share in budgets:
        for name, policy in _policies(item, share).items():
            if item.decode:
                cache = policy_cache([policy], model)
                call(model, prompt, cache)
            elif isinstance(policy, KVzip):  # reads for itself, twice
                cache = policy.read(model, prompt)
            else:
                cache = (masses if policy.needs.prompt else start).clone()
                cache.compress(policy)
            size = cache.resident_bytes()
            logits = answer_logits(model, answer, cache, step=WINDOW if item.decode else len(item.answer))
            size = cache.resident_bytes() if item.decode else size
            yield _row(item, name, share, logits, truth, answer, size)


def call(model: Any, ids: Tensor, cache: Any) -> Tensor:
    """Logits (tokens, vocabulary) float32 of the last call."""
    logits: Tensor = model(input_ids=ids, past_key_values=cache).logits[0].float()
    return logits


def answer_logits(model: Any, answer: Tensor, cache: Any, *, step: int) -> Tensor:
    """(A - 1, vocabulary): what was expected after each token of the answer but the last."""
    ids = answer[:, :-1]
    return torch.cat([call(model, ids[:, at : at + step], cache) for at in range(0, ids.shape[1], step)])


def _row(
    item: Item, policy: str, share: float, logits: Tensor, truth: Tensor, answer: Tensor, size: int
) -> Row:
    found, wanted, target = logits.log_softmax(-1), truth.log_softmax(-1), answer[0, 1:]
    return {
        "family": item.family,
        "name": item.name,
        "policy": policy,
        "budget": share,
        "nll": float(F.nll_loss(found, target)),
        "kl": float(F.kl_div(found, wanted, log_target=True, reduction="none").sum(-1).mean()),
        "agree": float((found.argmax(-1) == wanted.argmax(-1)).float().mean()),
        "correct": float((found.argmax(-1) == target).float().mean()),
        "bytes": size,
        "tokens": len(item.prompt) + len(item.answer),
    }


def _key(row: Row) -> tuple[str, str, float]:
    return row["name"], row["policy"], row["budget"]


def _read(path: Path) -> dict[tuple[str, str, float], Row]:
    if not path.exists():
        return {}
    return {_key(row): row for row in map(json.loads, path.read_text().splitlines())}
