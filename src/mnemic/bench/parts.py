"""Parts of a long measurement, kept in a file: a run that was stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mnemic.bench.kept import write_whole
from mnemic.cube.errors import InvalidOption


class Parts:
    """Results that are there already. at_most: how many are measured now; the rest stays for another run."""

    def __init__(
        self,
        path: Path,
        settings: dict[str, Any],
        *,
        fresh: bool = False,
        measure: bool = True,
        at_most: int | None = None,
    ) -> None:
        self._path, self._settings = path, settings
        self._left = 0 if not measure else at_most
        self._done: dict[str, Any] = {}
        self.missing: list[str] = []
        if path.exists() and not fresh:
            told = json.loads(path.read_text())
            if told["settings"] != settings:
                raise InvalidOption(f"{path} was made with other settings; use another --out, or delete it")
            self._done = told["done"]

    def keep(self, name: str, measure: Callable[[], Any]) -> Any:
        """What `measure` gives, measured once; None, and the name is `missing`, if not now."""
        if name in self._done:
            return self._done[name]
        if self._left == 0:
            self.missing.append(name)
            return None
        self._left = None if self._left is None else self._left - 1
        self._done[name] = measure()
        write_whole(self._path, json.dumps({"settings": self._settings, "done": self._done}))
        return self._done[name]

    def known(self, name: str) -> Any:
        """What was measured before, or None."""
        return self._done.get(name)
