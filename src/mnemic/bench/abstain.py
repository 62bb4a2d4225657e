"""Does a memory know what it does not hold? Fit the confidence of `ask` on some dialogues, report on others.

Not held are LoCoMo's category 5 (mostly: what one speaker said, asked of the other) and questions borrowed
from other dialogues, with the speakers' names exchanged for those of this one.
"""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mnemic.bench.locomo import ANSWERABLE, Dialogue
from mnemic.bench.markdown import table
from mnemic.bench.ours import USER, Mnemic
from mnemic.plaintext.compose.confidence import DEPTH, FEATURES, features

BORROWED: Final = 100  # questions a dialogue
HELD, ADVERSARIAL, FOREIGN = 0, 1, 2
REFUSED: Final = 0.1  # share of held questions that the limit may refuse on the dialogues it is fitted on
Values = NDArray[np.float64]
Step = Callable[[str], None]


def run(dialogues: Sequence[Dialogue], step: Step) -> dict[str, Any]:
    """AUROC and shares refused, each dialogue by what was fitted on the others; then the fit on all."""
    kinds, values, top, home = _collect(dialogues, step)
    held = (kinds == HELD).astype(np.float64)
    sure, refused = np.zeros(len(held)), np.zeros(len(held), np.bool_)
    for number in range(len(dialogues)):
        test = home == number
        weights, bias = fit(values[~test], held[~test])
        limit = _limit(values[~test] @ weights + bias, held[~test])
        sure[test] = values[test] @ weights + bias
        refused[test] = sure[test] < limit
    weights, bias = fit(values, held)
    return {
        "questions": {name: int((kinds == kind).sum()) for kind, name in _NAMES.items()},
        "auroc": {
            name: {
                "confidence": _auroc(sure, kinds, kind),
                "top score alone": _auroc(top, kinds, kind),
            }
            for kind, name in _NAMES.items()
            if kind != HELD
        },
        "refused": {name: float(refused[kinds == kind].mean()) for kind, name in _NAMES.items()},
        "weights": dict(zip(FEATURES, weights.round(3).tolist(), strict=True)),
        "bias": round(float(bias), 3),
        "limit": round(float(1 / (1 + np.exp(-_limit(values @ weights + bias, held)))), 3),
    }


def abstain_markdown(found: dict[str, Any], command: str) -> str:
    rows = [
        [name, f"{count:,}", f"{found['refused'][name]:.3f}"]
        + [f"{found['auroc'][name][how]:.3f}" if name in found["auroc"] else "" for how in _HOWS]
        for name, count in found["questions"].items()
    ]
    return (
        "\n\n".join(
            [
                "# Saying that a memory does not hold it",
                f"`{command}`",
                "Each dialogue by what was fitted on the others. AUROC against the held; 0.5 is chance.",
                table(["questions", "number", "refused", *(f"AUROC, {how}" for how in _HOWS)], rows),
                f"Fitted on all: {_listed(found['weights'])}, bias {found['bias']}, limit {found['limit']}.",
            ]
        )
        + "\n"
    )


def fit(values: Values, held: Values, *, l2: float = 1e-3) -> tuple[Values, float]:
    """Logistic regression by Newton's method, both classes weighing the same. O(rows)."""
    mean, deviation = values.mean(axis=0), values.std(axis=0) + 1e-9
    scaled = np.column_stack([(values - mean) / deviation, np.ones(len(values))])
    share = np.where(held == 1, 0.5 / held.mean(), 0.5 / (1 - held.mean())) / len(held)
    ridge = np.diag([l2] * values.shape[1] + [0.0])
    w = np.zeros(scaled.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-scaled @ w))
        hessian = (scaled * (share * p * (1 - p))[:, None]).T @ scaled + ridge
        w -= np.linalg.solve(hessian, scaled.T @ (share * (p - held)) + ridge @ w)
    weights = w[:-1] / deviation
    return weights, float(w[-1] - weights @ mean)


def _collect(
    dialogues: Sequence[Dialogue], step: Step
) -> tuple[NDArray[np.int64], Values, Values, NDArray[np.int64]]:
    """(questions,) kinds, (questions, features), best scores, numbers of dialogues."""
    kinds, rows, tops, home = [], [], [], []
    for number, dialogue in enumerate(dialogues):
        system = Mnemic()
        with tempfile.TemporaryDirectory(prefix="mnemic-bench-") as folder:
            system.open(Path(folder))
            try:
                system.add(dialogue.turns)
                for kind, text in _asked(number, dialogues):
                    kinds.append(kind)
                    found, best = _features(system, text)
                    rows.append(found)
                    tops.append(best)
                    home.append(number)
            finally:
                system.close()
        step(dialogue.id)
    return np.array(kinds), np.array(rows, np.float64), np.array(tops), np.array(home)


def _features(system: Mnemic, text: str) -> tuple[tuple[float, ...], float]:
    hits = system.memory.search(text, user=USER, k=DEPTH, asked_at=system.asked_at)
    return features(text, hits), hits[0].score


def _asked(number: int, dialogues: Sequence[Dialogue]) -> list[tuple[int, str]]:
    dialogue = dialogues[number]
    own = [(HELD if q.category in ANSWERABLE else ADVERSARIAL, q.text) for q in dialogue.questions]
    mine = _speakers(dialogue)
    foreign = []
    for other in dialogues:
        if other is not dialogue:
            for question in other.questions:
                if question.category in ANSWERABLE:
                    foreign.append((FOREIGN, _renamed(question.text, _speakers(other), mine)))
    picked = random.Random(number).sample(foreign, min(BORROWED, len(foreign)))  # noqa: S311  (a fixed choice)
    return own + picked


def _listed(weights: dict[str, float]) -> str:
    return ", ".join(f"{name} {weight}" for name, weight in weights.items())


def _speakers(dialogue: Dialogue) -> list[str]:
    return sorted({turn.speaker for turn in dialogue.turns})


def _renamed(text: str, theirs: Sequence[str], mine: Sequence[str]) -> str:
    for old, new in zip(theirs, mine, strict=False):
        text = re.sub(rf"\b{re.escape(old)}\b", new, text)
    return text


def _limit(sure: Values, held: Values) -> float:
    return float(np.quantile(sure[held == 1], REFUSED))


def _auroc(sure: Values, kinds: NDArray[np.int64], against: int) -> float:
    """How often a held question is surer than one of `against`; ties count half."""
    good, bad = sure[kinds == HELD], np.sort(sure[kinds == against])
    below = np.searchsorted(bad, good, "left") + np.searchsorted(bad, good, "right")
    return float(below.mean() / 2 / max(1, len(bad)))


_NAMES: Final = {HELD: "held", ADVERSARIAL: "category 5", FOREIGN: "of another dialogue"}
_HOWS: Final = ("confidence", "top score alone")
