"""Adapters are real and reversible (MemOS, E3), and erasure reaches them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from mnemic.bench.invented import Inventor
from mnemic.cube.errors import NotLearned, StaleMemory
from mnemic.memory import Memory
from mnemic.memory import open as open_memory
from mnemic.models.fingerprint import fingerprint
from mnemic.models.local import LocalModel
from mnemic.parametric.gate import Gate, GateReport, first, ranks
from mnemic.parametric.keeping import look
from mnemic.parametric.lora_cube import load
from mnemic.parametric.lora_training import Recipe
from mnemic.parametric.questions import choices
from mnemic.transform.paraphrases import Templates, facts_of

FACTS: Final = 20
RECIPE: Final = Recipe(epochs=12, learning_rate=2e-3, precision="bfloat16")
UNRELATED_BYTES: Final = 20_000
Step = Callable[[str, str], None]


def run(
    model: LocalModel, folder: Path, unrelated: str, *, seed: int, step: Step = lambda *_: None
) -> dict[str, Any]:
    """Twenty invented facts learned, measured, unmounted; then one is erased and the rest learned again.

    Three trainings, one of them the shuffled control. Seconds are of the processor.
    """
    invent = Inventor(seed)
    codes = [(invent.word(), invent.random.randrange(10_000)) for _ in range(FACTS)]
    told = [f"The locker code of {name} is {code:04}." for name, code in codes]
    gate = Gate(unrelated=unrelated[:UNRELATED_BYTES])
    before = _state(model)
    with open_memory(folder / f"adapters-{seed}.db") as memory:
        ids = [memory.add(text, user="lockers")[0].id for text in told]
        started = time.process_time()
        spent: dict[str, float] = {}

        def progress(what: str, done: int, total: int) -> None:
            spent[what] = time.process_time() - started
            if done == total:
                step("adapters", f"seed {seed}: {what} after {spent[what]:.0f} s")

        try:
            adapter = memory.as_adapter(ids, model, recipe=RECIPE, gate=gate, progress=progress)
        except NotLearned as refused:
            return {"stored": False, "report": refused.report.as_dict(), "seconds": spent}
        report = GateReport.of_dict(look(memory._parts.vault, adapter.id).described.report)
        with memory.mount(model, adapter):
            pass
        found = {
            "stored": True,
            "report": report.as_dict(),
            "train_s": spent["training"],
            "bytes": load(memory._parts.vault, adapter).nbytes,
            "weights_bit_equal": _state(model) == before,
            "erasure": _erase_one(memory, model, ids, adapter.id, gate, step),
        }
    found["weights_bit_equal_after_all"] = _state(model) == before
    return found


def _state(model: LocalModel) -> tuple[str, list[int], bytes]:
    """Weights by their hash, hooks by their number, and logits to the bit."""
    with torch.no_grad():
        said = model.model(torch.tensor([model.encode("The locker code of")])).logits
    hooks = [len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.model.modules()]
    return fingerprint(model, verify="full").weights, hooks, said.numpy().tobytes()


def _erase_one(
    memory: Memory, model: LocalModel, ids: list[str], adapter: str, gate: Gate, step: Step
) -> dict[str, Any]:
    """Ranks of the erased answer, and accuracy on the others, before and after."""
    facts = facts_of([memory.get(one) for one in ids], Templates())
    among = choices(facts, gate.candidates, RECIPE.seed)
    victim = 0
    base = ranks(model, facts[:1], among[:1])
    with memory.mount(model, adapter):
        knew = ranks(model, facts[:1], among[:1])
        others = first(ranks(model, facts[1:], among[1:]))
    memory.erase(ids[victim], reason="the locker was given away")
    try:
        with memory.mount(model, adapter):
            served = True
    except StaleMemory:
        served = False
    again = memory.as_adapter(
        ids[1:], model, recipe=RECIPE, gate=Gate(control=False, unrelated=gate.unrelated, learned=0.0)
    )
    with memory.mount(model, again):
        now = ranks(model, facts[:1], among[:1])
        still = first(ranks(model, facts[1:], among[1:]))
    step("adapters", f"erased answer ranked {knew}, now {now}; alone {base}")
    return {
        "served_after_erasure": served,
        "rank_alone": base,
        "rank_before": knew,
        "rank_after": now,
        "others_before": others,
        "others_after": still,
    }


def demands(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """E3's, and that erasure reaches adapters; the worst seed decides."""
    reports = [GateReport.of_dict(one["report"]) for one in runs]
    stored = [one for one in runs if one["stored"]]
    erasures = [one["erasure"] for one in stored]
    gains = [one.right / max(one.right_base, one.chance) for one in reports]
    worse = [one.perplexity_ratio - 1 for one in reports]
    control = [one.right_control or 0.0 for one in reports]
    limit = reports[0].chance + 3 * (reports[0].chance * (1 - reports[0].chance) / FACTS) ** 0.5
    lost = [one["others_before"] - one["others_after"] for one in erasures]
    nearer = [
        min(one["rank_after"]) - min(one["rank_before"]) for one in erasures
    ]  # it ranked first, and does so no more
    seconds = [one["train_s"] for one in stored]
    equal = [one["weights_bit_equal"] and one["weights_bit_equal_after_all"] for one in stored]
    served = [one["served_after_erasure"] for one in erasures]
    some = bool(stored)
    out = [
        ("held-out answers ranked first, against the model alone", ">= 3 times", gains, min(gains) >= 3),
        ("perplexity of 20 kB of unrelated text rises by", "<= 10 %", worse, max(worse) <= 0.1),
        ("shuffled control right on the true answers", f"<= {limit:.0%}", control, max(control) <= limit),
        ("training, processor seconds", "<= 480", seconds, some and max(seconds) <= 480),
        ("passed its gate and was stored", "all", len(stored), len(stored) == len(runs)),
        ("weights, hooks and logits after unmounting", "bit-equal", equal, some and all(equal)),
        ("an adapter whose source was erased is served", "never", served, some and not any(served)),
        ("places an erased answer falls by retraining", ">= 1", nearer, some and min(nearer) >= 1),
        ("accuracy lost on the remaining answers", "<= 0.05", lost, some and max(lost) <= 0.05),
    ]
    return [{"what": w, "demanded": d, "measured": m, "met": bool(ok)} for w, d, m, ok in out]
