"""What each signal of mnemic's ranking is worth: each left out in turn, and each alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from mnemic.bench.bootstrap import Values, interval, paired_difference
from mnemic.bench.locomo import Dialogue
from mnemic.bench.markdown import table
from mnemic.bench.metrics import recall_at_k
from mnemic.bench.systems import System
from mnemic.plaintext.recall.rank import Weights

Step = Callable[[str], None]
MakeOurs = Callable[[Weights], System]


def signals(weights: Weights) -> list[str]:
    """Names of the signals, one field of Weights each."""
    return [field.name for field in fields(weights)]


def recalls(system: System, dialogues: Sequence[Dialogue], k: int = 10) -> Values:
    """recall@k of every question, dialogue by dialogue: (questions,)."""
    found = []
    for dialogue in dialogues:
        with tempfile.TemporaryDirectory(prefix="mnemic-bench-") as folder:
            system.open(Path(folder))
            try:
                system.add(dialogue.turns)
                for question in dialogue.retrieval_questions():
                    found.append(recall_at_k(system.search(question.text, k), question.evidence, k))
            finally:
                system.close()
    return np.array(found, dtype=np.float64)


def ablation(
    dialogues: Sequence[Dialogue], weights: Weights, make: MakeOurs, step: Step = lambda _: None
) -> dict[str, Any]:
    """recall@10 with all signals, without each (with the paired interval of the loss), and with each alone.

    Two runs over the dialogues for each signal. A loss that is not told apart from zero does not show that a
    signal is useless elsewhere; one below zero says that it costs recall here.
    """
    whole = recalls(make(weights), dialogues)
    step("all signals")
    estimate = interval(whole)
    rows = {}
    for name in signals(weights):
        less = recalls(make(replace(weights, **{name: 0.0})), dialogues)
        loss = paired_difference(whole, less)
        alone = recalls(make(_only(weights, name)), dialogues)
        step(name)
        rows[name] = {
            "weight": getattr(weights, name),
            "without": float(less.mean()),
            "loss": [loss.mean, loss.low, loss.high],
            "alone": float(alone.mean()),
        }
    return {"questions": len(whole), "all": [estimate.mean, estimate.low, estimate.high], "signals": rows}


def ablation_markdown(found: dict[str, Any], command: str) -> str:
    """The table, the most valuable signal first."""
    order = sorted(found["signals"], key=lambda name: -found["signals"][name]["loss"][0])
    rows = []
    for name in order:
        of = found["signals"][name]
        loss = f"{of['loss'][0]:+.4f} [{of['loss'][1]:+.4f}, {of['loss'][2]:+.4f}]"
        rows.append([name, f"{of['weight']:.3g}", f"{of['without']:.3f}", loss, f"{of['alone']:.3f}"])
    mean, low, high = found["all"]
    said = f"recall@10 with all signals: {mean:.3f} [{low:.3f}, {high:.3f}], {found['questions']} questions."
    header = ["signal", "weight", "recall@10 without it", "loss [95 %, paired]", "recall@10 alone"]
    return (
        "\n\n".join(["# What each signal is worth on LoCoMo", f"`{command}`", said, table(header, rows)])
        + "\n"
    )


def _only(weights: Weights, name: str) -> Weights:
    return replace(weights, **{other: 0.0 for other in signals(weights) if other != name})
