"""What a benchmark leaves: a file of numbers and one of tables, one of them also on the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

Out = Annotated[
    Path, typer.Option("--out", help="Folder for results; a second run goes on where the first ended.")
]
ReportOnly = Annotated[
    bool, typer.Option("--report-only", help="Measure nothing: tables of what --out holds so far.")
]


def leave(out: Path, name: str, found: dict[str, Any], text: str, as_json: bool) -> None:
    """Write NAME.json and NAME.md to a folder, and say what is in one of them."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (out / f"{name}.md").write_text(text, encoding="utf-8")
    typer.echo(json.dumps(found, indent=1) if as_json else text)
