"""What encryption costs, and how fast a memory is dumped, loaded and erased. Side by side, round by round.

    python speed/sealing.py --adds 300 --rounds 7 --size 10000

Each round tells the same texts to a new vault in clear and to a new encrypted one, in turns; a ratio is that
of one round, of the clock on the wall and of the processor's time, and the table shows the median of all with
the least and the greatest.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import workload

import mnemic
from mnemic.memory import Memory
from mnemic.vault.keys import write_key_file

BATCH = 100


Took = tuple[float, float]  # seconds on the wall, and of the processor


def timed(work: Callable[[], object]) -> Took:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def one_by_one(memory: Memory, texts: list[str]) -> None:
    for text in texts:
        memory.add(text, user="ana")


def in_batches(memory: Memory, texts: list[str]) -> None:
    for start in range(0, len(texts), BATCH):
        messages = [{"role": "user", "content": text} for text in texts[start : start + BATCH]]
        memory.add(messages, user="ana", session=f"s{start}")


def compare(folder: Path, adds: int, rounds: int, size: int) -> dict[str, list[tuple[Took, Took]]]:
    """By figure, what it took in clear and encrypted, of each round."""
    write_key_file(folder / "key")
    told, many = workload.texts(adds, seed=1), workload.texts(size, seed=2)
    out: dict[str, list[tuple[Took, Took]]] = {}
    for number in range(rounds):
        figures: dict[str, dict[str, Took]] = {}
        for key in (None, folder / "key")[:: 1 if number % 2 else -1]:
            name = "sealed" if key else "clear"
            figures[name] = one_life(folder / f"{number}-{name}.db", key, told, many)
        for figure in figures["clear"]:
            out.setdefault(figure, []).append((figures["clear"][figure], figures["sealed"][figure]))
    return out


def one_life(place: Path, key: Path | None, told: list[str], many: list[str]) -> dict[str, Took]:
    took = {}
    with mnemic.open(place, key=key) as memory:
        memory.add("first", user="bo")  # weights and statements are loaded once
        took["add, one by one"] = timed(lambda: one_by_one(memory, told))
        took[f"add, batches of {BATCH}"] = timed(lambda: in_batches(memory, many))
        memory.search("warm", user="ana")
        took["20 searches, warm"] = timed(lambda: [memory.search("a kayak", user="ana") for _ in range(20)])
    with mnemic.open(place, key=key) as memory:
        memory.search("warm", user="bo")
        took["first search: the index loads"] = timed(lambda: memory.search("a kayak", user="ana"))
    return took


def carry(folder: Path, size: int) -> list[str]:
    """Dump, load and erase of one user with `size` cubes beside another of the same size."""
    lines = []
    with mnemic.open(folder / "carry.db") as memory:
        for user, seed in (("ana", 3), ("bo", 4)):
            messages = [{"role": "user", "content": text} for text in workload.texts(size, seed=seed)]
            for start in range(0, size, 1000):
                memory.add(messages[start : start + 1000], user=user)
        took, _ = timed(lambda: memory.dump(folder / "ana.mnemic", user="ana"))
        bytes_ = (folder / "ana.mnemic").stat().st_size
        lines.append(
            f"| dump {size:,} cubes | {took:.2f} s | {size / took:,.0f}/s, {bytes_ / size:,.0f} B a cube |"
        )
        with mnemic.open(folder / "loaded.db") as other:
            took, _ = timed(lambda: other.load(folder / "ana.mnemic"))
            lines.append(f"| load into a new vault | {took:.2f} s | {size / took:,.0f}/s |")
            took, _ = timed(lambda: other.load(folder / "ana.mnemic"))
            lines.append(f"| load again, nothing new | {took:.2f} s | {size / took:,.0f}/s |")
        took, _ = timed(lambda: memory.erase(user="ana"))
        lines.append(f"| erase one of two users | {took:.2f} s | {size / took:,.0f}/s |")
    return lines


def spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} – {max(ratios):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--adds", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=10_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        found = compare(Path(home), chosen.adds, chosen.rounds, chosen.size)
        print(f"{chosen.rounds} rounds, {chosen.adds} single adds, {chosen.size:,} cubes\n")
        print("| | clear | encrypted | ratio, wall | ratio, processor |\n| --- | --- | --- | --- | --- |")
        for figure, pairs in found.items():
            walls = [statistics.median(side[0] for side in sides) for sides in zip(*pairs, strict=True)]
            shown = [spread([sealed[clock] / clear[clock] for clear, sealed in pairs]) for clock in (0, 1)]
            print(f"| {figure} | {walls[0] * 1e3:,.1f} ms | {walls[1] * 1e3:,.1f} ms | {' | '.join(shown)} |")
        print("\n| | took | rate |\n| --- | --- | --- |")
        print("\n".join(carry(Path(home), chosen.size)))


if __name__ == "__main__":
    main()
