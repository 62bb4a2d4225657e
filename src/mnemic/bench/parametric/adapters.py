"""Adapters are real and reversible (MemOS, E3), and erasure reaches them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from mnemic.bench.invented import Inventor
from mnemic.cube.errors import NotLearned, StaleMemory
from mnemic.memory import open as open_memory
from mnemic.models.fingerprint import fingerprint
from mnemic.models.local import LocalModel
from mnemic.parametric.gate import Gate, GateReport, ranks
from mnemic.parametric.keeping import listing, look
from mnemic.parametric.lora_cube import load
from mnemic.parametric.lora_training import Recipe
from mnemic.parametric.questions import choices
from mnemic.transform.paraphrases import Templates, facts_of

FACTS: Final = 20
RECIPE: Final = Recipe(precision="bfloat16")  # what a user gets, but for the precision
UNRELATED_BYTES: Final = 20_000
Step = Callable[[str, str], None]


def learn(
    model: LocalModel, folder: Path, unrelated: str, *, seed: int, step: Step = lambda *_: None
) -> dict[str, Any]:
    """Twenty invented facts learned, tested beside a shuffled control, mounted and unmounted.

    Two trainings. Seconds are of the processor. What was learned stays in a vault in `folder`.
    """
    gate = Gate(unrelated=unrelated[:UNRELATED_BYTES])
    before = _state(model)
    place = _place(folder, seed)
    place.unlink(missing_ok=True)
    with open_memory(place) as memory:
        ids = [memory.add(text, user="lockers")[0].id for text in told(seed)]
        started = time.process_time()
        spent: dict[str, float] = {}

        def progress(what: str, done: int, total: int) -> None:
            spent[what] = time.process_time() - started
            if done == total:
                step("adapters", f"seed {seed}: {what} after {spent[what]:.0f} s")

        try:
            adapter = memory.as_adapter(ids, model, recipe=RECIPE, gate=gate, progress=progress)
        except NotLearned as refused:
            return {
                "stored": False,
                "report": refused.report.as_dict(),
                "train_s": spent["training"],
                "weights_bit_equal": _state(model) == before,
            }
        with memory.mount(model, adapter):
            pass
        return {
            "stored": True,
            "report": dict(look(memory._parts.vault, adapter.id).described.report),
            "train_s": spent["training"],
            "bytes": load(memory._parts.vault, adapter).nbytes,
            "weights_bit_equal": _state(model) == before,
        }


def erase(model: LocalModel, folder: Path, *, seed: int, step: Step = lambda *_: None) -> dict[str, Any]:
    """One of the facts that `learn` left is erased, and the others are learned again. One training."""
    before = _state(model)
    with open_memory(_place(folder, seed)) as memory:
        vault = memory._parts.vault
        (old,) = listing(vault)
        ids = [one.cube_id for one in old.cube.header.sources]
        facts = facts_of([memory.get(one) for one in ids], Templates())
        among = choices(facts, Gate().candidates, RECIPE.seed)
        alone = ranks(model, facts[:1], among[:1])
        with memory.mount(model, old.cube):
            knew = ranks(model, facts[:1], among[:1])
        memory.erase(ids[0], reason="the locker was given away")
        try:
            with memory.mount(model, old.cube):
                served = True
        except StaleMemory:
            served = False
        gate = Gate(control=False, learned=0.0, perplexity=2.0)
        again = memory.as_adapter(ids[1:], model, recipe=RECIPE, gate=gate)
        with memory.mount(model, again):
            now = ranks(model, facts[:1], among[:1])
        report = GateReport.of_dict(look(vault, again.id).described.report)
    step("adapters", f"erased answer ranked {knew}, now {now}; alone {alone}")
    return {
        "served_after_erasure": served,
        "rank_alone": alone,
        "rank_before": knew,
        "rank_after": now,
        "others_before": _without(GateReport.of_dict(old.described.report), knew),
        "others_after": report.right,
        "weights_bit_equal": _state(model) == before,
    }


def _without(report: GateReport, asked: list[int]) -> float:
    """The share that was right of the other questions; asked: how one fact's ranked."""
    right = report.right * report.questions - asked.count(1)
    return right / (report.questions - len(asked))


def told(seed: int, count: int | None = None) -> list[str]:
    """Statements about lockers of people that there are not: FACTS, or `count`."""
    invent = Inventor(seed)
    codes = [(invent.word(), invent.random.randrange(10_000)) for _ in range(count or FACTS)]
    return [f"The locker code of {name} is {code:04}." for name, code in codes]


def _place(folder: Path, seed: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"adapters-{seed}.db"


def _state(model: LocalModel) -> tuple[str, list[int], bytes]:
    """Weights by their hash, hooks by their number, and logits to the bit."""
    with torch.no_grad():
        said = model.model(torch.tensor([model.encode("The locker code of")])).logits
    hooks = [len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.model.modules()]
    return fingerprint(model, verify="full").weights, hooks, said.numpy().tobytes()


def demands(learned: list[dict[str, Any]], erased: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """E3's, and that erasure reaches adapters; the worst seed decides."""
    reports = [GateReport.of_dict(one["report"]) for one in learned]
    chance = reports[0].chance
    limit = chance + 3 * (chance * (1 - chance) / FACTS) ** 0.5
    gains = [one.right / max(one.right_base, one.chance) for one in reports]
    worse = [one.perplexity_ratio - 1 for one in reports]
    control = [one.right_control or 0.0 for one in reports]
    seconds = [one["train_s"] for one in learned]
    kept = [one["stored"] for one in learned]
    equal = [one.get("weights_bit_equal", False) for one in (*learned, *erased)]
    out: list[tuple[str, str, Any, bool]] = [
        ("held-out answers ranked first, against the model alone", ">= 3 times", gains, min(gains) >= 3),
        ("perplexity of 20 kB of unrelated text rises by", "<= 0.10", worse, max(worse) <= 0.1),
        ("shuffled control right on the true answers", f"<= {limit:.2f}", control, max(control) <= limit),
        ("training, processor seconds", "<= 480", seconds, max(seconds) <= 480),
        ("passed its gate and was stored", "all", kept, all(kept)),
        ("weights, hooks and logits after unmounting are the same to the bit", "all", equal, all(equal)),
    ]
    if erased:
        served = [one["served_after_erasure"] for one in erased]
        near = [sum(one["rank_after"]) / sum(one["rank_alone"]) for one in erased]
        lost = [one["others_before"] - one["others_after"] for one in erased]
        out += [
            ("an adapter whose source was erased is served", "never", served, not any(served)),
            ("rank of the erased answer, over the model alone's", ">= 0.5", near, min(near) >= 0.5),
            ("accuracy lost on the remaining answers", "<= 0.05", lost, max(lost) <= 0.05),
        ]
    return [{"what": w, "demanded": d, "measured": m, "met": bool(ok)} for w, d, m, ok in out]
