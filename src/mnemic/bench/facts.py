"""What a reader needs to judge a number: versions, processor, memory, load. No host, path or user."""

from __future__ import annotations

import hashlib
import os
import platform
import sqlite3
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "mnemic", "numpy", "tokenizers", "wordllama", "torch", "transformers", "mem0ai", "qdrant-client",
    "chromadb", "langgraph", "langgraph-checkpoint-sqlite", "sqlite-vec",
)  # fmt: skip
_MEASURING = {
    "baselines.py",
    "kept.py",
    "locomo.py",
    "metrics.py",
    "pack.py",
    "qa.py",
    "run.py",
    "tokens.py",
    "vectors.py",
}
_NOT_MEASURED = {"bench", "cli", "serve", "activation", "parametric", "runtime", "training", "layers"}


def machine() -> dict[str, Any]:
    """Processor, cores, memory, system, Python and SQLite."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }


def versions() -> dict[str, str]:
    """Versions of the packages that bear on results, as far as installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def load_average() -> float | None:
    """Of the last minute; None where the system keeps none."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def source_digest(*, ours: bool) -> str:
    """Digest of the code that a result depends on: two results with one digest come from the same code.

    `ours`: the whole library below the service; else only this room's measuring code.
    """
    room = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted((room.parent if ours else room).rglob("*.py")):
        inside = path.relative_to(room.parent).parts
        measures = inside[0] == "bench" and inside[-1] in _MEASURING | {
            path.name for path in room.glob("peers/*")
        }
        if measures or (ours and inside[0] not in _NOT_MEASURED):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None
