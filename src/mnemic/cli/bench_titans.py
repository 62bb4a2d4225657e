"""`mnemic bench titans`: the acceptance experiments of Titans' neural memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mnemic.cli.experiments import Arms, Json, chosen, write_demands
from mnemic.cli.progress import Steps
from mnemic.cli.results import Out


def titans(
    arm: Arms = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each trained arm.")] = 3,
    train_steps: Annotated[int, typer.Option("--steps", min=1, help="Training steps of each.")] = 1000,
    out: Out = Path("bench-results"),
    as_json: Json = False,
) -> None:
    """Hold Titans' memory to its specification: exactness, binding, recall beyond a window, the guard.

    Writes titans.md and titans.json to --out. Trained runs are kept in titans-runs.json as soon as they end;
    the table holds all that are there. Needs mnemic[torch].

    Examples:

      mnemic bench titans --arm none

      OMP_NUM_THREADS=1 mnemic bench titans --arm "MAG, linear" --arm "window only" --out docs/results
    """
    from mnemic.cube.checks import require_extra

    require_extra("torch", extra="torch")
    from mnemic.bench.layers.titans import titans_markdown, trained, untrained
    from mnemic.bench.layers.titans_recall import ARMS, train_all

    arms = chosen(arm, ARMS, "arm")
    with Steps(len(arms) * seeds) as report:
        runs = train_all(arms, seeds, train_steps, out / "titans-runs.json", report=report)
    lines = [*untrained(), *trained(runs)]
    text = titans_markdown(lines, "mnemic bench titans")
    write_demands("titans", out, lines, text, as_json=as_json)
