"""What versions, audit and governance add to an add and to a search, against an earlier revision, in one run.

    python speed/governance.py --before 5cd3acf

Rounds are interleaved: in each, every variant runs in a process of its own, in an order that is shuffled. The
figure is the CPU time of the process (all threads) a call; a ratio is made round by round, and its spread is
that of the rounds. Variants: `before` (the earlier revision), `off` (this tree, no rules), `on` (a principal
with grants, one on a label; an audit log; two retention policies), `reads` (`on`, and audited reads).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
VARIANTS = ("before", "off", "on", "reads")
DEMANDED = {"add_ms": 1.3, "search_ms": 1.1}


def texts(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    words = [
        f"{a}{b}" for a in ("ba", "ko", "mi", "ru", "se", "ta") for b in ("lan", "mor", "nek", "pis", "rud")
    ]
    return [f"note {n}: " + " ".join(rng.choices(words, k=14)) for n in range(count)]


def child(variant: str, folder: str, size: int, adds: int, searches: int) -> dict[str, float]:
    import inspect

    import mnemic

    path = f"{folder}/a.db"
    said = texts(size + adds, 1)
    options: dict[str, Any] = {}
    if "derive" in inspect.signature(mnemic.open).parameters:
        options["derive"] = ()  # background work is not what is compared
    with mnemic.open(path, **options) as owner:
        for start in range(0, size, 500):
            owner.add(said[start : start + 500], user="ana", session=f"s{start}")
        if variant in ("on", "reads"):
            owner.governance.add_principal("ana", owns="ana")
            owner.governance.grant("ana", "read", user="bo", label="shared", unless="private")
            owner.policies.add("keep 400 days", user="ana")
            owner.policies.add("keep 30 days", user="ana", session="chat")
            options |= {"principal": "ana", "audit_reads": variant == "reads"}
    with mnemic.open(path, **options) as memory:
        memory.search(said[0], user="ana")
        memory.add("warm", user="ana")
        found = {}
        begun = time.process_time()
        for text in said[size:]:
            memory.add(text, user="ana", session="now")
        found["add_ms"] = 1000 * (time.process_time() - begun) / adds
        memory.search(said[0], user="ana")
        begun = time.process_time()
        for number in range(searches):
            memory.search(said[(number * 37) % size], user="ana")
        found["search_ms"] = 1000 * (time.process_time() - begun) / searches
    return found


def one(variant: str, source: Path, size: int, adds: int, searches: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                sys.executable,
                str(HERE / "governance.py"),
                "--child",
                variant,
                folder,
                str(size),
                str(adds),
                str(searches),
            ],
            env={**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def tree(revision: str, folder: Path) -> Path:
    """The source of an earlier revision."""
    archive = subprocess.run(
        ["git", "archive", revision, "src"], cwd=HERE.parent, capture_output=True, check=True
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder / "src"


def report(rounds: list[dict[str, dict[str, float]]], size: int) -> str:
    lines = [
        f"{size:,} cubes, {len(rounds)} rounds; CPU ms a call (median), and the ratio to `before` a round",
        "",
    ]
    lines += ["| | " + " | ".join(VARIANTS) + " | demanded |", "| --- |" + " --- |" * (len(VARIANTS) + 1)]
    for figure, most in DEMANDED.items():
        cells = []
        for variant in VARIANTS:
            values = [one[variant][figure] for one in rounds]
            ratios = sorted(one[variant][figure] / one["before"][figure] for one in rounds)
            spread = f"× {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            cells.append(f"{statistics.median(values):.3f}" + ("" if variant == "before" else f", {spread}"))
        lines.append(f"| {figure.removesuffix('_ms')} | " + " | ".join(cells) + f" | ≤ × {most} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", default="5cd3acf", help="the revision to compare with")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--adds", type=int, default=400)
    parser.add_argument("--searches", type=int, default=150)
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        variant, folder, *numbers = chosen.child
        print(json.dumps(child(variant, folder, *map(int, numbers))))
        return
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        sources = dict.fromkeys(VARIANTS, HERE.parent / "src") | {"before": tree(chosen.before, Path(folder))}
        rounds = []
        for number in range(chosen.rounds):
            order = list(VARIANTS)
            rng.shuffle(order)
            rounds.append(
                {
                    variant: one(variant, sources[variant], chosen.size, chosen.adds, chosen.searches)
                    for variant in order
                }
            )
            print(f"round {number + 1} of {chosen.rounds}", file=sys.stderr)
    print(report(rounds, chosen.size))


if __name__ == "__main__":
    main()
