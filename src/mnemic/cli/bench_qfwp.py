"""`mnemic bench qfwp`: the acceptance experiments of fast weights in a quantum circuit."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mnemic.cli.progress import Steps


def qfwp(
    series: Annotated[
        list[str] | None,
        typer.Option(
            "--series", help="Train on these series only, repeatable; `none` trains none.", show_default=False
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Seeds of each model; default: each series' own, 3 or 5.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of training; default: each series' own.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for results; a second run goes on where the first ended.")
    ] = Path("bench-results"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of Markdown.")] = False,
) -> None:
    """Hold QFWP to its specification: the simulator, its gradients, what it remembers, beside an LSTM.

    Series: mean, weighted, three-ago, pendulum, bessel, narma5, narma10. Writes qfwp.md and qfwp.json to
    --out. Trained runs are kept in qfwp-runs.json as soon as they end; the table holds all that are there.
    Needs mnemic[torch]; compares with PennyLane where it is installed.

    Examples:

      mnemic bench qfwp --series none

      OMP_NUM_THREADS=1 mnemic bench qfwp --series mean --series weighted --out docs/results
    """
    from mnemic.cube.checks import require_extra
    from mnemic.cube.errors import InvalidOption

    require_extra("torch", extra="torch")
    from mnemic.bench.kept import kept
    from mnemic.bench.layers.qfwp import qfwp_markdown, runs, trained, untrained
    from mnemic.bench.layers.qfwp_series import SERIES

    chosen = list(SERIES) if not series else [] if series == ["none"] else series
    if unknown := sorted(set(chosen) - SERIES.keys()):
        raise InvalidOption(f"there is no series {', '.join(unknown)}; there are none, {', '.join(SERIES)}")
    planned = runs(chosen, seeds, epochs)
    with Steps(len(planned)) as report:
        records = kept(
            planned,
            out / "qfwp-runs.json",
            report=report,
            said=lambda record: f"{record['test_mse']:.1e} in {record['cpu_s']:.0f} s of CPU",
        )
    lines = [*untrained(), *trained(records)]
    text = qfwp_markdown(lines, records, "mnemic bench qfwp")
    out.mkdir(parents=True, exist_ok=True)
    found = json.dumps([asdict(one) for one in lines], indent=1)
    (out / "qfwp.json").write_text(found + "\n")
    (out / "qfwp.md").write_text(text)
    typer.echo(found if as_json else text)
