"""`mnemic bench ballet`: agents with a memory, taught to find the dancer who did the dance that is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mnemic.cli.progress import Steps


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
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each agent.")] = 3,
    train_steps: Annotated[int, typer.Option("--steps", min=4, help="Training steps of each.")] = 800,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for results; a second run goes on where the first ended.")
    ] = Path("bench-results"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the records as JSON instead of Markdown.")
    ] = False,
) -> None:
    """Teach small agents Ballet by imitation and by reward: HCAM beside attention, an LSTM and no memory.

    Writes ballet.md to --out. Runs are kept in ballet-runs.json as soon as they end; the table holds all that
    are there. Needs mnemic[torch].

    Examples:

      mnemic bench ballet --how imitation --dancers 2 --arm HCAM --arm LSTM --seeds 1
    """
    from mnemic.cube.checks import require_extra
    from mnemic.cube.errors import InvalidOption

    require_extra("torch", extra="torch")
    from mnemic.bench.kept import kept
    from mnemic.bench.worlds.agents import ARMS
    from mnemic.bench.worlds.report import HOW, runs, worlds_markdown

    arms, ways = arm or list(ARMS), how or list(HOW)
    for named, known in ((arms, ARMS), (ways, HOW)):
        if unknown := sorted(set(named) - set(known)):
            raise InvalidOption(f"there is no {', '.join(unknown)}; there are {', '.join(known)}")
    planned = runs(arms, ways, dancers or [2, 4], seeds, train_steps)
    with Steps(len(planned)) as report:
        records = kept(
            planned,
            out / "ballet-runs.json",
            report=report,
            said=lambda record: f"{record['success']:.2f} in {record['cpu_s']:.0f} s of CPU",
        )
    text = worlds_markdown(records, "mnemic bench ballet")
    (out / "ballet.md").write_text(text)
    typer.echo(json.dumps(records, indent=1) if as_json else text)
