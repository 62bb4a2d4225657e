"""`mnemic bench hcam`: the acceptance experiments of the hierarchical chunk memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mnemic.cli.experiments import Arms, Json, chosen, measured, write_demands
from mnemic.cli.results import Out


def hcam(
    arm: Arms = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each trained arm.")] = 3,
    train_steps: Annotated[int, typer.Option("--steps", min=1, help="Training steps of each.")] = 900,
    out: Out = Path("bench-results"),
    as_json: Json = False,
) -> None:
    """Hold HCAM to its specification: exactness, and naming six times as many things as it was trained on.

    Writes hcam.md and hcam.json to --out. Trained runs are kept in hcam-runs.json as soon as they end; the
    table holds all that are there. Needs mnemic[torch].

    Examples:

      mnemic bench hcam --arm none

      OMP_NUM_THREADS=1 mnemic bench hcam --arm HCAM --arm "flat attention" --out docs/results
    """
    from mnemic.cube.checks import require_extra

    require_extra("torch", extra="torch")
    from mnemic.bench.layers.hcam import hcam_markdown, runs, trained, untrained
    from mnemic.bench.layers.hcam_naming import ARMS

    planned = runs(chosen(arm, ARMS, "arm"), seeds, train_steps)
    records = measured(planned, out / "hcam-runs.json", lambda record: str(record["accuracy"]))
    lines = [*untrained(), *trained(records)]
    text = hcam_markdown(lines, records, "mnemic bench hcam")
    write_demands("hcam", out, lines, text, as_json=as_json)
