"""What the design demands of mnemic, beside what was measured. A figure that was not taken says so."""

from __future__ import annotations

from typing import Any

Result = dict[str, Any]
Row = tuple[str, str, str, str]  # budget, demanded, measured, met: yes | no | not measured


def table(results: Result) -> list[Row]:
    """One row a budget. `import`, memory and install are those of mnemic with its default embedder."""
    ours, bare = Figures(results, "mnemic"), Figures(results, "bare")
    static = Figures(results, "mnemic-static")
    alone = static.of("import")
    heavy = [name for name in alone.get("imports", ()) if name in ("sqlalchemy", "numpy", "torch")]
    growth = static.over_empty(10_000)
    return [
        below("import mnemic", 100, milliseconds(alone.get("import_s")), "ms"),
        loads("import mnemic loads no SQLAlchemy, numpy, torch", heavy if alone else None),
        below("import + open + first search, 10k", 0.8, static.at(10_000, "cold_s"), "s"),
        below("index load, 10k (first search less a warm one)", 150, ours.index_load(10_000), "ms"),
        below("CPU of one durable add over bare, 10k", 2.0, ours.times(bare, 10_000, "add_one_cpu_ms"), "x"),
        below(
            "CPU of one add with governance on over bare",
            2.6,
            Figures(results, "mnemic-governed").times(bare, 10_000, "add_one_cpu_ms"),
            "x",
        ),
        above("batches of 100 with given vectors, 10k", 10_000, ours.at(10_000, "add_batch_per_s"), "/s"),
        above("batches, share of the embedder's rate, 10k", 50, static.share_of_embedder(10_000), "%"),
        below("search p50, one space of 10k", 5, ours.at(10_000, "search_p50_ms"), "ms"),
        below("search p50, one space of 100k", 25, ours.at(100_000, "search_p50_ms"), "ms"),
        below("a space of 1k beside 100k over beside 1k, p50", 1.2, ours.neighbour(1_000, 100_000), "x"),
        below("resident memory a cube above empty, 10k", 3, growth, "KB"),
        below("resident memory in all, 10k", 180, static.at(10_000, "rss_mb"), "MB"),
        below("base install without bytecode", 190, static.of("install").get("install_mb"), "MB"),
        below("base install", 45, static.of("install").get("distributions"), "distributions"),
    ]


class Figures:
    """One store's figures; None for what was not taken."""

    def __init__(self, results: Result, name: str) -> None:
        self.about = results["stores"].get(name, {})

    def of(self, part: str) -> Result:
        return dict(self.about.get(part, {}))

    def at(self, size: int, key: str) -> float | None:
        found = self.about.get("sizes", {}).get(str(size), {}).get(key)
        return None if found is None else float(found)

    def times(self, other: Figures, size: int, key: str) -> float | None:
        mine, theirs = self.at(size, key), other.at(size, key)
        return mine / theirs if mine is not None and theirs else None

    def index_load(self, size: int) -> float | None:
        first, warm = self.at(size, "cold_first_search_s"), self.at(size, "search_p50_ms")
        return None if first is None or warm is None else 1000 * first - warm

    def over_empty(self, size: int) -> float | None:
        full, empty = self.at(size, "rss_mb"), self.of("empty").get("rss_mb")
        return None if full is None or empty is None else (full - empty) * 1024 / size

    def share_of_embedder(self, size: int) -> float | None:
        mine, embedder = self.at(size, "add_batch_per_s"), self.of("embed").get("embed_per_s")
        return 100 * mine / embedder if mine is not None and embedder else None

    def neighbour(self, small: int, large: int) -> float | None:
        beside_small, beside_large = (
            self.at(small, "small_space_p50_ms"),
            self.at(large, "small_space_p50_ms"),
        )
        return beside_large / beside_small if beside_small and beside_large is not None else None


def milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def below(name: str, limit: float, found: float | None, unit: str) -> Row:
    return _row(name, f"<= {limit:,g} {unit}", found, unit, found is not None and found <= limit)


def above(name: str, limit: float, found: float | None, unit: str) -> Row:
    return _row(name, f">= {limit:,g} {unit}", found, unit, found is not None and found >= limit)


def loads(name: str, heavy: list[str] | None) -> Row:
    if heavy is None:
        return name, "none", "-", "not measured"
    return name, "none", ", ".join(heavy) or "none", "no" if heavy else "yes"


def _row(name: str, demanded: str, found: float | None, unit: str, met: bool) -> Row:
    if found is None:
        return name, demanded, "-", "not measured"
    return name, demanded, f"{number(found)} {unit}", "yes" if met else "no"


def number(value: float) -> str:
    """Three figures that matter, thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
