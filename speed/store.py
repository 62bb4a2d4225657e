"""Speed and size of memory stores, in one run: bare SQLite, mnemic and the peers that are installed.

    python speed/store.py --store bare --store mnemic --size 1000 --size 10000
    python speed/store.py --python chroma=/path/to/venv/bin/python …

Nothing here passes or fails: it measures and writes down. README.md says what each figure is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import workload
from budgets import table
from report import markdown

HERE = Path(__file__).parent
NAMES = ("bare", "mnemic", "mnemic-static", "mnemic-governed", "chroma", "mem0", "langgraph")
SIZES = (1_000, 10_000, 100_000)
Result = dict[str, Any]


def main() -> None:
    given = arguments()
    pythons = dict.fromkeys(NAMES, sys.executable) | dict(pair.split("=", 1) for pair in given.python or ())
    names, sizes = given.store or list(NAMES), sorted(given.size or SIZES)
    if unknown := sorted((set(names) | set(pythons)) - set(NAMES)):
        sys.exit(f"no store {', '.join(unknown)}; there are {', '.join(NAMES)}")
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mnemic-speed-", dir=given.work) as folder:
        results = measure(names, sizes, pythons, Path(folder), given.repeats, given.limit)
    results["command"] = "python speed/store.py " + " ".join(
        [f"--store {name}" for name in names]
        + [f"--size {n}" for n in sizes]
        + [f"--repeats {given.repeats}"]
    )
    results["budgets"] = table(results)
    (given.out / "store.json").write_text(json.dumps(results, indent=1) + "\n")
    (given.out / "store.md").write_text(markdown(results))
    print(markdown(results))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", action="append", choices=NAMES, help="repeatable; default: all")
    parser.add_argument("--size", action="append", type=int, help="memories in one space, repeatable")
    parser.add_argument("--python", action="append", metavar="STORE=PATH", help="the interpreter of a store")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each figure; the median is kept")
    parser.add_argument("--limit", type=float, default=3_600, help="seconds after which a phase is given up")
    parser.add_argument("--work", type=Path, help="folder on the disk to measure; default: the temporary one")
    parser.add_argument("--out", type=Path, default=Path("speed-results"))
    return parser.parse_args()


def measure(
    names: list[str], sizes: list[int], pythons: dict[str, str], work: Path, repeats: int, limit: float
) -> Result:
    """All stores take turns within each repeat, so that a busy minute falls on all of them."""
    results: Result = {"machine": machine(), "load_average": [load_average()], "stores": {}, "sizes": sizes}
    for size in [0, *sizes]:
        workload.prepare(work, size)
    for name in names:
        found = child("missing", name, pythons[name], work, limit)
        reason = found.get("missing") or found.get("error")
        results["stores"][name] = {"status": reason or "ok"}
        if not reason:
            about = results["stores"][name]
            about["import"] = child("import", name, pythons[name], work, limit)
            about["install"] = child("install", name, pythons[name], work, limit)
            about["empty"] = ask(name, 0, pythons[name], work, limit)
            if name == "mnemic-static":
                about["embed"] = child("embed", name, pythons[name], work, limit, "--size", "5000")
            about["sizes"] = {}
    running = [name for name in names if results["stores"][name]["status"] == "ok"]
    for size in sizes:
        runs: dict[str, list[Result]] = {name: [] for name in running}
        for _ in range(repeats):
            for name in running:
                runs[name].append(once(name, size, pythons[name], work, limit))
                print(f"{name} {size}: {runs[name][-1].get('error', 'done')}", file=sys.stderr, flush=True)
        for name in running:
            results["stores"][name]["sizes"][str(size)] = median(runs[name])
            results["stores"][name].setdefault("rounds", {})[str(size)] = runs[name]
    results["load_average"].append(load_average())
    return results


def once(name: str, size: int, python: str, work: Path, limit: float) -> Result:
    """Tell N, then the small space beside it, then ask: three processes, one after the other."""
    folder = fresh(work / f"{name}-{size}")
    place = ("--folder", str(folder), "--size", str(size))
    result: Result = {"load_average": load_average()}
    misses = 0
    for phase in ("load", "beside", "ask"):
        result |= child(phase, name, python, work, limit, *place)
        if "error" in result:
            break
        misses += result["embedder_misses"]
        result["embedder_misses"] = misses
    shutil.rmtree(folder)
    return result


def ask(name: str, size: int, python: str, work: Path, limit: float) -> Result:
    folder = work / f"{name}-{size}"
    folder.mkdir(exist_ok=True)
    return child("ask", name, python, work, limit, "--folder", str(folder), "--size", str(size))


def child(phase: str, store: str, python: str, work: Path, limit: float, *more: str) -> Result:
    """Run one phase in the store's interpreter; {"error": …} when it fails or takes too long."""
    command = [python, str(HERE / "child.py"), phase, "--store", store, *more]
    source = os.pathsep.join(filter(None, [str(HERE.parent / "src"), os.environ.get("PYTHONPATH")]))
    ours = {"PYTHONPATH": source} if store.startswith("mnemic") else {}
    quiet = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "false"}
    quiet["PYTHONDONTWRITEBYTECODE"] = ""  # what pip installs is compiled; what runs from a checkout as well
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, cwd=work, env=os.environ | quiet | ours
        )
    except subprocess.TimeoutExpired:
        return {"error": f"{phase}: no end after {limit:g} s"}
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("RESULT "):
            return dict(json.loads(line.removeprefix("RESULT ")))
    last = (done.stderr.strip().splitlines() or ["no output"])[-1]
    return {"error": f"{phase}: {last[:300]}"}


def median(runs: list[Result]) -> Result:
    """The median of every figure over the runs; the first error if there is one."""
    for run in runs:
        if "error" in run:
            return run
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]} | {"runs": len(runs)}


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def load_average() -> float:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else float("nan")


def machine() -> Result:
    cpu = Path("/proc/cpuinfo")
    model = (
        [line for line in cpu.read_text().splitlines() if line.startswith("model name")]
        if cpu.exists()
        else []
    )
    return {
        "processor": model[0].partition(":")[2].strip() if model else platform.processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "day": datetime.now(tz=UTC).date().isoformat(),
    }


if __name__ == "__main__":
    main()
