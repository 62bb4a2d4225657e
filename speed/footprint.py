"""What `pip install` of a package brings: distributions and megabytes, from installed metadata."""

from __future__ import annotations

import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent


def footprint(packages: list[str]) -> dict[str, Any]:
    """Distributions that `packages` need, themselves included, and their size without bytecode."""
    found: dict[str, float] = {}
    missing: set[str] = set()
    waiting = [Requirement(package) for package in packages]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if (name, frozenset(wanted.extras)) in seen:
            continue
        seen.add((name, frozenset(wanted.extras)))
        needs, size = _installed(name)
        if size is None:
            missing.add(name)
        else:
            found[name] = size
        for need in map(Requirement, needs):
            if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in wanted.extras or {""}):
                waiting.append(need)
    return {"distributions": len(found), "install_mb": sum(found.values()), "not_found": sorted(missing)}


def _installed(name: str) -> tuple[list[str], float | None]:
    """(requirements, MB). mnemic counts by this checkout, which may not be installed."""
    if name == "mnemic":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        sources = sum(
            path.stat().st_size
            for path in (ROOT / "src").rglob("*")
            if path.suffix != ".pyc" and path.is_file()
        )
        return project["dependencies"], sources / 2**20
    try:
        there = distribution(name)
    except PackageNotFoundError:
        return [], None
    return there.requires or [], _megabytes(there)


def _megabytes(there: Distribution) -> float:
    paths = [Path(str(file.locate())) for file in there.files or () if not str(file).endswith(".pyc")]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 2**20
