"""`mnemic bench ultramem`: the acceptance experiments of UltraMemV2, and how many facts it holds."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mnemic.cli.experiments import Arms, Json, chosen
from mnemic.cli.progress import Steps
from mnemic.cli.results import Out


def ultramem(
    arm: Arms = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each arm.")] = 3,
    train_steps: Annotated[int, typer.Option("--steps", min=3, help="Training steps of each.")] = 900,
    out: Out = Path("bench-results"),
    as_json: Json = False,
) -> None:
    """Hold UltraMemV2 to its specification: search, beginning, fact capacity, edits; product keys beside it.

    Writes ultramem.md to --out. Trained runs are kept in ultramem-runs.json as soon as they end; the table
    holds all that are there. Needs mnemic[torch].

    Examples:

      mnemic bench ultramem --arm none

      OMP_NUM_THREADS=1 mnemic bench ultramem --out docs/results
    """
    from mnemic.cube.checks import require_extra

    require_extra("torch", extra="torch")
    from mnemic.bench.layers.facts import ARMS, measure
    from mnemic.bench.layers.ultramem import markdown, trained, untrained

    arms = chosen(arm, ARMS, "arm")
    with Steps(len(arms) * seeds) as report:
        records = measure(arms, seeds, out / "ultramem-runs.json", steps=train_steps, report=report)
    found = [*untrained(), *trained(records, train_steps)]
    command = "mnemic bench ultramem" + (f" --steps {train_steps}" if train_steps != 900 else "")
    text = markdown(found, records, train_steps, command)
    out.mkdir(parents=True, exist_ok=True)
    (out / "ultramem.md").write_text(text)
    both = {"demands": [asdict(one) for one in found], "runs": records}
    typer.echo(json.dumps(both, indent=1) if as_json else text)
