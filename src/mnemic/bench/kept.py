"""Runs that are kept in a file as soon as they end, and not made again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def kept(
    runs: Mapping[str, Callable[[], Record]],
    path: Path,
    *,
    report: Callable[[str, str], None] = lambda *_: None,
    said: Callable[[Record], str] = lambda record: str(record),
) -> dict[str, Record]:
    """Records of all runs that `path` holds, after those of `runs` it does not hold have been made.

    A key names a run and everything its record depends on. A killed run loses itself alone.
    """
    found: dict[str, Record] = json.loads(path.read_text()) if path.exists() else {}
    for key, run in runs.items():
        if key not in found:
            found[key] = run()
            write_whole(path, json.dumps(found, indent=1) + "\n")
        report(key, said(found[key]))
    return found


def write_whole(path: Path, text: str) -> None:
    """All or nothing, so that a killed run leaves the last whole state. Makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.part")
    beside.write_text(text)
    os.replace(beside, path)
