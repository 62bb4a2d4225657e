"""A fact changes: nothing is overwritten, and nobody else's memory is touched.

python examples/changing_facts.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import mnemic


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, mnemic.open(Path(folder) / "facts.db") as memory:
        ana = memory.scope(user="ana")
        told = ana.add("My office is in the Rua do Almada 12, second floor.", at="2025-03-09T10:00Z")
        memory.add("My office is in the Elbchaussee.", user="bo")

        memory.update(told[0].id, "My office is in the Rua do Almada 30, ground floor.", reason="moved house")
        print("now:     ", ana.search("Where is the office?", k=1)[0].text)
        for number, version in enumerate(memory.history(told[0].id), start=1):
            print(f"version {number}:", version.text)

        memory.delete(told[0].id, reason="told by mistake")
        print("deleted: ", ana.search("Where is the office?"))
        print("kept:    ", memory.history(told[0].id)[0].text)
        print("bo's:    ", memory.search("Where is the office?", user="bo")[0].text)


if __name__ == "__main__":
    main()
