"""The gate: has an adapter learned what it was told, and nothing else? One that has not is not stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

from mnemic.cube.checks import require_count, require_positive
from mnemic.cube.errors import InvalidOption
from mnemic.models.local import LocalModel
from mnemic.parametric.lora import LoRA
from mnemic.parametric.lora_training import Progress, silent
from mnemic.parametric.neutral import NEUTRAL
from mnemic.parametric.questions import Fact
from mnemic.parametric.scoring import perplexity, rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What is demanded of an adapter before it is stored.

    candidates: among how many answers the right one has to be the likeliest, on wordings it was not trained
    on. learned: what share of the questions that the model alone gets wrong it must get right. perplexity: by
    what factor that of unrelated text may rise. control: also train on shuffled answers; such an adapter must
    stay near chance on the true ones (within three standard errors), or the questions give them away. It
    doubles the time. unrelated: the text; default: one of general knowledge. questions: at most so many
    held-out questions are asked, of facts at even distances.
    """

    candidates: int = 20
    questions: int = 200
    learned: float = 0.5
    perplexity: float = 1.1
    control: bool = True
    unrelated: str | None = None

    def __post_init__(self) -> None:
        require_count(minimum=2, candidates=self.candidates)
        require_count(questions=self.questions)
        require_positive(perplexity=self.perplexity)
        if not 0 <= self.learned <= 1:
            raise InvalidOption(f"learned={self.learned!r:.80} must be between 0 and 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """What was measured. right, right_base, right_control: the share of held-out questions whose answer ranks
    first among `candidates`, with the adapter, without, and with the control. failed: why it did not pass.
    """

    questions: int
    candidates: int
    chance: float
    right: float
    right_base: float
    right_control: float | None
    perplexity: float
    perplexity_base: float
    failed: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.failed

    @property
    def perplexity_ratio(self) -> float:
        return self.perplexity / self.perplexity_base

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_dict(cls, told: Mapping[str, Any]) -> GateReport:
        return cls(**{**told, "failed": tuple(told.get("failed", ()))})

    def __str__(self) -> str:
        control = "" if self.right_control is None else f", shuffled control {self.right_control:.0%}"
        return (
            f"{self.right:.0%} of {self.questions} held-out questions right among {self.candidates} (the "
            f"model alone {self.right_base:.0%}, chance {self.chance:.0%}{control}); perplexity of unrelated "
            f"text {self.perplexity:.2f} (alone {self.perplexity_base:.2f})"
        )


Ranks = list[int]
Under = Callable[[], AbstractContextManager[None]]  # what is mounted while it is measured


def ranks(
    local: LocalModel,
    facts: Sequence[Fact],
    among: Sequence[Sequence[str]],
    *,
    trained: bool = False,
    progress: Progress = silent,
    what: str = "testing",
) -> Ranks:
    """Of the right answer, for every held-out question (`trained`: every trained one) in turn."""
    asked = [
        (question, list(answers), fact.answer)
        for fact, answers in zip(facts, among, strict=True)
        for question in (fact.train if trained else fact.held_out)
    ]
    out = []
    for place, (question, answers, right) in enumerate(asked):
        out.append(rank(local, question, answers, right))
        progress(what, place + 1, len(asked))
    return out


def first(found: Ranks) -> float:
    """The share that ranks first."""
    return sum(one == 1 for one in found) / max(1, len(found))


def examine(
    local: LocalModel,
    lora: LoRA,
    control: LoRA | None,
    facts: Sequence[Fact],
    among: Sequence[Sequence[str]],
    gate: Gate,
    *,
    progress: Progress = silent,
) -> GateReport:
    """Measure an adapter against the model alone. O(3 · questions · candidates) short forwards."""
    text = gate.unrelated or NEUTRAL
    every = -(-sum(len(one.held_out) for one in facts) // gate.questions)
    facts, among = facts[::every], among[::every]

    def under(what: str, applied: AbstractContextManager[None]) -> tuple[float, float]:
        with applied:
            found = ranks(local, facts, among, progress=progress, what=what)
            return first(found), perplexity(local, text) if what != "testing the control" else math.nan

    base, alone = under("testing the model alone", nullcontext())
    right, with_it = under("testing the adapter", lora.applied(local))
    controlled = None if control is None else under("testing the control", control.applied(local))[0]
    chance = sum(1 / len(one) for one in among) / len(among)
    failed = _failed(gate, chance, len(facts), base, right, controlled, with_it / alone)
    return GateReport(
        questions=sum(len(one.held_out) for one in facts),
        candidates=max(map(len, among)),
        chance=chance,
        right=right,
        right_base=base,
        right_control=controlled,
        perplexity=with_it,
        perplexity_base=alone,
        failed=failed,
    )


def _failed(
    gate: Gate, chance: float, facts: int, base: float, right: float, control: float | None, worse: float
) -> tuple[str, ...]:
    out = []
    wanted = base + gate.learned * (1 - base)
    if right < wanted:
        out.append(
            f"{right:.0%} of the held-out questions are right, {wanted:.0%} are demanded (the model alone: "
            f"{base:.0%})"
        )
    if not worse <= gate.perplexity:  # also of NaN
        out.append(
            f"perplexity of unrelated text is {worse:.2f} times the model's; {gate.perplexity} is allowed"
        )
    allowed = chance + 3 * math.sqrt(chance * (1 - chance) / max(1, facts))
    if control is not None and control > allowed:
        out.append(
            f"an adapter trained on shuffled answers gets {control:.0%} of the true ones right, where chance "
            f"is {chance:.0%}: the questions give their answers away"
        )
    return tuple(out)
