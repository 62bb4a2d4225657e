"""One phase of one store in a process of its own; the last line of output is `RESULT {json}`.

Phases: `load` (tell N), `beside` (tell SMALL to another user), `ask` (cold start, warm searches, memory),
`import` (the library alone), `install` (what its pip install brings). See README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ONE_BY_ONE, BATCH = 500, 100


def load(store: str, folder: Path, size: int) -> dict[str, Any]:
    """Add ONE_BY_ONE texts singly, the rest in batches."""
    from stores import STORES
    from workload import USER, to_tell

    said, embedder = to_tell(folder.parent, size)
    embedder.embed(said[:BATCH])
    opened = STORES[store](folder, embedder)
    single = min(ONE_BY_ONE, size // 2)
    latencies, one = [], Clock()
    for text in said[:single]:
        before = time.perf_counter()
        opened.add(USER, text)
        latencies.append(1000 * (time.perf_counter() - before))
    found = one.rates("add_one", single) | {"add_one_p95_ms": at_share(latencies, 0.95)}
    many = Clock()
    for start in range(single, size, BATCH):
        opened.add_many([(USER, text) for text in said[start : min(start + BATCH, size)]])
    found |= many.rates("add_batch", size - single)
    found["rss_after_load_mb"] = rss_mb()
    opened.close()
    found["disk_mb"] = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 2**20
    return found | {"embedder_misses": embedder.misses}


def beside(store: str, folder: Path, size: int) -> dict[str, Any]:
    """Add another user's small space, so that its search can be timed beside a large one."""
    from stores import STORES
    from workload import SMALL_USER, to_tell

    said, embedder = to_tell(folder.parent, size)
    opened = STORES[store](folder, embedder)
    for start in range(size, len(said), BATCH):
        opened.add_many([(SMALL_USER, text) for text in said[start : start + BATCH]])
    opened.close()
    return {"embedder_misses": embedder.misses}


def ask(store: str, folder: Path, size: int, rounds: int = 3) -> dict[str, Any]:
    """Cold: import + open + first search. Warm: every question `rounds` times. Size 0 is an empty store."""
    begun = time.perf_counter()
    from stores import STORES

    __import__(STORES[store].library)
    imported = time.perf_counter() - begun
    from workload import SMALL_USER, USER, to_ask

    large, small, embedder = to_ask(folder.parent, size)
    begun = time.perf_counter()
    opened = STORES[store](folder, embedder)
    ready = time.perf_counter() - begun
    opened.search(USER, (large or small)[0][0], 10)
    done = time.perf_counter() - begun
    found = {
        "cold_import_s": imported,
        "cold_open_s": ready,
        "cold_first_search_s": done - ready,
        "cold_s": imported + done,
        "rss_mb": rss_mb(),
    }
    if large:
        found |= searches(opened, USER, large, rounds, "search")
        found["rss_mb"] = rss_mb()
        found |= searches(opened, SMALL_USER, small, rounds, "small_space")
    opened.close()
    return found | {"embedder_misses": embedder.misses}


def searches(
    opened: Any, user: str, asked: list[tuple[str, str]], rounds: int, name: str
) -> dict[str, float]:
    hits, latencies = 0, []
    opened.search(user, asked[0][0], 10)
    clock = Clock()
    for _ in range(rounds):
        for question, text in asked:
            before = time.perf_counter()
            answer = opened.search(user, question, 10)
            latencies.append(1000 * (time.perf_counter() - before))
            hits += text in answer
    return {
        f"{name}_p50_ms": at_share(latencies, 0.5),
        f"{name}_p95_ms": at_share(latencies, 0.95),
        f"{name}_cpu_ms": clock.cpu_ms() / len(latencies),
        f"{name}_found_at_10": hits / len(latencies),
    }


def import_alone(library: str) -> dict[str, Any]:
    """Seconds to import the library into a fresh interpreter, and which heavy packages came with it."""
    before = time.perf_counter()
    __import__(library)
    heavy = [name for name in ("numpy", "sqlalchemy", "torch", "pydantic") if name in sys.modules]
    return {"import_s": time.perf_counter() - before, "imports": heavy}


def embedding(size: int) -> dict[str, float]:
    """Texts a second of mnemic's default embedder alone, in batches of BATCH."""
    from workload import texts

    from mnemic.models.static import StaticEmbedder

    said, embedder = texts(size), StaticEmbedder()
    embedder.embed(said[:BATCH])
    clock = Clock()
    for start in range(0, size, BATCH):
        embedder.embed(said[start : start + BATCH])
    return clock.rates("embed", size)


class Clock:
    """Wall and processor time since it was made. All threads of the process count."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def cpu_ms(self) -> float:
        return 1000 * (time.process_time() - self.cpu)

    def rates(self, name: str, count: int) -> dict[str, float]:
        seconds = time.perf_counter() - self.wall
        return {f"{name}_per_s": count / seconds, f"{name}_cpu_ms": self.cpu_ms() / count}


def at_share(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def rss_mb() -> float:
    """Resident memory of this process."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    command = ["ps", "-o", "rss=", "-p", str(os.getpid())]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(shown.stdout) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phase", choices=["load", "beside", "ask", "import", "install", "embed", "missing"])
    parser.add_argument("--store", required=True)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--size", type=int, default=0)
    given = parser.parse_args()
    if given.phase == "import":
        from stores import STORES

        library = STORES[given.store].library
        result = fresh_import(library)
    elif given.phase == "missing":
        from stores import missing

        result = {"missing": missing(given.store)}
    elif given.phase == "install":
        from footprint import footprint
        from stores import STORES

        result = footprint(STORES[given.store].install.split())
    elif given.phase == "embed":
        result = embedding(given.size)
    else:
        result = {"load": load, "beside": beside, "ask": ask}[given.phase](
            given.store, given.folder, given.size
        )
    print("RESULT", json.dumps(result))


def fresh_import(library: str) -> dict[str, Any]:
    """The import alone, in an interpreter that has loaded nothing of ours; median of seven."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import child, json; "
    code += f"print(json.dumps(child.import_alone({library!r})))"
    runs: list[dict[str, Any]] = []
    for _ in range(7):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return sorted(runs, key=lambda run: run["import_s"])[3]


if __name__ == "__main__":
    main()
