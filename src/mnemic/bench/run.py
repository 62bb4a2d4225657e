"""Run systems over dialogues: one result file a system, written after each dialogue, so a run can go on."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnemic.bench import facts
from mnemic.bench.baselines import Oracle
from mnemic.bench.kept import write_whole
from mnemic.bench.locomo import ANSWERABLE, Dialogue, Question, Turn
from mnemic.bench.metrics import evidence_in, ndcg_at_k, recall_all_at_k, recall_at_k
from mnemic.bench.qa import Reader
from mnemic.bench.systems import System, make, missing
from mnemic.bench.tokens import TOKENIZER, count_tokens
from mnemic.cube.errors import InvalidOption

KS = (5, 10, 20)
BUDGETS = (500, 1000, 2000, 4000)
Result = dict[str, Any]
Report = Callable[[str, str], None]  # (system, what happened)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is run. Two runs with equal `settings` may share a result file."""

    data_digest: str
    budgets: tuple[int, ...] = BUDGETS
    reader: Reader | None = None
    reader_budget: int = 2000

    def settings(self, system: System) -> dict[str, Any]:
        return {
            "data_sha256": self.data_digest,
            "budgets": list(self.budgets),
            "tokenizer": TOKENIZER,
            "reader": None
            if self.reader is None
            else {"model": self.reader.name, "budget": self.reader_budget},
            "source": facts.source_digest(ours=system.name.startswith("mnemic")),
        }


def run(
    names: Sequence[str],
    dialogues: Sequence[Dialogue],
    plan: Plan,
    out: Path,
    *,
    fresh: bool = False,
    report: Report = lambda *_: None,
) -> list[Result]:
    """Results of all systems, in the order named. A system that cannot run yields a result that says why.

    Dialogues that a result file in `out` already holds under the same settings are not run again. Raises
    InvalidOption when a file there belongs to other settings, unless `fresh` starts over.
    """
    out.mkdir(parents=True, exist_ok=True)
    return [run_system(make(name), dialogues, plan, out / f"{name}.json", fresh, report) for name in names]


def run_system(
    system: System,
    dialogues: Sequence[Dialogue],
    plan: Plan,
    path: Path,
    fresh: bool = False,
    report: Report = lambda *_: None,
) -> Result:
    """One system over the dialogues that its file does not hold yet."""
    result = _resume(system, plan, path, fresh)
    todo = [dialogue for dialogue in dialogues if dialogue.id not in result["dialogues"]]
    if not todo:
        report(system.name, "already complete")
        return result
    reason = missing(system)
    if reason:
        report(system.name, reason)
        return result | {"status": reason}
    result |= {"machine": facts.machine(), "versions": facts.versions()}
    for dialogue in todo:
        try:
            measured = measure(system, dialogue, plan, result)
        except Exception as error:  # noqa: BLE001 - any failure of a system under test is its result
            result["status"] = f"failed on {dialogue.id}: {type(error).__name__}: {str(error)[:300]}"
            report(system.name, result["status"])
            write_whole(path, json.dumps(result, indent=1) + "\n")
            break
        result["dialogues"][dialogue.id] = measured
        result["status"] = "ok"
        write_whole(path, json.dumps(result, indent=1) + "\n")
        report(system.name, f"{dialogue.id} done")
    return result


def measure(system: System, dialogue: Dialogue, plan: Plan, result: Result) -> dict[str, Any]:
    """One dialogue in a store of its own: tell everything, then ask everything."""
    load = facts.load_average()
    with tempfile.TemporaryDirectory(prefix="mnemic-bench-") as folder:
        system.open(Path(folder))
        try:
            clock, processor = time.perf_counter(), time.process_time()
            system.add(dialogue.turns)
            told = {"s": time.perf_counter() - clock, "cpu_s": time.process_time() - processor}
            result["what"] = system.describe()
            if isinstance(system, Oracle):
                system.reveal(dialogue.questions)
            turns = {turn.id: turn for turn in dialogue.turns}
            rows = [_ask(system, question, turns, plan) for question in _asked(dialogue, plan)]
        finally:
            system.close()
    return {
        "turns": len(dialogue.turns),
        "ingest": told,
        "load_average": [load, facts.load_average()],
        "evidence_dropped": list(dialogue.dropped),
        "rows": rows,
    }


def _asked(dialogue: Dialogue, plan: Plan) -> Sequence[Question]:
    return dialogue.retrieval_questions() if plan.reader is None else dialogue.questions


def _ask(system: System, question: Question, turns: dict[str, Turn], plan: Plan) -> dict[str, Any]:
    row: dict[str, Any] = {
        "question": question.id, "category": question.category, "evidence": list(question.evidence),
    }  # fmt: skip
    if question.category in ANSWERABLE and question.evidence:
        row |= _retrieve(system, question, max(KS)) if system.ranked else {}
        gold = [turns[id].text for id in question.evidence]
        row["contexts"] = {}
        for budget in plan.budgets if system.ranked else plan.budgets[-1:]:
            clock = time.perf_counter()
            text = system.context(question.text, budget)
            ms = 1000 * (time.perf_counter() - clock)
            held = evidence_in(text, gold)
            key = str(budget) if system.ranked else "all"
            row["contexts"][key] = {"tokens": count_tokens(text), "evidence": held, "ms": round(ms, 3)}
    if plan.reader is not None:
        row["answer"] = plan.reader.answer(system.context(question.text, plan.reader_budget), question)
    return row


def _retrieve(system: System, question: Question, k: int) -> dict[str, Any]:
    clock, processor = time.perf_counter(), time.process_time()
    ranking = system.search(question.text, k)
    timing = {
        "search_ms": round(1000 * (time.perf_counter() - clock), 3),
        "search_cpu_ms": round(1000 * (time.process_time() - processor), 3),
    }
    scores = {f"recall@{n}": recall_at_k(ranking, question.evidence, n) for n in KS}
    scores |= {f"recall_all@{n}": recall_all_at_k(ranking, question.evidence, n) for n in KS}
    return {"ranking": ranking, **scores, "ndcg@10": ndcg_at_k(ranking, question.evidence, 10), **timing}


def _resume(system: System, plan: Plan, path: Path, fresh: bool) -> Result:
    settings = plan.settings(system)
    empty = {"system": system.name, "status": "not run", "settings": settings, "dialogues": {}}
    if fresh or not path.exists():
        return empty
    result: Result = json.loads(path.read_text())
    if result["settings"] != settings:
        changed = sorted(key for key in settings if result["settings"].get(key) != settings[key])
        raise InvalidOption(
            f"{path.name} was made with other {', '.join(changed)}; use another --out, or --fresh to redo it"
        )
    return result
