"""Systems under test behind one interface, and the one table that names them."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from mnemic.bench.locomo import Turn
from mnemic.cube.errors import InvalidOption

SYSTEMS: Final = {
    "mnemic": "mnemic.bench.ours:Mnemic",
    "mnemic-minilm": "mnemic.bench.ours:MnemicMiniLM",
    "mnemic-chunks": "mnemic.bench.chunked:MnemicChunks",
    "bm25": "mnemic.bench.baselines:BM25",
    "dense-static": "mnemic.bench.baselines:DenseStatic",
    "dense-minilm": "mnemic.bench.baselines:DenseMiniLM",
    "recent": "mnemic.bench.baselines:Recent",
    "full-context": "mnemic.bench.baselines:FullContext",
    "oracle": "mnemic.bench.baselines:Oracle",
    "mem0": "mnemic.bench.peers.mem0:Mem0",
    "chroma": "mnemic.bench.peers.chroma:Chroma",
    "langgraph": "mnemic.bench.peers.langgraph:LangGraph",
}


class System(Protocol):
    """One memory of one dialogue. Opened on an empty folder, told everything, then asked.

    `needs` are the modules it imports, `install` what pip calls them. `ranked` is False where `search` has no
    order of relevance, so that no ranking may be scored.
    """

    name: str
    needs: tuple[str, ...]
    install: str
    ranked: bool

    def open(self, folder: Path) -> None: ...

    def add(self, turns: Sequence[Turn]) -> None:
        """Take in all turns of the dialogue. Searchable when this returns."""
        ...

    def search(self, question: str, k: int) -> list[str]:
        """Turn ids, best first, at most k."""
        ...

    def context(self, question: str, budget: int) -> str:
        """What a reader would be given, in at most `budget` tokens (full-context knows no budget)."""
        ...

    def describe(self) -> str:
        """What it is and which parts it found, in one line. Called while open."""
        ...

    def close(self) -> None: ...


def make(name: str) -> System:
    """The system of that name, not yet opened. Raises InvalidOption."""
    if name not in SYSTEMS:
        raise InvalidOption(f"there is no system {name!r}. Known: {', '.join(SYSTEMS)}")
    module, _, attribute = SYSTEMS[name].partition(":")
    system: System = getattr(importlib.import_module(module), attribute)()
    return system


def missing(system: System) -> str | None:
    """Why this system cannot run here, with what to install; None when it can."""
    absent = [module for module in system.needs if importlib.util.find_spec(module) is None]
    return f"not installed: pip install {system.install}" if absent else None
