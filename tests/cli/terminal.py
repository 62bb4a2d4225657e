"""What commands are run on, and how."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def _turn(id: str, at: str, name: str, content: str) -> dict[str, str]:
    return {"role": "user", "name": name, "content": content, "at": at, "id": id}


TOLD = [
    _turn("1", "2025-03-29T10:00Z", "Ana", "I moved to Porto in March."),
    _turn("2", "2025-03-29T10:02Z", "Tom", "How is your old dog, Pixel?"),
    _turn("3", "2025-03-29T10:03Z", "Ana", "She sleeps all day and snores."),
    _turn("4", "2025-04-02T18:00Z", "Tom", "I am allergic to walnuts."),
]


@dataclass(frozen=True)
class Said:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Said]


def own_environment(folder: Path) -> dict[str, str]:
    """The tester's own memory and settings are out of reach."""
    theirs = ("MNEMIC_", "OPENAI_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    return {**clean, "HOME": str(folder), "XDG_DATA_HOME": str(folder / "data"), "COLUMNS": "120"}


def lines(path: Path, *messages: object) -> Path:
    """A file of JSON lines; a text is a line as it is."""
    text = "".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in messages)
    path.write_text(text, encoding="utf-8")
    return path
