"""Knowledge updates: is the current answer first, is the old one still there, is anything ended wrongly?

One memory is told every old fact, then every new one, in shuffled order; then each question is asked of all
of it. The control is told pairs that are compatible, each to a memory of its own.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

import mnemic
from mnemic.bench.bootstrap import interval
from mnemic.bench.invented import (
    COMPATIBLE,
    MORE_WORDS,
    OTHER_WORDS,
    PERSONAL,
    SEVERAL,
    Update,
    compatible,
    one_of_each,
    pairs_of,
    updates,
)
from mnemic.bench.markdown import table
from mnemic.bench.paraphrased import SEEN, SEEN_PAIRS, UNSEEN, UNSEEN_PAIRS
from mnemic.models.base import LanguageModel

EACH: Final = 6  # updates of each of the 44 relations
CONTROL: Final = 500
ROUNDS: Final = 3
K: Final = 10
SYSTEMS: Final[Mapping[str, tuple[str, ...]]] = {"mnemic": ("facts",), "mnemic without facts": ()}
MEASURES: Final = ("current_first", "old_by_as_of", "old_says_so")
Step = Callable[[str], None]
HALVES: Final = {"seen": (SEEN, SEEN_PAIRS), "unseen": (UNSEEN, UNSEEN_PAIRS)}


def run(
    data: Path, step: Step = lambda _: None, *, each: int = EACH, control: int = CONTROL
) -> dict[str, Any]:
    """All rounds, each with other names and another order. Seconds a round."""
    rows: dict[str, list[dict[str, float]]] = {}
    personal: dict[str, list[dict[str, float]]] = {}
    other: dict[str, list[dict[str, float]]] = {}
    more: dict[str, list[dict[str, float]]] = {}
    paraphrased: dict[str, dict[str, list[dict[str, float]]]] = {}
    wrong: list[tuple[str, str, str]] = []
    near_wrong: list[tuple[str, str, str]] = []
    told = near_told = 0
    for number in range(ROUNDS):
        asked = updates(data, each=each, seed=number)
        for name, derive in SYSTEMS.items():
            rows.setdefault(name, []).extend(_round(asked, derive, seed=number))
            personal.setdefault(name, []).extend(people(one_of_each(PERSONAL, number), derive))
            other.setdefault(name, []).extend(people(one_of_each(OTHER_WORDS, number), derive))
            more.setdefault(name, []).extend(people(one_of_each(MORE_WORDS, number), derive))
            step(f"{name}, round {number + 1}")
        for half, (said, _) in HALVES.items():
            rows_of = paraphrased.setdefault(half, {})
            for name, derive in SYSTEMS.items():
                rows_of.setdefault(name, []).extend(people(one_of_each(said, number), derive))
        near = [pair for _, said in HALVES.values() for pair in pairs_of(said, number)]
        near_told, near_wrong = near_told + len(near), near_wrong + wrongly_ended(near)
        step(f"paraphrases, round {number + 1}")
        pairs = list(compatible(control, number))
        told += len(pairs)
        wrong += wrongly_ended(pairs)
        step(f"control, round {number + 1}")
    return {
        "updates": {name: _summary(found) for name, found in rows.items()},
        "personal": {name: _summary(found) for name, found in personal.items()},
        "other_words": {name: _summary(found) for name, found in other.items()},
        "more_words": {name: _summary(found) for name, found in more.items()},
        "paraphrased": {
            half: {name: _summary(rows) for name, rows in systems.items()}
            for half, systems in paraphrased.items()
        },
        "near": {
            "pairs": near_told,
            "wrong": len(near_wrong),
            "examples": [list(one) for one in near_wrong[:10]],
        },
        "control": {
            "pairs": told,
            "kinds": len(COMPATIBLE),
            "wrong": len(wrong),
            "share": len(wrong) / told,
            "examples": [list(one) for one in wrong[:10]],
        },
    }


def _round(asked: Sequence[Update], derive: tuple[str, ...], *, seed: int) -> list[dict[str, float]]:
    """One memory, all updates."""
    shuffled = np.random.default_rng(seed).permutation
    with (
        tempfile.TemporaryDirectory(prefix="mnemic-bench-") as folder,
        mnemic.open(Path(folder) / "x.db", derive=derive) as memory,
    ):
        memory.add([asked[i].before for i in shuffled(len(asked))], user="u", session="old", at="2024-01-01")
        memory.flush()
        between = memory.changes(user="u")[-1]
        moment = max(memory.get(id).header.recorded_at for id in between.cubes)
        memory.add([asked[i].after for i in shuffled(len(asked))], user="u", session="new", at="2025-01-01")
        started = time.process_time()
        memory.flush()
        seconds = time.process_time() - started
        return [_asked(memory, one, moment) | {"derive_ms": 1000 * seconds / len(asked)} for one in asked]


def people(
    asked: Iterable[Update], derive: tuple[str, ...], model: LanguageModel | None = None
) -> list[dict[str, float]]:
    """One memory for each update, with a few other things said in between."""
    out = []
    for one in asked:
        with (
            tempfile.TemporaryDirectory(prefix="mnemic-bench-") as folder,
            mnemic.open(Path(folder) / "x.db", derive=derive, model=model) as memory,
        ):
            memory.add(one.before, user="u", session="1", at="2024-01-01")
            memory.add(
                ["What a day!", "The soup was good.", "We watched the rain."], user="u", at="2024-06-01"
            )
            memory.flush()
            moment = max(cube.header.recorded_at for cube in memory.list(user="u"))
            memory.add(one.after, user="u", session="2", at="2025-01-01")
            memory.flush()
            out.append(_asked(memory, one, moment) | {"derive_ms": 0.0})
    return out


def _asked(memory: mnemic.Memory, one: Update, moment: datetime) -> dict[str, float]:
    hits = memory.search(one.question, user="u", k=K, asked_at="2025-06-01")
    before = memory.search(one.question, user="u", k=K, asked_at="2025-06-01", as_of=moment)
    texts = [hit.text for hit in hits]
    ended = next((hit for hit in hits if one.old in hit.text and one.new not in hit.text), None)
    return {
        "current_first": float(bool(texts) and one.new in texts[0]),
        "old_by_as_of": float(bool(before) and one.old in before[0].text),
        "old_says_so": float(ended is not None and ended.superseded_by is not None),
        "several": float(one.kind in SEVERAL),
    }


def wrongly_ended(
    pairs: Sequence[tuple[str, str, str]],
    derive: tuple[str, ...] = ("facts",),
    model: LanguageModel | None = None,
) -> list[tuple[str, str, str]]:
    """Pairs of which anything was ended. One memory a pair: a user each."""
    with (
        tempfile.TemporaryDirectory(prefix="mnemic-bench-") as folder,
        mnemic.open(Path(folder) / "x.db", derive=derive, model=model) as memory,
    ):
        for number, (_, first, second) in enumerate(pairs):
            memory.add(first, user=f"u{number}", at="2024-01-01")
            memory.add(second, user=f"u{number}", at="2025-01-01")
        memory.flush()
        ended = {
            fact.cube.header.scope.user
            for fact in memory.facts(everyone=True, past=True, limit=10**6)
            if fact.until
        }
        return [pair for number, pair in enumerate(pairs) if f"u{number}" in ended]


def _summary(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    exclusive = [row for row in rows if not row["several"]]
    parts = {"all": rows, "one value": exclusive, "several values": [row for row in rows if row["several"]]}
    out: dict[str, Any] = {"derive_ms": float(np.mean([row["derive_ms"] for row in rows]))}
    for name, part in parts.items():
        if part:
            out[name] = {"count": len(part)} | {
                measure: _interval([row[measure] for row in part]) for measure in MEASURES
            }
    return out


def _interval(values: Sequence[float]) -> list[float]:
    found = interval(np.array(values))
    return [found.mean, found.low, found.high]


def updates_markdown(found: Mapping[str, Any], command: str) -> str:
    """The tables, each under a line that says how to read it."""
    control = found["control"]
    lines = [
        "# Knowledge updates",
        f"`{command}`",
        f"{ROUNDS} rounds, each with other invented names and in another order; 95 % bootstrap intervals.",
        "## Facts about others",
        "44 relations of MQuAKE's templates, all in one memory: the old facts first, then the new. Six of "
        "them (child, member of, sport, famous for, worked in, speaks) let a subject have several values: "
        "there a second value ends nothing.",
        _table(found["updates"]),
        "## Facts about oneself",
        "Twelve first-person updates (home, work, partner, favourite, contact, age, schedule), each in a "
        "memory of its own.",
        _table(found["personal"]),
        "## In other words",
        f"{len(OTHER_WORDS)} updates, each in a memory of its own, such as “{OTHER_WORDS['director'][1]}”. "
        "They were written after the rules, which put 3 of the 14 first; rules were added since.",
        _table(found["other_words"]),
        "## In more words",
        f"{len(MORE_WORDS)} more, such as “{MORE_WORDS['succeeded'][1]}”, written after those rules, which "
        "put 8 of the 22 first and said of 6 that the old value is over; rules were added since. So neither "
        "table is a test of what the rules do with words that nobody thought of.",
        _table(found["more_words"]),
        "## Paraphrases",
        f"{len(SEEN)} and {len(UNSEEN)} updates over all slots, written before the rules were changed for "
        "them, which then put 5 of the first half first and 9 of the second, and said of 4 and of 1 that the "
        "old value is over. Rules were then added with only the first half in view; both halves are by the "
        "hand that wrote the rules, an hour before.",
        "With the first half in view:",
        _table(found["paraphrased"]["seen"]),
        "The other half:",
        _table(found["paraphrased"]["unseen"]),
        f"{found['near']['pairs']} pairs near these and compatible, such as "
        f"“{SEEN_PAIRS['left for lunch'][1]}”: something was ended in **{found['near']['wrong']}** of them.",
        "## Control",
        f"{control['pairs']:,} pairs of {control['kinds']} kinds that are compatible: something was ended in "
        f"**{control['wrong']}** of them ({100 * control['share']:.2f} %).",
    ]
    lines += [f"- {kind}: {first} / {second}" for kind, first, second in control["examples"]]
    return "\n\n".join(lines) + "\n"


def _table(systems: Mapping[str, Any]) -> str:
    rows = []
    for name, found in systems.items():
        for part, values in found.items():
            if isinstance(values, dict):
                cells = [_share(values[one]) for one in MEASURES]
                rows.append([name, part, str(values["count"]), *cells])
    header = [
        "system",
        "relations",
        "questions",
        "current first",
        "old first by as_of",
        "old says it is over",
    ]
    return table(header, rows)


def _share(values: Sequence[float]) -> str:
    mean, low, high = (100 * one for one in values)
    return f"{mean:.1f} % [{low:.1f}, {high:.1f}]"
