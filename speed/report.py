"""The run as Markdown: budgets first, then every figure, then ratios."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from budgets import number

Result = dict[str, Any]
FIGURES = {
    "add_one_per_s": "add, one by one /s",
    "add_one_cpu_ms": "CPU ms",
    "add_batch_per_s": "in batches of 100 /s",
    "add_batch_cpu_ms": "CPU ms each",
    "search_p50_ms": "search p50 ms",
    "search_p95_ms": "p95",
    "search_cpu_ms": "CPU ms",
    "search_found_at_10": "found in top 10",
    "cold_s": "cold start s",
    "rss_mb": "memory MB",
    "disk_mb": "disk MB",
}
HIGHER = ("add_one_per_s", "add_batch_per_s")
RATIOS = (
    "add_one_per_s",
    "add_one_cpu_ms",
    "add_batch_per_s",
    "search_p50_ms",
    "search_cpu_ms",
    "cold_s",
    "rss_mb",
)


def markdown(results: Result) -> str:
    parts = ["# Speed of stores", f"`{results['command']}`", conditions(results), "## Budgets"]
    parts.append(table(["budget", "demanded", "measured", "met"], results["budgets"]))
    for size in map(str, results["sizes"]):
        parts += [f"## {int(size):,} memories in one space", figures(results, size), *ratios(results, size)]
    return "\n\n".join([*parts, "## Start and install", start(results)]) + "\n"


def conditions(results: Result) -> str:
    of, load = results["machine"], results["load_average"]
    said = f"{of['processor']}, {of['cores']} cores, {of['system']}, {of['day']}. "
    said += f"Load average {load[0]:.1f} before, {load[-1]:.1f} after; each store's own is in the JSON."
    return said + " Compare within this run only."


def figures(results: Result, size: str) -> str:
    rows = []
    for name, about in results["stores"].items():
        found = about.get("sizes", {}).get(size, {"error": about["status"]})
        if "error" in found:
            rows.append([name, found["error"], *[""] * (len(FIGURES) - 1)])
        else:
            rows.append([name, *(number(found[key]) for key in FIGURES)])
    return table(["store", *FIGURES.values()], rows)


def ratios(results: Result, size: str) -> list[str]:
    """mnemic over each other store, round by round; above 1 is better in rates, worse in the rest."""
    stores = {name: about.get("rounds", {}).get(size, []) for name, about in results["stores"].items()}
    sound = {
        name: rounds for name, rounds in stores.items() if rounds and not any("error" in r for r in rounds)
    }
    ours = sound.pop("mnemic", None)
    if not ours or not sound:
        return []
    rows = [[name, *(spread(ours, theirs, key) for key in RATIOS)] for name, theirs in sound.items()]
    heads = [f"{FIGURES[key]}{' (higher is better)' if key in HIGHER else ''}" for key in RATIOS]
    said = "mnemic over …: the median of the rounds, and the least and the most of them."
    return [said, table(["store", *heads], rows)]


def spread(ours: list[Result], theirs: list[Result], key: str) -> str:
    """Such as "2.10 (1.95-2.31)"."""
    found = sorted(mine[key] / other[key] for mine, other in zip(ours, theirs, strict=True) if other[key])
    if not found:
        return "-"
    middle = f"{statistics.median(found):.2f}"
    return middle if len(found) == 1 else f"{middle} ({found[0]:.2f}-{found[-1]:.2f})"


def start(results: Result) -> str:
    rows = []
    for name, about in results["stores"].items():
        alone, install, empty = about.get("import", {}), about.get("install", {}), about.get("empty", {})
        rows.append(
            [
                name,
                _ms(alone.get("import_s")),
                ", ".join(alone.get("imports", ())) or "-",
                _ms(empty.get("cold_s")),
                _number(empty.get("rss_mb")),
                _number(install.get("distributions")),
                _number(install.get("install_mb")),
            ]
        )
    heads = ["store", "import alone ms", "which loads", "cold start, empty, ms", "memory, empty, MB"]
    return table([*heads, "distributions", "install MB"], rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows])


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else number(1000 * seconds)


def _number(value: float | None) -> str:
    return "-" if value is None else number(value)
