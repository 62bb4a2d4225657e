"""`mnemic bench titans`: the acceptance experiments of Titans' neural memory."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mnemic.cli.progress import Steps


def titans(
    arm: Annotated[
        list[str] | None,
        typer.Option(
            "--arm", help="Train only these arms, repeatable; `none` trains none.", show_default=False
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each trained arm.")] = 3,
    train_steps: Annotated[int, typer.Option("--steps", min=1, help="Training steps of each.")] = 1000,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for results; a second run goes on where the first ended.")
    ] = Path("bench-results"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of Markdown.")] = False,
) -> None:
    """Hold Titans' memory to its specification: exactness, binding, recall beyond a window, the guard.

    Writes titans.md and titans.json to --out. Trained runs are kept in titans-runs.json as soon as they end;
    the table holds all that are there. Needs mnemic[torch].

    Examples:

      mnemic bench titans --arm none

      OMP_NUM_THREADS=1 mnemic bench titans --arm "MAG, linear" --arm "window only" --out docs/results
    """
    from mnemic.cube.checks import require_extra
    from mnemic.cube.errors import InvalidOption

    require_extra("torch", extra="torch")
    from mnemic.bench.layers.titans import titans_markdown, trained, untrained
    from mnemic.bench.layers.titans_recall import ARMS, train_all

    arms = list(ARMS) if not arm else [] if arm == ["none"] else arm
    if unknown := sorted(set(arms) - ARMS.keys()):
        raise InvalidOption(f"there is no arm {', '.join(unknown)}; there are none, {', '.join(ARMS)}")
    with Steps(len(arms) * seeds) as report:
        runs = train_all(arms, seeds, train_steps, out / "titans-runs.json", report=report)
    lines = [*untrained(), *trained(runs)]
    text = titans_markdown(lines, "mnemic bench titans")
    out.mkdir(parents=True, exist_ok=True)
    found = json.dumps([asdict(one) for one in lines], indent=1)
    (out / "titans.json").write_text(found + "\n")
    (out / "titans.md").write_text(text)
    typer.echo(found if as_json else text)
