"""A summary as Markdown: what a person pastes into a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Summary = dict[str, Any]


def markdown(summary: Summary, command: str) -> str:
    """All tables, each under a line that says how to read it."""
    parts = [
        "# LoCoMo",
        f"`{command}`",
        _scope(summary),
        *_retrieval(summary),
        *_contexts(summary),
        *_profile(summary),
        *_answers(summary),
        *_conditions(summary),
    ]
    return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _scope(summary: Summary) -> str:
    said = f"Dialogues: {', '.join(summary['dialogues']) or 'none that all systems finished'}."
    if summary["not_shared"]:
        said += f" Left out, because not every system finished them: {', '.join(summary['not_shared'])}."
    return said


def _retrieval(summary: Summary) -> list[str]:
    found = summary["retrieval"]
    rows = []
    for name in sorted(found, key=lambda n: -found[n]["recall@10"][0]):
        of, ingest = found[name], summary["systems"][name]
        rows.append(
            [_place(summary["places"][name]), name, _three(of["recall@5"]), _with_interval(of["recall@10"])]
            + [_three(of[key]) for key in ("recall@20", "recall_all@10", "ndcg@10")]
            + [f"{of['search_ms']['p50']:.1f} / {of['search_ms']['p95']:.1f}", f"{of['search_cpu_ms']:.1f}"]
            + [f"{ingest['ingest_turns_per_s']:.0f}"]
        )
    parts = ["## Retrieval"]
    if rows:
        questions = next(iter(found.values()))["questions"]
        header = ["place", "system", "recall@5", "recall@10 [95 %]", "recall@20", "all@10", "nDCG@10"]
        header += ["search p50 / p95 ms", "CPU ms", "turns told /s"]
        parts += [f"{questions} questions of categories 1-4 that have evidence.", table(header, rows)]
        parts += [_ties(summary), *_by_category(found)]
    others = {name: of for name, of in summary["systems"].items() if name not in found}
    if others:
        parts.append(
            table(["system without a ranking", "why"], [[name, _why(of)] for name, of in others.items()])
        )
    return parts


def _ties(summary: Summary) -> str:
    open_ = [f"{d['best']} and {d['other']}" for d in summary["differences"] if not d["shown"]]
    gaps = [[d["other"], d["best"], _with_interval(d["difference"])] for d in summary["differences"]]
    said = (
        "A place such as 1-3 is a tie: the paired 95 % bootstrap intervals (not corrected for the number of "
    )
    said += "pairs) leave the order open."
    if open_:
        said += f" No difference in recall@10 is shown between {'; '.join(open_)}."
    if gaps:
        said += "\n\n" + table(["system", "behind", "by, in recall@10 [95 %]"], gaps)
    return said


def _by_category(found: Summary) -> list[str]:
    categories = list(next(iter(found.values()))["by_category"])
    rows = [[name, *(_three(of["by_category"][c]) for c in categories)] for name, of in found.items()]
    return ["recall@10 by category", table(["system", *categories], rows)]


def _contexts(summary: Summary) -> list[str]:
    found = {name: of for name, of in summary["contexts"].items() if of}
    rows = []
    for name, of in found.items():
        for budget, cell in of.items():
            rows.append(
                [
                    *(name, budget, _three(cell["all_evidence"]), _three(cell["evidence"])),
                    *(f"{cell['tokens']:.0f}", str(cell["tokens_max"]), f"{cell['ms_p50']:.1f}"),
                ]
            )
    header = [
        "system",
        "budget",
        "all evidence in it",
        "share of evidence",
        "tokens",
        "most tokens",
        "p50 ms",
    ]
    said = "Share of questions whose evidence stands verbatim in the context, without any reader."
    return ["## Contexts", said, table(header, rows)] if rows else []


def _answers(summary: Summary) -> list[str]:
    found = summary["answers"]
    if not found:
        said = "Not run: answers and abstention (category 5) need a reader model (`--reader`)."
        return ["## Answers", said]
    with_f1 = {name: of for name, of in found.items() if "f1" in of}
    categories = list(next(iter(with_f1.values()))["by_category"]) if with_f1 else []
    rows = [
        [
            name,
            _with_interval(of["f1"]),
            _three(of["exact"]),
            *(_three(of["by_category"][c]) for c in categories),
        ]
        for name, of in with_f1.items()
    ]
    refusals = [
        [name, _with_interval(of.get("adversarial_abstained")), _with_interval(of.get("abstained"))]
        for name, of in found.items()
    ]
    header = ["system", "abstained where it should (category 5)", "abstained where it should not (1-4)"]
    answers = table(["system", "F1 [95 %]", "exact", *(f"F1 {c}" for c in categories)], rows)
    return ["## Answers", answers, "## Abstention", table(header, refusals)]


def _profile(summary: Summary) -> list[str]:
    heads = ["category", "questions", "dialogue tokens", "evidence turns", "their tokens", "share"]
    heads += ["hidden from words", "hidden from vectors", "scattered"]
    rows = [
        [
            name,
            *(
                f"{of['questions']:.0f}",
                f"{of['tokens']:,.0f}",
                f"{of['units']:.2f}",
                f"{of['unit_tokens']:.0f}",
            ),
            *(f"{of['share']:.4f}", f"{of['hidden_lexical']:.2f}", f"{of['hidden_semantic']:.2f}"),
            f"{of['scattered']:.2f}",
        ]
        for name, of in summary.get("profile", {}).items()
    ]
    said = "What a question needs, how deep plain searches rank it (0 = on top), how far apart it lies."
    return ["## The questions themselves", said, table(heads, rows)] if rows else []


def _conditions(summary: Summary) -> list[str]:
    rows = []
    for name, of in summary["conditions"].items():
        machine, load = of["machine"] or {}, of["load_average"]
        on = f"{machine.get('processor')}, {machine.get('cores')} cores, {machine.get('memory_gib')} GiB, "
        on += f"{machine.get('system')}, Python {machine.get('python')}"
        what = summary["systems"][name]["what"]
        rows.append(
            [name, what, summary["systems"][name]["status"], on, "-" if load is None else _range(load)]
        )
    dropped = [of["evidence_dropped"] for of in summary["conditions"].values()]
    said = f"{max(dropped, default=0)} evidence entries name no turn and were dropped."
    return ["## Conditions", said, table(["system", "what", "status", "machine", "load average"], rows)]


def _why(about: Summary) -> str:
    return about["status"] if about["status"] != "ok" else "it has no order of relevance; see Contexts"


def _place(place: tuple[int, int]) -> str:
    return str(place[0]) if place[0] == place[1] else f"{place[0]}-{place[1]}"


def _range(load: Sequence[float]) -> str:
    return f"{load[0]:.1f} - {load[1]:.1f}"


def _three(value: Any) -> str:
    return f"{(value[0] if isinstance(value, list) else value):.3f}"


def _with_interval(value: Sequence[float] | None) -> str:
    return "-" if value is None else f"{value[0]:.3f} [{value[1]:.3f}, {value[2]:.3f}]"
