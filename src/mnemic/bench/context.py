"""What a context holds of the evidence: `mem.context` beside the plainest uses of the same budget."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mnemic.bench.baselines import BM25, Recent
from mnemic.bench.bootstrap import interval, paired_difference
from mnemic.bench.locomo import Dialogue, Turn
from mnemic.bench.markdown import table
from mnemic.bench.metrics import evidence_in
from mnemic.bench.ours import Mnemic
from mnemic.bench.pack import pack
from mnemic.bench.systems import System
from mnemic.bench.tokens import TOKENIZER, count_tokens

BUDGETS: Final = (1000, 2000, 4000)
Step = Callable[[str, str], None]
Values = NDArray[np.float64]


class TopK(Mnemic):
    """The hits of `mem.search`, best first, as many as fit, without references: not to be lost to."""

    name = "top-k hits"

    def add(self, turns: Sequence[Turn]) -> None:
        super().add(turns)
        self.turns = {turn.id: turn for turn in turns}

    def context(self, question: str, budget: int) -> str:
        return pack((self.turns[id] for id in self.search(question, budget // 5 + 1)), budget)


SYSTEMS: Final[dict[str, Callable[[], System]]] = {
    "mnemic": Mnemic,
    "top-k hits": TopK,
    "top-k BM25": BM25,
    "most recent": Recent,
}


def run(
    dialogues: Sequence[Dialogue], budgets: Sequence[int] = BUDGETS, step: Step = lambda *_: None
) -> dict[str, Any]:
    """Share of the gold evidence that stands verbatim in the context, by system and budget, over questions.

    Questions of categories 1-4 with evidence. Raises ValueError should a context be above its budget.
    """
    shares: dict[str, Values] = {}
    spent: dict[str, Values] = {}
    for name, make in SYSTEMS.items():
        found, cost = [], []
        for dialogue in dialogues:
            started = time.perf_counter()
            rows = _ask(make(), dialogue, budgets)
            found += [share for share, _ in rows]
            cost += [tokens for _, tokens in rows]
            step(name, f"{dialogue.id}: {len(rows)} questions in {time.perf_counter() - started:.1f} s")
        shares[name], spent[name] = np.array(found, np.float64), np.array(cost, np.float64)
    return {
        "dialogues": [dialogue.id for dialogue in dialogues],
        "questions": len(shares["mnemic"]),
        "tokenizer": TOKENIZER,
        "budgets": list(budgets),
        "systems": {name: _summary(name, shares, spent, budgets) for name in SYSTEMS},
    }


def context_markdown(found: dict[str, Any], command: str) -> str:
    """One row a system, one column a budget; the difference to mnemic is paired by question."""
    header = ["filled with", *(f"{budget:,} tokens" for budget in found["budgets"])]
    rows = [
        [name, *(_cell(of[str(budget)]) for budget in found["budgets"])]
        for name, of in found["systems"].items()
    ]
    said = (
        f"Share of the gold evidence that stands verbatim in the context: {found['questions']} questions of "
        f"categories 1-4, dialogues {', '.join(found['dialogues'])}; tokens by {found['tokenizer']}. In "
        "brackets: mnemic minus this, with its 95 % interval (paired bootstrap)."
    )
    return "\n\n".join(["# What a context holds", f"`{command}`", said, table(header, rows)]) + "\n"


def _ask(system: System, dialogue: Dialogue, budgets: Sequence[int]) -> list[tuple[list[float], list[int]]]:
    texts = {turn.id: turn.text for turn in dialogue.turns}
    rows = []
    with tempfile.TemporaryDirectory(prefix="mnemic-bench-") as folder:
        system.open(Path(folder))
        try:
            system.add(dialogue.turns)
            for question in dialogue.retrieval_questions():
                contexts = [system.context(question.text, budget) for budget in budgets]
                tokens = [count_tokens(text) for text in contexts]
                if any(cost > budget for cost, budget in zip(tokens, budgets, strict=True)):
                    raise ValueError(f"{system.name} went over the budget: {tokens} of {list(budgets)}")
                evidence = [texts[id] for id in question.evidence]
                rows.append(([evidence_in(text, evidence) for text in contexts], tokens))
        finally:
            system.close()
    return rows


def _summary(
    name: str, shares: dict[str, Values], spent: dict[str, Values], budgets: Sequence[int]
) -> dict[str, Any]:
    out = {}
    for column, budget in enumerate(budgets):
        mine, ours = shares[name][:, column], shares["mnemic"][:, column]
        mean, difference = interval(mine), paired_difference(ours, mine)
        out[str(budget)] = {
            "share": [mean.mean, mean.low, mean.high],
            "mnemic_minus_this": None
            if name == "mnemic"
            else [difference.mean, difference.low, difference.high],
            "tokens": float(spent[name][:, column].mean()),
        }
    return out


def _cell(of: dict[str, Any]) -> str:
    mean, low, high = of["share"]
    if of["mnemic_minus_this"] is None:
        return f"**{mean:.3f}** ({low:.3f} to {high:.3f})"
    less, least, most = of["mnemic_minus_this"]
    return f"{mean:.3f} [{less:+.3f}, {least:+.3f} to {most:+.3f}]"
