"""Tables and plots of what `measure` found, beside kvpress where its rows are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mnemic.bench.bootstrap import interval
from mnemic.bench.kv.plot import Line, lines_svg
from mnemic.bench.markdown import table

Row = dict[str, Any]


def summarise(rows: Sequence[Row], peers: Sequence[Row] = ()) -> dict[str, Any]:
    """family -> budget -> policy -> numbers. Loss: how much less likely the right tokens are than with
    everything kept (nats a token); `worst` is its 95th percentile, the 5th of quality.
    """
    whole = {row["name"]: row for row in rows if row["policy"] == "full"}
    found: dict[str, Any] = {}
    both = _common(peers)
    for row in [*rows, *peers]:
        named = both.get(row["family"])
        if (row["name"] not in named) if named else ("tokens" not in row):
            continue
        if row["policy"] != "full" and row["name"] in whole:
            name = row["policy"] if "tokens" in row else f"kvpress {row['policy']}"
            cell = found.setdefault(row["family"], {}).setdefault(str(row["budget"]), {}).setdefault(name, [])
            cell.append((row, whole[row["name"]]))
    return {
        family: {
            budget: {name: _numbers(pairs) for name, pairs in by_policy.items()}
            for budget, by_policy in sorted(by_budget.items(), reverse=True)
        }
        for family, by_budget in found.items()
    }


def _common(peers: Sequence[Row]) -> dict[str, set[str]]:
    """family -> the items that every press has at every budget: what is compared is on the same items.

    Presses that cut while decoding are others than those that cut a prompt, and run on other families.
    """
    every: dict[bool, set[tuple[str, float]]] = {}
    have: dict[str, dict[str, set[tuple[str, float]]]] = {}
    for row in peers:
        one = row["policy"], row["budget"]
        every.setdefault(_while_decoding(row), set()).add(one)
        have.setdefault(row["family"], {}).setdefault(row["name"], set()).add(one)
    alike = {row["family"]: _while_decoding(row) for row in peers}
    return {
        family: {name for name, of in items.items() if of == every[alike[family]]}
        for family, items in have.items()
    }


def _while_decoding(row: Row) -> bool:
    return str(row["policy"]).startswith("DecodingPress/")


def _numbers(pairs: Sequence[tuple[Row, Row]]) -> Row:
    kl = np.array([row["kl"] for row, _ in pairs])
    loss = np.array([row["nll"] - full["nll"] for row, full in pairs])
    spread = interval(kl)
    return {
        "items": len(pairs),
        "kl": spread.mean,
        "kl_low": spread.low,
        "kl_high": spread.high,
        "kl_worst": float(np.quantile(kl, 0.95)),
        "loss": float(loss.mean()),
        "loss_worst": float(np.quantile(loss, 0.95)),
        "agree": float(np.mean([row["agree"] for row, _ in pairs])),
        "bytes": float(np.mean([row["bytes"] / full["bytes"] for row, full in pairs])),
    }


def markdown(summary: Mapping[str, Any], *, command: str, notes: Sequence[str]) -> str:
    parts = ["# Cache policies at equal budgets", f"`{command}`", *notes]
    header = ["policy", "items", "KL to the full cache [95 %]", "its worst 5 %", "loss, nats", "worst 5 %"]
    header += ["same top token", "bytes, of full"]
    for family, by_budget in summary.items():
        for budget, by_policy in by_budget.items():
            rows = [
                [
                    name,
                    str(of["items"]),
                    f"{of['kl']:.3f} [{of['kl_low']:.3f}, {of['kl_high']:.3f}]",
                    f"{of['kl_worst']:.3f}",
                    f"{of['loss']:+.3f}",
                    f"{of['loss_worst']:+.3f}",
                    f"{of['agree']:.2f}",
                    f"{of['bytes']:.2f}",
                ]
                for name, of in sorted(by_policy.items(), key=lambda pair: pair[1]["kl"])
            ]
            parts += [f"## {family}, {float(budget):.0%} of the tokens", table(header, rows)]
    parts[2 + len(notes) : 2 + len(notes)] = _verdict(summary)
    return "\n\n".join(parts) + "\n"


def _verdict(summary: Mapping[str, Any]) -> list[str]:
    """Ours against the best press, family by family; nothing where no press was run."""
    rows = []
    for family, by_budget in summary.items():
        for budget, by_policy in by_budget.items():
            ours = {name: of for name, of in by_policy.items() if not name.startswith("kvpress")}
            theirs = {name: of for name, of in by_policy.items() if name.startswith("kvpress")}
            if not theirs:
                continue
            best, press = (min(side, key=lambda name: side[name]["kl"]) for side in (ours, theirs))
            rows.append(
                [
                    family,
                    f"{float(budget):.0%}",
                    str(ours[best]["items"]),
                    f"{best} {ours[best]['kl']:.4f} ({ours[best]['kl_worst']:.4f})",
                    f"{press} {theirs[press]['kl']:.4f} ({theirs[press]['kl_worst']:.4f})",
                    "yes" if ours[best]["kl"] <= theirs[press]["kl"] else "no",
                ]
            )
    if not rows:
        return []
    return [
        "## Best of ours and of kvpress, by KL",
        "The mean over the items, and in brackets the worst 5 % of them.",
        table(["family", "budget", "items", "ours", "kvpress", "ours on or above"], rows),
    ]


def quality_svg(summary: Mapping[str, Any]) -> str:
    """KL to the full cache against bytes, mean over families; one line a policy."""
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for by_budget in summary.values():
        for budget, by_policy in by_budget.items():
            for name, of in by_policy.items():
                if not name.startswith("kvpress"):
                    points.setdefault(name, {}).setdefault(budget, []).append((of["bytes"], of["kl"]))
    lines = []
    for name, by_budget in points.items():
        marks = [tuple(np.mean(found, axis=0).tolist()) for found in by_budget.values()]
        lines.append(Line(name=name, points=sorted((x, y) for x, y in marks)))
    return lines_svg(lines, x="bytes of the cache, of the full one's", y="KL to the full cache, nats")
