"""`mnemic bench ballet`: agents with a memory, taught to find the dancer who did the dance that is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mnemic.cli.experiments import chosen, measured
from mnemic.cli.results import Out


def ballet(
    arm: Annotated[
        list[str] | None,
        typer.Option("--arm", help="Teach only agents with this memory, repeatable.", show_default=False),
    ] = None,
    how: Annotated[
        list[str] | None,
        typer.Option("--how", help="imitation or reward, repeatable; default: both.", show_default=False),
    ] = None,
    dancers: Annotated[
        list[int] | None,
        typer.Option("--dancers", min=2, max=8, help="Repeatable; default: 2 and 4.", show_default=False),
    ] = None,
    delay: Annotated[
        list[int] | None,
        typer.Option(
            "--delay", min=1, help="Empty steps after a dance, repeatable; default: 16.", show_default=False
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each agent.")] = 3,
    train_steps: Annotated[int, typer.Option("--steps", min=4, help="Training steps of each.")] = 800,
    out: Out = Path("bench-results"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the records as JSON instead of Markdown.")
    ] = False,
) -> None:
    """Teach small agents Ballet by imitation and by reward: HCAM beside attention, an LSTM and no memory.

    Writes ballet.md to --out. Runs are kept in ballet-runs.json as soon as they end; the table holds all that
    are there. Needs mnemic[torch].

    Examples:

      mnemic bench ballet --how imitation --dancers 2 --arm HCAM --arm LSTM --seeds 1

      mnemic bench ballet --how reward --dancers 2 --delay 48 --seeds 1
    """
    from mnemic.cube.checks import require_extra

    require_extra("torch", extra="torch")
    from mnemic.bench.worlds.agents import ARMS
    from mnemic.bench.worlds.report import HOW, runs, worlds_markdown

    arms, ways = chosen(arm, ARMS, "arm"), chosen(how, HOW, "way")
    planned = runs(arms, ways, dancers or [2, 4], seeds, train_steps, delays=delay or [16])
    records = measured(planned, out / "ballet-runs.json", lambda record: f"{record['success']:.2f}")
    text = worlds_markdown(records)
    (out / "ballet.md").write_text(text)
    typer.echo(json.dumps(records, indent=1) if as_json else text)
