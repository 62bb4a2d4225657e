"""Knowledge updates as a language model reads them, beside the rules: what it finds and wrongly ends."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mnemic.bench.invented import one_of_each, pairs_of
from mnemic.bench.markdown import table
from mnemic.bench.paraphrased import UNSEEN, UNSEEN_PAIRS
from mnemic.bench.updates import MEASURES, Step, people, wrongly_ended
from mnemic.models.base import Completion, LanguageModel

MODEL_SYSTEMS: Final[Mapping[str, tuple[str, ...]]] = {
    "rules": ("facts",),
    "model": ("contradictions",),
    "rules and model": ("facts", "contradictions"),
}


def run_model(model: LanguageModel, step: Step = lambda _: None) -> dict[str, Any]:
    """The half of the paraphrases that no rule was written for, and the pairs near them, by the rules, by a
    language model, and by both.

    A call for each pair of turns that share a rare word; the same question is asked once.
    """
    asked = _Once(model)
    out: dict[str, Any] = {"model": model.name, "systems": {}}
    told = list(pairs_of(UNSEEN_PAIRS, 0))
    for name, derive in MODEL_SYSTEMS.items():
        wanted = None if "contradictions" not in derive else asked
        rows = people(one_of_each(UNSEEN, 0), derive, wanted)
        out["systems"][name] = {
            "updates": len(rows),
            **{one: int(sum(row[one] for row in rows)) for one in MEASURES},
            "pairs": len(told),
            "wrong": [list(one) for one in wrongly_ended(told, derive, wanted)],
        }
        step(name)
    return out | {"calls": asked.calls, "seconds_a_call": asked.seconds / max(1, asked.calls)}


@dataclass(slots=True)
class _Once:
    """A model that is asked each question once."""

    model: LanguageModel
    calls: int = 0
    seconds: float = 0.0
    _known: dict[str, Completion] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def context_tokens(self) -> int | None:
        return self.model.context_tokens

    def count_tokens(self, text: str) -> int:
        return self.model.count_tokens(text)

    def complete(self, messages: Sequence[Mapping[str, str]], **options: Any) -> Completion:
        key = json.dumps([*messages])
        if key not in self._known:
            started = time.perf_counter()
            self._known[key] = self.model.complete(messages, **options)
            self.seconds += time.perf_counter() - started
            self.calls += 1
        return self._known[key]


def model_markdown(found: Mapping[str, Any], command: str) -> str:
    """One table, and what was wrong."""
    rows = [
        [
            name,
            *(f"{one[measure]} of {one['updates']}" for measure in MEASURES),
            f"{len(one['wrong'])} of {one['pairs']}",
        ]
        for name, one in found["systems"].items()
    ]
    header = [
        "system",
        "current first",
        "old first by as_of",
        "old says it is over",
        "compatible pairs ended",
    ]
    lines = [
        "# Knowledge updates read by a language model",
        f"`{command}`",
        f"{found['model']} in this process, on the half of the [paraphrases](updates.md#paraphrases) that no "
        f"rule was written for: {found['calls']} calls, {found['seconds_a_call']:.1f} s each.",
        table(header, rows),
    ]
    if wrong := found["systems"]["model"]["wrong"]:
        lines.append("Compatible pairs that the model ended:")
        lines.append("\n".join(f"- {kind}: {first} / {second}" for kind, first, second in wrong))
    return "\n\n".join(lines) + "\n"
