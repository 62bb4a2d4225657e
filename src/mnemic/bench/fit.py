"""Fit the weights of the ranking on some dialogues, report on others.

The loss is that of a softmax over the cubes of a memory: each piece of evidence against all that is none,
mean over the evidence of a question, then over questions; an L2 penalty keeps the few weights small. Convex,
so Newton's method finds the one minimum. No weight falls below `FLOOR`: LoCoMo's short turns make plain BM25
and cosine redundant beside their neighbourhood forms, longer texts and lone cubes do not. For the same
reason `coverage` is no part of a fit and keeps its weight: what it is for, memories of a few cubes or of very
many unrelated ones, is not in such data.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mnemic.bench.bootstrap import Values
from mnemic.bench.locomo import CATEGORIES, Dialogue
from mnemic.bench.markdown import table
from mnemic.bench.metrics import recall_at_k
from mnemic.bench.ours import USER, Mnemic
from mnemic.cube.errors import InvalidOption
from mnemic.cube.reach import Reach
from mnemic.cube.times import to_micros
from mnemic.plaintext.recall.filters import Filter
from mnemic.plaintext.recall.rank import Weights, guess, spread
from mnemic.plaintext.recall.signals import DIRECT, GUESSED, FloatArray, View
from mnemic.plaintext.recall.visible import Visible

NAMES: Final = (*DIRECT, *GUESSED)
ROUNDS: Final = 4  # the guessed signals rest on the weights, so both are made anew so many times
NEUTRAL: Final = 0.3  # where every fit begins, so that nothing is known of the dialogues left out
L2: Final = 0.01
BY_HAND: Final = ("coverage",)
FLOOR: Final = 0.05
FEWEST: Final = 30  # questions on which a signal must say something, or it keeps its weight
KS: Final = (5, 10, 20)
Step = Callable[[str], None]


@dataclass(slots=True)
class Examples:
    """The questions of one dialogue: signals (signals, rows) and the rows of the evidence, for each."""

    dialogue: Dialogue
    views: list[list[View]]
    texts: NDArray[np.bool_]
    evidence: list[NDArray[np.int64]]
    signals: list[FloatArray]

    def guess_again(self, weights: Weights) -> None:
        """Make the guessed signals anew from these weights."""
        first = np.array([getattr(weights, name) for name in DIRECT], np.float32)
        for views, values in zip(self.views, self.signals, strict=True):
            guess(views, first @ values[: len(DIRECT)], self.texts)
            for place, (name, signal) in enumerate(GUESSED.items(), start=len(DIRECT)):
                values[place] = spread(np.concatenate([signal(view) for view in views]), name, self.texts)


def collect(dialogue: Dialogue) -> Examples:
    """Tell a memory the dialogue and take the signals of each question, as a search would."""
    system = Mnemic()
    with tempfile.TemporaryDirectory(prefix="mnemic-bench-") as folder:
        system.open(Path(folder))
        try:
            system.add(dialogue.turns)
            return _collect(system, dialogue)
        finally:
            system.close()


def _collect(system: Mnemic, dialogue: Dialogue) -> Examples:
    recall = system.memory._parts.recall
    with recall.cache.lock, recall.vault.snapshot() as snapshot:
        seen: list[Visible] = recall.visible(snapshot, Reach(user=USER), Filter())
        indexes = [one.index for one in seen]
        cubes = [cube for one in seen for cube in snapshot.cubes(one.space, one.index.seq.tolist())]
    place = {cube.client_id: row for row, cube in enumerate(cubes)}
    texts = np.concatenate([index.text_hash for index in indexes]) != 0
    found = Examples(dialogue, [], texts, [], [])
    asked_at = to_micros(system.asked_at, field="asked_at")
    for question in dialogue.retrieval_questions():
        parsed = recall.question(question.text, asked_at=asked_at)
        views = [View(parsed, index) for index in indexes]
        values = np.zeros((len(NAMES), len(texts)), np.float32)
        for number, (name, signal) in enumerate(DIRECT.items()):
            values[number] = spread(np.concatenate([signal(view) for view in views]), name, texts)
        found.views.append(views)
        found.signals.append(values)
        found.evidence.append(np.array([place[id] for id in question.evidence], np.int64))
    return found


def fit(examples: Sequence[Examples], start: Weights, *, l2: float = L2) -> Weights:
    """The weights that explain the evidence best; those of signals hardly ever heard stay as in `start`.

    O(questions x rows x signals²) a step, some ten steps.
    """
    if not any(one.evidence for one in examples):
        named = ", ".join(one.dialogue.id for one in examples)
        raise InvalidOption(
            f"{named or 'nothing'}: no question with evidence to fit on; name other dialogues"
        )
    weights = replace(start, **dict.fromkeys(heard(examples), NEUTRAL), **dict.fromkeys(BY_HAND, 0.0))
    for _ in range(ROUNDS):
        for one in examples:
            one.guess_again(weights)
        weights = _newton(examples, weights, l2)
    return replace(weights, **{name: getattr(start, name) for name in BY_HAND})


def heard(examples: Sequence[Examples]) -> list[str]:
    """The signals that say something on enough questions to be fitted."""
    speak = sum(np.array([values.any(axis=1) for values in one.signals]).sum(axis=0) for one in examples)
    enough = np.atleast_1d(speak) >= FEWEST
    return [name for name, often in zip(NAMES, enough, strict=True) if often and name not in BY_HAND]


def loss(examples: Sequence[Examples], w: Values, l2: float) -> tuple[float, Values, Values]:
    """Value, gradient and Hessian at w, (signals,)."""
    total, count = 0.0, 0
    gradient, hessian = np.zeros(len(w)), np.zeros((len(w), len(w)))
    for one in examples:
        for values, gold in zip(one.signals, one.evidence, strict=True):
            score = (w.astype(np.float32) @ values).astype(np.float64)
            weight = np.exp(np.maximum(score - score.max(), -60.0))
            other = weight.copy()
            other[gold] = 0
            whole = other.sum() + weight[gold]  # (evidence,) each against all that is none
            total += float((np.log(whole) - np.log(weight[gold])).mean())
            share = other * (1 / whole).mean()
            share[gold] = weight[gold] / whole / len(gold)
            gradient += values @ share - values[:, gold].mean(axis=1)
            means = ((values @ other)[:, None] + values[:, gold] * weight[gold]) / whole
            hessian += (values * share) @ values.T - means @ means.T / len(gold)
            count += 1
    eye = np.eye(len(w))
    return total / count + l2 * float(w @ w), gradient / count + 2 * l2 * w, hessian / count + 2 * l2 * eye


def _newton(examples: Sequence[Examples], start: Weights, l2: float) -> Weights:
    w = np.array([getattr(start, name) for name in NAMES], np.float64)
    free = np.isin(NAMES, heard(examples))
    value, gradient, hessian = loss(examples, w, l2)
    for _ in range(30):
        move = free & ~((w <= FLOOR) & (gradient > 0))
        step = np.zeros(len(w))
        step[move] = np.linalg.solve(hessian[np.ix_(move, move)], gradient[move])
        size = 1.0
        while size > 1e-4:
            tried = np.where(move, np.maximum(w - size * step, FLOOR), w)
            found = loss(examples, tried, l2)
            if found[0] <= value:
                break
            size /= 2
        gained = value - found[0]
        w, (value, gradient, hessian) = tried, found
        if gained < 1e-7:
            break
    return replace(start, **{name: round(float(of), 3) for name, of in zip(NAMES, w, strict=True)})


def recalls(dialogue: Dialogue, weights: Weights) -> Values:
    """(questions, len(KS)) recall through the public search."""
    system = Mnemic(weights=weights)
    rows = []
    with tempfile.TemporaryDirectory(prefix="mnemic-bench-") as folder:
        system.open(Path(folder))
        try:
            system.add(dialogue.turns)
            for question in dialogue.retrieval_questions():
                ranking = system.search(question.text, max(KS))
                rows.append([recall_at_k(ranking, question.evidence, k) for k in KS])
        finally:
            system.close()
    return np.array(rows, np.float64)


def report(dialogues: Sequence[Dialogue], found: Sequence[Values]) -> dict[str, Any]:
    """Mean recall over questions, of all and by category."""
    values = np.concatenate(found)
    kinds = np.array([question.category for of in dialogues for question in of.retrieval_questions()])
    groups = {"all": np.ones(len(kinds), np.bool_)} | {CATEGORIES[c]: kinds == c for c in sorted(set(kinds))}
    return {
        name: {"questions": int(mine.sum())}
        | {f"recall@{k}": float(values[mine, column].mean()) for column, k in enumerate(KS)}
        for name, mine in groups.items()
    }


def run(
    train: Sequence[Dialogue], test: Sequence[Dialogue], step: Step = lambda _: None, *, l2: float = L2
) -> dict[str, Any]:
    """Fit on `train`, report on both. {weights, trained_on, train, report}."""
    examples = []
    for dialogue in train:
        examples.append(collect(dialogue))
        step(f"{dialogue.id} read")
    weights = fit(examples, Weights(), l2=l2)
    step("fitted")
    tried = {}
    for dialogue in dict.fromkeys((*train, *test)):
        tried[dialogue.id] = recalls(dialogue, weights)
        step(f"{dialogue.id} searched")
    out: dict[str, Any] = {"weights": asdict(weights), "trained_on": [of.id for of in train], "l2": l2}
    for name, of in (("train", train), ("report", test)):
        out[name] = report(of, [tried[one.id] for one in of]) if of else {}
    return out


def leave_one_out(
    dialogues: Sequence[Dialogue], step: Step = lambda _: None, *, l2: float = L2
) -> dict[str, Any]:
    """Each dialogue searched with weights that were fitted on the others; the weights are those of all."""
    examples = []
    for dialogue in dialogues:
        examples.append(collect(dialogue))
        step(f"{dialogue.id} read")
    found, folds = [], {}
    for held in dialogues:
        weights = fit([one for one in examples if one.dialogue is not held], Weights(), l2=l2)
        found.append(recalls(held, weights))
        folds[held.id] = {"weights": asdict(weights), **report([held], found[-1:])["all"]}
        step(f"{held.id} searched")
    weights = fit(examples, Weights(), l2=l2)
    step("fitted on all")
    return {
        "weights": asdict(weights),
        "trained_on": [of.id for of in dialogues],
        "l2": l2,
        "report": report(dialogues, found),
        "folds": folds,
    }


def fit_markdown(found: dict[str, Any], command: str) -> str:
    """The weights and what they reach, as tables."""
    heads = ["questions", *(f"recall@{k}" for k in KS)]

    def rows(of: dict[str, Any]) -> list[list[str]]:
        return [
            [name, str(row["questions"]), *(f"{row[head]:.3f}" for head in heads[1:])]
            for name, row in of.items()
        ]

    parts = ["# Weights of the ranking, fitted on LoCoMo", f"`{command}`"]
    parts.append(f"Fitted on {', '.join(found['trained_on'])}; L2 {found['l2']:g}.")
    parts.append(table(["signal", "weight"], [[name, f"{of:g}"] for name, of in found["weights"].items()]))
    if found.get("train"):
        parts += ["## On the dialogues it was fitted on", table(["", *heads], rows(found["train"]))]
    if found.get("report"):
        said = "Each dialogue by weights fitted on the others" if "folds" in found else "On other dialogues"
        parts += [f"## {said}", table(["", *heads], rows(found["report"]))]
    if "folds" in found:
        parts.append(table(["dialogue", *heads], rows(found["folds"])))
    return "\n\n".join(parts) + "\n"
