"""Knowledge updates as a language model reads them, beside the rules: what it finds and wrongly ends."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mnemic.bench.invented import one_of_each, pairs_of
from mnemic.bench.markdown import table
from mnemic.bench.updates import HALVES, Step, people, wrongly_ended
from mnemic.models.base import Completion, LanguageModel

MODEL_SYSTEMS: Final[Mapping[str, tuple[str, ...]]] = {
    "rules": ("facts",),
    "model": ("contradictions",),
    "rules and model": ("facts", "contradictions"),
}


def run_model(model: LanguageModel, step: Step = lambda _: None) -> dict[str, Any]:
    """The paraphrases and the pairs near them, by the rules, by a language model, and by both.

    A call for each pair of turns that share a rare word; the same question is asked once.
    """
    asked = _Once(model)
    out: dict[str, Any] = {"model": model.name, "systems": {}}
    for name, derive in MODEL_SYSTEMS.items():
        found: dict[str, Any] = {}
        calls, wanted = asked.calls, None if "contradictions" not in derive else asked
        for half, (said, pairs) in HALVES.items():
            rows = people(one_of_each(said, 0), derive, wanted)
            told = list(pairs_of(pairs, 0))
            found[half] = {
                "updates": len(rows),
                "current_first": int(sum(row["current_first"] for row in rows)),
                "old_says_so": int(sum(row["old_says_so"] for row in rows)),
                "old_by_as_of": int(sum(row["old_by_as_of"] for row in rows)),
                "pairs": len(told),
                "wrong": [list(one) for one in wrongly_ended(told, derive, wanted)],
            }
            step(f"{name}, {half}")
        out["systems"][name] = found | {"calls": asked.calls - calls}
    return out | {"seconds_a_call": asked.seconds / max(1, asked.calls)}


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
    """One table, and what it says."""
    rows = []
    for name, halves in found["systems"].items():
        for half in HALVES:
            one = halves[half]
            rows.append([
                name, half, *(f"{one[key]} of {one['updates']}" for key in
                ("current_first", "old_says_so", "old_by_as_of")),
                f"{len(one['wrong'])} of {one['pairs']}", str(halves["calls"]),
            ])  # fmt: skip
    header = ["system", "half", "current first", "old says it is over", "old first by as_of",
              "compatible pairs ended", "calls in both halves"]  # fmt: skip
    lines = [
        "# Knowledge updates read by a language model",
        f"`{command}`",
        f"{found['model']} in this process, beside the rules, on the paraphrases of "
        f"[updates](updates.md#paraphrases); {found['seconds_a_call']:.1f} s a call.",
        table(header, rows),
    ]
    wrong = [one for half in HALVES for one in found["systems"]["model"][half]["wrong"]]
    lines += ["The first compatible pairs that the model ended:"] if wrong else []
    lines += [f"- {kind}: {first} / {second}" for kind, first, second in wrong[:10]]
    return "\n\n".join(lines) + "\n"
