"""`mnemic bench hcam`: the acceptance experiments of the hierarchical chunk memory."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mnemic.cli.progress import Steps


def hcam(
    arm: Annotated[
        list[str] | None,
        typer.Option(
            "--arm", help="Train only these arms, repeatable; `none` trains none.", show_default=False
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each trained arm.")] = 3,
    train_steps: Annotated[int, typer.Option("--steps", min=1, help="Training steps of each.")] = 900,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for results; a second run goes on where the first ended.")
    ] = Path("bench-results"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of Markdown.")] = False,
) -> None:
    """Hold HCAM to its specification: exactness, and naming six times as many things as it was trained on.

    Writes hcam.md and hcam.json to --out. Trained runs are kept in hcam-runs.json as soon as they end; the
    table holds all that are there. Needs mnemic[torch].

    Examples:

      mnemic bench hcam --arm none

      OMP_NUM_THREADS=1 mnemic bench hcam --arm HCAM --arm "flat attention" --out docs/results
    """
    from mnemic.cube.checks import require_extra
    from mnemic.cube.errors import InvalidOption

    require_extra("torch", extra="torch")
    from mnemic.bench.kept import kept
    from mnemic.bench.layers.hcam import hcam_markdown, runs, trained, untrained
    from mnemic.bench.layers.hcam_naming import ARMS

    arms = list(ARMS) if not arm else [] if arm == ["none"] else arm
    if unknown := sorted(set(arms) - ARMS.keys()):
        raise InvalidOption(f"there is no arm {', '.join(unknown)}; there are none, {', '.join(ARMS)}")
    planned = runs(arms, seeds, train_steps)
    with Steps(len(planned)) as report:
        records = kept(
            planned,
            out / "hcam-runs.json",
            report=report,
            said=lambda record: f"{record['accuracy']} in {record['cpu_s']:.0f} s of CPU",
        )
    lines = [*untrained(), *trained(records)]
    text = hcam_markdown(lines, records, "mnemic bench hcam")
    out.mkdir(parents=True, exist_ok=True)
    found = json.dumps([asdict(one) for one in lines], indent=1)
    (out / "hcam.json").write_text(found + "\n")
    (out / "hcam.md").write_text(text)
    typer.echo(found if as_json else text)
