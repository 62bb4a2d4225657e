"""From rows to tables: JSON for machines, Markdown for people. Nothing here measures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mnemic.bench.bootstrap import Values, interval, paired_difference, rank_ranges
from mnemic.bench.locomo import CATEGORIES
from mnemic.bench.metrics import percentile

Result = dict[str, Any]
Rows = dict[str, dict[str, Any]]  # question id -> its row

RANKED_BY = "recall@10"
SHOWN = ("recall@5", "recall@10", "recall@20", "recall_all@10", "ndcg@10")


def summarise(results: Sequence[Result]) -> dict[str, Any]:
    """All tables as plain values. Systems are compared on the questions that all of them answered."""
    ran = [result for result in results if result["dialogues"]]
    shared = _shared_dialogues(ran)
    rows = {result["system"]: _rows(result, shared) for result in ran}
    ranked = {name: _with(of, RANKED_BY) for name, of in rows.items()}
    ranked = {name: of for name, of in ranked.items() if of}
    return {
        "dialogues": shared,
        "not_shared": sorted({d for result in ran for d in result["dialogues"]} - set(shared)),
        "systems": {result["system"]: _about(result, shared) for result in results},
        "retrieval": {name: _retrieval(of) for name, of in ranked.items()},
        "places": rank_ranges({name: _column(of, RANKED_BY) for name, of in ranked.items()})
        if ranked
        else {},
        "differences": _differences(ranked),
        "contexts": {name: _contexts(of) for name, of in rows.items()},
        "answers": {name: answers for name, of in rows.items() if (answers := _answers(of))},
        "conditions": {result["system"]: _conditions(result) for result in ran},
    }


def _shared_dialogues(ran: Sequence[Result]) -> list[str]:
    sets = [set(result["dialogues"]) for result in ran]
    return sorted(set.intersection(*sets)) if sets else []


def _rows(result: Result, dialogues: Iterable[str]) -> Rows:
    return {row["question"]: row for d in dialogues for row in result["dialogues"][d]["rows"]}


def _with(rows: Rows, key: str) -> Rows:
    return {id: row for id, row in rows.items() if key in row}


def _column(rows: Rows, key: str) -> Values:
    return np.array([rows[id][key] for id in sorted(rows)], dtype=np.float64)


def _about(result: Result, dialogues: Sequence[str]) -> dict[str, Any]:
    about = {"status": result["status"], "what": result.get("what", "")}
    told = [result["dialogues"][d] for d in dialogues if d in result["dialogues"]]
    if told:
        turns = sum(d["turns"] for d in told)
        about["ingest_turns_per_s"] = turns / max(sum(d["ingest"]["s"] for d in told), 1e-9)
        about["ingest_cpu_ms_per_turn"] = 1000 * sum(d["ingest"]["cpu_s"] for d in told) / turns
    return about


def _retrieval(rows: Rows) -> dict[str, Any]:
    table: dict[str, Any] = {"questions": len(rows)}
    for key in SHOWN:
        estimate = interval(_column(rows, key))
        table[key] = [estimate.mean, estimate.low, estimate.high]
    table["by_category"] = {
        CATEGORIES[c]: float(np.mean([row[RANKED_BY] for row in rows.values() if row["category"] == c]))
        for c in sorted({row["category"] for row in rows.values()})
    }
    spent = [row["search_ms"] for row in rows.values()]
    table["search_ms"] = {"p50": percentile(spent, 0.5), "p95": percentile(spent, 0.95)}
    table["search_cpu_ms"] = float(np.mean([row["search_cpu_ms"] for row in rows.values()]))
    return table


def _differences(ranked: dict[str, Rows]) -> list[dict[str, Any]]:
    """Each system against the one with the highest mean, question by question."""
    if len(ranked) < 2:
        return []
    columns = {name: _column(rows, RANKED_BY) for name, rows in ranked.items()}
    best = max(columns, key=lambda name: float(columns[name].mean()))
    found = []
    for name in columns:
        if name != best:
            gap = paired_difference(columns[best], columns[name])
            found.append(
                {
                    "best": best,
                    "other": name,
                    "difference": [gap.mean, gap.low, gap.high],
                    "shown": gap.excludes_zero(),
                }
            )
    return found


def _contexts(rows: Rows) -> dict[str, Any]:
    """Per budget: questions with all their evidence in the context, share of the evidence, tokens."""
    asked = list(_with(rows, "contexts").values())
    table = {}
    for budget in asked[0]["contexts"] if asked else ():
        cells = [row["contexts"][budget] for row in asked]
        table[budget] = {
            "all_evidence": float(np.mean([cell["evidence"] == 1 for cell in cells])),
            "evidence": float(np.mean([cell["evidence"] for cell in cells])),
            "tokens": float(np.mean([cell["tokens"] for cell in cells])),
            "tokens_max": max(cell["tokens"] for cell in cells),
            "ms_p50": percentile([cell["ms"] for cell in cells], 0.5),
        }
    return table


def _answers(rows: Rows) -> dict[str, Any]:
    answered = _with(rows, "answer")
    if not answered:
        return {}
    known = [row for row in answered.values() if "f1" in row["answer"]]
    trap = [row for row in answered.values() if row["category"] == 5]
    table: dict[str, Any] = {"by_category": {}}
    for c in sorted({row["category"] for row in known}):
        scores = [row["answer"]["f1"] for row in known if row["category"] == c]
        table["by_category"][CATEGORIES[c]] = float(np.mean(scores))
    for key in ("f1", "exact", "abstained") if known else ():
        estimate = interval(np.array([row["answer"][key] for row in known], dtype=np.float64))
        table[key] = [estimate.mean, estimate.low, estimate.high]
    if trap:
        estimate = interval(np.array([row["answer"]["abstained"] for row in trap], dtype=np.float64))
        table["adversarial_abstained"] = [estimate.mean, estimate.low, estimate.high]
    return table


def _conditions(result: Result) -> dict[str, Any]:
    loads = [load for d in result["dialogues"].values() for load in d["load_average"] if load is not None]
    return {
        "machine": result.get("machine"),
        "versions": result.get("versions"),
        "settings": result["settings"],
        "load_average": [min(loads), max(loads)] if loads else None,
        "evidence_dropped": sum(len(d["evidence_dropped"]) for d in result["dialogues"].values()),
    }
