"""What facts cost: adds one by one and searches, with and without the deriver, in alternating rounds.

    python speed/deriving.py            # one message in ten states a fact
    python speed/deriving.py --dense    # every message does

CPU time, since the background work shares the machine: of the calling thread, and of the whole process.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import mnemic
from mnemic.bench.invented import Inventor

MESSAGES, QUESTIONS, ROUNDS = 600, 60, 3
PLAIN = "It rained near {a} today, and {p} told me a long story about the soup they serve at the {b}."


def texts(dense: bool) -> tuple[list[str], list[str]]:
    invent = Inventor(0)
    said, asked = [], []
    for number in range(MESSAGES):
        if dense or number % 10 == 0:
            subject = f"{invent.word()} {invent.word()}"
            said.append(f"{subject} lives in {invent.word()}.")
            asked.append(f"Where does {subject} live?")
        else:
            said.append(PLAIN.format(a=invent.word(), b=invent.word(), p=invent.person()))
    return said, asked[:QUESTIONS]


def measured(derive: tuple[str, ...], dense: bool) -> tuple[float, float, float]:
    """ms CPU: an add in the calling thread, an add with all it causes, a search (median)."""
    said, asked = texts(dense)
    with (
        tempfile.TemporaryDirectory(prefix="mnemic-speed-") as folder,
        mnemic.open(Path(folder) / "x.db", derive=derive) as memory,
    ):
        memory.add("warm", user="w")
        memory.search("warm", user="w")
        memory.flush()
        thread, process = time.thread_time(), time.process_time()
        for text in said:
            memory.add(text, user="u")
        thread = time.thread_time() - thread
        memory.flush()
        process = time.process_time() - process
        searches = []
        for question in asked:
            start = time.thread_time()
            memory.search(question, user="u")
            searches.append(time.thread_time() - start)
    each = 1000 / len(said)
    return thread * each, process * each, 1000 * statistics.median(searches)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dense", action="store_true", help="every message states a fact")
    dense = parser.parse_args().dense
    found: dict[str, list[tuple[float, float, float]]] = {"without": [], "with facts": []}
    for _ in range(ROUNDS):
        for name, derive in (("without", ()), ("with facts", ("facts",))):
            found[name].append(measured(derive, dense))
    print("| ms CPU, lowest - highest of the rounds | add | add with what it causes | search |")
    print("| --- | --- | --- | --- |")
    for name, rows in found.items():
        cells = [f"{min(column):.2f} - {max(column):.2f}" for column in zip(*rows, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
