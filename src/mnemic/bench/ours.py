"""mnemic itself, through its public API only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mnemic
from mnemic.bench.locomo import Turn
from mnemic.bench.tokens import count_tokens
from mnemic.bench.vectors import MINILM_INSTALL, MINILM_NEEDS

USER = "dialogue"


class Mnemic:
    """`mnemic.open(path)` with its defaults; each session of the dialogue is a session of one user.

    Questions are asked when the dialogue ends: its file gives them no time, and now is years later.
    """

    name = "mnemic"
    needs: tuple[str, ...] = ()
    install = "mnemic"
    ranked = True
    embedder = "static"

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.memory: Any = None
        self.asked_at = ""

    def open(self, folder: Path) -> None:
        self.memory = mnemic.open(folder / "x.db", embedder=self.embedder, **self.options)

    def add(self, turns: Sequence[Turn]) -> None:
        sessions: dict[str, list[Turn]] = {}
        for turn in turns:
            sessions.setdefault(turn.session, []).append(turn)
        for session, said in sessions.items():
            self.memory.add([_message(turn) for turn in said], user=USER, session=session)
        self.memory.flush()
        self.asked_at = max(turn.at for turn in turns)

    def search(self, question: str, k: int) -> list[str]:
        hits = self.memory.search(question, user=USER, k=k, asked_at=self.asked_at)
        return [hit.cube.client_id for hit in hits]

    def context(self, question: str, budget: int) -> str:
        context = self.memory.context(
            question, user=USER, budget=budget, asked_at=self.asked_at, count_tokens=count_tokens
        )
        return str(context.text)

    def describe(self) -> str:
        return f"mnemic {mnemic.__version__}, embedder {self.embedder}, its defaults otherwise"

    def close(self) -> None:
        self.memory.close()


class MnemicMiniLM(Mnemic):
    """The same with all-MiniLM-L6-v2 in place of the static embedder."""

    name = "mnemic-minilm"
    embedder = "minilm"
    needs = MINILM_NEEDS
    install = MINILM_INSTALL


def _message(turn: Turn) -> dict[str, Any]:
    return {"role": "user", "name": turn.speaker, "content": turn.text, "at": turn.at, "id": turn.id}
